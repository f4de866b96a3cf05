//! Enriched lines become Kafka records, and requests learn when those are safe.
//!
//! A record once handed to Kafka's client is delivered whether or not its client
//! stays. One that Kafka does not acknowledge in time goes to the spool, if there is
//! one, and so does, while Kafka is away, every record at once; from there it is
//! replayed. If any record that holds a line of a request is safe in neither, the whole
//! request is refused and may be sent again; if it was answered before, its lines are
//! counted as lost. Locks are held for as long as it takes to copy lines, never across
//! an await.
//!
//! What is held here is bounded by `UNACKED_BYTES`: lines in open records and
//! records under way; besides, each partition keeps one buffer of at most a record.

pub mod accumulator;

mod delivery;

mod config;

mod fixed;

mod cluster;

mod replay;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rdkafka::error::KafkaError;
use rdkafka::producer::{Producer as _, PurgeConfig};
use runtime::admin::Readiness;
use schemas::trace::TraceParent;
use tokio::{task, time};

use self::accumulator::Receipt;
use self::cluster::{Cluster, Watch};
pub use self::config::{Ack, KafkaConfig};
use self::delivery::{Lanes, Outbox, Producer, Way};
use self::replay::Replay;
use crate::accept::enrich::{Chunk, Partitions};
use crate::metrics::Metrics;
use crate::outcome::Refusal;
use crate::spool::{Spool, SpoolConfig};

/// How long the end of records is awaited that were given up, or given to the spool.
const PURGE_WAIT: Duration = Duration::from_secs(10);
/// From the end of the durable wait to a record's end: librdkafka looks for what is
/// overdue once a second, and the spool's disk takes its time.
const END_WAIT: Duration = Duration::from_secs(5);

/// Why the publisher cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting that librdkafka does not accept.
    #[error("start kafka's client")]
    Kafka(#[from] KafkaError),
    /// The system has no thread left.
    #[error("start the threads for kafka and the spool")]
    Threads(#[from] std::io::Error),
}

/// Hands lines to Kafka; shared by all requests.
pub struct Publisher {
    // Before the producer: their threads use the producer and end first.
    _watch: Watch,
    _replay: Option<Replay>,
    producer: Arc<Producer>,
    outbox: Arc<Outbox>,
    durable_wait: Duration,
    next_spare: AtomicU32,
}

/// The records that hold the lines of one request.
#[must_use = "a request is safe once its records are"]
pub struct PendingRecords {
    receipts: Vec<Receipt>,
    wait: Duration,
    cluster: Arc<Cluster>,
}

impl Publisher {
    /// Starts Kafka's client. It may find no broker for as long as it likes: this fails
    /// only for settings that librdkafka does not take.
    pub fn start(
        config: &KafkaConfig,
        spool: Option<&SpoolConfig>,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, StartError> {
        let cluster = Arc::new(Cluster::new(config, metrics.kafka_up.clone()));
        let spool = spool.map(|spool| Spool::start(spool, &config.topic, metrics)).transpose()?;
        let outbox = Arc::new(Outbox::new(config, Arc::clone(metrics), Arc::clone(&cluster), spool));
        let producer = delivery::start(config, &outbox)?;
        let watch = cluster::watch(Arc::downgrade(&producer), &cluster)?;
        let has_spool = outbox.spool.is_some();
        let replay =
            has_spool.then(|| replay::start(Arc::downgrade(&producer), &outbox, metrics)).transpose()?;
        Ok(Self {
            _watch: watch,
            _replay: replay,
            producer,
            outbox,
            durable_wait: config.durable_wait,
            next_spare: AtomicU32::new(0),
        })
    }

    /// Where the lines of a new request may go; refused while Kafka was never reached, by
    /// this process or by one before that had the same spool.
    pub fn partitions(&self) -> Result<Partitions<'static>, Refusal> {
        let count = NonZeroU32::new(self.outbox.cluster.partitions()).ok_or(Refusal::NoPartitions)?;
        let spare = self.next_spare.fetch_add(1, Ordering::Relaxed) % count;
        Ok(Partitions { count, spare, hot_keys: None })
    }

    /// Hands over the lines of one request, all or, at the bound, none. `ack` says whether it
    /// waits for their records; `trace`, to which recorded trace it belongs.
    pub fn hand_over(
        &self,
        chunks: Vec<Chunk>,
        ack: Ack,
        trace: Option<TraceParent>,
    ) -> Result<PendingRecords, Refusal> {
        let events = chunks.iter().map(|chunk| u64::from(chunk.lines)).sum();
        let bytes = chunks.iter().map(|chunk| chunk.value.len()).sum();
        let way = self.outbox.admit(events, bytes, ack)?;
        let mut receipts = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            let lanes = self.outbox.lanes_of(chunk.partition);
            let send = |record: &_| self.outbox.send(&self.producer, chunk.partition, way, record);
            let mut appended = lanes.lock(way).append(&chunk, ack, trace, send);
            receipts.append(&mut appended.receipts);
            if appended.appointed {
                self.send_soon(chunk.partition, lanes, way);
            }
        }
        let wait = self.durable_wait + END_WAIT;
        Ok(PendingRecords { receipts, wait, cluster: Arc::clone(&self.outbox.cluster) })
    }

    /// Sends what is open in a lane once whoever is ready to run has had the chance to append: a
    /// task of its own, so that a client that leaves takes nobody's lines with it.
    fn send_soon(&self, partition: u32, lanes: Arc<Lanes>, way: Way) {
        let (outbox, producer) = (Arc::clone(&self.outbox), Arc::clone(&self.producer));
        tokio::spawn(async move {
            task::yield_now().await;
            let send = |record: &_| outbox.send(&producer, partition, way, record);
            lanes.lock(way).send_open(send);
        });
    }

    /// Sends samples of rejected lines, each a line of a record; waits for nothing, and may drop them.
    pub fn send_samples(&self, partition: u32, samples: &[Vec<u8>]) {
        self.outbox.sample(&self.producer, partition, samples);
    }

    /// Whether events can be taken, by Kafka or by the spool.
    pub fn readiness(&self) -> Readiness {
        let cluster = &self.outbox.cluster;
        match (cluster.reached(), &self.outbox.spool) {
            (Ok(()), _) => Readiness::Ready,
            (Err(kafka), Some(spool)) if spool.is_on() && cluster.is_down() && cluster.partitions() > 0 => {
                Readiness::Degraded(format!("{kafka}; events go to the spool"))
            }
            (Err(kafka), Some(spool)) => Readiness::Not(format!("{kafka}; {}", spool.state())),
            (Err(kafka), None) => Readiness::Not(kafka),
        }
    }

    /// Whether Kafka can be reached; says why not.
    pub fn reaches_kafka(&self) -> Result<(), String> {
        self.outbox.cluster.reached()
    }

    /// Waits until Kafka's client has met an error after which it never sends again; says which. What
    /// it had, and all that comes, goes to the spool if there is one.
    pub async fn broken(&self) -> String {
        self.outbox.cluster.broken().await
    }

    /// Records that are in the spool; `None` while it cannot be used.
    pub fn left_in_spool(&self) -> Option<u64> {
        self.outbox.spool.as_ref().filter(|spool| spool.is_open()).map(Spool::records)
    }

    /// Takes nothing more, sends what is open and waits until everything has ended. What has not within
    /// `wait`, or at once while Kafka is away, goes to the spool; without one it is given
    /// up and counted as lost.
    pub async fn flush(&self, wait: Duration) {
        self.outbox.close();
        for (partition, lanes) in self.outbox.all_lanes() {
            for way in [Way::Kafka, Way::Spool] {
                let send = |record: &_| self.outbox.send(&self.producer, partition, way, record);
                lanes.lock(way).finish(send);
            }
        }
        let is_on = self.outbox.spool.as_ref().is_some_and(Spool::is_on);
        let wait = if is_on && self.outbox.cluster.is_down() { Duration::ZERO } else { wait };
        if time::timeout(wait, self.outbox.all_ended()).await.is_err() {
            let events = self.outbox.events();
            match is_on {
                true => tracing::info!(events, "kafka has not taken everything: the rest goes to the spool"),
                false => tracing::error!(events, "kafka took not everything within {wait:?}, giving up"),
            }
            self.producer.purge(PurgeConfig::default().queue().inflight());
            // Purged records report their end like any other.
            let _overran = time::timeout(PURGE_WAIT, self.outbox.all_ended()).await;
        }
    }
}

impl PendingRecords {
    /// Waits until all records are safe; refused when one is nowhere, or took too long.
    pub async fn durable(self) -> Result<(), Refusal> {
        let all = async {
            for receipt in &self.receipts {
                receipt.wait().await.clone()?;
            }
            Ok(())
        };
        time::timeout(self.wait, all).await.unwrap_or_else(|_| {
            self.cluster.doubt();
            Err(Refusal::NotDurable)
        })
    }
}
