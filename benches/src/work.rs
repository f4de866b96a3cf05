//! The work as it is sent: prepared requests, and records that are in Kafka already.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use bytes::Bytes;
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

use crate::events::{Events, Work};
use crate::load;

/// Bodies that are sent in turn.
const BODIES: usize = 2_000;
/// How long the events of a filled topic are spread over, in milliseconds: ten minutes.
const BACKLOG: i64 = 10 * MINUTE;
/// Requests of one round of a demo: a batch, reactions,
pub const DEMO_REQUESTS: usize = 5;
/// and at this place a vote.
const DEMO_VOTE: usize = DEMO_REQUESTS - 1;
/// Partitions of a topic, here as by default.
pub const PARTITIONS: u16 = 8;
/// For Kafka to take what is still under way.
const FLUSH: Duration = Duration::from_secs(60);

/// Requests of [`BATCH`] events of one device each.
pub fn batches(work: Work) -> Arc<[Bytes]> {
    let (mut events, now) = (Events::new(work), now());
    (0..BODIES).map(|_| load::post("/v1/events", events.batch(now).as_bytes())).collect()
}

/// Requests of one person's reaction each.
pub fn reactions() -> Arc<[Bytes]> {
    let (mut events, now) = (Events::new(Work::Lean), now());
    (0..BODIES).map(|_| load::post(&events.reaction(now), b"")).collect()
}

/// What a demo sends ten times a second: a batch, three reactions and a vote. Requests to be sent
/// at `rate` a second for `duration`, each with the time at which it is sent.
pub fn demo(rate: f64, duration: Duration) -> Arc<[Bytes]> {
    let (mut events, start) = (Events::new(Work::Lean), now());
    let count = (rate * duration.as_secs_f64()).ceil() as usize;
    let requests = (0..count).map(|number| {
        let at = UnixMillis(start.0 + (number as f64 / rate * 1000.0) as i64);
        match number % DEMO_REQUESTS {
            0 => load::post("/v1/events", events.batch(at).as_bytes()),
            1..DEMO_VOTE => load::post(&events.reaction(at), b""),
            _ => load::post("/v1/votes", events.vote().as_bytes()),
        }
    });
    requests.collect()
}

/// Requests for the answer of this hour.
pub fn reads() -> Arc<[Bytes]> {
    vec![load::get(&format!("/analytics?timestamp={}", now().0))].into()
}

/// Writes at least `count` events into `topic` as the edge does, [`BATCH`] lines a record, and
/// returns how many. Blocks its thread.
pub fn fill(kafka: &Kafka, topic: &str, work: Work, count: u64) -> anyhow::Result<u64> {
    let (mut events, now) = (Events::new(work), now());
    let mut config = kafka.client_config();
    config
        .set("acks", "all")
        .set("compression.type", "lz4")
        .set("linger.ms", "5")
        .set("queue.buffering.max.messages", "1000000");
    let producer: ThreadedProducer<DefaultProducerContext> = config.create().context("create a producer")?;
    let records = count.div_ceil(BATCH as u64);
    for number in 0..records {
        let at = UnixMillis(now.0 - BACKLOG + BACKLOG * number as i64 / records as i64);
        let value = enriched(&prefix(at), &events.batch(at));
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
pub fn bodies(work: Work, count: usize, now: UnixMillis) -> Vec<String> {
    let mut events = Events::new(work);
    (0..count).map(|_| events.batch(now)).collect()
}

/// Values of records of [`BATCH`] lines, as the edge writes them at `now`.
pub fn records(work: Work, count: usize, now: UnixMillis) -> Vec<Vec<u8>> {
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
        let parsed = event::parse::<()>(text).expect("made-up events are good");
        if !value.is_empty() {
            value.push(b'\n');
        }
        line::write(prefix, text, &parsed, &mut value);
    }
    value
}

fn now() -> UnixMillis {
    SystemTime::now().into()
}
