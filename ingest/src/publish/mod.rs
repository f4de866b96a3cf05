//! Collects enriched lines into Kafka records, and reports to requests when their records are durable.
//!
//! The steps of a line: `admission` counts it, `routing` chooses between Kafka and the spool, an [`accumulator`]
//! appends it to a record, and `delivery` sends the record and receives its result. Once a line is in a record, the
//! record is sent even if the HTTP client disconnects.
//!
//! If there is a spool, a record that Kafka does not acknowledge in time goes to the spool. While Kafka is unreachable,
//! every record goes to the spool at once. `replay` sends the records of the spool to Kafka later. If neither Kafka nor
//! the spool confirms a record, each request with lines in the record is refused as a whole, and the response asks
//! the client to send the request again. If a request was already answered, its lines in the record are counted as
//! lost.
//!
//! Memory: `UNACKED_BYTES` bounds the bytes of the lines in open records and in records in flight. In addition, each
//! partition has two accumulators, and each of them keeps a buffer of at most one record. A lock is held only while
//! lines are copied and records are handed to librdkafka or to the spool, never across an await.

mod config;

mod fixed;

mod admission;

mod routing;

pub mod accumulator;

mod accumulators;

mod delivery;

mod pending;

mod kafka;

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

use self::accumulators::PartitionAccumulators;
use self::admission::Admission;
use self::cluster::{Cluster, Watch};
pub(crate) use self::config::DEFAULT_PORT;
pub use self::config::{Ack, KafkaConfig};
use self::delivery::Delivery;
use self::kafka::Producer;
pub use self::pending::PendingRecords;
use self::replay::Replay;
use self::routing::{Destination, Router};
use crate::accept::enrich::{Chunk, Partitions};
use crate::metrics::Metrics;
use crate::outcome::Refusal;
use crate::spool::{Spool, SpoolConfig};

/// How long [`Publisher::flush`] waits for the records that it purges from librdkafka. If there is a spool, these
/// records are written to the spool during this time.
pub(crate) const PURGE_WAIT: Duration = Duration::from_secs(10);
/// How much longer than `DURABLE_WAIT` a request waits for its records. `DURABLE_WAIT` alone is too short, because
/// librdkafka checks for timed-out records only once a second, and a timed-out record must then be written to the
/// spool. Even the longer wait can be too short for a record that is not sent at once: while two earlier records of its
/// partition are in flight, it waits until one of them is stored or has failed. Its requests are then refused, although
/// the record may still be stored.
const END_WAIT: Duration = Duration::from_secs(5);

/// Why the publisher cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// librdkafka does not accept a setting.
    #[error("start kafka's client")]
    Kafka(#[from] KafkaError),
    /// The system cannot start another thread.
    #[error("start the threads for kafka and the spool")]
    Threads(#[from] std::io::Error),
}

/// Sends lines to Kafka or to the spool; shared by all requests.
pub struct Publisher {
    // The threads of these two fields use the producer. Rust drops fields in the order of their declaration. So, before
    // `producer` is dropped, the watch thread has been told to stop, and the replay thread has ended.
    _watch: Watch,
    _replay: Option<Replay>,
    producer: Arc<Producer>,
    delivery: Arc<Delivery>,
    durable_wait: Duration,
    next_spare: AtomicU32,
}

impl Publisher {
    /// Starts Kafka's client without waiting for a broker. Fails only for settings that librdkafka does not accept, or
    /// if a thread cannot be started.
    pub fn start(
        config: &KafkaConfig,
        spool: Option<&SpoolConfig>,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, StartError> {
        let cluster = Arc::new(Cluster::new(config, metrics.kafka_up.clone()));
        let spool = spool.map(|spool| Spool::start(spool, &config.topic, metrics)).transpose()?;
        let has_spool = spool.is_some();
        let admission = Admission::new(config.unacked_bytes, Arc::clone(metrics));
        let router = Router { cluster: Arc::clone(&cluster), spool };
        let delivery = Arc::new(Delivery::new(&config.topic, admission, router, Arc::clone(metrics)));
        let producer = kafka::start(config, &delivery)?;
        delivery.set_producer(&producer);
        let watch = cluster::watch(Arc::downgrade(&producer), &cluster)?;
        let replay = has_spool.then(|| replay::start(&producer, &delivery, metrics)).transpose()?;
        Ok(Self {
            _watch: watch,
            _replay: replay,
            producer,
            delivery,
            durable_wait: config.durable_wait,
            next_spare: AtomicU32::new(0),
        })
    }

    /// The partitions among which the lines of a new request are distributed. The request is refused if neither this
    /// process nor an earlier process with the same spool has reached Kafka, because the number of partitions is then
    /// not known.
    pub fn partitions(&self) -> Result<Partitions<'static>, Refusal> {
        let count = NonZeroU32::new(self.cluster().partitions()).ok_or(Refusal::NoPartitions)?;
        let spare = self.next_spare.fetch_add(1, Ordering::Relaxed) % count;
        Ok(Partitions { count, spare, hot_keys: None })
    }

    /// Publishes the lines of one request: either all lines are accepted, or all are refused, for example because they
    /// would exceed a limit. `ack` is `Durable` if the request waits for its records. `trace` is the trace of the
    /// request, if the trace is sampled.
    pub fn publish(
        &self,
        chunks: Vec<Chunk>,
        ack: Ack,
        trace: Option<TraceParent>,
    ) -> Result<PendingRecords, Refusal> {
        let events = chunks.iter().map(|chunk| u64::from(chunk.lines)).sum();
        let bytes = chunks.iter().map(|chunk| chunk.value.len()).sum();
        let destination = self.delivery.admit(events, bytes, ack)?;
        let mut receipts = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            let accumulators = self.delivery.accumulators.of(chunk.partition);
            let send = |record: &_| self.delivery.send(&self.producer, chunk.partition, destination, record);
            let mut appended = accumulators.lock(destination).append(&chunk, ack, trace, send);
            receipts.append(&mut appended.receipts);
            if appended.must_send {
                self.send_soon(chunk.partition, accumulators, destination);
            }
        }
        let wait = self.durable_wait + END_WAIT;
        Ok(PendingRecords { receipts, wait, cluster: Arc::clone(self.cluster()) })
    }

    /// Sends the open record of an accumulator after the tasks that are ready now have appended to the record. This
    /// runs in a separate task, so that the lines of other requests are sent even if the client of this request
    /// disconnects.
    fn send_soon(&self, partition: u32, accumulators: Arc<PartitionAccumulators>, destination: Destination) {
        let (delivery, producer) = (Arc::clone(&self.delivery), Arc::clone(&self.producer));
        tokio::spawn(async move {
            task::yield_now().await;
            let send = |record: &_| delivery.send(&producer, partition, destination, record);
            accumulators.lock(destination).send_open(send);
        });
    }

    /// Sends samples of rejected lines as one record, with one line for each sample. Does not wait, and may drop the
    /// samples.
    pub fn send_samples(&self, partition: u32, samples: &[Vec<u8>]) {
        self.delivery.send_samples(&self.producer, partition, samples);
    }

    /// Whether events can be accepted, by Kafka or by the spool.
    pub fn readiness(&self) -> Readiness {
        let cluster = self.cluster();
        match (cluster.reachable(), &self.delivery.router.spool) {
            (Ok(()), _) => Readiness::Ready,
            (Err(kafka), Some(spool))
                if spool.accepts_records() && cluster.is_down() && cluster.partitions() > 0 =>
            {
                Readiness::Degraded(format!("{kafka}; events go to the spool"))
            }
            (Err(kafka), Some(spool)) => Readiness::Not(format!("{kafka}; {}", spool.state())),
            (Err(kafka), None) => Readiness::Not(kafka),
        }
    }

    /// Succeeds if Kafka can be reached; otherwise, the error is the reason.
    pub fn kafka_reachable(&self) -> Result<(), String> {
        self.cluster().reachable()
    }

    /// Waits until Kafka's client has a fatal error, after which the client never sends again, and returns the error.
    /// Records then go to the spool, if there is one.
    pub async fn fatal_error(&self) -> String {
        self.cluster().fatal_error().await
    }

    /// The number of records in the spool; `None` if there is no spool, or while the spool cannot be read.
    pub fn records_in_spool(&self) -> Option<u64> {
        self.delivery.router.spool.as_ref().filter(|spool| spool.is_readable()).map(Spool::records)
    }

    /// Stops accepting lines, sends the open records, and waits up to `wait` until all records have ended. If the spool
    /// accepts records, the records that have not ended by then go to the spool; if Kafka is also unreachable, they go
    /// to the spool without the wait. If the spool does not accept records, or there is no spool, the records that have
    /// not ended are counted as lost.
    pub async fn flush(&self, wait: Duration) {
        let Delivery { admission, accumulators, router, .. } = &*self.delivery;
        admission.close();
        for (partition, accumulators) in accumulators.all() {
            for destination in [Destination::Kafka, Destination::Spool] {
                let send = |record: &_| self.delivery.send(&self.producer, partition, destination, record);
                accumulators.lock(destination).close(send);
            }
        }
        let has_spool = router.spool.as_ref().is_some_and(Spool::accepts_records);
        let wait = if has_spool && router.cluster.is_down() { Duration::ZERO } else { wait };
        if time::timeout(wait, admission.drained()).await.is_err() {
            let events = admission.events();
            if has_spool {
                tracing::info!(events, "kafka did not acknowledge all events; the rest goes to the spool");
            } else {
                tracing::error!(
                    events,
                    "kafka did not acknowledge all events within {wait:?}; the rest is lost"
                );
            }
            self.producer.purge(PurgeConfig::default().queue().inflight());
            // librdkafka reports the result of each purged record too, so these records also end.
            let _timed_out = time::timeout(PURGE_WAIT, admission.drained()).await;
        }
    }

    fn cluster(&self) -> &Arc<Cluster> {
        &self.delivery.router.cluster
    }
}
