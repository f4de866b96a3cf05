//! Enriched lines become Kafka records, and requests learn when those are safe.
//!
//! A record once handed to Kafka's client is delivered whether or not its client
//! stays. If any record that holds a line of a request fails, the whole request is
//! refused and may be sent again. Locks are held for as long as it takes to copy
//! lines, never across an await.
//!
//! What is held here is bounded by `UNACKED_BYTES`: lines in open records and
//! records under way; besides, each partition keeps one buffer of at most a record.

pub mod lane;

mod producer;

mod cluster;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rdkafka::producer::{Producer as _, PurgeConfig};
use runtime::admin::Readiness;
use tokio::time;

use self::cluster::{Cluster, Watch};
use self::lane::Receipt;
use self::producer::{Outbox, Producer};
use crate::config::KafkaConfig;
use crate::edge::StartError;
use crate::enrich::{Chunk, Partitions};
use crate::metrics::Metrics;
use crate::outcome::{Bound, Refusal};

/// How long the end of records is awaited that were given up.
const PURGE_WAIT: Duration = Duration::from_secs(1);

/// Hands lines to Kafka; shared by all requests.
pub struct Publisher {
    // Before the producer: its thread uses the producer and ends first.
    _watch: Watch,
    producer: Arc<Producer>,
    outbox: Arc<Outbox>,
    durable_wait: Duration,
    unacked_bytes: usize,
    next_spare: AtomicU32,
}

/// The records that hold the lines of one request.
#[must_use = "a request is safe once its records are"]
pub struct Pending {
    receipts: Vec<Receipt>,
    wait: Duration,
    cluster: Arc<Cluster>,
}

impl Publisher {
    /// Starts Kafka's client. It may find no broker for as long as it likes: this fails
    /// only for settings that librdkafka does not take.
    pub fn start(config: &KafkaConfig, metrics: &Arc<Metrics>) -> Result<Self, StartError> {
        let cluster = Arc::new(Cluster::new(config, metrics.kafka_up.clone()));
        let outbox = Arc::new(Outbox::new(&config.topic, Arc::clone(metrics), Arc::clone(&cluster)));
        let producer = producer::start(config, &outbox)?;
        let watch = cluster::watch(Arc::downgrade(&producer), &cluster)?;
        Ok(Self {
            _watch: watch,
            producer,
            outbox,
            durable_wait: config.durable_wait,
            unacked_bytes: config.unacked_bytes,
            next_spare: AtomicU32::new(0),
        })
    }

    /// Where the lines of a new request may go; refused while Kafka was never reached.
    pub fn partitions(&self) -> Result<Partitions, Refusal> {
        let count = NonZeroU32::new(self.outbox.cluster.partitions()).ok_or(Refusal::NotDurable)?;
        let spare = self.next_spare.fetch_add(1, Ordering::Relaxed) % count;
        Ok(Partitions { count, spare })
    }

    /// Hands over the lines of one request, all or, at the bound, none.
    pub fn hand_over(&self, chunks: &[Chunk]) -> Result<Pending, Refusal> {
        let events = chunks.iter().map(|chunk| u64::from(chunk.lines)).sum();
        let bytes = chunks.iter().map(|chunk| chunk.value.len()).sum();
        if !self.outbox.admit(events, bytes, self.unacked_bytes) {
            return Err(Refusal::Overloaded(Bound::UnackedBytes));
        }
        let mut receipts = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            let lane = self.outbox.lane(chunk.partition);
            let send = |record: &_| self.outbox.send(&self.producer, chunk.partition, record);
            receipts.append(&mut producer::lock(&lane).append(chunk, send));
        }
        Ok(Pending { receipts, wait: self.durable_wait, cluster: Arc::clone(&self.outbox.cluster) })
    }

    /// Whether Kafka can be reached; says why not.
    pub fn readiness(&self) -> Readiness {
        self.outbox.cluster.readiness()
    }

    /// Sends what is open and waits until everything has ended; what has not within
    /// `wait` is given up and counted as lost.
    pub async fn flush(&self, wait: Duration) {
        for (partition, lane) in self.outbox.lanes() {
            producer::lock(&lane).finish(|record| self.outbox.send(&self.producer, partition, record));
        }
        if time::timeout(wait, self.outbox.all_ended()).await.is_err() {
            tracing::error!(
                events = self.outbox.events(),
                "kafka took not everything within {wait:?}, giving up"
            );
            self.producer.purge(PurgeConfig::default().queue().inflight());
            // Purged records report their end like any other.
            let _overran = time::timeout(PURGE_WAIT, self.outbox.all_ended()).await;
        }
    }
}

impl Pending {
    /// Waits until all records are acknowledged; refused when one failed or took too long.
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
