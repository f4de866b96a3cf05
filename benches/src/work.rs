//! The work: made-up events as requests, and as records that are in Kafka already.
//!
//! Different from body to body: one that is repeated would compress across requests.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use bytes::Bytes;
use devstack::Kafka;
use devstack::traffic::{BATCH, Traffic};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;
use schemas::event;
use schemas::line::{self, Prefix};
use schemas::record::{Head, Kind};
use schemas::time::{MINUTE, UnixMillis};
use uuid::Uuid;

use crate::load;

/// Bodies that are sent in turn.
const BODIES: usize = 2_000;
/// How long the events of a filled topic are spread over, in milliseconds: ten minutes.
const BACKLOG: i64 = 10 * MINUTE;
/// Devices that the events come from.
const DEVICES: usize = 100_000;
/// Partitions of a topic, here as by default.
pub const PARTITIONS: u16 = 8;
/// For Kafka to take what is still under way.
const FLUSH: Duration = Duration::from_secs(60);

/// Requests of [`BATCH`] events of one device each.
pub fn batches() -> Arc<[Bytes]> {
    let (mut traffic, now) = traffic();
    (0..BODIES).map(|_| load::post("/v1/events", traffic.batch(now).as_bytes())).collect()
}

/// Requests of one person's reaction each.
pub fn reactions() -> Arc<[Bytes]> {
    let (mut traffic, now) = traffic();
    (0..BODIES).map(|_| load::post(&traffic.reaction(now), b"")).collect()
}

/// Requests for the answer of this hour.
pub fn reads() -> Arc<[Bytes]> {
    vec![load::get(&format!("/analytics?timestamp={}", now().0))].into()
}

/// Writes at least `events` events into `topic` as the edge does, [`BATCH`] lines a record, and
/// returns how many. Blocks its thread.
pub fn fill(kafka: &Kafka, topic: &str, events: u64) -> anyhow::Result<u64> {
    let (mut traffic, now) = traffic();
    let mut config = kafka.client_config();
    config
        .set("acks", "all")
        .set("compression.type", "lz4")
        .set("linger.ms", "5")
        .set("queue.buffering.max.messages", "1000000");
    let producer: ThreadedProducer<DefaultProducerContext> = config.create().context("create a producer")?;
    let records = events.div_ceil(BATCH as u64);
    for number in 0..records {
        let at = UnixMillis(now.0 - BACKLOG + BACKLOG * number as i64 / records as i64);
        let value = enriched(&prefix(at), &traffic.batch(at));
        let partition = (number % u64::from(PARTITIONS)) as i32;
        let mut record =
            BaseRecord::<(), _>::to(topic).partition(partition).headers(headers()).payload(&value);
        while let Err((error, refused)) = producer.send(record) {
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                bail!("fill topic `{topic}`: {error}");
            }
            // It need not be empty by then: any place in the queue will do.
            producer.flush(Duration::from_millis(100)).ok();
            record = refused;
        }
    }
    producer.flush(FLUSH).with_context(|| format!("fill topic `{topic}`"))?;
    Ok(records * BATCH as u64)
}

/// Bodies of [`BATCH`] events each, the same whenever they are made.
pub fn bodies(count: usize, now: UnixMillis) -> Vec<String> {
    let mut traffic = Traffic::new(1, DEVICES);
    (0..count).map(|_| traffic.batch(now)).collect()
}

/// Values of records of [`BATCH`] lines, as the edge writes them at `now`.
pub fn records(count: usize, now: UnixMillis) -> Vec<Vec<u8>> {
    bodies(count, now).iter().map(|body| enriched(&prefix(now), body)).collect()
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
        let parsed = event::parse::<()>(text).expect("made-up events are good");
        if !value.is_empty() {
            value.push(b'\n');
        }
        line::write(prefix, text, &parsed, &mut value);
    }
    value
}

fn traffic() -> (Traffic, UnixMillis) {
    (Traffic::new(1, DEVICES), now())
}

fn now() -> UnixMillis {
    SystemTime::now().into()
}
