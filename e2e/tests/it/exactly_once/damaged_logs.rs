//! If a record is missing from the log of a partition or is unreadable, the aggregator stops the partition. It never
//! skips such a record without an operator's command.
//!
//! Some of these tests change Kafka's files while Kafka is stopped. Others delete records, or delete a topic and create
//! it again.

use std::fs;
use std::path::PathBuf;

use devstack::{Service, Stack, wait_for};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rustix::process::Signal;
use uuid::Uuid;

use crate::oracle::{Oracle, TestEvent, now};
use crate::readiness::wait_for_readyz;
use crate::wire::{self, enriched};
use crate::world::{DEADLINE, World};

/// A topic on Kafka and ClickHouse servers of its own, so that a test may change Kafka's files.
struct Log {
    stack: Stack,
    world: World,
    oracle: Oracle,
    rng: fastrand::Rng,
}

impl Log {
    async fn new(name: &'static str) -> Self {
        let (stack, world) = World::on_own_servers(name).await;
        Self { stack, world, oracle: Oracle::default(), rng: fastrand::Rng::with_seed(80) }
    }

    /// Appends records of one line each to partition 0, each in its own record batch. Returns their events.
    fn produce(&mut self, records: usize, compression: &str) -> Vec<TestEvent> {
        let mut config = self.world.kafka();
        let producer: BaseProducer = config.set("compression.type", compression).create().unwrap();
        let made: Vec<_> = (0..records).map(|_| TestEvent::random(&mut self.rng, now())).collect();
        for made in &made {
            let id = Uuid::now_v7().to_string();
            let headers = [("v", "1"), ("n", "1"), ("id", id.as_str())];
            let headers = headers.iter().fold(OwnedHeaders::new(), |all, (key, value)| {
                all.insert(Header { key, value: Some(value.as_bytes()) })
            });
            let line = enriched(&made.line());
            let record =
                BaseRecord::<(), _>::to(self.world.name()).partition(0).payload(&line).headers(headers);
            producer.send(record).map_err(|(error, _)| error).unwrap();
            producer.flush(DEADLINE).unwrap();
        }
        made
    }

    fn expect_counted(&mut self, made: &[TestEvent]) {
        made.iter().for_each(|made| self.oracle.record(made));
    }

    /// The segment file of partition 0.
    fn segment(&self) -> PathBuf {
        let partition = format!("kafka/data/{}-0", self.world.name());
        self.stack.directory.path().join(partition).join("00000000000000000000.log")
    }

    /// Changes the segment while Kafka is stopped. When Kafka starts after a clean stop, it does not check segments.
    async fn damage(&mut self, change: impl FnOnce(&mut Vec<u8>)) {
        self.stack.kafka.stop().await.unwrap();
        let path = self.segment();
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::write(&path, bytes).unwrap();
        self.stack.kafka.start().await.unwrap();
    }

    /// Appends three records, runs an aggregator until the ledger has them, and truncates the log after the first
    /// record. Returns the events of all three records.
    async fn read_and_truncate(&mut self) -> Vec<TestEvent> {
        let made = self.produce(3, "none");
        let aggregator = self.world.start("stream-agg", &[]);
        wait_for("three records in the ledger", DEADLINE, async || self.recorded().await == 3).await.unwrap();
        self.stop(aggregator).await;
        self.damage(|segment| segment.truncate(record_batches(segment)[0].1)).await;
        made
    }

    /// Number of records in the ledger that are from partition 0 and from the first generation of its log.
    async fn recorded(&self) -> u64 {
        self.world.number("SELECT count() FROM ledger WHERE tenant = '*' AND g = 0 AND kp = 0").await
    }

    async fn stop(&self, mut aggregator: Service) {
        aggregator.terminate().await.unwrap();
    }
}

/// The query for the number of records in the ledger.
const RECORDED: &str = "SELECT count() FROM ledger WHERE tenant = '*'";

/// A topic on the servers that tests share, and the events of all its records.
struct Topic {
    world: World,
    oracle: Oracle,
    rng: fastrand::Rng,
}

impl Topic {
    /// A topic of three records, and an aggregator that has stored them.
    async fn read(name: &'static str) -> (Self, Service) {
        let world = World::new(name).await;
        let mut topic = Self { world, oracle: Oracle::default(), rng: fastrand::Rng::with_seed(81) };
        topic.produce(3);
        let aggregator = topic.world.aggregator().await;
        let is_stored = async || topic.world.number(RECORDED).await == 3;
        wait_for("three records in the ledger", DEADLINE, is_stored).await.unwrap();
        (topic, aggregator)
    }

    /// Appends records of one event each to partition 0.
    fn produce(&mut self, records: usize) {
        for _ in 0..records {
            let made = TestEvent::random(&mut self.rng, now());
            self.oracle.record(&made);
            wire::produce(&self.world, 0, &[made]);
        }
    }

    /// Deletes the topic, creates it again, and appends more records than it had.
    async fn create_again(&mut self) {
        self.world.delete_topic().await;
        self.world.migrate().await;
        self.produce(10);
    }
}

/// The start and the end of each record batch of a segment.
fn record_batches(segment: &[u8]) -> Vec<(usize, usize)> {
    let mut batches = Vec::new();
    let mut at = 0;
    while at < segment.len() {
        let length = i32::from_be_bytes(segment[at + 8..at + 12].try_into().unwrap());
        let end = at + 12 + usize::try_from(length).unwrap();
        batches.push((at, end));
        at = end;
    }
    batches
}

/// Position of the checksum in a record batch of version 2, in bytes.
const CRC_AT: usize = 17;
/// Position after the checksum: the first byte that the checksum covers.
const CRC_FROM: usize = 21;
/// Position of the first record.
const RECORDS_AT: usize = 61;

/// CRC-32C, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

/// Starts an aggregator and waits until its readiness text contains all of these words. Leaves it running.
async fn started(world: &World, words: &[&str]) -> Service {
    let aggregator = world.start("stream-agg", &[]);
    wait_for_readyz(&aggregator, words).await;
    aggregator
}

#[tokio::test]
async fn a_record_batch_with_a_wrong_checksum_stops_its_partition_and_is_not_skipped() {
    let mut log = Log::new("damaged_checksum").await;
    log.produce(4, "none");
    log.damage(|segment| {
        let (_, end) = record_batches(segment)[1];
        segment[end - 1] ^= 0xff;
    })
    .await;
    let aggregator =
        started(&log.world, &["partition 0", "cannot read the records at offset 1", "kafka-delete-records"])
            .await;
    let counted = wait_for("the record before the damaged one", DEADLINE, async || log.recorded().await == 1);
    counted.await.unwrap();
    log.stop(aggregator).await;
    // After a second start, the aggregator stops at the same record. So the first aggregator did not commit an offset
    // beyond this record.
    let aggregator = started(&log.world, &["partition 0", "cannot read the records at offset 1"]).await;
    assert_eq!(log.recorded().await, 1);
    log.stop(aggregator).await;
}

#[tokio::test]
async fn a_record_batch_that_cannot_be_decompressed_stops_its_partition() {
    let mut log = Log::new("damaged_compression").await;
    log.produce(3, "lz4");
    log.damage(|segment| {
        let (start, end) = record_batches(segment)[1];
        // Damages the magic number of lz4, and corrects the checksum of the record batch, so that only decompression
        // fails.
        segment[start + RECORDS_AT] ^= 0xff;
        let crc = crc32c(&segment[start + CRC_FROM..end]);
        segment[start + CRC_AT..start + CRC_FROM].copy_from_slice(&crc.to_be_bytes());
    })
    .await;
    let aggregator = started(&log.world, &["partition 0", "cannot read the records at offset 1"]).await;
    let counted = wait_for("the record before the damaged one", DEADLINE, async || log.recorded().await == 1);
    counted.await.unwrap();
    log.stop(aggregator).await;
}

#[tokio::test]
async fn a_truncated_log_that_grew_again_is_refused_and_counted_in_addition_after_adopt() {
    let mut log = Log::new("damaged_truncated").await;
    let made = log.read_and_truncate().await;
    log.expect_counted(&made);
    log.world.assert_counted(&log.oracle.counts()).await;
    let refusal = ["partition 0", "truncated below that offset", "adopt 0", "--new-log --from"];
    // The aggregator refuses the log both before and after the log grows again.
    let aggregator = started(&log.world, &refusal).await;
    log.stop(aggregator).await;
    let made = log.produce(5, "none");
    log.expect_counted(&made);
    let aggregator = started(&log.world, &refusal).await;
    assert_eq!(log.recorded().await, 3);
    log.stop(aggregator).await;
    for forgotten in [&["adopt", "0"][..], &["adopt", "0", "--new-log"]] {
        let refused = log.world.run("stream-agg", forgotten, &[]).await;
        assert!(refused.is_err(), "{forgotten:?} must fail: it would count records twice or not at all");
    }
    let adopt = ["adopt", "0", "--new-log", "--from", "1"];
    log.world.run("stream-agg", &adopt, &[]).await.unwrap();
    let aggregator = log.world.aggregator().await;
    log.world.assert_counted(&log.oracle.counts()).await;
    log.stop(aggregator).await;
}

#[tokio::test]
async fn a_log_that_was_truncated_inside_a_declared_batch_and_grew_again_is_refused() {
    let mut log = Log::new("damaged_declared").await;
    // Because of this constraint, the table `events` refuses the batch. The ledger stores it.
    log.world.rows("ALTER TABLE events ADD CONSTRAINT closed CHECK hwm > 1000").await;
    log.read_and_truncate().await;
    log.world.rows("ALTER TABLE events DROP CONSTRAINT closed").await;
    log.produce(5, "none");
    let refusal = ["partition 0", "records below 3", "truncated below that offset", "--new-log --from"];
    let aggregator = started(&log.world, &refusal).await;
    assert_eq!(
        log.world.number("SELECT count() FROM events").await,
        0,
        "rows in `events` would come from other records than the rows in the ledger"
    );
    log.stop(aggregator).await;
    assert!(log.world.run("stream-agg", &["adopt", "0"], &[]).await.is_err());
}

#[tokio::test]
async fn a_topic_that_was_created_again_and_grew_past_the_commit_is_refused_at_start() {
    let (mut topic, mut aggregator) = Topic::read("damaged_recreated").await;
    aggregator.terminate().await.unwrap();
    let (offset, metadata) = topic.world.committed(0);
    assert_eq!(offset, 3);
    topic.create_again().await;
    let Topic { world, oracle, .. } = topic;
    // Kafka deletes the committed offsets together with the topic, but a tool may restore them from a backup.
    world.commit_partition(0, offset, &metadata);
    let mut aggregator =
        started(&world, &["partition 0", "deleted and created again", "topic id", "--new-log"]).await;
    assert_eq!(world.number(RECORDED).await, 3);
    aggregator.terminate().await.unwrap();
    world.run("stream-agg", &["adopt", "0", "--new-log"], &[]).await.unwrap();
    let mut aggregator = world.aggregator().await;
    world.assert_counted(&oracle.counts()).await;
    aggregator.terminate().await.unwrap();
}

#[tokio::test]
async fn a_topic_recreated_while_it_is_read_is_never_counted_as_the_old_topic() {
    let (mut topic, mut aggregator) = Topic::read("damaged_replaced").await;
    // The aggregator is paused, so it notices neither the deletion of the topic nor the time in which the new log is
    // shorter than the old log. When the aggregator continues, the new log is longer.
    aggregator.process().signal(Signal::STOP).unwrap();
    topic.create_again().await;
    aggregator.process().signal(Signal::CONT).unwrap();
    let Topic { world, oracle, .. } = topic;
    wait_for_readyz(&aggregator, &["deleted and created again", "--new-log"]).await;
    assert_eq!(world.number(RECORDED).await, 3);
    aggregator.terminate().await.unwrap();
    // Imitates a tool that reset the committed offset, and then more than 30 days without events. The ledger is then
    // empty, because its rows expire after 30 days. Only tables with a longer retention show that the partition had
    // another log before.
    world.commit_partition(0, 0, "");
    world.rows("CREATE TABLE forgotten AS ledger ENGINE = Memory").await;
    world.rows("INSERT INTO forgotten SELECT * FROM ledger").await;
    world.rows("TRUNCATE TABLE ledger").await;
    world.run("stream-agg", &["adopt", "0", "--new-log"], &[]).await.unwrap();
    world.rows("INSERT INTO ledger SELECT * FROM forgotten").await;
    let mut aggregator = world.aggregator().await;
    world.assert_counted(&oracle.counts()).await;
    aggregator.terminate().await.unwrap();
}

#[tokio::test]
async fn records_deleted_by_retention_before_they_are_read_stop_their_partition() {
    let world = World::new("damaged_retention").await;
    // While ClickHouse refuses inserts into the ledger, the aggregator reads only some of these records ahead. It
    // divides its memory for fetched records by `TOPIC_PARTITIONS`, so a large number makes it fetch fewer records.
    // Because of `BATCH_MAX_BYTES`, each record becomes a batch of its own.
    let (records, bytes) = (24, 400 << 10);
    let small = [("BATCH_MAX_BYTES", "1KiB"), ("TOPIC_PARTITIONS", "64")];
    world.rows("ALTER TABLE ledger ADD CONSTRAINT closed CHECK hwm > 1000").await;
    let mut rng = fastrand::Rng::with_seed(83);
    for _ in 0..records {
        let (id, text) =
            (Uuid::now_v7().to_string(), (0..bytes).map(|_| rng.alphanumeric()).collect::<String>());
        // The line is not JSON, so it becomes a dead letter. This test looks only at the ledger, which also has a row
        // for the record of a dead letter.
        world.produce(0, &[("v", "1"), ("n", "1"), ("id", &id)], text.as_bytes());
    }
    let mut aggregator = world.start("stream-agg", &small);
    wait_for_readyz(&aggregator, &["ledger"]).await;
    world.delete_records().await;
    world.rows("ALTER TABLE ledger DROP CONSTRAINT closed").await;
    wait_for_readyz(&aggregator, &["partition 0", "no longer in the log", "stream-agg adopt 0"]).await;
    let recorded = world.number("SELECT count() FROM ledger WHERE tenant = '*'").await;
    assert!(
        (1..records).contains(&recorded),
        "the ledger has {recorded} of {records} records: some but not all must be read before the deletion"
    );
    aggregator.terminate().await.unwrap();
}
