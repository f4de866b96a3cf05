//! Records as the edge writes them into Kafka, and the plain bodies from which they are made.

use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use devstack::Kafka;
use devstack::traffic::BATCH;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;
use schemas::event;
use schemas::line::{self, Prefix};
use schemas::record::{Head, Kind};
use schemas::time::{MINUTE, UnixMillis};
use uuid::Uuid;

use super::{Events, Work};

/// Number of partitions of a topic that [`fill`] fills. It is the default of `TOPIC_PARTITIONS`.
pub const PARTITIONS: u16 = 8;
/// The span of `server_time` in a topic that [`fill`] fills, in milliseconds: ten minutes.
const BACKLOG_MS: i64 = 10 * MINUTE;
/// Longest wait for Kafka to acknowledge the last records.
const FLUSH_DEADLINE: Duration = Duration::from_secs(60);

/// Writes at least `count` events into `topic`, in records like those of the edge with [`BATCH`] lines each. Returns
/// the number of events that were written. Blocks the calling thread.
pub fn fill(kafka: &Kafka, topic: &str, work: Work, count: u64) -> anyhow::Result<u64> {
    fill_over(kafka, topic, work, count, BACKLOG_MS)
}

/// Like [`fill`], but the values of `server_time` are spread over the last `span` milliseconds.
pub fn fill_over(kafka: &Kafka, topic: &str, work: Work, count: u64, span: i64) -> anyhow::Result<u64> {
    let (mut events, now) = (Events::new(work), UnixMillis::from(SystemTime::now()));
    let mut config = kafka.client_config();
    config
        .set("acks", "all")
        .set("compression.type", "lz4")
        .set("linger.ms", "5")
        .set("queue.buffering.max.messages", "1000000");
    let producer: ThreadedProducer<DefaultProducerContext> = config.create().context("create a producer")?;
    let records = count.div_ceil(BATCH as u64);
    for number in 0..records {
        let at = UnixMillis(now.0 - span + span * number as i64 / records as i64);
        let value = enriched(&prefix(at), &events.batch(at));
        let partition = (number % u64::from(PARTITIONS)) as i32;
        let mut record =
            BaseRecord::<(), _>::to(topic).partition(partition).headers(headers()).payload(&value);
        while let Err((error, refused)) = producer.send(record) {
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                bail!("fill topic `{topic}`: {error}");
            }
            // The flush may time out before the queue is empty. That does not matter: one free place is enough.
            producer.flush(Duration::from_millis(100)).ok();
            record = refused;
        }
    }
    producer.flush(FLUSH_DEADLINE).with_context(|| format!("fill topic `{topic}`"))?;
    Ok(records * BATCH as u64)
}

/// Bodies of [`BATCH`] events each, the same for the same arguments.
pub fn bodies(work: Work, count: usize, now: UnixMillis) -> Vec<String> {
    let mut events = Events::new(work);
    (0..count).map(|_| events.batch(now)).collect()
}

/// Values of records of [`BATCH`] lines, as the edge writes them at `now`.
pub fn values(work: Work, count: usize, now: UnixMillis) -> Vec<Vec<u8>> {
    bodies(work, count, now).iter().map(|body| enriched(&prefix(now), body)).collect()
}

fn prefix(at: UnixMillis) -> Prefix {
    Prefix::new("default", [127, 0, 0, 1].into(), at)
}

fn headers() -> OwnedHeaders {
    let head =
        Head { lines: BATCH as u32, id: Uuid::now_v7(), spooled: false, kind: Kind::Events, trace: None };
    head.headers().fold(OwnedHeaders::new(), |headers, (key, value)| {
        headers.insert(Header { key, value: Some(&value) })
    })
}

fn enriched(prefix: &Prefix, batch: &str) -> Vec<u8> {
    let mut value = Vec::new();
    for text in batch.lines() {
        let parsed = event::parse::<()>(text).expect("generated events are valid");
        if !value.is_empty() {
            value.push(b'\n');
        }
        line::write(prefix, text, &parsed, &mut value);
    }
    value
}
