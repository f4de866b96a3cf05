//! Kafka's client: its settings, how a record is sent, and what librdkafka reports back.
//!
//! The polling thread of the client calls [`Delivery`] for every record that Kafka has acknowledged or that librdkafka
//! could not deliver.
//!
//! The [`Publisher`](super::Publisher) owns the client, and the client must end with the publisher. So all other users
//! have a weak reference, or a strong reference for a limited time: the replay thread ends before the publisher drops
//! the client, and a task that sends a record ends when the record is sent.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use rdkafka::ClientConfig;
use rdkafka::Statistics;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, ProducerContext, ThreadedProducer};
use runtime::vars::VarError;
use schemas::record::Head;
use uuid::Uuid;

use super::config::KafkaConfig;
use super::delivery::{Delivery, InFlightRecord};

/// Kafka's client with its polling thread.
pub(super) type Producer = ThreadedProducer<DeliveryContext>;

/// The opaque of a record: librdkafka keeps it, and returns it in the delivery report.
pub(super) enum DeliveryOpaque {
    /// A record with the lines of requests.
    Events(InFlightRecord),
    /// A record that is replayed from the spool: its id, and the channel to which [`Delivery`] sends the result. The
    /// result is the id, and whether Kafka has acknowledged the record.
    Replayed(Uuid, Sender<(Uuid, bool)>),
    /// This many samples of rejected lines, for which no request waits.
    Samples(u32),
}

/// Starts the client, which calls `delivery` for every record that Kafka has acknowledged or that could not be
/// delivered.
pub(super) fn start(config: &KafkaConfig, delivery: &Arc<Delivery>) -> Result<Arc<Producer>, KafkaError> {
    let context = DeliveryContext { delivery: Arc::clone(delivery) };
    Ok(Arc::new(settings(config).create_with_context::<_, Producer>(context)?))
}

/// Checks the settings that variables have set: each alone, then all together with the edge's own settings. Opens no
/// connection, because the client that is created for the check has no brokers.
pub(super) fn check_settings(config: &KafkaConfig) -> Result<(), VarError> {
    for (name, value) in &config.options {
        let alone = ClientConfig::from_iter([(name.clone(), value.clone())]).create_native_config();
        alone.map_err(|error| refused(name, error))?;
    }
    if config.options.is_empty() {
        return Ok(());
    }
    let together: KafkaResult<BaseProducer> = settings(config).remove("bootstrap.servers").create();
    together.map(drop).map_err(|error| refused("…", error))
}

fn refused(name: &str, error: KafkaError) -> VarError {
    let reason = match error {
        KafkaError::ClientConfig(_, reason, ..) | KafkaError::ClientCreation(reason) => reason,
        other => other.to_string(),
    };
    VarError::Refused { name: format!("KAFKA_OPT_{name}"), reason }
}

fn settings(config: &KafkaConfig) -> ClientConfig {
    let mut settings = ClientConfig::new();
    settings
        .set("bootstrap.servers", &config.brokers)
        .set("client.id", "ingest")
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("compression.type", "lz4")
        // The accumulators have already grouped the lines, so librdkafka sends each record at once.
        .set("linger.ms", "0")
        // After this time, librdkafka returns the record as failed, and the record can go to the spool.
        .set("message.timeout.ms", config.durable_wait.as_millis().to_string())
        .set("queue.buffering.max.kbytes", "262144")
        .set("statistics.interval.ms", "5000")
        // With the default of ten seconds, the edge would reconnect too late after a broker has become reachable again.
        .set("reconnect.backoff.max.ms", "1000")
        // A topic that is created by accident would have the wrong number of partitions.
        .set("allow.auto.create.topics", "false");
    for (name, value) in &config.options {
        settings.set(name, value);
    }
    settings
}

/// Hands a record to librdkafka, which copies it. If librdkafka does not accept the record, returns its opaque with the
/// error.
pub(super) fn produce(
    producer: &Producer,
    topic: &str,
    partition: u32,
    head: &Head,
    value: &[u8],
    opaque: DeliveryOpaque,
) -> Result<(), (KafkaError, Box<DeliveryOpaque>)> {
    let record = BaseRecord::<(), [u8], _>::with_opaque_to(topic, Box::new(opaque))
        .partition(partition as i32)
        .headers(headers(head))
        .payload(value);
    producer.send(record).map_err(|(error, record)| (error, record.delivery_opaque))
}

fn headers(head: &Head) -> OwnedHeaders {
    head.headers().fold(OwnedHeaders::new_with_capacity(5), |headers, (key, value)| {
        headers.insert(Header { key, value: Some(value.as_str()) })
    })
}

/// Receives the reports of librdkafka, on the polling thread.
pub(super) struct DeliveryContext {
    delivery: Arc<Delivery>,
}

impl ProducerContext for DeliveryContext {
    type DeliveryOpaque = Box<DeliveryOpaque>;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: Box<DeliveryOpaque>) {
        let delivery = &self.delivery;
        match (*opaque, result) {
            (DeliveryOpaque::Events(record), Ok(_)) => delivery.delivered(&record),
            (DeliveryOpaque::Events(record), Err((error, message))) => {
                delivery.not_delivered(record, error, message.payload().unwrap_or_default());
            }
            (DeliveryOpaque::Replayed(id, results), Ok(_)) => delivery.replayed(id, &results, Ok(())),
            (DeliveryOpaque::Replayed(id, results), Err((error, _))) => {
                delivery.replayed(id, &results, Err(error));
            }
            (DeliveryOpaque::Samples(lines), result) => delivery.samples_ended(lines, result.is_ok()),
        }
    }
}

impl ClientContext for DeliveryContext {
    // librdkafka repeats its messages with every attempt to connect, so they are logged only at debug level. `Cluster`
    // logs one message each time Kafka becomes reachable or unreachable.
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(?level, facility, "{message}");
    }

    fn stats(&self, statistics: Statistics) {
        self.delivery.queue_statistics(statistics.msg_cnt, statistics.msg_size);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka's client reports an error");
        self.delivery.client_error(&error);
    }
}
