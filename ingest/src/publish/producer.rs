//! Kafka's client: what is set, what is sent, what comes back.
//!
//! librdkafka's polling thread reports each record's end to [`Outbox`], which tells
//! the requests and sends the partition's next record, on that same thread.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak};
use std::thread;
use std::time::Instant;

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, ProducerContext, ThreadedProducer};
use schemas::record::Head;
use tokio::sync::Notify;
use uuid::Uuid;

use super::cluster::Cluster;
use super::lane::{Lane, Receipt, Record};
use crate::config::KafkaConfig;
use crate::metrics::Metrics;
use crate::outcome::{Bound, Outcome, Refusal};

/// Kafka's client with its polling thread.
pub(super) type Producer = ThreadedProducer<Reports>;

/// Starts the client; `outbox` is told of every end.
pub(super) fn start(config: &KafkaConfig, outbox: &Arc<Outbox>) -> Result<Arc<Producer>, KafkaError> {
    let reports = Reports { outbox: Arc::clone(outbox) };
    let producer = Arc::new(settings(config).create_with_context::<_, Producer>(reports)?);
    let _first = outbox.producer.set(Arc::downgrade(&producer));
    Ok(producer)
}

fn settings(config: &KafkaConfig) -> ClientConfig {
    let mut settings = ClientConfig::new();
    settings
        .set("bootstrap.servers", &config.brokers)
        .set("client.id", "ingest")
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("compression.type", "lz4")
        // Group commit is ours: what reaches librdkafka goes at once.
        .set("linger.ms", "0")
        .set("message.timeout.ms", "30000")
        .set("queue.buffering.max.kbytes", "262144")
        // Ten seconds by default: too long to refuse clients once a broker is back.
        .set("reconnect.backoff.max.ms", "1000")
        // A topic made by accident would have the wrong number of partitions.
        .set("allow.auto.create.topics", "false");
    for (name, value) in &config.options {
        settings.set(name, value);
    }
    settings
}

/// A record under way.
pub(super) struct Sent {
    partition: u32,
    lines: u32,
    bytes: usize,
    at: Instant,
    receipt: Receipt,
}

/// The partitions' records and what of them has not ended.
pub(super) struct Outbox {
    topic: String,
    lanes: RwLock<Vec<Arc<Mutex<Lane>>>>,
    events: AtomicU64,
    bytes: AtomicUsize,
    /// Told when `events` has reached zero.
    ended: Notify,
    producer: OnceLock<Weak<Producer>>,
    metrics: Arc<Metrics>,
    pub(super) cluster: Arc<Cluster>,
}

impl Outbox {
    pub(super) fn new(topic: &str, metrics: Arc<Metrics>, cluster: Arc<Cluster>) -> Self {
        Self {
            topic: topic.to_owned(),
            lanes: RwLock::default(),
            events: AtomicU64::new(0),
            bytes: AtomicUsize::new(0),
            ended: Notify::new(),
            producer: OnceLock::new(),
            metrics,
            cluster,
        }
    }

    /// The lane of `partition`, made when it is first used.
    pub(super) fn lane(&self, partition: u32) -> Arc<Mutex<Lane>> {
        let at = partition as usize;
        if let Some(lane) = self.lanes.read().unwrap_or_else(PoisonError::into_inner).get(at) {
            return Arc::clone(lane);
        }
        let mut lanes = self.lanes.write().unwrap_or_else(PoisonError::into_inner);
        while lanes.len() <= at {
            lanes.push(Arc::default());
        }
        Arc::clone(&lanes[at])
    }

    /// All lanes that were ever used, with their partitions.
    pub(super) fn lanes(&self) -> Vec<(u32, Arc<Mutex<Lane>>)> {
        (0..).zip(self.lanes.read().unwrap_or_else(PoisonError::into_inner).iter().cloned()).collect()
    }

    /// Counts lines in, unless that would pass `most_bytes`; then they have ended already.
    pub(super) fn admit(&self, events: u64, bytes: usize, most_bytes: usize) -> bool {
        self.metrics.accepted(events, bytes);
        self.events.fetch_add(events, Ordering::AcqRel);
        let admitted = self.bytes.fetch_add(bytes, Ordering::AcqRel) + bytes <= most_bytes;
        if !admitted {
            self.settle(events, bytes, Outcome::NotDurable);
        }
        admitted
    }

    /// Events that have not ended.
    pub(super) fn events(&self) -> u64 {
        self.events.load(Ordering::Acquire)
    }

    /// Waits until everything that was admitted has ended.
    pub(super) async fn all_ended(&self) {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            // From here on a notification is not missed, so the count may be looked at.
            ended.as_mut().enable();
            if self.events() == 0 {
                return;
            }
            ended.await;
        }
    }

    /// Hands a record to librdkafka, which copies it. Returns whether it took it; if
    /// not, the record has ended and its requests know.
    pub(super) fn send(&self, producer: &Producer, partition: u32, record: &Record) -> bool {
        let sent = Sent {
            partition,
            lines: record.lines,
            bytes: record.bytes(),
            at: Instant::now(),
            receipt: Arc::clone(&record.receipt),
        };
        self.metrics.sent(record.lines);
        let head = Head { lines: record.lines, id: Uuid::now_v7(), spooled: false };
        let message = BaseRecord::<(), [u8], _>::with_opaque_to(&self.topic, Box::new(sent))
            .partition(partition as i32)
            .headers(headers(&head))
            .payload(record.value());
        match producer.send(message) {
            Ok(()) => true,
            Err((error, message)) => {
                self.end(&message.delivery_opaque, Err(&error));
                false
            }
        }
    }

    /// Counts a record's end and tells its requests.
    fn end(&self, sent: &Sent, result: Result<(), &KafkaError>) {
        let (outcome, told) = match result {
            Ok(()) => (Outcome::Delivered, Ok(())),
            Err(error) => {
                tracing::debug!(partition = sent.partition, %error, "a record failed");
                match error.rdkafka_error_code() {
                    Some(RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight) => {
                        (Outcome::Lost, Err(Refusal::NotDurable))
                    }
                    Some(RDKafkaErrorCode::QueueFull) => {
                        (Outcome::NotDurable, Err(Refusal::Overloaded(Bound::ProducerQueue)))
                    }
                    _ => (Outcome::NotDurable, Err(Refusal::NotDurable)),
                }
            }
        };
        if told.is_err() {
            self.cluster.doubt();
        }
        self.metrics.acknowledged(sent.at.elapsed());
        self.settle(u64::from(sent.lines), sent.bytes, outcome);
        sent.receipt.set(told).expect("a record ends once");
    }

    fn settle(&self, events: u64, bytes: usize, outcome: Outcome) {
        self.metrics.settled(events, bytes);
        self.metrics.ended(outcome, events);
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        if self.events.fetch_sub(events, Ordering::AcqRel) == events {
            self.ended.notify_waiters();
        }
    }
}

fn headers(head: &Head) -> OwnedHeaders {
    head.headers().fold(OwnedHeaders::new_with_capacity(4), |headers, (key, value)| {
        headers.insert(Header { key, value: Some(value.as_str()) })
    })
}

/// Takes librdkafka's reports.
pub(super) struct Reports {
    outbox: Arc<Outbox>,
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Sent>;

    fn delivery(&self, result: &DeliveryResult<'_>, sent: Box<Sent>) {
        self.outbox.end(&sent, result.as_ref().map(|_| ()).map_err(|(error, _)| error));
        let Some(producer) = self.outbox.producer.get().and_then(Weak::upgrade) else { return };
        let lane = self.outbox.lane(sent.partition);
        lock(&lane).ended(|record| self.outbox.send(&producer, sent.partition, record));
        // The last owner joins the polling thread when it goes, which is this very thread.
        if let Some(last) = Arc::into_inner(producer) {
            thread::spawn(move || drop(last));
        }
    }
}

impl ClientContext for Reports {
    // librdkafka repeats itself with every try; what matters of it is said once, by `Cluster`.
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(?level, facility, "{message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka");
        self.outbox.cluster.doubt();
    }
}

/// Locks a lane. A panic within a lane is a fault of ours that cost a request; it
/// must not cost all later ones.
pub(super) fn lock(lane: &Mutex<Lane>) -> MutexGuard<'_, Lane> {
    lane.lock().unwrap_or_else(PoisonError::into_inner)
}
