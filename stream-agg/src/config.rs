//! The configuration of the aggregator, from environment variables.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU16, NonZeroUsize};
use std::time::Duration;

use rdkafka::ClientConfig;
use runtime::vars::{VarError, Vars};
use schemas::bi;
use schemas::rollup::Rollups;
use schemas::row::{Ahead, Earliest, TimeLimits};
use schemas::tables::LEDGER_DAYS;
use schemas::time::DAY;

use crate::protocol::declaration::Declaration;
use crate::protocol::limits::{DecodeLimits, MAX_GROUPS};
use crate::protocol::window::WindowLimits;

pub(crate) mod fixed;

const MIB: usize = 1 << 20;

/// The configuration of the aggregator.
#[derive(Debug, Clone)]
pub struct Config {
    /// Health and metrics: `ADMIN_ADDR`, default `0.0.0.0:9082`.
    pub admin_addr: SocketAddr,
    /// Consumer group: `GROUP`, default `stream-agg`.
    pub group: String,
    /// Name of this member that outlives a restart, so that its partitions wait for
    /// it: `GROUP_INSTANCE_ID`, default none.
    pub group_instance: Option<String>,
    /// How often the table `progress` is updated for readers: `PROGRESS_INTERVAL`, default 1s, at most 1h.
    pub progress_interval: Duration,
    /// Time between two audits of the tables: `AUDIT_INTERVAL`, default 10m; none if `0s`.
    pub audit_interval: Option<Duration>,
    /// When a batch closes.
    pub batch: BatchConfig,
    /// Limits that decide about rows, besides records and rollups.
    pub limits: DecodeLimits,
    /// Most groups that a batch adds to one rollup before further groups are folded into `(other)`:
    /// `ROLLUP_MAX_GROUPS`, default 50 000.
    pub max_groups: NonZeroUsize,
    /// The topic, the database and the rollups, which `migrate` creates.
    pub migrate: MigrateConfig,
}

/// When a batch is large enough, or old enough, to insert.
#[derive(Debug, Clone)]
pub struct BatchConfig {
    /// Rows of a batch, or records if they are more: `BATCH_MAX_ROWS`, default 500 000, at most 1 000 000.
    pub max_rows: NonZeroUsize,
    /// Bytes of its records: `BATCH_MAX_BYTES`, default 64 MiB, at most 512 MiB.
    pub max_bytes: NonZeroUsize,
    /// Bytes of the records of all large batches of the process, whether open, waiting or being inserted:
    /// `BATCHES_MAX_BYTES`, default 256 MiB. The memory that they take is about half as much again.
    pub max_total_bytes: NonZeroUsize,
    /// Longest that a record waits for others: `BATCH_MAX_AGE`, default 4s, at most 1h. With the query API's
    /// default for `POLL_INTERVAL` an answer is then at most 8 s old.
    pub max_age: Duration,
}

/// What `migrate` creates, and where.
#[derive(Debug, Clone)]
pub struct MigrateConfig {
    /// Where records come from.
    pub kafka: KafkaConfig,
    /// Partitions of a topic that is made: `TOPIC_PARTITIONS`, default 8.
    pub partitions: NonZeroU16,
    /// Its replicas: `TOPIC_REPLICATION`, default 1.
    pub replication: NonZeroU16,
    /// Where rows go.
    pub store: StoreConfig,
    /// Database of the analysts' views: `BI_DATABASE`, default `bi`. Never that of the tables.
    pub bi_database: String,
    /// The user with whose rights the views read, who cannot log in: `BI_DEFINER`, default `bi_owner`.
    pub bi_definer: String,
    /// What is aggregated: the file `ROLLUPS_FILE`, default the one compiled in.
    pub rollups: Rollups,
    /// How long `migrate` waits for Kafka and ClickHouse: `MIGRATE_DEADLINE`, default 5m.
    pub deadline: Duration,
}

/// The topic and how it is reached.
#[derive(Debug, Clone)]
pub struct KafkaConfig {
    /// `host:port` of one or more brokers: `KAFKA_BROKERS`, required.
    pub brokers: String,
    /// Topic of the records: `TOPIC`, default `events`.
    pub topic: String,
    /// Settings of librdkafka by their own names, over ours: `KAFKA_OPT_<name>`; none of [`fixed`].
    pub options: BTreeMap<String, String>,
}

/// ClickHouse and how it is reached.
#[derive(Clone)]
pub struct StoreConfig {
    /// Address of its HTTP port: `CLICKHOUSE_URL`, required.
    pub url: String,
    /// Database of all tables: `CLICKHOUSE_DATABASE`, default `millrace`.
    pub database: String,
    /// User: `CLICKHOUSE_USER`, default `default`.
    pub user: String,
    /// Password: `CLICKHOUSE_PASSWORD`, default empty.
    pub password: String,
}

impl Config {
    /// Reads and checks the variables above.
    pub fn from_vars(vars: &Vars) -> Result<Self, VarError> {
        let instance = vars.string_or("GROUP_INSTANCE_ID", "");
        Ok(Self {
            admin_addr: vars.parsed_or("ADMIN_ADDR", SocketAddr::from((Ipv4Addr::UNSPECIFIED, 9082)))?,
            group: vars.string_or("GROUP", "stream-agg"),
            group_instance: Some(instance).filter(|name| !name.is_empty()),
            progress_interval: age(vars, "PROGRESS_INTERVAL", Duration::from_secs(1))?,
            audit_interval: Some(vars.duration_or("AUDIT_INTERVAL", Duration::from_secs(10 * 60))?)
                .filter(|interval| !interval.is_zero()),
            batch: BatchConfig::from_vars(vars)?,
            limits: DecodeLimits {
                time: time_limits(vars)?,
                window: window_limits(vars)?,
                ..DecodeLimits::default()
            },
            max_groups: vars
                .parsed_or("ROLLUP_MAX_GROUPS", NonZeroUsize::new(MAX_GROUPS).expect("is not zero"))?,
            migrate: MigrateConfig::from_vars(vars)?,
        })
    }

    /// The declaration of new batches of this process.
    pub fn declaration(&self, place_key: u64) -> Declaration {
        let Self { limits, max_groups, .. } = self;
        let rollups = self.migrate.rollups.clone();
        Declaration { rollups, limits: *limits, max_groups: max_groups.get(), place_key }
    }
}

/// Longest age of a window, in milliseconds. The window is emptied when no record came for its age plus an hour, so
/// its oldest record may be twice its age and an hour old, and the ledger must still have it. Two days are left for
/// clocks that differ and for a stop.
const MAX_WINDOW_AGE: i64 = (LEDGER_DAYS as i64 - 2) * DAY / 2;
/// Most ids in a window, of about 50 bytes each. The ids of several partitions must be read from the ledger within
/// the 20 s of a statement.
const MAX_WINDOW_IDS: usize = 20_000_000;

/// How far back a repeated event is recognized, in each Kafka partition: for `DEDUP_WINDOW_AGE`, default 1day, at
/// most 14days, and not beyond `DEDUP_WINDOW_IDS` ids, default 1 000 000 (about 50 bytes each in memory).
fn window_limits(vars: &Vars) -> Result<WindowLimits, VarError> {
    let WindowLimits { age_ms, max_ids } = WindowLimits::default();
    let [default, most] = [age_ms, MAX_WINDOW_AGE].map(|millis| Duration::from_millis(millis.unsigned_abs()));
    let ledger = "the window is restored from the ledger, which keeps a record for 30 days";
    let age = vars.duration_up_to("DEDUP_WINDOW_AGE", default, most, ledger)?;
    let max_ids = vars.parsed_or("DEDUP_WINDOW_IDS", max_ids)?;
    if !(1..=MAX_WINDOW_IDS).contains(&max_ids) {
        let reason = format!("write a number from 1 to {MAX_WINDOW_IDS}");
        return Err(VarError::Invalid { name: "DEDUP_WINDOW_IDS", value: max_ids.to_string(), reason });
    }
    let age_ms = i64::try_from(age.as_millis()).expect("it is below a limit in milliseconds");
    Ok(WindowLimits { age_ms, max_ids })
}

/// Which client clocks are trusted: those not before `EVENT_TIME_FROM`, default 2000-01-01T00:00:00Z, at least 1970,
/// and not more than `EVENT_TIME_AHEAD`, default 1day, at most 1year, ahead.
fn time_limits(vars: &Vars) -> Result<TimeLimits, VarError> {
    let TimeLimits { earliest, ahead } = TimeLimits::default();
    Ok(TimeLimits {
        earliest: vars.parsed_or("EVENT_TIME_FROM", Earliest(earliest))?.0,
        ahead: vars.parsed_or("EVENT_TIME_AHEAD", Ahead(ahead))?.0,
    })
}

/// Most rows of a batch: an insert is one block, and one part, only with far less than ten times as many.
const MAX_ROWS: usize = 1_000_000;
/// Most bytes of a batch's records: the texts of a column are stored end to end, below 4 GiB.
const MAX_BYTES: usize = 512 * MIB;
/// The longest that a batch may stay open, and between two updates of `progress`.
const MAX_AGE: Duration = Duration::from_secs(3600);

impl BatchConfig {
    fn from_vars(vars: &Vars) -> Result<Self, VarError> {
        let rows = NonZeroUsize::new(500_000).expect("is not zero");
        Ok(Self {
            max_rows: up_to("BATCH_MAX_ROWS", vars.parsed_or("BATCH_MAX_ROWS", rows)?, MAX_ROWS)?,
            max_bytes: up_to("BATCH_MAX_BYTES", bytes(vars, "BATCH_MAX_BYTES", 64 * MIB)?, MAX_BYTES)?,
            max_total_bytes: bytes(vars, "BATCHES_MAX_BYTES", 256 * MIB)?,
            max_age: age(vars, "BATCH_MAX_AGE", Duration::from_secs(4))?,
        })
    }
}

impl MigrateConfig {
    fn from_vars(vars: &Vars) -> Result<Self, VarError> {
        let store = StoreConfig::from_vars(vars)?;
        let bi_database = database(vars, "BI_DATABASE", "bi")?;
        if bi_database == store.database {
            // A view would replace the table of the same name.
            let reason = "the tables are in it (CLICKHOUSE_DATABASE)".to_owned();
            return Err(VarError::Invalid { name: "BI_DATABASE", value: bi_database, reason });
        }
        Ok(Self {
            kafka: KafkaConfig::from_vars(vars)?,
            partitions: vars.parsed_or("TOPIC_PARTITIONS", NonZeroU16::new(8).expect("is not zero"))?,
            replication: vars.parsed_or("TOPIC_REPLICATION", NonZeroU16::MIN)?,
            store,
            bi_database,
            bi_definer: database(vars, "BI_DEFINER", bi::DEFINER)?,
            rollups: vars.file("ROLLUPS_FILE", Rollups::parse)?.unwrap_or_else(Rollups::built_in),
            deadline: vars.duration_or("MIGRATE_DEADLINE", Duration::from_secs(5 * 60))?,
        })
    }
}

impl KafkaConfig {
    fn from_vars(vars: &Vars) -> Result<Self, VarError> {
        Ok(Self {
            brokers: vars.required("KAFKA_BROKERS", "host:port of a Kafka broker, several with commas")?,
            topic: vars.string_or("TOPIC", "events"),
            options: vars.passed_through("KAFKA_OPT_", &fixed::FIXED)?,
        })
    }

    /// The settings of a client. Those of the environment override `ours`.
    pub(crate) fn client(&self, ours: &[(&str, &str)]) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.brokers).set("client.id", "millrace-stream-agg");
        // The default of ten seconds is too long a wait for a broker that is back.
        client.set("reconnect.backoff.max.ms", "1000");
        for (name, value) in ours {
            client.set(*name, *value);
        }
        for (name, value) in &self.options {
            client.set(name, value);
        }
        client
    }
}

impl StoreConfig {
    fn from_vars(vars: &Vars) -> Result<Self, VarError> {
        Ok(Self {
            url: vars.required(
                "CLICKHOUSE_URL",
                "HTTP address of ClickHouse, for example http://localhost:8123",
            )?,
            database: database(vars, "CLICKHOUSE_DATABASE", "millrace")?,
            user: vars.string_or("CLICKHOUSE_USER", "default"),
            password: vars.string_or("CLICKHOUSE_PASSWORD", ""),
        })
    }
}

impl std::fmt::Debug for StoreConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { url, database, user, password: _ } = self;
        f.debug_struct("StoreConfig")
            .field("url", url)
            .field("database", database)
            .field("user", user)
            .finish_non_exhaustive()
    }
}

/// A name that needs no quotes in SQL.
fn database(vars: &Vars, name: &'static str, default: &str) -> Result<String, VarError> {
    let database = vars.string_or(name, default);
    if database.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Ok(database);
    }
    let reason = "a database name has only letters, digits and _".to_owned();
    Err(VarError::Invalid { name, value: database, reason })
}

fn bytes(vars: &Vars, name: &'static str, default: usize) -> Result<NonZeroUsize, VarError> {
    let bytes = vars.bytes_or(name, default)?;
    NonZeroUsize::new(bytes).ok_or_else(|| {
        let reason = "it must be above zero".to_owned();
        VarError::Invalid { name, value: bytes.to_string(), reason }
    })
}

fn up_to(name: &'static str, number: NonZeroUsize, most: usize) -> Result<NonZeroUsize, VarError> {
    if number.get() <= most {
        return Ok(number);
    }
    let reason = format!("it must be at most {most}");
    Err(VarError::Invalid { name, value: number.to_string(), reason })
}

/// By how much a variable makes readers see rows later.
fn age(vars: &Vars, name: &'static str, default: Duration) -> Result<Duration, VarError> {
    vars.positive_duration_or(name, default)?;
    vars.duration_up_to(name, default, MAX_AGE, "readers would see nothing new for too long")
}

#[cfg(test)]
mod tests {
    use schemas::time::HOUR;

    use super::*;

    const NEEDED: [(&str, &str); 2] = [("KAFKA_BROKERS", "k:1"), ("CLICKHOUSE_URL", "http://c:8123")];

    #[track_caller]
    fn check_refused(name: &str, value: &str, reason: &str) {
        let vars = Vars::from_pairs(NEEDED.into_iter().chain([(name, value)]));
        let error = Config::from_vars(&vars).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(reason), "{error}");
    }

    #[test]
    fn only_kafka_and_clickhouse_have_no_default() {
        for (name, _) in NEEDED {
            let vars = Vars::from_pairs(NEEDED.into_iter().filter(|(other, _)| *other != name));
            assert!(matches!(Config::from_vars(&vars), Err(VarError::Missing { name: n, .. }) if n == name));
        }
        let config = Config::from_vars(&Vars::from_pairs(NEEDED)).unwrap();
        assert_eq!(config.migrate.rollups, Rollups::built_in());
        assert_eq!((config.migrate.partitions.get(), config.migrate.replication.get()), (8, 1));
        assert_eq!(config.limits, DecodeLimits::default());
    }

    #[test]
    fn values_that_cannot_work_fail_the_start_by_name() {
        check_refused("BATCH_MAX_ROWS", "0", "zero");
        check_refused("BATCH_MAX_BYTES", "0", "above zero");
        check_refused("BATCHES_MAX_BYTES", "0", "above zero");
        check_refused("BATCH_MAX_AGE", "0s", "above zero");
        check_refused("PROGRESS_INTERVAL", "0s", "above zero");
        check_refused("CLICKHOUSE_DATABASE", "a;b", "letters");
        check_refused("BI_DATABASE", "a.b", "letters");
        check_refused("BI_DATABASE", "millrace", "CLICKHOUSE_DATABASE");
        check_refused("ROLLUPS_FILE", "/no/such/file.toml", "No such file");
        check_refused("EVENT_TIME_FROM", "yesterday", "2000-01-01T00:00:00Z");
        check_refused("DEDUP_WINDOW_IDS", "-1", "invalid digit");
        check_refused("BATCH_MAX_ROWS", "1000001", "at most 1000000");
        check_refused("BATCH_MAX_BYTES", "513MiB", "at most 536870912");
        check_refused("BATCH_MAX_AGE", "61m", "write 0s to 1h");
    }

    #[track_caller]
    fn check_taken(name: &str, value: &str) -> DecodeLimits {
        let vars = Vars::from_pairs(NEEDED.into_iter().chain([(name, value)]));
        Config::from_vars(&vars).unwrap().limits
    }

    #[test]
    fn times_that_the_tables_cannot_hold_are_refused_with_the_range_of_those_that_they_can() {
        let range = "from 1970-01-01 00:00:00.000 on; write one from there to before 2059-01-01 00:00:00.000";
        for value in ["1969-12-31T23:59:59.999Z", "1900-01-01 00:00:00", "2059-01-01T00:00:00Z"] {
            check_refused("EVENT_TIME_FROM", value, range);
        }
        assert_eq!(
            check_taken("EVENT_TIME_FROM", "1970-01-01T00:00:00Z").time.earliest,
            schemas::time::UnixMillis(0)
        );
        for value in ["1year 1ms", "80years", "300000000years"] {
            check_refused("EVENT_TIME_AHEAD", value, "write 0s to 1year");
        }
        assert_eq!(check_taken("EVENT_TIME_AHEAD", "1year").time.ahead, TimeLimits::MAX_AHEAD);
        assert_eq!(check_taken("EVENT_TIME_AHEAD", "0s").time.ahead, 0);
    }

    #[test]
    fn a_window_that_the_ledger_could_not_restore_is_refused() {
        check_refused("DEDUP_WINDOW_AGE", "14days 1ms", "write 0s to 14days");
        let age = check_taken("DEDUP_WINDOW_AGE", "14days").window.age_ms;
        assert!(2 * age + HOUR < i64::from(LEDGER_DAYS) * DAY, "until the window is emptied");
        check_refused("DEDUP_WINDOW_IDS", "0", "from 1 to 20000000");
        check_refused("DEDUP_WINDOW_IDS", "20000001", "from 1 to 20000000");
        assert_eq!(check_taken("DEDUP_WINDOW_IDS", "1").window.max_ids, 1);
    }

    #[test]
    fn settings_of_kafkas_client_that_exactness_rests_on_cannot_be_set() {
        let with = |name: &str| {
            let variable = format!("KAFKA_OPT_{name}");
            Config::from_vars(&Vars::from_pairs(NEEDED.into_iter().chain([(variable.as_str(), "1")])))
        };
        for name in [
            "enable.auto.commit",
            "topic.auto.commit.enable",
            "auto.commit.interval.ms",
            "enable.auto.offset.store",
            "offset.store.method",
            "auto.offset.reset",
            "topic.auto.offset.reset",
            "AUTO_OFFSET_RESET",
            "partition.assignment.strategy",
            "group.id",
            "group.instance.id",
            "group.protocol",
            "check.crcs",
            "isolation.level",
            "enable.partition.eof",
            "metadata.broker.list",
            "broker.version.fallback",
            "test.mock.num.brokers",
        ] {
            let error = with(name).expect_err(name).to_string();
            assert!(error.starts_with(&format!("variable KAFKA_OPT_{name} cannot be set: ")), "{error}");
        }
        for name in ["session.timeout.ms", "max.poll.interval.ms", "fetch.max.bytes", "ssl.ca.location"] {
            assert_eq!(with(name).expect(name).migrate.kafka.options[name], "1");
        }
    }

    #[test]
    fn options_of_the_environment_win_over_ours() {
        let vars = Vars::from_pairs(NEEDED.into_iter().chain([("KAFKA_OPT_fetch.queue.backoff.ms", "7")]));
        let config = Config::from_vars(&vars).unwrap();
        let client = config.migrate.kafka.client(&[("fetch.queue.backoff.ms", "10")]);
        assert_eq!(client.get("fetch.queue.backoff.ms"), Some("7"));
    }
}
