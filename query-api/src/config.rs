//! The configuration of the query API, from environment variables.

use std::net::SocketAddr;
use std::num::{NonZeroU64, NonZeroUsize};
use std::time::Duration;

use runtime::needs::Address;
use runtime::serve::every_address;
use runtime::vars::{VarError, Vars};
use schemas::rollup::Rollups;

use crate::access::AccessConfig;
use crate::cors::CorsConfig;
pub use crate::page::PageConfig;

/// Merging this many users takes ClickHouse about two seconds.
const DEFAULT_MAX_USERS: u64 = 20_000_000;

/// The configuration of the query API.
#[derive(Debug, Clone)]
pub struct Config {
    /// The address and port that readers send requests to: `LISTEN_ADDR`, default `[::]:8083`.
    pub listen_addr: SocketAddr,
    /// The address and port of `/healthz`, `/readyz` and `/metrics`: `ADMIN_ADDR`, default `[::]:9083`. Keep it inside
    /// your network.
    pub admin_addr: SocketAddr,
    /// After SIGTERM, how long the query API still answers while `/readyz` answers 503: `DRAIN_DELAY`, default 5s.
    /// Set it to the time that your load balancer needs to notice.
    pub drain_delay: Duration,
    /// The ClickHouse database that the query API reads.
    pub clickhouse: ClickHouseConfig,
    /// How often the prepared answers are read from ClickHouse, and how long that may take.
    pub refresh: RefreshConfig,
    /// About how many users (in hours of analytics) and voters (in polls) one refresh may merge; a quarter of this
    /// number is for voters: `REFRESH_MAX_USERS`, default 20 000 000. ClickHouse needs about 100 ns for each user or
    /// voter. Lower it if refreshes miss `REFRESH_DEADLINE`.
    pub max_merged_users: u64,
    /// Limits of queries.
    pub query: QueryConfig,
    /// Limits of retention tables and funnels.
    pub people: PeopleConfig,
    /// Which web pages may read answers from a browser.
    pub cors: CorsConfig,
    /// Which readers may read answers.
    pub access: AccessConfig,
    /// Path of the TOML file that declares rollups and fields: `ROLLUPS_FILE`, default none. Use the
    /// same file as the aggregators. Without a file, the built-in declaration applies.
    pub rollups: Rollups,
    /// The page under `/`.
    pub page: PageConfig,
}

/// The ClickHouse database that the query API reads.
#[derive(Debug, Clone)]
pub struct ClickHouseConfig {
    /// Address of ClickHouse's HTTP port, for example `http://clickhouse:8123`: `CLICKHOUSE_URL`, required.
    pub url: String,
    /// ClickHouse database of all tables: `CLICKHOUSE_DATABASE`, default `millrace`. The same for all services.
    pub database: String,
    /// ClickHouse user: `CLICKHOUSE_USER`, default `default`. It needs only the right to read.
    pub user: String,
    /// Password of the ClickHouse user: `CLICKHOUSE_PASSWORD`, default empty. Set it from a secret.
    pub password: String,
}

/// How often the prepared answers are read from ClickHouse, and how long that may take.
#[derive(Debug, Clone)]
pub struct RefreshConfig {
    /// Time between two refreshes of the prepared answers, ±10 %: `REFRESH_INTERVAL`, default 3s. Each refresh is one
    /// statement to ClickHouse. Shorter gives fresher answers.
    pub interval: Duration,
    /// Longest time that the statement of a refresh may take: `REFRESH_DEADLINE`, default 10s. If it takes longer,
    /// readers get the previous answer, with its age, or `503` if there is none.
    pub deadline: Duration,
}

/// Limits of queries to `/v1/query`.
#[derive(Debug, Clone)]
pub struct QueryConfig {
    /// Statements of queries that run at once: `QUERY_CONCURRENCY`, default 4. Others wait for their turn. Raise it if
    /// ClickHouse has cores to spare.
    pub concurrency: NonZeroUsize,
    /// Statements that run at once and count distinct values with `accuracy=exact`: `QUERY_SLOW_CONCURRENCY`, default
    /// 2. They may take long, so they wait in a separate queue.
    pub slow_concurrency: NonZeroUsize,
    /// Longest time that a query waits for its turn: `QUERY_QUEUE_DEADLINE`, default 5s. After this time the query gets
    /// `503 busy`.
    pub queue_deadline: Duration,
    /// Longest time that a statement of a query runs: `QUERY_DEADLINE`, default 10s. After this time the query gets
    /// `503 too_slow`.
    pub deadline: Duration,
    /// Maximum number of rows of tables that one query may read, by the estimate of ClickHouse's index:
    /// `QUERY_MAX_ROWS_TO_READ`, default 200 000 000. A query that needs more gets `422 too_wide`.
    pub max_rows_to_read: NonZeroU64,
    /// Approximate memory for answers of queries that are kept until the next refresh: `QUERY_CACHE_BYTES`,
    /// default 64MiB.
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

/// Limits of `/v1/retention` and `/v1/funnel`, which are separate from those of queries.
#[derive(Debug, Clone)]
pub struct PeopleConfig {
    /// Retention tables and funnels that are computed at once: `PEOPLE_CONCURRENCY`, default 2. Others wait for their
    /// turn; queries wait in a separate queue. Raise it if ClickHouse has cores and memory to spare: each may take
    /// 2 GiB.
    pub concurrency: NonZeroUsize,
    /// Longest time that a retention table or a funnel waits for its turn: `PEOPLE_QUEUE_DEADLINE`, default 5s. After
    /// this time the request gets `503 busy`.
    pub queue_deadline: Duration,
    /// Longest time that the statements of a retention table or a funnel run: `PEOPLE_DEADLINE`, default 10s. After
    /// this time the request gets `503 too_slow`.
    pub deadline: Duration,
    /// Maximum number of rows of tables that one statement may read, by the estimate of ClickHouse's index:
    /// `PEOPLE_MAX_ROWS_TO_READ`, default 200 000 000. A request that needs more gets `422 too_wide`.
    pub max_rows_to_read: NonZeroU64,
    /// Maximum number of events that the steps of a funnel may have: `FUNNEL_MAX_EVENTS`, default 50 000 000. Their
    /// number is read from a rollup, so a larger funnel gets `422 too_wide` before any event is read.
    pub max_funnel_events: u64,
}

impl PeopleConfig {
    fn from_vars(vars: &Vars) -> Result<Self, VarError> {
        let concurrency = const { NonZeroUsize::new(2).unwrap() };
        let max_rows_to_read = const { NonZeroU64::new(200_000_000).unwrap() };
        Ok(Self {
            concurrency: vars.parsed_or("PEOPLE_CONCURRENCY", concurrency)?,
            queue_deadline: vars.positive_duration_or("PEOPLE_QUEUE_DEADLINE", Duration::from_secs(5))?,
            deadline: vars.positive_duration_or("PEOPLE_DEADLINE", Duration::from_secs(10))?,
            max_rows_to_read: vars.parsed_or("PEOPLE_MAX_ROWS_TO_READ", max_rows_to_read)?,
            max_funnel_events: vars.parsed_or("FUNNEL_MAX_EVENTS", 50_000_000)?,
        })
    }
}

impl Config {
    /// Reads and checks the variables above.
    pub fn from_vars(vars: &Vars) -> Result<Self, VarError> {
        let refresh = RefreshConfig {
            interval: vars.positive_duration_or("REFRESH_INTERVAL", Duration::from_secs(3))?,
            deadline: vars.positive_duration_or("REFRESH_DEADLINE", Duration::from_secs(10))?,
        };
        let url =
            vars.required("CLICKHOUSE_URL", "HTTP address of ClickHouse, for example http://localhost:8123")?;
        Address::of_url("CLICKHOUSE_URL", &url)?;
        Ok(Self {
            listen_addr: vars.parsed_or("LISTEN_ADDR", every_address(8083))?,
            admin_addr: vars.parsed_or("ADMIN_ADDR", every_address(9083))?,
            drain_delay: vars.duration_or("DRAIN_DELAY", Duration::from_secs(5))?,
            clickhouse: ClickHouseConfig {
                url,
                database: vars.string_or("CLICKHOUSE_DATABASE", "millrace"),
                user: vars.string_or("CLICKHOUSE_USER", "default"),
                password: vars.string_or("CLICKHOUSE_PASSWORD", ""),
            },
            refresh,
            max_merged_users: vars.parsed_or("REFRESH_MAX_USERS", DEFAULT_MAX_USERS)?,
            cors: CorsConfig::from_vars(vars)?,
            access: AccessConfig::from_vars(vars)?,
            query: QueryConfig::from_vars(vars)?,
            people: PeopleConfig::from_vars(vars)?,
            rollups: vars.file("ROLLUPS_FILE", Rollups::parse)?.unwrap_or_else(Rollups::built_in),
            page: PageConfig::from_vars(vars)?,
        })
    }
}
