//! Delivers records: sends each to Kafka or to the spool, and reports the result to the requests with lines in the
//! record.
//!
//! A record *ends* when Kafka or the spool has stored it, or when all attempts to store it have failed. The polling
//! thread of librdkafka reports the result of each record that was sent to Kafka. The spool's thread reports the result
//! of each record that was sent to the spool. When a record ends, [`Delivery`] sets its receipt and lets the
//! accumulator of the record send its next record, both on the thread that reported the result. If there is a spool, a
//! record that librdkafka could not deliver goes to the spool with the bytes that librdkafka returns, so that the edge
//! holds no second copy of a record while the record is in flight.
//!
//! Invariant: every record that was sent ends exactly once, and the [`Admission`] then no longer counts its lines.

use std::sync::mpsc::Sender;
use std::sync::{Arc, OnceLock, Weak};
use std::thread;
use std::time::Instant;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use schemas::record::{Head, Kind};
use uuid::Uuid;

use super::accumulator::{Receipt, Record};
use super::accumulators::Accumulators;
use super::admission::Admission;
use super::config::Ack;
use super::kafka::{self, DeliveryOpaque, Producer};
use super::routing::{Destination, Router};
use crate::metrics::Metrics;
use crate::outcome::{Bound, Loss, Outcome, Refusal};
use crate::spool::PutError;
use crate::spool::store::SpooledRecord;

/// A record that was sent and has not ended.
pub(super) struct InFlightRecord {
    id: Uuid,
    partition: u32,
    /// The destination of the accumulator that sent the record.
    destination: Destination,
    lines: u32,
    /// How many of the lines belong to requests with [`Ack::Accepted`], which are answered before the record ends.
    answered: u32,
    bytes: usize,
    sent_at: Instant,
    receipt: Receipt,
}

/// Sends records and handles their results; shared by all requests, the replay of the spool, and the threads that
/// report results.
pub(super) struct Delivery {
    topic: String,
    pub(super) admission: Admission,
    pub(super) router: Router,
    pub(super) accumulators: Accumulators,
    /// The client that sends the next record when a record has ended. The client owns its context, and the context owns
    /// this delivery, so a strong reference to the client would be a cycle that is never freed.
    producer: OnceLock<Weak<Producer>>,
    metrics: Arc<Metrics>,
}

impl Delivery {
    /// A delivery without a client. The caller must call [`Delivery::set_producer`] before the first record is sent.
    pub(super) fn new(topic: &str, admission: Admission, router: Router, metrics: Arc<Metrics>) -> Self {
        Self {
            topic: topic.to_owned(),
            admission,
            router,
            accumulators: Accumulators::default(),
            producer: OnceLock::new(),
            metrics,
        }
    }

    pub(super) fn set_producer(&self, producer: &Arc<Producer>) {
        let _first = self.producer.set(Arc::downgrade(producer));
    }

    /// Counts the lines of a request as waiting, and returns their destination. If the lines are refused, counts them
    /// as ended.
    pub(super) fn admit(&self, events: u64, bytes: usize, ack: Ack) -> Result<Destination, Refusal> {
        let admitted = self.admission.enter(events, bytes);
        let destination = admitted.and_then(|()| self.router.destination_for(ack, &self.admission));
        if destination.is_err() {
            self.metrics.ended(Outcome::NotDurable, events);
            self.admission.release(events, bytes);
            self.admission.leave(events);
        }
        destination
    }

    /// Sends a record that was collected for `destination`. A record for Kafka goes to the spool at once if Kafka is
    /// unreachable or overloaded and the spool accepts records. If Kafka does not accept the record, it goes to the
    /// spool, if there is one. Returns true if the record is in flight, or false if the record has already ended and
    /// its receipt is set.
    pub(super) fn send(
        self: &Arc<Self>,
        producer: &Producer,
        partition: u32,
        destination: Destination,
        record: &Record,
    ) -> bool {
        let in_flight = InFlightRecord {
            id: Uuid::now_v7(),
            partition,
            destination,
            lines: record.lines,
            answered: record.answered,
            bytes: record.bytes(),
            sent_at: Instant::now(),
            receipt: Arc::clone(&record.receipt),
        };
        self.metrics.sent(record.lines);
        // Kafka may have become unreachable or overloaded while the record waited.
        let needs_spool = || matches!(self.router.destination(&self.admission), Ok(Destination::Spool));
        if destination == Destination::Spool || needs_spool() {
            let (if_full, otherwise) = (RecordEnd::SPOOL_FULL, RecordEnd::NOT_DURABLE);
            return self.put_into_spool(in_flight, record.value(), if_full, otherwise);
        }
        let (lines, id, trace) = (record.lines, in_flight.id, record.trace);
        let head = Head { lines, id, spooled: false, kind: Kind::Events, trace };
        let opaque = DeliveryOpaque::Events(in_flight);
        match kafka::produce(producer, &self.topic, partition, &head, record.value(), opaque) {
            Ok(()) => true,
            Err((error, opaque)) => match *opaque {
                DeliveryOpaque::Events(in_flight) => self.failed(in_flight, &error, record.value()),
                DeliveryOpaque::Replayed(..) | DeliveryOpaque::Samples(_) => {
                    unreachable!("librdkafka returns the opaque that was sent with the record")
                }
            },
        }
    }

    /// Sends a record from the spool to Kafka; `results` receives the id of the record and whether Kafka has
    /// acknowledged it.
    pub(super) fn send_spooled(
        &self,
        producer: &Producer,
        record: &SpooledRecord,
        results: &Sender<(Uuid, bool)>,
    ) {
        let SpooledRecord { id, partition, lines, value } = record;
        let head = Head { lines: *lines, id: *id, spooled: true, kind: Kind::Events, trace: None };
        let opaque = DeliveryOpaque::Replayed(*id, results.clone());
        if let Err((error, _)) = kafka::produce(producer, &self.topic, *partition, &head, value, opaque) {
            self.replayed(*id, results, Err(&error));
        }
    }

    /// Sends samples of rejected lines if Kafka is known to be reachable; otherwise drops them. Delivered and dropped
    /// samples are counted, but nothing waits for the result.
    pub(super) fn send_samples(&self, producer: &Producer, partition: u32, samples: &[Vec<u8>]) {
        let lines = samples.len() as u32;
        let head = Head { lines, id: Uuid::now_v7(), spooled: false, kind: Kind::Rejected, trace: None };
        let send = || {
            let (value, opaque) = (samples.join(&b'\n'), DeliveryOpaque::Samples(lines));
            kafka::produce(producer, &self.topic, partition, &head, &value, opaque)
        };
        if !self.router.cluster.is_up() || send().is_err() {
            self.samples_ended(lines, false);
        }
    }

    /// Handles a record that Kafka has acknowledged.
    pub(super) fn delivered(self: &Arc<Self>, record: &InFlightRecord) {
        self.end(record, RecordEnd::DELIVERED);
        self.send_next(record.partition, record.destination);
    }

    /// Handles a record that librdkafka could not deliver.
    pub(super) fn not_delivered(self: &Arc<Self>, record: InFlightRecord, error: &KafkaError, value: &[u8]) {
        let (partition, destination) = (record.partition, record.destination);
        if !self.failed(record, error, value) {
            self.send_next(partition, destination);
        }
    }

    /// Handles the result of a record that was replayed from the spool.
    pub(super) fn replayed(&self, id: Uuid, results: &Sender<(Uuid, bool)>, result: Result<(), &KafkaError>) {
        if let Err(error) = result {
            tracing::debug!(record = %id, %error, "a spooled record was not delivered and stays in the spool");
            self.router.cluster.request_check();
        }
        // If the replay was stopped, it no longer receives results. The record then stays in the spool, and the next
        // process sends it again, under the same id. The aggregator counts it once, by this id.
        let _gone = results.send((id, result.is_ok()));
    }

    /// Counts samples of rejected lines that were delivered or dropped.
    pub(super) fn samples_ended(&self, lines: u32, delivered: bool) {
        let counter = if delivered { &self.metrics.samples_delivered } else { &self.metrics.samples_dropped };
        counter.inc_by(u64::from(lines));
    }

    /// Sets the metrics for the number of records, and their bytes, in the queues of Kafka's client.
    pub(super) fn queue_statistics(&self, records: u64, bytes: u64) {
        self.metrics.queue_messages.set(records as i64);
        self.metrics.queue_bytes.set(bytes as i64);
    }

    /// Handles an error of Kafka's client that is not about a single record.
    pub(super) fn client_error(&self, error: &KafkaError) {
        self.router.cluster.client_error(error);
    }

    /// Handles a record that Kafka did not accept: if there is a spool, puts the record into it. Returns true if the
    /// record is in flight to the spool, or false if the record has already ended.
    fn failed(self: &Arc<Self>, record: InFlightRecord, error: &KafkaError, value: &[u8]) -> bool {
        tracing::debug!(partition = record.partition, %error, "kafka did not accept a record");
        let code = error.rdkafka_error_code();
        let end = match code {
            // When the edge stops, it purges the records that have not ended. The process may end before their requests
            // are answered, so the events count as lost unless the spool stores them. After a fatal error, Kafka's
            // client purges records too, but then the process goes on and can refuse their requests.
            Some(RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight)
                if self.admission.is_closed() =>
            {
                RecordEnd::LOST
            }
            Some(RDKafkaErrorCode::QueueFull) => RecordEnd::QUEUE_FULL,
            Some(RDKafkaErrorCode::MessageTimedOut) => {
                self.router.cluster.record_timed_out();
                RecordEnd::NOT_DURABLE
            }
            _ => RecordEnd::NOT_DURABLE,
        };
        self.router.cluster.record_failed(code);
        // The refusal `SpoolFull` says that none of the events is stored. This is certain only for a record that
        // librdkafka did not queue; any other record may be in Kafka.
        let if_full =
            if code == Some(RDKafkaErrorCode::QueueFull) { RecordEnd::SPOOL_FULL } else { end.clone() };
        self.put_into_spool(record, value, if_full, end)
    }

    /// Puts a record into the spool. If there is no spool, the record ends at once with `otherwise`. If the spool is
    /// full, the record ends with `if_full`. If the spool fails, the record ends with the outcome of `otherwise` and
    /// with the refusal `NotDurable`. Returns true if the record is in flight to the spool, or false if there is no
    /// spool.
    fn put_into_spool(
        self: &Arc<Self>,
        record: InFlightRecord,
        value: &[u8],
        if_full: RecordEnd,
        otherwise: RecordEnd,
    ) -> bool {
        let Some(spool) = &self.router.spool else {
            self.end(&record, otherwise);
            return false;
        };
        let InFlightRecord { id, partition, lines, .. } = record;
        let spooled = SpooledRecord { id, partition, lines, value: value.to_vec() };
        let delivery = Arc::clone(self);
        let callback = move |result: Result<(), PutError>| {
            let end = match result {
                Ok(()) => RecordEnd::SPOOLED,
                Err(PutError::Full) => if_full,
                // The spool may have written the record before its disk failed, and may replay the record later. The
                // refusal of `otherwise` can say that no event is stored, so it is replaced by `NotDurable`.
                Err(PutError::Off) => RecordEnd { result: Err(Refusal::NotDurable), ..otherwise },
            };
            delivery.end(&record, end);
            delivery.send_next(record.partition, record.destination);
        };
        spool.put(spooled, Box::new(callback));
        true
    }

    /// Lets an accumulator send its next record, because one of its records has ended.
    fn send_next(self: &Arc<Self>, partition: u32, destination: Destination) {
        let Some(producer) = self.producer.get().and_then(Weak::upgrade) else { return };
        let send = |record: &Record| self.send(&producer, partition, destination, record);
        self.accumulators.of(partition).lock(destination).record_ended(send);
        // Dropping the last reference joins the polling thread. The current thread may be the polling thread, which
        // cannot join itself, so another thread drops the reference.
        if let Some(last) = Arc::into_inner(producer) {
            thread::spawn(move || drop(last));
        }
    }

    /// Counts the end of a record and sets its receipt.
    fn end(&self, record: &InFlightRecord, end: RecordEnd) {
        self.metrics.acknowledged(record.sent_at.elapsed());
        self.metrics.ended(end.outcome, u64::from(record.lines - record.answered));
        self.metrics.ended(end.outcome.after_early_response(), u64::from(record.answered));
        self.admission.release(u64::from(record.lines), record.bytes);
        record.receipt.set(end.result).expect("a record ends once");
        self.admission.leave(u64::from(record.lines));
    }
}

/// How a record ends: its outcome, and the result for its requests.
#[derive(Clone)]
struct RecordEnd {
    outcome: Outcome,
    result: Result<(), Refusal>,
}

impl RecordEnd {
    const DELIVERED: Self = Self { outcome: Outcome::Delivered, result: Ok(()) };
    const SPOOLED: Self = Self { outcome: Outcome::Spooled, result: Ok(()) };
    const NOT_DURABLE: Self = Self { outcome: Outcome::NotDurable, result: Err(Refusal::NotDurable) };
    const LOST: Self = Self { outcome: Outcome::Lost(Loss::Stopped), result: Err(Refusal::NotDurable) };
    const QUEUE_FULL: Self =
        Self { outcome: Outcome::NotDurable, result: Err(Refusal::Overloaded(Bound::ProducerQueue)) };
    const SPOOL_FULL: Self = Self { outcome: Outcome::NotDurable, result: Err(Refusal::SpoolFull) };
}
