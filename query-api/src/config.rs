//! The configuration of the query API, from environment variables.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use runtime::vars::{VarError, Vars};
use schemas::rollup::Rollups;

use crate::access::AccessConfig;
use crate::cors::CorsConfig;

/// Merging them takes ClickHouse about two seconds.
const DEFAULT_MAX_USERS: u64 = 20_000_000;

/// The configuration of the query API.
#[derive(Debug, Clone)]
pub struct Config {
    /// The address and port that readers ask: `LISTEN_ADDR`, default `0.0.0.0:8083`.
    pub listen_addr: SocketAddr,
    /// The address and port of `/healthz`, `/readyz` and `/metrics`: `ADMIN_ADDR`, default `0.0.0.0:9083`. Keep it inside
    /// your network.
    pub admin_addr: SocketAddr,
    /// After SIGTERM, how long the query API still answers while `/readyz` answers 503: `DRAIN_DELAY`, default 5s. Set it to
    /// the time that your load balancer needs to notice.
    pub drain_delay: Duration,
    /// The database that is read.
    pub clickhouse: ClickHouseConfig,
    /// When it is read.
    pub refresh: RefreshConfig,
    /// Users of old hours, of changed hours and of polls that one refresh may merge, about: `POLL_MAX_USERS`, default
    /// 20 000 000. Each takes some 100 ns of ClickHouse. Lower it if refreshes miss `POLL_DEADLINE`.
    pub max_merged_users: u64,
    /// Which pages may read.
    pub cors: CorsConfig,
    /// Who may read.
    pub access: AccessConfig,
    /// Path of the TOML file that declares rollups and fields: `ROLLUPS_FILE`, default none. The same file as the
    /// aggregators'; without it the built-in declaration.
    pub rollups: Rollups,
}

/// The database that is read.
#[derive(Debug, Clone)]
pub struct ClickHouseConfig {
    /// Address of ClickHouse's HTTP port, for example `http://clickhouse:8123`: `CLICKHOUSE_URL`, required.
    pub url: String,
    /// ClickHouse database of all tables: `CLICKHOUSE_DATABASE`, default `millrace`. The same for all services.
    pub database: String,
    /// ClickHouse user: `CLICKHOUSE_USER`, default `default`. It needs to read only.
    pub user: String,
    /// Password of the ClickHouse user: `CLICKHOUSE_PASSWORD`, default empty. Set it from a secret.
    pub password: String,
}

/// When the answers are refreshed from the database.
#[derive(Debug, Clone)]
pub struct RefreshConfig {
    /// Time between two refreshes of the prepared answers, ±10 %: `POLL_INTERVAL`, default 3s. Each refresh is one statement
    /// to ClickHouse. Shorter gives fresher answers.
    pub interval: Duration,
    /// Longest time that a statement to ClickHouse may take: `POLL_DEADLINE`, default 10s. After it readers get the last
    /// answer, with its age, and a query gets `503`.
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
            max_merged_users: vars.parsed_or("POLL_MAX_USERS", DEFAULT_MAX_USERS)?,
            cors: CorsConfig::from_vars(vars)?,
            access: AccessConfig::from_vars(vars)?,
            rollups: vars.file("ROLLUPS_FILE", Rollups::parse)?.unwrap_or_else(Rollups::built_in),
        })
    }
}
