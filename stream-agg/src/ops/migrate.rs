//! `stream-agg migrate`: creates the database, the tables and the topic if they are missing, creates or replaces all
//! views for analysts, and drops views that are no longer declared. Also creates and removes the databases and users
//! of tenants.
//!
//! A step is an SQL file, a declared field, a rollup, or a serving view (a materialized view for the query API).
//! Invariant: a step never changes once it is applied. If its text differs from the text that was applied under the
//! same name, the migration fails. Two processes may migrate at the same time, because each statement can be repeated:
//! it has `IF NOT EXISTS` or `IF EXISTS`, or it puts an object into the declared state again. An existing topic is
//! checked and never changed.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::{MetadataPartition, MetadataTopic};
use runtime::backoff::RetryPolicy;
use schemas::{access, tables};
use tokio::time::{self, Instant};
use xxhash_rust::xxh3::xxh3_64;

use crate::apply::configs::DROPPED;
use crate::apply::store::{Store, StoreError};
use crate::apply::visible::{self, REMEDY};
use crate::config::MigrateConfig;
use crate::kafka::timestamps::{self, Admin, TimestampType};

mod tenants;

mod views;

use self::views::ViewChanges;

/// The backoff after a transient error of Kafka or ClickHouse.
const MIGRATE_RETRIES: RetryPolicy = RetryPolicy::new(Duration::from_millis(200), Duration::from_secs(5));
/// The backoff while the partitions of a new topic have no leaders.
const LEADER_RETRIES: RetryPolicy = RetryPolicy::new(Duration::from_millis(20), Duration::from_millis(500));
/// Timeout of one request to Kafka.
const KAFKA_TIMEOUT: Duration = Duration::from_secs(10);

/// The result of a migration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    /// The steps that this migration applied, by name: files, fields, rollups and serving views.
    pub applied: Vec<String>,
    /// Number of views over all tenants that were created or replaced. The views of single tenants are not counted.
    pub views: usize,
    /// Views of earlier declarations that were dropped, by name.
    pub dropped_views: Vec<String>,
    /// Number of tenants that have a database of their own.
    pub tenants: usize,
    /// Tenants that were removed, by name. The database of a removed tenant stays if it contains objects that
    /// migrations did not create.
    pub dropped_tenants: Vec<String>,
    /// Whether the topic was created.
    pub topic_created: bool,
}

/// Why the migration failed.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The declaration of a field or rollup, or the statement of a serving view, was changed after it was applied.
    #[error(
        "migrate: `{0}` was changed after it was applied; undo the change, or declare it under another name"
    )]
    Changed(String),
    /// A dropped rollup is declared again.
    #[error("migrate: rollup `{0}` was dropped and cannot be declared again: give it another name")]
    Dropped(String),
    /// Another release created the tables from a different version of an SQL file.
    #[error(
        "migrate: the tables were created from a different version of `{0}`; use an empty database (`./dev up \
         --fresh` deletes the local data)"
    )]
    OtherRelease(String),
    /// A statement failed.
    #[error("run a statement about `{name}`")]
    Apply {
        /// The step, or the object of the statement.
        name: String,
        /// The error of ClickHouse.
        source: StoreError,
    },
    /// A table has the name of a view.
    #[error("create view `{0}`: a table has this name; set BI_DATABASE to a database without tables")]
    NotAView(String),
    /// This version of ClickHouse does not isolate tenants from each other.
    #[error(
        "create databases of tenants on ClickHouse {0}: readers of views can reach rows of other tenants in this \
         version (ClickHouse issues 116028 and 118063); use 26.6.5.113, 26.7.7.84, 26.8.3.74 or later, or set \
         BI_ALLOW_OLD_SERVER=1 if analysts of one tenant may read the rows of others"
    )]
    OldServer(String),
    /// The server takes its users from a file, so a statement cannot create them.
    #[error(
        "create the users of tenant `{0}`: this ClickHouse takes its users from a file; add the users that `stream-agg \
         migrate --print-users-xml` prints to that file, or configure a `local_directory` for users, and run `migrate` \
         again"
    )]
    UsersAreInAFile(String),
    /// The definer of a tenant's views could read rows of other tenants, because its row policy is missing or has
    /// another condition.
    #[error(
        "create views with the rights of `{0}`: they could show rows of other tenants, because this user lacks the row \
         policy that `stream-agg migrate --print-users-xml` prints"
    )]
    NoPolicy(String),
    /// Another permissive row policy could show the definer rows of other tenants.
    #[error(
        "create views with the rights of `{1}`: the row policy `{0}` also applies to this user and could show \
         this user rows of more than one tenant; exclude the definers of tenants from that policy with `TO ALL \
         EXCEPT`, or drop the policy"
    )]
    OtherPolicy(String, String),
    /// The database of a tenant exists, and `migrate` did not create it.
    #[error(
        "create database `{0}` of a tenant: it exists, and `migrate` did not create it; rename or drop it, remove \
         the tenant from TENANTS_FILE, or set another BI_DATABASE"
    )]
    NotOurs(String),
    /// A row policy hides rows from the user that runs `migrate`.
    #[error(
        "check that no row policy hides rows: this user sees no row of `{0}.schema_migrations`, although every migration \
         adds one: {REMEDY}"
    )]
    Hidden(String),
    /// A request to create or check the topic failed.
    #[error("create or check topic `{topic}`")]
    Topic {
        /// The name of the topic.
        topic: String,
        /// The error of Kafka.
        source: KafkaError,
    },
    /// The topic exists, and its producers set the timestamps of records.
    #[error("use topic `{topic}`: {help}")]
    Timestamps {
        /// The name of the topic.
        topic: String,
        /// How an operator makes Kafka set the timestamps.
        help: String,
    },
}

/// Applies the missing steps, updates views and tenants, and creates the topic if it is missing. If Kafka or ClickHouse
/// is not ready, retries for at most [`MigrateConfig::deadline`].
///
/// # Errors
/// A permanent error at once, or a transient error if no time is left for another attempt.
pub async fn migrate(config: &MigrateConfig) -> Result<Migrated, MigrateError> {
    let deadline = Instant::now() + config.deadline;
    let applied = retry_until(deadline, "clickhouse", || tables(config)).await?;
    retry_until(deadline, "clickhouse", || check_rows_are_visible(config)).await?;
    let ViewChanges { views, dropped } = retry_until(deadline, "clickhouse", || views::make(config)).await?;
    let of_tenants = retry_until(deadline, "clickhouse", || tenants::make(config)).await?;
    let topic_created = retry_until(deadline, "kafka", || topic(config)).await?;
    let tenants::TenantChanges { tenants, dropped: dropped_tenants } = of_tenants;
    Ok(Migrated { applied, views, dropped_views: dropped, tenants, dropped_tenants, topic_created })
}

/// The statements that create all ClickHouse users of Millrace, and give each of them exactly the rights that it needs.
pub fn grants(config: &MigrateConfig) -> Vec<String> {
    access::sql::statements(&config.users()).into_iter().map(|statement| format!("{statement};")).collect()
}

/// All ClickHouse users of Millrace, as a configuration file of ClickHouse (`users.xml`).
pub fn users_xml(config: &MigrateConfig) -> String {
    access::xml::file(access::xml::FILE_COMMENT, &config.users(), access::xml::LoginSource::Variables)
}

/// Repeats `attempt` until it succeeds or fails permanently, or until the next attempt would begin after the deadline.
async fn retry_until<T, F>(
    deadline: Instant,
    what: &str,
    mut attempt: impl FnMut() -> F,
) -> Result<T, MigrateError>
where
    F: Future<Output = Result<T, MigrateError>>,
{
    let mut backoff = MIGRATE_RETRIES.backoff();
    let mut warned = false;
    loop {
        let error = match attempt().await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let wait = backoff.wait();
        if !error.is_transient() || Instant::now() + wait > deadline {
            return Err(error);
        }
        if !std::mem::replace(&mut warned, true) {
            let left = deadline - Instant::now();
            tracing::warn!(
                "{what} cannot be reached or is not ready; retrying for {} s: {}",
                left.as_secs(),
                anyhow::Error::from(error).root_cause()
            );
        }
        time::sleep(wait).await;
    }
}

impl MigrateError {
    fn is_transient(&self) -> bool {
        match self {
            Self::Changed(_)
            | Self::Dropped(_)
            | Self::OtherRelease(_)
            | Self::NotAView(_)
            | Self::OldServer(_)
            | Self::UsersAreInAFile(_)
            | Self::NoPolicy(_)
            | Self::OtherPolicy(..)
            | Self::NotOurs(_)
            | Self::Hidden(_)
            | Self::Timestamps { .. } => false,
            Self::Apply { source, .. } => source.is_transient(),
            Self::Topic { source: KafkaError::AdminOp(code), .. } => is_transient(*code),
            // Kafka's client refuses a setting or an argument, which it would refuse again.
            Self::Topic { source: KafkaError::ClientCreation(_) | KafkaError::ClientConfig(..), .. }
            | Self::Topic { source: KafkaError::AdminOpCreation(_), .. } => false,
            Self::Topic { .. } => true,
        }
    }
}

/// Whether Kafka may accept the same request later.
fn is_transient(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as C;
    !matches!(
        code,
        C::InvalidTopic
            | C::InvalidPartitions
            | C::InvalidReplicationFactor
            | C::InvalidConfig
            | C::TopicAuthorizationFailed
            | C::ClusterAuthorizationFailed
            | C::PolicyViolation
    )
}

/// Checks that row policies hide nothing from this user. The aggregator makes the same check for its own user when it
/// starts.
async fn check_rows_are_visible(config: &MigrateConfig) -> Result<(), MigrateError> {
    let store = Store::new(&config.store);
    let are_visible = visible::are_rows_visible(&store).await.map_err(failed("schema_migrations"))?;
    if are_visible { Ok(()) } else { Err(MigrateError::Hidden(config.store.database.clone())) }
}

/// Applies the steps that are not applied yet. Returns their names.
async fn tables(config: &MigrateConfig) -> Result<Vec<String>, MigrateError> {
    let database = &config.store.database;
    let server = Store::without_database(&config.store);
    apply(&server, database, &format!("CREATE DATABASE IF NOT EXISTS {database}")).await?;
    let store = Store::new(&config.store);
    apply(&store, "schema_migrations", APPLIED_TABLE).await?;
    // `has_rows` is read before `applied`. In the opposite order, the first rows that another migration writes between
    // the two reads would look like rows that a policy hides.
    let has_rows = visible::has_rows(&store).await.map_err(failed("system.parts"))?;
    let applied: Vec<(String, u64)> = store
        .rows("SELECT name, checksum FROM schema_migrations")
        .await
        .map_err(failed("schema_migrations"))?;
    if applied.is_empty() && has_rows {
        return Err(MigrateError::Hidden(database.clone()));
    }

    let was_dropped = |name: &str| applied.iter().any(|(other, _)| other.strip_prefix(DROPPED) == Some(name));
    if let Some(rollup) = config.rollups.iter().find(|rollup| was_dropped(&rollup.name)) {
        return Err(MigrateError::Dropped(rollup.name.clone()));
    }
    let files = tables::MIGRATIONS.iter().map(|file| Step::applied(file.name, file.sql.to_owned()));
    let steps = files.chain(config.fields()).chain(config.declared_rollups()).chain(config.serving_views());
    let mut done = Vec::new();
    for Step { name, text, is_statement } in steps {
        let checksum = xxh3_64(text.as_bytes());
        match applied.iter().find(|(other, _)| *other == name) {
            Some((_, known)) if *known == checksum => continue,
            Some(_) if tables::MIGRATIONS.iter().any(|file| file.name == name) => {
                return Err(MigrateError::OtherRelease(name));
            }
            Some(_) => return Err(MigrateError::Changed(name)),
            None if is_statement => apply(&store, &name, &text).await?,
            None => {}
        }
        let note = format!("INSERT INTO schema_migrations (name, checksum) VALUES ('{name}', {checksum})");
        apply(&store, &name, &note).await?;
        done.push(name);
    }
    Ok(done)
}

/// The table is a ReplacingMergeTree, because two processes may record the same step.
const APPLIED_TABLE: &str = "CREATE TABLE IF NOT EXISTS schema_migrations (name String COMMENT 'file or rollup', \
     checksum UInt64 COMMENT 'of its statement', applied_at DateTime64(3, 'UTC') DEFAULT now64(3)) \
     ENGINE = ReplacingMergeTree ORDER BY name";

/// A step of the migration, which is recorded once it is done.
struct Step {
    name: String,
    text: String,
    /// Whether the text is a statement for ClickHouse; otherwise the text is only checked for changes.
    is_statement: bool,
}

impl Step {
    fn applied(name: &str, text: String) -> Self {
        Self { name: name.to_owned(), text, is_statement: true }
    }
}

impl MigrateConfig {
    /// The columns of declared fields. If a field is removed from ROLLUPS_FILE, its column stays, because a batch that
    /// was declared before may still insert into the column.
    fn fields(&self) -> impl Iterator<Item = Step> {
        let fields = self.rollups.fields().iter();
        fields.map(|field| Step::applied(&format!("field_{}", field.name), field.add_column()))
    }

    /// The serving views whose rollups are declared.
    fn serving_views(&self) -> impl Iterator<Item = Step> {
        let served = tables::SERVING_VIEWS.iter();
        served.filter_map(|view| Some(Step::applied(view.migration.name, view.statement(&self.rollups)?)))
    }

    /// The declaration of each rollup. All rollups share two tables, so no statement is run. A declaration must not
    /// change under the same name, because queries would add up rows of the old and the new declaration. The prefix
    /// `rollup_` distinguishes the names of these steps from those of files.
    fn declared_rollups(&self) -> impl Iterator<Item = Step> {
        self.rollups.iter().map(|rollup| Step {
            name: format!("rollup_{}", rollup.name),
            text: rollup.to_string(),
            is_statement: false,
        })
    }
}

async fn apply(store: &Store, name: &str, sql: &str) -> Result<(), MigrateError> {
    store.execute(sql).await.map_err(failed(name))
}

/// Turns the error of a statement about the object `name` into an error of the migration.
fn failed(name: &str) -> impl Fn(StoreError) -> MigrateError {
    move |source| MigrateError::Apply { name: name.to_owned(), source }
}

/// Waits until Kafka names a leader for every partition of a new topic. Brokers learn of a topic some time after the
/// controller has created it, and until then they answer that its partitions are unknown. Gives up after
/// [`KAFKA_TIMEOUT`] without an error, because the services wait for the topic as well.
async fn wait_for_leaders(admin: Admin, topic: String) {
    let until = Instant::now() + KAFKA_TIMEOUT;
    let admin = Arc::new(admin);
    let mut backoff = LEADER_RETRIES.backoff();
    while Instant::now() < until {
        let (client, name) = (Arc::clone(&admin), topic.clone());
        let asked =
            tokio::task::spawn_blocking(move || client.inner().fetch_metadata(Some(&name), KAFKA_TIMEOUT));
        if let Ok(Ok(metadata)) = asked.await
            && metadata.topics().iter().all(has_leaders)
        {
            return;
        }
        time::sleep(backoff.wait()).await;
    }
}

fn has_leaders(topic: &MetadataTopic) -> bool {
    // Kafka's -1 means that no leader is elected yet.
    let led = |partition: &MetadataPartition| partition.error().is_none() && partition.leader() >= 0;
    topic.error().is_none() && !topic.partitions().is_empty() && topic.partitions().iter().all(led)
}

/// Creates the topic unless it exists. Returns whether it was created.
///
/// An existing topic is never changed, because the tool that manages the topic might undo the change. If a setting of
/// the topic is wrong, the error says how an operator changes it.
async fn topic(config: &MigrateConfig) -> Result<bool, MigrateError> {
    let topic = &config.kafka.topic;
    let error = |source| MigrateError::Topic { topic: topic.clone(), source };
    let admin: Admin = config.kafka.client(&[]).create().map_err(error)?;
    // Kafka must set the times of records (`LogAppendTime`). If the edges set them, the times could go backwards within
    // a partition, because the clocks of edges differ.
    let wanted = NewTopic::new(
        topic,
        config.partitions.get().into(),
        TopicReplication::Fixed(config.replication.get().into()),
    )
    .set(timestamps::SETTING.0, timestamps::SETTING.1);
    let options =
        AdminOptions::new().request_timeout(Some(KAFKA_TIMEOUT)).operation_timeout(Some(KAFKA_TIMEOUT));
    let answers = admin.create_topics([&wanted], &options).await.map_err(error)?;
    for answer in answers {
        match answer {
            Ok(_) => {
                wait_for_leaders(admin, topic.clone()).await;
                return Ok(true);
            }
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, code)) => return Err(error(KafkaError::AdminOp(code))),
        }
    }
    match timestamps::timestamp_type(&admin, topic).await.map_err(error)? {
        TimestampType::LogAppendTime => {}
        TimestampType::Unknown => tracing::warn!("{}", timestamps::warning(topic)),
        TimestampType::CreateTime => {
            let help = timestamps::help(&config.kafka);
            return Err(MigrateError::Timestamps { topic: topic.clone(), help });
        }
    }
    Ok(false)
}

impl fmt::Display for Migrated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tables =
            if self.applied.is_empty() { "nothing to apply".to_owned() } else { self.applied.join(", ") };
        let topic = if self.topic_created { "created" } else { "exists" };
        let dropped = match &self.dropped_views[..] {
            [] => String::new(),
            names => format!(", dropped {}", names.join(", ")),
        };
        write!(f, "{tables}; {} views{dropped}; ", self.views)?;
        match (self.tenants, &self.dropped_tenants[..]) {
            (0, []) => {}
            (made, []) => write!(f, "{made} tenants; ")?,
            (made, dropped) => write!(f, "{made} tenants, dropped {}; ", dropped.join(", "))?,
        }
        write!(f, "topic {topic}")
    }
}
