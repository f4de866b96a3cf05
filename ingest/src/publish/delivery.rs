//! Kafka's client: what is set, what is sent, what comes back.
//!
//! librdkafka's polling thread reports each record's end to [`Outbox`], which tells
//! the requests and sends the partition's next record, on that same thread. A record
//! that librdkafka gives back goes to the spool with the bytes that it gives back, so
//! that nothing is held twice while it is under way.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak};
use std::thread;
use std::time::Instant;

use rdkafka::ClientConfig;
use rdkafka::Statistics;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, ProducerContext, ThreadedProducer};
use schemas::record::{Head, Kind};
use tokio::sync::Notify;
use uuid::Uuid;

use super::accumulator::{Lane, Receipt, Record};
use super::cluster::Cluster;
use super::config::{Ack, KafkaConfig};
use crate::metrics::Metrics;
use crate::outcome::{Bound, Loss, Outcome, Refusal};
use crate::spool::store::Stored;
use crate::spool::{Refused, Spool, State};

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
        // Then librdkafka gives the record back, and the spool may have it.
        .set("message.timeout.ms", config.durable_wait.as_millis().to_string())
        .set("queue.buffering.max.kbytes", "262144")
        .set("statistics.interval.ms", "5000")
        // Ten seconds by default: too long to refuse clients once a broker is back.
        .set("reconnect.backoff.max.ms", "1000")
        // A topic made by accident would have the wrong number of partitions.
        .set("allow.auto.create.topics", "false");
    for (name, value) in &config.options {
        settings.set(name, value);
    }
    settings
}

/// Where a record is brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// To Kafka, and to the spool if that fails.
    Kafka,
    /// To the spool at once.
    Spool,
}

/// A record under way.
pub(super) struct Sent {
    id: Uuid,
    partition: u32,
    /// By whose turn it was sent.
    lane: Way,
    lines: u32,
    /// How many of them are of requests that are answered already.
    answered: u32,
    bytes: usize,
    at: Instant,
    receipt: Receipt,
}

/// What librdkafka gives back with a record's end.
pub(super) enum Opaque {
    /// A record of requests.
    Live(Sent),
    /// A record of the spool; told whether Kafka has it now.
    Replayed(Uuid, Sender<(Uuid, bool)>),
    /// So many samples of rejected lines, for which nobody waits.
    Samples(u32),
}

/// The records of one partition, by the way that they go. Each way has its own turns:
/// what waits for Kafka must not hold up what may go to the spool.
#[derive(Default)]
pub(super) struct Lanes {
    kafka: Mutex<Lane>,
    spool: Mutex<Lane>,
}

impl Lanes {
    /// Locks the lane of one way. A panic within a lane is a fault of ours that cost a
    /// request; it must not cost all later ones.
    pub(super) fn lock(&self, way: Way) -> MutexGuard<'_, Lane> {
        let lane = match way {
            Way::Kafka => &self.kafka,
            Way::Spool => &self.spool,
        };
        lane.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The partitions' records and what of them has not ended.
pub(super) struct Outbox {
    topic: String,
    lanes: RwLock<Vec<Arc<Lanes>>>,
    events: AtomicU64,
    bytes: AtomicUsize,
    most_bytes: usize,
    closed: AtomicBool,
    /// Told when `events` has reached zero.
    ended: Notify,
    producer: OnceLock<Weak<Producer>>,
    metrics: Arc<Metrics>,
    pub(super) cluster: Arc<Cluster>,
    pub(super) spool: Option<Spool>,
}

impl Outbox {
    pub(super) fn new(
        config: &KafkaConfig,
        metrics: Arc<Metrics>,
        cluster: Arc<Cluster>,
        spool: Option<Spool>,
    ) -> Self {
        Self {
            topic: config.topic.clone(),
            lanes: RwLock::default(),
            events: AtomicU64::new(0),
            bytes: AtomicUsize::new(0),
            most_bytes: config.unacked_bytes,
            closed: AtomicBool::new(false),
            ended: Notify::new(),
            producer: OnceLock::new(),
            metrics,
            cluster,
            spool,
        }
    }

    /// The lanes of `partition`, made when they are first used.
    pub(super) fn lanes_of(&self, partition: u32) -> Arc<Lanes> {
        let at = partition as usize;
        if let Some(lanes) = self.lanes.read().unwrap_or_else(PoisonError::into_inner).get(at) {
            return Arc::clone(lanes);
        }
        let mut all = self.lanes.write().unwrap_or_else(PoisonError::into_inner);
        while all.len() <= at {
            all.push(Arc::default());
        }
        Arc::clone(&all[at])
    }

    /// All lanes that were ever used, with their partitions.
    pub(super) fn all_lanes(&self) -> Vec<(u32, Arc<Lanes>)> {
        (0..).zip(self.lanes.read().unwrap_or_else(PoisonError::into_inner).iter().cloned()).collect()
    }

    /// Where records go now: to the spool while Kafka is away, and when so much waits for
    /// Kafka that its queue will soon be full. Refused when neither would take them.
    fn way(&self) -> Result<Way, Refusal> {
        let Some(spool) = &self.spool else { return Ok(Way::Kafka) };
        let is_down = self.cluster.is_down();
        if !is_down && self.is_filled_to(80) {
            return Ok(Way::Kafka);
        }
        match spool.state() {
            State::On => Ok(Way::Spool),
            State::Full(_) if is_down => Err(Refusal::SpoolFull),
            State::Off(_) if is_down => Err(Refusal::NotDurable),
            State::Full(_) | State::Off(_) => Ok(Way::Kafka),
        }
    }

    /// The same for lines of a request: whoever does not wait for them would not hear that they
    /// failed, so they are not given to a Kafka that is known to be away.
    fn way_of(&self, ack: Ack) -> Result<Way, Refusal> {
        match (self.way()?, ack) {
            (Way::Kafka, Ack::Accepted) if self.cluster.is_down() => Err(Refusal::NotDurable),
            (way, _) => Ok(way),
        }
    }

    /// Whether at most so many hundredths of the bytes that may wait do so.
    pub(super) fn is_filled_to(&self, percent: usize) -> bool {
        self.bytes.load(Ordering::Acquire).saturating_mul(100) <= self.most_bytes.saturating_mul(percent)
    }

    /// Counts lines in and says where they go; if they are refused, they have ended already.
    pub(super) fn admit(&self, events: u64, bytes: usize, ack: Ack) -> Result<Way, Refusal> {
        self.metrics.accepted(events, bytes);
        self.events.fetch_add(events, Ordering::SeqCst);
        let waiting = self.bytes.fetch_add(bytes, Ordering::AcqRel) + bytes;
        // After they were counted: whoever closes looks at the count afterwards.
        let way = if self.is_closed() {
            Err(Refusal::Draining)
        } else if waiting <= self.most_bytes {
            self.way_of(ack)
        } else {
            Err(Refusal::Overloaded(Bound::UnackedBytes))
        };
        if way.is_err() {
            self.metrics.ended(Outcome::NotDurable, events);
            self.settled(events, bytes);
        }
        way
    }

    /// From now on nothing is admitted.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Events that have not ended.
    pub(super) fn events(&self) -> u64 {
        self.events.load(Ordering::SeqCst)
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

    /// Brings a record on its way, by the turn of `lane`. Returns whether it is under
    /// way; if not, it has ended and its requests know.
    pub(super) fn send(
        self: &Arc<Self>,
        producer: &Producer,
        partition: u32,
        lane: Way,
        record: &Record,
    ) -> bool {
        let sent = Sent {
            id: Uuid::now_v7(),
            partition,
            lane,
            lines: record.lines,
            answered: record.answered,
            bytes: record.bytes(),
            at: Instant::now(),
            receipt: Arc::clone(&record.receipt),
        };
        self.metrics.sent(record.lines);
        // Kafka may have gone while the record waited for its turn.
        if lane == Way::Spool || matches!(self.way(), Ok(Way::Spool)) {
            return self.put(sent, record.value(), End::NOT_DURABLE);
        }
        let (lines, id, trace) = (record.lines, sent.id, record.trace);
        let head = Head { lines, id, spooled: false, kind: Kind::Events, trace };
        match self.produce(producer, partition, &head, record.value(), Opaque::Live(sent)) {
            Ok(()) => true,
            Err((error, opaque)) => match *opaque {
                Opaque::Live(sent) => self.failed(sent, &error, record.value()),
                Opaque::Replayed(..) | Opaque::Samples(_) => {
                    unreachable!("what comes back is what was given")
                }
            },
        }
    }

    /// Sends a record of the spool; `told` hears whether Kafka has it.
    pub(super) fn replay(&self, producer: &Producer, record: &Stored, told: &Sender<(Uuid, bool)>) {
        let head =
            Head { lines: record.lines, id: record.id, spooled: true, kind: Kind::Events, trace: None };
        let opaque = Opaque::Replayed(record.id, told.clone());
        if let Err((error, _)) = self.produce(producer, record.partition, &head, &record.value, opaque) {
            self.replayed(record.id, told, Err(&error));
        }
    }

    /// Sends samples of rejected lines, unless Kafka is away; what becomes of them is only counted.
    pub(super) fn sample(&self, producer: &Producer, partition: u32, samples: &[Vec<u8>]) {
        let lines = samples.len() as u32;
        let head = Head { lines, id: Uuid::now_v7(), spooled: false, kind: Kind::Rejected, trace: None };
        let send = || self.produce(producer, partition, &head, &samples.join(&b'\n'), Opaque::Samples(lines));
        if !self.cluster.is_up() || send().is_err() {
            self.metrics.samples_dropped.inc_by(u64::from(lines));
        }
    }

    fn replayed(&self, id: Uuid, told: &Sender<(Uuid, bool)>, result: Result<(), &KafkaError>) {
        if let Err(error) = result {
            tracing::debug!(record = %id, %error, "a record of the spool stays there");
            self.cluster.doubt();
        }
        // Who asked may have gone; the record is then sent once more, and counted once.
        let _gone = told.send((id, result.is_ok()));
    }

    /// Hands a record to librdkafka, which copies it.
    fn produce(
        &self,
        producer: &Producer,
        partition: u32,
        head: &Head,
        value: &[u8],
        opaque: Opaque,
    ) -> Result<(), (KafkaError, Box<Opaque>)> {
        let message = BaseRecord::<(), [u8], _>::with_opaque_to(&self.topic, Box::new(opaque))
            .partition(partition as i32)
            .headers(headers(head))
            .payload(value);
        producer.send(message).map_err(|(error, message)| (error, message.delivery_opaque))
    }

    /// Kafka has not taken a record: it goes to the spool. Returns whether it is under way
    /// there; if not, it has ended.
    fn failed(self: &Arc<Self>, sent: Sent, error: &KafkaError, value: &[u8]) -> bool {
        tracing::debug!(partition = sent.partition, %error, "a record failed");
        let code = error.rdkafka_error_code();
        let end = match code {
            // Ours, at the end; a client that breaks also purges, while its senders are still told.
            Some(RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight) if self.is_closed() => {
                End::LOST
            }
            Some(RDKafkaErrorCode::QueueFull) => End::QUEUE_FULL,
            Some(RDKafkaErrorCode::MessageTimedOut) => {
                self.cluster.timed_out();
                End::NOT_DURABLE
            }
            _ => End::NOT_DURABLE,
        };
        self.cluster.record_failed(code);
        self.put(sent, value, end)
    }

    /// Puts a record into the spool, or ends it as `otherwise` says. Returns whether it is
    /// under way there.
    fn put(self: &Arc<Self>, sent: Sent, value: &[u8], otherwise: End) -> bool {
        let Some(spool) = &self.spool else {
            self.end(&sent, otherwise);
            return false;
        };
        let record =
            Stored { id: sent.id, partition: sent.partition, lines: sent.lines, value: value.to_vec() };
        let outbox = Arc::clone(self);
        let told = move |result: Result<(), Refused>| {
            outbox.end(
                &sent,
                match result {
                    Ok(()) => End::SPOOLED,
                    Err(Refused::Full) => End { told: Err(Refusal::SpoolFull), ..otherwise },
                    Err(Refused::Off) => otherwise,
                },
            );
            outbox.next(sent.partition, sent.lane);
        };
        spool.put(record, Box::new(told));
        true
    }

    /// A record has ended: the next one of its lane has its turn.
    fn next(self: &Arc<Self>, partition: u32, lane: Way) {
        let Some(producer) = self.producer.get().and_then(Weak::upgrade) else { return };
        let send = |record: &Record| self.send(&producer, partition, lane, record);
        self.lanes_of(partition).lock(lane).ended(send);
        // The last owner joins the polling thread when it goes, which may be this very thread.
        if let Some(last) = Arc::into_inner(producer) {
            thread::spawn(move || drop(last));
        }
    }

    /// Counts a record's end and tells its requests.
    fn end(&self, sent: &Sent, end: End) {
        self.metrics.acknowledged(sent.at.elapsed());
        self.metrics.ended(end.outcome, u64::from(sent.lines - sent.answered));
        self.metrics.ended(end.outcome.after_early_response(), u64::from(sent.answered));
        self.settled(u64::from(sent.lines), sent.bytes);
        sent.receipt.set(end.told).expect("a record ends once");
    }

    /// They wait no longer, and are counted by what became of them.
    fn settled(&self, events: u64, bytes: usize) {
        self.metrics.settled(events, bytes);
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        if self.events.fetch_sub(events, Ordering::AcqRel) == events {
            self.ended.notify_waiters();
        }
    }
}

/// How a record ends, and what its requests are told.
struct End {
    outcome: Outcome,
    told: Result<(), Refusal>,
}

impl End {
    const DELIVERED: Self = Self { outcome: Outcome::Delivered, told: Ok(()) };
    const SPOOLED: Self = Self { outcome: Outcome::Spooled, told: Ok(()) };
    const NOT_DURABLE: Self = Self { outcome: Outcome::NotDurable, told: Err(Refusal::NotDurable) };
    const LOST: Self = Self { outcome: Outcome::Lost(Loss::Stopped), told: Err(Refusal::NotDurable) };
    const QUEUE_FULL: Self =
        Self { outcome: Outcome::NotDurable, told: Err(Refusal::Overloaded(Bound::ProducerQueue)) };
}

fn headers(head: &Head) -> OwnedHeaders {
    head.headers().fold(OwnedHeaders::new_with_capacity(5), |headers, (key, value)| {
        headers.insert(Header { key, value: Some(value.as_str()) })
    })
}

/// Takes librdkafka's reports.
pub(super) struct Reports {
    outbox: Arc<Outbox>,
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Opaque>;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: Box<Opaque>) {
        let outbox = &self.outbox;
        match (*opaque, result) {
            (Opaque::Replayed(id, told), Ok(_)) => outbox.replayed(id, &told, Ok(())),
            (Opaque::Replayed(id, told), Err((error, _))) => outbox.replayed(id, &told, Err(error)),
            (Opaque::Samples(lines), Ok(_)) => outbox.metrics.samples_delivered.inc_by(lines.into()),
            (Opaque::Samples(lines), Err(_)) => outbox.metrics.samples_dropped.inc_by(lines.into()),
            (Opaque::Live(sent), Ok(_)) => {
                outbox.end(&sent, End::DELIVERED);
                outbox.next(sent.partition, sent.lane);
            }
            (Opaque::Live(sent), Err((error, message))) => {
                let (partition, lane) = (sent.partition, sent.lane);
                if !outbox.failed(sent, error, message.payload().unwrap_or_default()) {
                    outbox.next(partition, lane);
                }
            }
        }
    }
}

impl ClientContext for Reports {
    // librdkafka repeats itself with every try; what matters of it is said once, by `Cluster`.
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(?level, facility, "{message}");
    }

    fn stats(&self, statistics: Statistics) {
        self.outbox.metrics.queue_messages.set(statistics.msg_cnt as i64);
        self.outbox.metrics.queue_bytes.set(statistics.msg_size as i64);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka");
        self.outbox.cluster.client_says(&error);
    }
}
