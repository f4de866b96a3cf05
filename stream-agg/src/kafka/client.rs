//! Clients of Kafka and their settings.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};

use crate::config::{Config, fixed};
use crate::health::Health;
use crate::kafka::librdkafka;
use crate::kafka::membership::{Consumer, Membership};
use crate::kafka::timestamps::Admin;
use crate::protocol::progress::NextOffset;

/// How long one poll waits.
pub(crate) const POLL: Duration = Duration::from_millis(50);
/// How long Kafka may take to tell offsets.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// A client that asks Kafka without being a member.
///
/// # Errors
/// A setting that Kafka's client does not take.
pub fn asker(config: &Config) -> KafkaResult<BaseConsumer> {
    config.migrate.kafka.client(&[]).create()
}

/// A client that asks Kafka for the topic's settings.
///
/// # Errors
/// A setting that Kafka's client does not take.
pub fn admin(config: &Config) -> KafkaResult<Admin> {
    config.migrate.kafka.client(&[]).create()
}

/// A consumer that has not joined its group.
pub(crate) fn consumer(
    config: &Config,
    instance: Option<&str>,
    health: &Arc<Health>,
) -> KafkaResult<Consumer> {
    let kafka = &config.migrate.kafka;
    let queued = queued_kib(config.migrate.partitions);
    let settable = [
        ("group.id", config.group.as_str()),
        ("fetch.queue.backoff.ms", "10"),
        ("queued.max.messages.kbytes", &queued),
    ];
    let mut client = kafka.client(&[&settable[..], &fixed::CONSUMER].concat());
    if let Some(instance) = instance {
        client.set("group.instance.id", instance);
    }
    client.create_with_context(Membership::new(&kafka.topic, health))
}

/// What may wait in the queue of each partition, so that all together are bounded.
fn queued_kib(partitions: NonZeroU16) -> String {
    const ALL_KIB: u32 = 64 << 10;
    (ALL_KIB / u32::from(partitions.get())).clamp(1 << 10, 16 << 10).to_string()
}

/// Seeks to `from` in partition `kp`, whose queue then gives an error instead of records if the record before
/// `from`, of this leader `epoch`, was truncated.
///
/// # Errors
/// The client did not get to it in time.
pub(crate) fn seek<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    kp: i32,
    from: NextOffset,
    epoch: i32,
) -> KafkaResult<()> {
    let until = Instant::now() + ASK_TIMEOUT;
    loop {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, kp, KafkaOffset::Offset(from.to_i64()))?;
        librdkafka::set_leader_epoch(&list, topic, kp, epoch);
        let list = consumer.seek_partitions(list, ASK_TIMEOUT)?;
        match list.elements().first().map(TopicPartitionListElem::error) {
            // Its fetcher is not started yet: that is done by another thread.
            Some(Err(_)) if Instant::now() < until => drop(consumer.poll(POLL)),
            Some(Err(error)) => return Err(error),
            Some(Ok(())) | None => return Ok(()),
        }
    }
}

pub(crate) fn list(topic: &str, partitions: &[i32]) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for kp in partitions {
        list.add_partition(topic, *kp);
    }
    list
}
