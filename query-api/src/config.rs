//! The configuration of the query API, from environment variables.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU64, NonZeroUsize};
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
    /// What queries may cost.
    pub query: QueryConfig,
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

/// What queries of `/v1/query` may cost.
#[derive(Debug, Clone)]
pub struct QueryConfig {
    /// How many statements of queries run at once; others wait: `QUERY_CONCURRENCY`, default 4.
    pub concurrency: NonZeroUsize,
    /// How many statements with `accuracy=exact`, which may take long, run at once: `QUERY_SLOW_CONCURRENCY`, default 2.
    pub slow_concurrency: NonZeroUsize,
    /// The longest that a query waits for its turn before it is refused with 503: `QUERY_QUEUE_DEADLINE`, default 5s.
    pub queue_deadline: Duration,
    /// The longest that a statement of a query runs: `QUERY_DEADLINE`, default 10s.
    pub deadline: Duration,
    /// Most rows of tables that one query may read, by the estimate of ClickHouse's index; more is refused with 422:
    /// `QUERY_MAX_ROWS_TO_READ`, default 200000000.
    pub max_rows_to_read: NonZeroU64,
    /// Memory for answers that are kept until the next refresh, about: `QUERY_CACHE_BYTES`, default 67108864.
    pub cache_bytes: usize,
}

impl QueryConfig {
    fn from_vars(vars: &Vars) -> Result<Self, VarError> {
        let default = Self::default();
        Ok(Self {
            concurrency: vars.parsed_or("QUERY_CONCURRENCY", default.concurrency)?,
            slow_concurrency: vars.parsed_or("QUERY_SLOW_CONCURRENCY", default.slow_concurrency)?,
            queue_deadline: vars.positive_duration_or("QUERY_QUEUE_DEADLINE", default.queue_deadline)?,
            deadline: vars.positive_duration_or("QUERY_DEADLINE", default.deadline)?,
            max_rows_to_read: vars.parsed_or("QUERY_MAX_ROWS_TO_READ", default.max_rows_to_read)?,
            cache_bytes: vars.bytes_or("QUERY_CACHE_BYTES", default.cache_bytes)?,
        })
    }
}

impl Default for QueryConfig {
    fn default() -> Self {
        Self {
            concurrency: const { NonZeroUsize::new(4).unwrap() },
            slow_concurrency: const { NonZeroUsize::new(2).unwrap() },
            queue_deadline: Duration::from_secs(5),
            deadline: Duration::from_secs(10),
            max_rows_to_read: const { NonZeroU64::new(200_000_000).unwrap() },
            cache_bytes: 64 << 20,
        }
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
            query: QueryConfig::from_vars(vars)?,
            rollups: vars.file("ROLLUPS_FILE", Rollups::parse)?.unwrap_or_else(Rollups::built_in),
        })
    }
}
