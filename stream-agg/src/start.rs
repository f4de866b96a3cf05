//! Starts the aggregator, and stops its parts in the order in which data passes through them.

use std::collections::BTreeSet;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;
use runtime::admin;
use runtime::backoff::RetryPolicy;
use schemas::field::Field;
use schemas::time::UnixMillis;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio::time;
use tokio_util::sync::CancellationToken;

use crate::apply::configs;
use crate::apply::insert::Inserter;
use crate::apply::server::AnotherServer;
use crate::apply::since::{self, SinceRow};
use crate::apply::store::{Store, StoreError};
use crate::apply::tables::{self, InsertGate, TableWatch};
use crate::config::{Config, KafkaConfig};
use crate::group::applied_watches::AppliedWatches;
use crate::group::{self, GroupError, RELEASE_TIMEOUT, orphans};
use crate::health::{Component, Health};
use crate::kafka::client;
use crate::kafka::timestamps::{self, Admin, TimestampType};
use crate::kafka::topic::TopicWatch;
use crate::metrics::{Counts, Metrics};
use crate::ops::audit::Auditor;
use crate::ops::freshness::ProgressPublisher;
use crate::ops::in_use;
use crate::pipeline::budget::LargeBatchBudget;
use crate::pipeline::context::Services;
use crate::protocol::declaration::Declaration;
use crate::protocol::since::{NOT_COUNTED, introduced};

/// The waits between attempts to reach Kafka and ClickHouse, and to find the topic and the tables.
const START_RETRIES: RetryPolicy = RetryPolicy::new(Duration::from_millis(200), Duration::from_secs(5));
/// Maximum number of log lines and errors that are read from Kafka's client after each failed request.
const MAX_EVENTS: usize = 100;
/// Timeout of the metadata request for the topic.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum time for the member to leave the group, in addition to [`RELEASE_TIMEOUT`], within which its pipelines end.
pub(crate) const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// What was stored while the aggregator ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Batches applied.
    pub batches: u64,
    /// Records in the batches.
    pub records: u64,
    /// Lines in the records.
    pub lines: u64,
    /// Lines that became rows.
    pub rows: u64,
    /// Lines that became dead letters.
    pub rejected: u64,
}

/// Why the aggregator failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The process cannot be a member of its consumer group.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// A rollup or field was declared before with another meaning under the same name.
    #[error("{0} was declared differently before: undo the change, or declare it under another name")]
    Changed(String),
    /// A dropped rollup is declared again.
    #[error("rollup `{0}` was dropped and cannot be declared again: give it another name")]
    Dropped(String),
    /// The address of ClickHouse leads to more than one server.
    #[error(transparent)]
    Server(#[from] AnotherServer),
    /// The system cannot start a thread.
    #[error("start the thread that polls kafka")]
    Thread(#[source] std::io::Error),
}

/// Stores records until `shutdown`. Waits for Kafka and ClickHouse without a time limit. The admin port answers during
/// the whole call, also while this function waits or shuts down.
///
/// # Errors
/// An error that this process cannot fix by a retry. An outage of Kafka or ClickHouse is not such an error.
pub async fn run(
    config: Config,
    admin: TcpListener,
    shutdown: CancellationToken,
) -> Result<Summary, RunError> {
    let (metrics, health) =
        (Arc::new(Metrics::default()), Arc::new(Health::new(&config.migrate.kafka.brokers)));
    let topic = &config.migrate.kafka.topic;
    let failed = |source| GroupError::Kafka { topic: topic.clone(), source };
    let metadata_client = Arc::new(client::metadata_client(&config).map_err(failed)?);
    let admin_client = client::admin_client(&config).map_err(failed)?;
    let admin_end = CancellationToken::new();
    let _ends_last = admin_end.clone().drop_guard();
    let asked = Arc::clone(&health);
    let page =
        admin::Admin { registry: metrics.registry.clone(), readiness: Box::new(move || asked.readiness()) };
    tokio::spawn(page.serve(admin, admin_end));

    let store = Store::new(&config.migrate.store);
    let found = async {
        let topic = async {
            wait_for_topic(&metadata_client, &config.migrate.kafka, &health).await;
            wait_for_log_append_time(&admin_client, &config.migrate.kafka, &health).await;
        };
        tokio::join!(topic, wait_for_tables(&store, config.migrate.rollups.fields(), &health))
    };
    if shutdown.run_until_cancelled(found).await.is_some() {
        let (servers, stop) = (Arc::clone(&store.servers), shutdown.child_token());
        let mut consuming = pin!(consume(config, metadata_client, store, &metrics, &health, stop.clone()));
        tokio::select! {
            consumed = &mut consuming => consumed?,
            several = servers.wait_for_second() => {
                // Once a second server has answered, `Store` runs no more statements. An insert that is still sent can
                // store rows only on the first server, because the condition of the insert contains the id of that
                // server. So this process can stop as on a shutdown: it commits no offset beyond the batches that the
                // first server has.
                stop.cancel();
                consuming.await?;
                return Err(several.into());
            }
        }
    }
    let (batches, Counts { records, lines, rows, rejected, .. }) = metrics.counts();
    Ok(Summary { batches, records, lines, rows, rejected })
}

/// Runs a member of the group until `shutdown`.
async fn consume(
    config: Config,
    metadata_client: Arc<BaseConsumer>,
    store: Store,
    metrics: &Arc<Metrics>,
    health: &Arc<Health>,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let topic = config.migrate.kafka.topic.clone();
    let applied_watches = Arc::new(AppliedWatches::default());
    let Some(declared) = shutdown.run_until_cancelled(declare(&store, &config, health)).await else {
        return Ok(());
    };
    let declaration = Arc::new(declared?);
    let gate = Arc::new(InsertGate::default());
    let inserter =
        Inserter::new(&config.migrate.store, store.clone(), Arc::clone(metrics), Arc::clone(health));
    let topic_watch =
        Arc::new(TopicWatch::new(topic.clone(), Arc::clone(&metadata_client), Arc::clone(health)));
    let services = Arc::new(Services {
        topic: topic.clone(),
        batch: config.batch.clone(),
        large_batches: LargeBatchBudget::new(&config.batch),
        declaration: Arc::clone(&declaration),
        store: store.clone(),
        inserter: Arc::new(inserter.with_gate(Arc::clone(&gate))),
        metrics: Arc::clone(metrics),
        health: Arc::clone(health),
        topic_watch: Arc::clone(&topic_watch),
        assigned: Notify::new(),
        runtime: Handle::current(),
    });
    let auditor = Auditor {
        store: store.clone(),
        declaration,
        applied_watches: Arc::clone(&applied_watches),
        metrics: Arc::clone(metrics),
    };
    let publisher = ProgressPublisher {
        topic,
        topic_watch,
        metadata_client: Arc::clone(&metadata_client),
        applied_watches: Arc::clone(&applied_watches),
        store,
        metrics: Arc::clone(metrics),
        health: Arc::clone(health),
    };
    let published = CancellationToken::new();
    let publishing = tokio::spawn(publisher.run(config.progress_interval, published.clone()));

    let auditing = tokio::spawn(auditor.run(config.audit_interval, published.clone()));
    tokio::spawn(watch_tables(Arc::clone(&services), gate, shutdown.clone()));
    let config = Arc::new(config);
    let (watched, watching) = (Arc::clone(&config), Arc::clone(&services));
    tokio::spawn(orphans::watch(watched, watching, metadata_client, shutdown.clone()));

    let (ended, mut end) = oneshot::channel();
    let stop = shutdown.clone();
    thread::Builder::new()
        .name("consume".to_owned())
        .spawn(move || {
            // The send fails if the member took too long to leave the group, because the receiver was then dropped.
            let _late = ended.send(group::run_member(&config, &services, &applied_watches, &stop));
        })
        .map_err(RunError::Thread)?;
    let outcome = tokio::select! {
        outcome = &mut end => outcome,
        () = shutdown.cancelled() => match time::timeout(RELEASE_TIMEOUT + LEAVE_TIMEOUT, end).await {
            Ok(outcome) => outcome,
            Err(_) => {
                tracing::warn!("this member did not leave the consumer group in time; records from the committed offsets on are read again");
                Ok(Ok(()))
            }
        },
    };
    published.cancel();
    let _ended = tokio::join!(publishing, auditing);
    outcome.expect("the thread that polls kafka does not panic")?;
    Ok(())
}

/// Checks the tables periodically while batches are inserted, until `shutdown`.
async fn watch_tables(services: Arc<Services>, gate: Arc<InsertGate>, shutdown: CancellationToken) {
    let Services { store, declaration, metrics, health, .. } = &*services;
    let watch = TableWatch { store, fields: declaration.rollups.fields(), gate: &gate, metrics, health };
    watch.run(&shutdown).await;
}

/// Stores the declaration of this process before any batch is declared under it, and before the process is ready.
///
/// # Errors
/// A rollup or field was changed under its name, or a dropped rollup is declared again.
async fn declare(store: &Store, config: &Config, health: &Health) -> Result<Declaration, RunError> {
    let declared = async || {
        let ours = configs::own_declaration(store, config).await?;
        // `noted` is the version of the rows that this process stores in `rollup_since`: ClickHouse's time before the
        // rows are stored. If another process declares the same rollups at the same time, the rows that the other
        // process stores later have a higher version, so the rows of this process do not replace them.
        let noted = since::now(store).await?;
        let earlier = configs::all(store).await?;
        if let Some(changed) = configs::changed(&ours.rollups, &earlier) {
            return Ok(Err(RunError::Changed(changed)));
        }
        if let Some(dropped) = configs::dropped(store, &ours.rollups).await? {
            return Ok(Err(RunError::Dropped(dropped)));
        }
        let introduced = introduced(&ours.rollups, &earlier);
        if !introduced.is_empty() {
            introduce(store, &introduced, &committed_partitions(config, health).await, noted).await?;
        }
        configs::write(store, &ours).await?;
        Ok::<_, StoreError>(Ok(ours))
    };
    health.retry_clickhouse(declared).await
}

/// Stores, for each of the `partitions`, that the new `rollups` do not count its events yet. The caller must store the
/// declaration after this call: readers must not treat the rollups as complete until each of the partitions has had an
/// owner that declares the rollups.
async fn introduce(
    store: &Store,
    rollups: &BTreeSet<&str>,
    partitions: &[u16],
    noted: UnixMillis,
) -> Result<(), StoreError> {
    let row = |rollup, partition: &u16| SinceRow { rollup, partition: *partition, since: NOT_COUNTED, noted };
    let rows =
        rollups.iter().flat_map(|rollup| partitions.iter().map(move |partition| row(*rollup, partition)));
    since::write(store, &rows.collect::<Vec<_>>()).await
}

/// The Kafka partitions whose records may have been counted already: those with a committed offset. Retries until Kafka
/// answers.
async fn committed_partitions(config: &Config, health: &Health) -> Vec<u16> {
    let mut backoff = START_RETRIES.backoff();
    loop {
        let config = config.clone();
        match tokio::task::spawn_blocking(move || in_use::committed_partitions(&config)).await {
            Ok(Ok(partitions)) => {
                health.recovered(Component::Kafka);
                return partitions;
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "ask kafka for the committed offsets");
                health.kafka_unreachable();
            }
            // The blocking task panicked, or the runtime shuts down and then also drops this loop.
            Err(_) => {}
        }
        time::sleep(backoff.wait()).await;
    }
}

/// Waits until Kafka has the topic.
async fn wait_for_topic(metadata_client: &Arc<BaseConsumer>, kafka: &KafkaConfig, health: &Health) {
    let mut backoff = START_RETRIES.backoff();
    let mut refusal = None;
    loop {
        let (metadata_client, topic) = (Arc::clone(metadata_client), kafka.topic.clone());
        let asked = tokio::task::spawn_blocking(move || {
            match metadata_client.fetch_metadata(Some(&topic), ASK_TIMEOUT) {
                Ok(metadata) => {
                    Ok(metadata.topics().iter().any(|t| t.name() == topic && !t.partitions().is_empty()))
                }
                Err(_) => Err(refused(&metadata_client)),
            }
        });
        let KafkaConfig { brokers, topic, .. } = kafka;
        match asked.await {
            Ok(Ok(true)) => return health.recovered(Component::Kafka),
            Ok(Ok(false)) => {
                refusal = None;
                health.degraded(
                    Component::Kafka,
                    format!("{brokers} has no topic `{topic}`: run `stream-agg migrate`"),
                );
            }
            Ok(Err(now)) => {
                // Kafka's client reports the reason only once, so this loop keeps the latest reason.
                refusal = now.or(refusal);
                match refusal {
                    Some(reason) => health.degraded(Component::Kafka, format!("{brokers}: {reason}")),
                    None => health.kafka_unreachable(),
                }
            }
            // The blocking task panicked, or the runtime shuts down and then also drops this loop.
            Err(_) => {}
        }
        time::sleep(backoff.wait()).await;
    }
}

/// Waits until the topic's `message.timestamp.type` is `LogAppendTime`, so that Kafka sets the times of records. If
/// this process has no right to read the setting, or Kafka's answer does not contain the setting, this function logs a
/// warning and does not wait.
async fn wait_for_log_append_time(admin: &Admin, kafka: &KafkaConfig, health: &Health) {
    let mut backoff = START_RETRIES.backoff();
    loop {
        match timestamps::timestamp_type(admin, &kafka.topic).await {
            Ok(TimestampType::LogAppendTime) => break,
            Ok(TimestampType::Unknown) => {
                tracing::warn!("{}", timestamps::warning(&kafka.topic));
                break;
            }
            Ok(TimestampType::CreateTime) => health.degraded(Component::Kafka, timestamps::help(kafka)),
            Err(error) => {
                tracing::debug!(%error, "describe topic `{}`", kafka.topic);
                health.kafka_unreachable();
            }
        }
        time::sleep(backoff.wait()).await;
    }
    health.recovered(Component::Kafka);
}

/// The reason why Kafka refuses this client, if librdkafka reports that the login or the TLS handshake failed.
fn refused(metadata_client: &BaseConsumer) -> Option<&'static str> {
    // A poll also returns `None` for a log line of the client, and there are several log lines for each error. So a
    // `None` does not mean that there is no error, and the polls continue.
    let mut events = (0..MAX_EVENTS).filter_map(|_| metadata_client.poll(Duration::ZERO));
    events.find_map(|event| match event.err()?.rdkafka_error_code()? {
        RDKafkaErrorCode::Authentication => Some("the broker refuses the login: authentication failed"),
        RDKafkaErrorCode::SSL => {
            Some("the TLS handshake failed; KAFKA_OPT_ssl.ca.location names the certificates to trust")
        }
        _ => None,
    })
}

/// Waits until the check of the tables in ClickHouse finds no problem.
async fn wait_for_tables(store: &Store, fields: &[Field], health: &Health) {
    let mut backoff = START_RETRIES.backoff();
    // ClickHouse is not reported as recovered yet, because that could make this process ready. Readers may ask for the
    // declaration of a ready process, but this process stores its declaration later.
    while let Err(error) = tables::check(store, fields).await {
        health.degraded(Component::ClickHouse, error);
        time::sleep(backoff.wait()).await;
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { batches, records, lines, rows, rejected } = self;
        write!(
            f,
            "{rows} rows and {rejected} rejected of {lines} lines, {records} records, {batches} batches"
        )
    }
}
