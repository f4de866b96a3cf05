//! Detects, by the topic id, that the topic was deleted and created again while the process runs.
//!
//! A topic that was created again has other records at the same offsets. Invariant: a batch is inserted only if, after
//! the records of the batch were read, the topic still had the id that it had when the process started. Kafka never
//! uses an id for two topics, so all records of the batch are from the topic that existed at that time. If the brokers
//! do not support topic ids, nothing is detected.

use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rdkafka::consumer::BaseConsumer;
use rdkafka::error::RDKafkaErrorCode;
use runtime::backoff::RetryPolicy;
use tokio::sync::Mutex;
use tokio::time::{self, Instant};

use crate::health::{Component, Health};
use crate::kafka::librdkafka::{self, TopicDescription};
use crate::protocol::intent::TopicId;

/// Timeout of asking Kafka for the topic id.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// The waits before a failed request is repeated.
const ASK_RETRIES: RetryPolicy = RetryPolicy::new(Duration::from_millis(50), Duration::from_secs(2));

/// Watches whether the topic of the records is deleted and created again.
pub struct TopicWatch {
    name: String,
    metadata_client: Arc<BaseConsumer>,
    health: Arc<Health>,
    /// The topic id in Kafka's first answer.
    first: OnceLock<Option<TopicId>>,
    recreated: AtomicBool,
    /// How many partitions the topic had in Kafka's latest answer; 0 before the first answer.
    partitions: AtomicU16,
    /// When the latest answered request was sent. The lock is held while a request is under way.
    asked: Mutex<Option<Instant>>,
}

/// The topic was deleted and created again since the process started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recreated;

impl TopicWatch {
    /// A watch of the topic `name` that has not sent a request yet.
    pub fn new(name: String, metadata_client: Arc<BaseConsumer>, health: Arc<Health>) -> Self {
        let (first, recreated, partitions) = (OnceLock::new(), AtomicBool::new(false), AtomicU16::new(0));
        Self { name, metadata_client, health, first, recreated, partitions, asked: Mutex::new(None) }
    }

    /// Asks Kafka for the topic id. The first answer counts as the id at the start of the process. Blocks.
    ///
    /// # Errors
    /// Kafka did not answer, or has no such topic.
    pub fn id(&self) -> Result<Option<TopicId>, RDKafkaErrorCode> {
        let TopicDescription { id, partitions } =
            librdkafka::describe_topic(&self.metadata_client, &self.name, ASK_TIMEOUT)?;
        self.partitions.store(partitions, Ordering::Relaxed);
        let first = self.first.get_or_init(|| id);
        if is_recreated(*first, id) && !self.recreated.swap(true, Ordering::AcqRel) {
            tracing::error!("topic `{}` was deleted and created again", self.name);
        }
        Ok(id)
    }

    /// How many partitions the topic had in Kafka's latest answer; `None` before the first answer.
    pub fn partitions(&self) -> Option<u16> {
        Some(self.partitions.load(Ordering::Relaxed)).filter(|partitions| *partitions > 0)
    }

    /// Whether Kafka ever answered with a topic id that differs from the first one.
    pub fn was_recreated(&self) -> bool {
        self.recreated.load(Ordering::Acquire)
    }

    /// Returns once Kafka has answered a request for the topic id that was sent after this call began. Concurrent calls
    /// share a request.
    ///
    /// # Errors
    /// The topic was created again, so the records that were read may belong to another log.
    pub async fn check(self: &Arc<Self>) -> Result<(), Recreated> {
        let since = Instant::now();
        let mut backoff = ASK_RETRIES.backoff();
        let mut asked = self.asked.lock().await;
        while asked.is_none_or(|at| at < since) && !self.was_recreated() {
            let now = Instant::now();
            let topic = Arc::clone(self);
            match tokio::task::spawn_blocking(move || topic.id()).await {
                Ok(Ok(_)) => *asked = Some(now),
                Ok(Err(error)) => {
                    let reason = format!("describe topic `{}`: {error}", self.name);
                    self.health.degraded(Component::Kafka, reason);
                    time::sleep(backoff.wait()).await;
                }
                // If the runtime shuts down, the task fails; the shutdown also ends this call.
                Err(_) => time::sleep(backoff.wait()).await,
            }
        }
        if self.was_recreated() { Err(Recreated) } else { Ok(()) }
    }
}

/// Whether the topic was deleted and created again. Without topic ids in the brokers, this cannot be detected.
fn is_recreated(first: Option<TopicId>, now: Option<TopicId>) -> bool {
    first.is_some() && now.is_some() && first != now
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_with_another_id_was_created_again() {
        let (one, other) = (Some(TopicId(1)), Some(TopicId(2)));
        assert!(is_recreated(one, other));
        for (first, now) in [(one, one), (None, None), (None, one), (one, None)] {
            assert!(!is_recreated(first, now), "{first:?} {now:?}");
        }
    }
}
