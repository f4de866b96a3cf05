//! The configuration of the aggregator, from environment variables.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroUsize};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::{KafkaError, KafkaResult};
use runtime::needs::Address;
use runtime::serve::every_address;
use runtime::vars::{VarError, Vars};
use schemas::access::{self, Tenants, User};
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
/// The port of a broker whose address has no port.
pub(crate) const DEFAULT_PORT: u16 = 9092;

/// The configuration of the aggregator.
#[derive(Debug, Clone)]
pub struct Config {
    /// The address and port of `/healthz`, `/readyz` and `/metrics`: `ADMIN_ADDR`, default `[::]:9082`. Keep it inside
    /// your network.
    pub admin_addr: SocketAddr,
    /// Kafka consumer group, the same for all aggregators of a topic: `GROUP`, default `stream-agg`. Do not change it
    /// later: a new group has no committed offsets, and its partitions stop.
    pub group: String,
    /// Name of this instance in the consumer group (`group.instance.id`): `GROUP_INSTANCE_ID`, default none. With a
    /// stable, unique name, such as a StatefulSet's pod name, an instance gets its partitions back without a rebalance.
    /// Without a name, an instance that was killed, or that did not reach Kafka for `session.timeout.ms` (45 s), comes
    /// back as a new member, and its partitions wait until the session of the old member ends.
    pub group_instance: Option<String>,
    /// How often the aggregator writes to the table `progress`, from which readers take `as_of`: `PROGRESS_INTERVAL`,
    /// default 1s, at most 1h. It adds to the age of answers.
    pub progress_interval: Duration,
    /// Time between two automatic audits of the last two days: `AUDIT_INTERVAL`, default 10m. `0s` turns them off.
    /// Raise it if the audits load ClickHouse too much.
    pub audit_interval: Option<Duration>,
    /// When a batch closes.
    pub batch: BatchConfig,
    /// Limits that decide which rows a record becomes, in addition to the declared rollups and fields.
    pub limits: DecodeLimits,
    /// Maximum number of groups (combinations of dimensions and bucket) that one batch adds to a rollup:
    /// `ROLLUP_MAX_GROUPS`, default 50 000. Further groups are counted in the group `(other)`. Raise it if
    /// `stream_agg_rows_folded_total` grows.
    pub max_groups: NonZeroUsize,
    /// The topic, the database and the rollups, which `migrate` creates.
    pub migrate: MigrateConfig,
}

/// When a batch is large enough, or old enough, to insert.
#[derive(Debug, Clone)]
pub struct BatchConfig {
    /// Maximum number of rows in one batch, which is one insert per table partition: `BATCH_MAX_ROWS`, default 500 000,
    /// at most 1 000 000. Also the maximum number of Kafka records in one batch. Larger batches cost ClickHouse less
    /// per event, and take more memory.
    pub max_rows: NonZeroUsize,
    /// Maximum number of bytes of Kafka records in one batch: `BATCH_MAX_BYTES`, default 64 MiB, at most 512 MiB. Lower
    /// it, with `BATCH_MAX_ROWS`, if ClickHouse has too little memory for an insert.
    pub max_bytes: NonZeroUsize,
    /// Maximum number of bytes of Kafka records in all large batches (1 MiB or more) of the process together:
    /// `BATCHES_MAX_BYTES`, default 256 MiB. The batches take about 1.5 times as much memory. Lower it if the process
    /// must use less memory; backlogs then take longer to store.
    pub max_total_bytes: NonZeroUsize,
    /// Longest time that a record waits in an open batch: `BATCH_MAX_AGE`, default 4s, at most 1h. A shorter time
    /// gives fresher answers, but more and smaller inserts. With the default `REFRESH_INTERVAL`, answers are at most
    /// about 8 s old.
    pub max_age: Duration,
}

/// What `migrate` creates, and where.
#[derive(Debug, Clone)]
pub struct MigrateConfig {
    /// The Kafka cluster and the topic that records are read from.
    pub kafka: KafkaConfig,
    /// Number of partitions when `migrate` creates the topic: `TOPIC_PARTITIONS`, default 8. At most this many
    /// aggregators can work at once. Choose a generous number: if it is changed later, repeats of events from before
    /// the change are not recognised. Set it for aggregators, too: each aggregator divides its memory for fetched
    /// records by this number.
    pub partitions: NonZeroU16,
    /// Number of replicas of each partition when `migrate` creates the topic: `TOPIC_REPLICATION`, default 1. Use 3 in
    /// production, with `min.insync.replicas=2`.
    pub replication: NonZeroU16,
    /// The ClickHouse server that rows are inserted into.
    pub store: StoreConfig,
    /// ClickHouse database in which `migrate` creates the views for analysts: `BI_DATABASE`, default `bi`. It must
    /// differ from `CLICKHOUSE_DATABASE`.
    pub bi_database: String,
    /// ClickHouse user whose rights the views use to read the tables (`DEFINER`): `BI_DEFINER`, default `bi_owner`.
    /// Create it without a login; `migrate --print-grants` prints its rights.
    pub bi_definer: String,
    /// ClickHouse user whose rights the view `freshness` uses to read the progress of the aggregators:
    /// `BI_FRESHNESS_DEFINER`, default `bi_freshness`. Create it without a login; `migrate --print-grants` prints its
    /// rights.
    pub bi_freshness_definer: String,
    /// Path of the TOML file that declares rollups and fields: `ROLLUPS_FILE`, default none. It replaces the built-in
    /// declaration, so begin with a copy of `schemas/rollups.toml`. Use the same file for `migrate`, all aggregators
    /// and all query APIs.
    pub rollups: Rollups,
    /// Path of the TOML file with the tenants whose analysts get a database of their own: `TENANTS_FILE`, default none.
    /// Each `[[tenant]]` has a `name`, the `password_sha256` of its reader, and may have `enabled = false`.
    pub tenants: Tenants,
    /// Whether `migrate` creates databases of tenants on a ClickHouse that is too old to keep tenants from each other's
    /// rows: `BI_ALLOW_OLD_SERVER`, default 0. Set it to 1 only to try out these databases.
    pub allow_old_server: bool,
    /// How long `migrate` waits until Kafka and ClickHouse can be reached: `MIGRATE_DEADLINE`, default 5m. Raise it if
    /// Kafka or ClickHouse takes longer to start.
    pub deadline: Duration,
}

/// The topic, and how to reach Kafka.
#[derive(Debug, Clone)]
pub struct KafkaConfig {
    /// Kafka brokers, each as `host:port`, separated by commas: `KAFKA_BROKERS`, required.
    pub brokers: String,
    /// Kafka topic that the aggregator reads and `migrate` creates: `TOPIC`, default `events`. The same as the edge's.
    pub topic: String,
    /// Settings of librdkafka by the names that librdkafka gives them: `KAFKA_OPT_<name>`. They override the defaults
    /// of the aggregator. The settings in [`fixed`] cannot be set.
    pub options: BTreeMap<String, String>,
}

/// How to reach ClickHouse.
#[derive(Clone)]
pub struct StoreConfig {
    /// Address of ClickHouse's HTTP port, for example `http://clickhouse:8123`: `CLICKHOUSE_URL`, required.
    pub url: String,
    /// ClickHouse database of all tables: `CLICKHOUSE_DATABASE`, default `millrace`. The same for all services.
    pub database: String,
    /// ClickHouse user: `CLICKHOUSE_USER`, default `default`. It needs to read and insert; for `migrate` also to
    /// create.
    pub user: String,
    /// Password of the ClickHouse user: `CLICKHOUSE_PASSWORD`, default empty. Set it from a secret.
    pub password: String,
}

impl Config {
    /// Reads and checks the variables above.
    pub fn from_vars(vars: &Vars) -> Result<Self, VarError> {
        let instance = vars.string_or("GROUP_INSTANCE_ID", "");
        Ok(Self {
            admin_addr: vars.parsed_or("ADMIN_ADDR", every_address(9082))?,
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

    /// The declaration under which this process makes new batches. `place_key` is the key of the hash in the column
    /// `place` of raw rows.
    pub fn declaration(&self, place_key: u64) -> Declaration {
        let Self { limits, max_groups, .. } = self;
        let rollups = self.migrate.rollups.clone();
        Declaration { rollups, limits: *limits, max_groups: max_groups.get(), place_key }
    }
}

/// Longest `DEDUP_WINDOW_AGE`, in milliseconds. A window is emptied when its newest record is older than
/// `DEDUP_WINDOW_AGE` plus an hour. The oldest record in the window is older than the newest record by at most
/// `DEDUP_WINDOW_AGE`. So the ledger must have records of twice `DEDUP_WINDOW_AGE` plus an hour. The ledger keeps
/// records for `LEDGER_DAYS`; two of these days are left for that hour, for clocks that differ and for downtime.
const MAX_WINDOW_AGE_MS: i64 = (LEDGER_DAYS as i64 - 2) * DAY / 2;
/// Maximum number of ids in a window. Each id takes about 50 bytes. The limit exists because one statement reads the
/// ids of a whole window from the ledger, and must end within its timeout of 20 s.
const MAX_WINDOW_IDS: usize = 20_000_000;

/// How long a repeat of an event is recognised after the event: `DEDUP_WINDOW_AGE`, default 1day, at most 14days.
/// Clients must not retry for longer than this.
const WINDOW_AGE: &str = "DEDUP_WINDOW_AGE";
/// How many ids of events and records are kept for each Kafka partition to recognise repeats: `DEDUP_WINDOW_IDS`,
/// default 1 000 000, at most 20 000 000. Each id takes about 50 bytes of memory. Raise it if a partition gets more ids
/// than this within the time for which clients retry.
const WINDOW_IDS: &str = "DEDUP_WINDOW_IDS";
/// Earliest `client_time` that is trusted: `EVENT_TIME_FROM`, default 2000-01-01T00:00:00Z, at least 1970. An event
/// with an earlier time counts at its time of arrival. Set it to the same value as in the edge.
const EARLIEST: &str = "EVENT_TIME_FROM";
/// How far ahead of its arrival a `client_time` may be: `EVENT_TIME_AHEAD`, default 1day, at most 1year. A later event
/// counts at its time of arrival. Set it to the same value as in the edge.
const AHEAD: &str = "EVENT_TIME_AHEAD";

/// How far back repeats of an event are recognised.
fn window_limits(vars: &Vars) -> Result<WindowLimits, VarError> {
    let WindowLimits { age_ms, max_ids } = WindowLimits::default();
    let [default, most] =
        [age_ms, MAX_WINDOW_AGE_MS].map(|millis| Duration::from_millis(millis.unsigned_abs()));
    let ledger = "the window is restored from the ledger, which keeps a record for 30 days";
    let age = vars.duration_up_to(WINDOW_AGE, default, most, ledger)?;
    let max_ids = vars.parsed_or(WINDOW_IDS, max_ids)?;
    if !(1..=MAX_WINDOW_IDS).contains(&max_ids) {
        let reason = format!("write a number from 1 to {MAX_WINDOW_IDS}");
        return Err(VarError::Invalid { name: WINDOW_IDS, value: max_ids.to_string(), reason });
    }
    let age_ms = i64::try_from(age.as_millis()).expect("it is below a limit in milliseconds");
    Ok(WindowLimits { age_ms, max_ids })
}

/// Limits on the client times that are trusted.
fn time_limits(vars: &Vars) -> Result<TimeLimits, VarError> {
    let TimeLimits { earliest, ahead } = TimeLimits::default();
    Ok(TimeLimits {
        earliest: vars.parsed_or(EARLIEST, Earliest(earliest))?.0,
        ahead: vars.parsed_or(AHEAD, Ahead(ahead))?.0,
    })
}

/// Maximum number of rows of a batch. ClickHouse stores an insert of this size as one block, and so as one part,
/// because the aggregator sets `max_insert_block_size` to ten times this number.
const MAX_ROWS: usize = 1_000_000;
/// Maximum number of bytes of a batch's records. The aggregator keeps the texts of a column in one string with offsets
/// of 32 bits, so all texts of a column together must stay below 4 GiB.
const MAX_BYTES: usize = 512 * MIB;
/// Longest time that a batch may stay open, and longest time between two updates of `progress`.
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
    /// The databases of the tables and of the views.
    pub fn databases(&self) -> bi::Databases<'_> {
        bi::Databases { tables: &self.store.database, views: &self.bi_database }
    }

    /// All users of ClickHouse that this deployment needs.
    pub fn users(&self) -> Vec<User> {
        access::of_deployment(&self.rollups, self.databases(), self.definers(), &self.tenants)
    }

    /// The users that the views need: the definers of views, and the users of tenants.
    pub fn users_of_views(&self) -> Vec<User> {
        access::of_views(&self.rollups, self.databases(), self.definers(), &self.tenants)
    }

    /// The `DEFINER` users of the views: a view reads with the rights of its definer.
    pub(crate) fn definers(&self) -> bi::Definers<'_> {
        bi::Definers { views: &self.bi_definer, freshness: &self.bi_freshness_definer }
    }

    fn from_vars(vars: &Vars) -> Result<Self, VarError> {
        let store = StoreConfig::from_vars(vars)?;
        let bi_database = database(vars, "BI_DATABASE", "bi")?;
        if bi_database == store.database {
            // A view would replace a table that has the same name.
            let reason = "it is the database of the tables (CLICKHOUSE_DATABASE)".to_owned();
            return Err(VarError::Invalid { name: "BI_DATABASE", value: bi_database, reason });
        }
        let config = Self {
            kafka: KafkaConfig::from_vars(vars)?,
            partitions: vars.parsed_or("TOPIC_PARTITIONS", NonZeroU16::new(8).expect("is not zero"))?,
            replication: vars.parsed_or("TOPIC_REPLICATION", NonZeroU16::MIN)?,
            store,
            bi_database,
            bi_definer: database(vars, "BI_DEFINER", bi::Definers::DEFAULT.views)?,
            bi_freshness_definer: database(vars, "BI_FRESHNESS_DEFINER", bi::Definers::DEFAULT.freshness)?,
            rollups: vars.file("ROLLUPS_FILE", Rollups::parse)?.unwrap_or_else(Rollups::built_in),
            tenants: vars.file("TENANTS_FILE", |_, text| Tenants::parse(text))?.unwrap_or_default(),
            allow_old_server: flag(vars, "BI_ALLOW_OLD_SERVER")?,
            deadline: vars.duration_or("MIGRATE_DEADLINE", Duration::from_secs(5 * 60))?,
        };
        config.check_names()?;
        Ok(config)
    }

    /// Checks that no tenant's database is the database of the tables, and that no two users of ClickHouse have the
    /// same name.
    fn check_names(&self) -> Result<(), VarError> {
        let invalid =
            |name, value: &str, reason| Err(VarError::Invalid { name, value: value.to_owned(), reason });
        let mut databases = self.tenants.iter().map(|tenant| tenant.database(&self.bi_database));
        if let Some(database) = databases.find(|name| *name == self.store.database) {
            let reason = format!(
                "a tenant's database would have the name `{database}`, which is the database of the tables \
                 (CLICKHOUSE_DATABASE)"
            );
            return invalid("BI_DATABASE", &self.bi_database, reason);
        }
        let mut names = BTreeSet::from(["default".to_owned()]);
        match self.users().into_iter().find(|user| !names.insert(user.name.clone())) {
            Some(user) => {
                let reason = format!(
                    "two users of ClickHouse would have the name `{}`; change BI_DEFINER, BI_FRESHNESS_DEFINER or the \
                     name of a tenant",
                    user.name
                );
                invalid("BI_DEFINER", &self.bi_definer, reason)
            }
            None => Ok(()),
        }
    }
}

impl KafkaConfig {
    fn from_vars(vars: &Vars) -> Result<Self, VarError> {
        let config = Self {
            brokers: vars.required("KAFKA_BROKERS", "host:port of a Kafka broker, several with commas")?,
            topic: vars.string_or("TOPIC", "events"),
            options: vars.passed_through("KAFKA_OPT_", &fixed::FIXED)?,
        };
        Address::of_list("KAFKA_BROKERS", &config.brokers, DEFAULT_PORT)?;
        config.check_settings()?;
        Ok(config)
    }

    /// Checks the settings of librdkafka without a connection: the client is created without brokers, so it cannot
    /// connect.
    fn check_settings(&self) -> Result<(), VarError> {
        for (name, value) in &self.options {
            let alone = ClientConfig::from_iter([(name.clone(), value.clone())]).create_native_config();
            alone.map_err(|error| refused(name, error))?;
        }
        if self.options.is_empty() {
            return Ok(());
        }
        let together: KafkaResult<BaseConsumer> =
            self.client(&fixed::CONSUMER).remove("bootstrap.servers").create();
        together.map(drop).map_err(|error| refused("…", error))
    }

    /// The settings of a client of Kafka. Settings from variables `KAFKA_OPT_<name>` override `ours`.
    pub(crate) fn client(&self, ours: &[(&str, &str)]) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.brokers).set("client.id", "millrace-stream-agg");
        // By default, the client may wait up to ten seconds before it tries again to connect to a broker.
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
        let url =
            vars.required("CLICKHOUSE_URL", "HTTP address of ClickHouse, for example http://localhost:8123")?;
        Address::of_url("CLICKHOUSE_URL", &url)?;
        Ok(Self {
            url,
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

/// The error for a setting `KAFKA_OPT_<name>` that librdkafka does not accept.
fn refused(name: &str, error: KafkaError) -> VarError {
    let reason = match error {
        KafkaError::ClientConfig(_, reason, ..) | KafkaError::ClientCreation(reason) => reason,
        other => other.to_string(),
    };
    VarError::Refused { name: format!("KAFKA_OPT_{name}"), reason }
}

/// Reads the name of a database or user. The name stands in SQL without quotes, so it may have only letters, digits and
/// `_`.
fn database(vars: &Vars, name: &'static str, default: &str) -> Result<String, VarError> {
    let database = vars.string_or(name, default);
    if database.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Ok(database);
    }
    let reason = "the name of a database or user may have only letters, digits and _".to_owned();
    Err(VarError::Invalid { name, value: database, reason })
}

/// A variable that is 0 or 1; 0 by default.
fn flag(vars: &Vars, name: &'static str) -> Result<bool, VarError> {
    match vars.parsed_or::<u8>(name, 0)? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(VarError::Invalid { name, value: other.to_string(), reason: "write 0 or 1".to_owned() }),
    }
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

/// Reads a duration that adds to the age of answers. It must be above zero and at most [`MAX_AGE`].
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
    fn invalid_values_are_refused_with_the_name_of_the_variable() {
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
        check_refused("BATCH_MAX_AGE", "61m", "write at most 1h");
    }

    #[test]
    fn a_name_for_two_databases_or_two_users_is_refused() {
        let with = |tenants: &[&str], more: &[(&str, &str)]| {
            let vars = Vars::from_pairs(NEEDED.iter().chain(more).copied());
            let mut config = Config::from_vars(&vars).unwrap().migrate;
            let hash = "a".repeat(64);
            let tenant =
                |name: &&str| format!("[[tenant]]\nname = \"{name}\"\npassword_sha256 = \"{hash}\"\n");
            config.tenants = Tenants::parse(&tenants.iter().map(tenant).collect::<String>()).unwrap();
            config.check_names().map_err(|error| error.to_string())
        };
        let of_tables = [("BI_DATABASE", "millrace"), ("CLICKHOUSE_DATABASE", "millrace_prod")];
        assert!(with(&["prod"], &of_tables).unwrap_err().contains("millrace_prod"));
        assert_eq!(with(&["test"], &of_tables), Ok(()));
        let definer = [("BI_DEFINER", "bi")];
        for names in [&["freshness"][..], &["jdbc"], &["reader"], &["acme", "reader_acme"]] {
            let refused = with(names, &definer).unwrap_err();
            assert!(refused.contains("BI_DEFINER"), "{refused}");
            assert_eq!(with(names, &[]), Ok(()));
        }
        assert_eq!(with(&["acme"], &definer), Ok(()));
        check_refused("BI_DEFINER", "bi_reader", "two users");
        check_refused("BI_ALLOW_OLD_SERVER", "2", "write 0 or 1");
    }

    #[track_caller]
    fn check_taken(name: &str, value: &str) -> DecodeLimits {
        let vars = Vars::from_pairs(NEEDED.into_iter().chain([(name, value)]));
        Config::from_vars(&vars).unwrap().limits
    }

    #[test]
    fn times_that_the_tables_cannot_hold_are_refused_with_the_valid_range() {
        let range =
            "from 1970-01-01 00:00:00.000 to before 2059-01-01 00:00:00.000; write a time in this range";
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
        check_refused("DEDUP_WINDOW_AGE", "14days 1ms", "write at most 14days");
        let age = check_taken("DEDUP_WINDOW_AGE", "14days").window.age_ms;
        assert!(2 * age + HOUR < i64::from(LEDGER_DAYS) * DAY, "the ledger has all of the window");
        check_refused("DEDUP_WINDOW_IDS", "0", "from 1 to 20000000");
        check_refused("DEDUP_WINDOW_IDS", "20000001", "from 1 to 20000000");
        assert_eq!(check_taken("DEDUP_WINDOW_IDS", "1").window.max_ids, 1);
    }

    #[test]
    fn kafka_settings_that_exactly_once_storage_depends_on_cannot_be_set() {
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
        for name in ["heartbeat.interval.ms", "fetch.wait.max.ms", "fetch.error.backoff.ms"] {
            assert_eq!(with(name).expect(name).migrate.kafka.options[name], "1");
        }
    }

    #[test]
    fn kafka_settings_that_librdkafka_refuses_are_found_before_the_start() {
        check_refused("KAFKA_OPT_heartbeat", "5", "KAFKA_OPT_heartbeat is not usable: No such configuration");
        check_refused("KAFKA_OPT_session.timeout.ms", "soon", "Invalid value");
        // The value is valid alone, but contradicts the default of another setting.
        let vars = NEEDED.into_iter().chain([("KAFKA_OPT_max.poll.interval.ms", "1")]);
        let error = Config::from_vars(&Vars::from_pairs(vars)).unwrap_err().to_string();
        assert!(error.starts_with("variable KAFKA_OPT_… is not usable: `max.poll.interval.ms`"), "{error}");
    }

    #[test]
    fn kafka_options_of_the_environment_override_the_defaults() {
        let vars = Vars::from_pairs(NEEDED.into_iter().chain([("KAFKA_OPT_fetch.queue.backoff.ms", "7")]));
        let config = Config::from_vars(&vars).unwrap();
        let client = config.migrate.kafka.client(&[("fetch.queue.backoff.ms", "10")]);
        assert_eq!(client.get("fetch.queue.backoff.ms"), Some("7"));
    }
}
