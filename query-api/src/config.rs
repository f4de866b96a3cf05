//! The configuration of the query API, from environment variables.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use runtime::vars::{VarError, Vars};
use schemas::rollup::Rollups;

pub use crate::page::PageConfig;

/// The configuration of the query API.
#[derive(Debug, Clone)]
pub struct Config {
    /// The address for readers: `LISTEN_ADDR`, default `0.0.0.0:8083`.
    pub listen_addr: SocketAddr,
    /// Health and metrics: `ADMIN_ADDR`, default `0.0.0.0:9083`.
    pub admin_addr: SocketAddr,
    /// How long it continues to serve, not ready, after it was told to stop: `DRAIN_DELAY`, default 5s.
    pub drain_delay: Duration,
    /// The database that is read.
    pub clickhouse: ClickHouseConfig,
    /// When it is read.
    pub refresh: RefreshConfig,
    /// The declared rollups: the file `ROLLUPS_FILE`, the same as the aggregator's; default the built-in ones.
    pub rollups: Rollups,
    /// The page under `/`.
    pub page: PageConfig,
}

/// The database that is read.
#[derive(Debug, Clone)]
pub struct ClickHouseConfig {
    /// HTTP address: `CLICKHOUSE_URL`, required.
    pub url: String,
    /// Database: `CLICKHOUSE_DATABASE`, default `millrace`.
    pub database: String,
    /// User: `CLICKHOUSE_USER`, default `default`.
    pub user: String,
    /// Its password: `CLICKHOUSE_PASSWORD`, default empty.
    pub password: String,
}

/// When the answers are refreshed from the database.
#[derive(Debug, Clone)]
pub struct RefreshConfig {
    /// The interval between two refreshes, ±10 %: `POLL_INTERVAL`, default 3s.
    pub interval: Duration,
    /// The longest that a refresh may take: `POLL_DEADLINE`, default 10s.
    pub deadline: Duration,
}

impl Config {
    /// Reads and checks the variables above.
    pub fn from_vars(vars: &Vars) -> Result<Self, VarError> {
        let any = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        let refresh = RefreshConfig {
            interval: vars.positive_duration_or("POLL_INTERVAL", Duration::from_secs(3))?,
            deadline: vars.duration_or("POLL_DEADLINE", Duration::from_secs(10))?,
        };
        Ok(Self {
            listen_addr: vars.parsed_or("LISTEN_ADDR", any(8083))?,
            admin_addr: vars.parsed_or("ADMIN_ADDR", any(9083))?,
            drain_delay: vars.duration_or("DRAIN_DELAY", Duration::from_secs(5))?,
            clickhouse: ClickHouseConfig {
                url: vars.required(
                    "CLICKHOUSE_URL",
                    "HTTP address of ClickHouse, for example http://localhost:8123",
                )?,
                database: vars.string_or("CLICKHOUSE_DATABASE", "millrace"),
                user: vars.string_or("CLICKHOUSE_USER", "default"),
                password: vars.string_or("CLICKHOUSE_PASSWORD", ""),
            },
            refresh,
            rollups: vars.file("ROLLUPS_FILE", Rollups::parse)?.unwrap_or_else(Rollups::built_in),
            page: PageConfig::from_vars(vars)?,
        })
    }
}
