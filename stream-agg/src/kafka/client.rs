//! The clients of Kafka and their settings.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};

use crate::config::{Config, fixed};
use crate::health::Health;
use crate::kafka::group_context::{GroupConsumer, GroupContext};
use crate::kafka::librdkafka;
use crate::kafka::timestamps::Admin;
use crate::protocol::progress::NextOffset;

/// How long one poll waits for events.
pub(crate) const POLL_TIMEOUT: Duration = Duration::from_millis(50);
/// Timeout of a seek.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// A client that asks for metadata and offsets. It is not a member of the group.
///
/// # Errors
/// Kafka's client does not accept a setting.
pub fn metadata_client(config: &Config) -> KafkaResult<BaseConsumer> {
    config.migrate.kafka.client(&[]).create()
}

/// A client that reads the settings of the topic.
///
/// # Errors
/// Kafka's client does not accept a setting.
pub fn admin_client(config: &Config) -> KafkaResult<Admin> {
    config.migrate.kafka.client(&[]).create()
}

/// How long Kafka keeps the partitions of a member that sends no heartbeats. This is Kafka's default, which is long
/// enough for a process to restart with the same `GROUP_INSTANCE_ID`.
const SESSION_MS: &str = "45000";

/// A consumer that has not joined the group yet.
pub(crate) fn group_consumer(
    config: &Config,
    instance: Option<&str>,
    health: &Arc<Health>,
) -> KafkaResult<GroupConsumer> {
    let kafka = &config.migrate.kafka;
    let queued = queued_kib(config.migrate.partitions);
    let settable = [
        ("group.id", config.group.as_str()),
        ("session.timeout.ms", SESSION_MS),
        ("fetch.queue.backoff.ms", "10"),
        ("queued.max.messages.kbytes", &queued),
    ];
    let mut client = kafka.client(&[&settable[..], &fixed::CONSUMER].concat());
    if let Some(instance) = instance {
        client.set("group.instance.id", instance);
    }
    client.create_with_context(GroupContext::new(&kafka.topic, health))
}

/// Limit of the bytes of fetched records that wait to be decoded, for all partitions together. With more than 64
/// partitions, more bytes may wait, because the queue of each partition may hold 1 MiB.
pub(crate) const QUEUED_BYTES: usize = 64 << 20;

/// Limit of the queue of each partition, in KiB: an equal share of [`QUEUED_BYTES`], but at least 1 MiB and at most 16
/// MiB.
fn queued_kib(partitions: NonZeroU16) -> String {
    const ALL_KIB: u32 = (QUEUED_BYTES >> 10) as u32;
    (ALL_KIB / u32::from(partitions.get())).clamp(1 << 10, 16 << 10).to_string()
}

/// Seeks to `from` in `partition`. `epoch` is the leader epoch of the record before `from`. If the log was truncated
/// below `from`, the queue of the partition then returns an error instead of records.
///
/// # Errors
/// The client did not seek in time.
pub(crate) fn seek<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partition: i32,
    from: NextOffset,
    epoch: i32,
) -> KafkaResult<()> {
    let until = Instant::now() + ASK_TIMEOUT;
    loop {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, KafkaOffset::Offset(from.to_i64()))?;
        librdkafka::set_leader_epoch(&list, topic, partition, epoch);
        let list = consumer.seek_partitions(list, ASK_TIMEOUT)?;
        match list.elements().first().map(TopicPartitionListElem::error) {
            // The seek fails until another thread of the client has started the fetcher of the partition.
            Some(Err(_)) if Instant::now() < until => drop(consumer.poll(POLL_TIMEOUT)),
            Some(Err(error)) => return Err(error),
            Some(Ok(())) | None => return Ok(()),
        }
    }
}

/// A list of `partitions` of `topic`, without offsets.
pub(crate) fn partition_list(topic: &str, partitions: &[i32]) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition(topic, *partition);
    }
    list
}
