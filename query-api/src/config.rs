//! The configuration of the query API, from environment variables.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::Duration;

use runtime::vars::{VarError, Vars};
use schemas::rollup::Rollups;

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
    /// What retention and funnels may cost.
    pub people: PeopleConfig,
    /// The declared rollups: the file `ROLLUPS_FILE`, the same as the aggregator's; default the built-in ones.
    pub rollups: Rollups,
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

/// What `/v1/retention` and `/v1/funnel` may cost, beside and apart from queries.
#[derive(Debug, Clone)]
pub struct PeopleConfig {
    /// How many retention tables and funnels are computed at once; others wait: `PEOPLE_CONCURRENCY`, default 2.
    pub concurrency: NonZeroUsize,
    /// The longest that one of them waits for its turn before it is refused with 503: `PEOPLE_QUEUE_DEADLINE`,
    /// default 5s.
    pub queue_deadline: Duration,
    /// The longest that the statements of one of them run: `PEOPLE_DEADLINE`, default 10s.
    pub deadline: Duration,
    /// Most events of its steps that a funnel may read; more is refused with 422 before any is read:
    /// `FUNNEL_MAX_EVENTS`, default 50000000.
    pub max_funnel_events: u64,
}

impl PeopleConfig {
    fn from_vars(vars: &Vars) -> Result<Self, VarError> {
        let concurrency = const { NonZeroUsize::new(2).unwrap() };
        Ok(Self {
            concurrency: vars.parsed_or("PEOPLE_CONCURRENCY", concurrency)?,
            queue_deadline: vars.positive_duration_or("PEOPLE_QUEUE_DEADLINE", Duration::from_secs(5))?,
            deadline: vars.positive_duration_or("PEOPLE_DEADLINE", Duration::from_secs(10))?,
            max_funnel_events: vars.parsed_or("FUNNEL_MAX_EVENTS", 50_000_000)?,
        })
    }
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
            people: PeopleConfig::from_vars(vars)?,
            rollups: vars.file("ROLLUPS_FILE", Rollups::parse)?.unwrap_or_else(Rollups::built_in),
        })
    }
}
