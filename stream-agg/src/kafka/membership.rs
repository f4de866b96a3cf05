//! The client's callbacks: what the group coordinator tells a member.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::types::RDKafkaRespErr;

use crate::health::Health;
use crate::kafka::client::list;

/// The consumer of this process.
pub type Consumer = BaseConsumer<Membership>;

/// What the group told us and nobody has acted on yet.
pub struct Membership {
    topic: String,
    changes: Mutex<Vec<Change>>,
    /// At the end of the process changes are carried out where they are told.
    leaving: AtomicBool,
    health: Arc<Health>,
}

/// A change of what is ours, by partition.
#[derive(Debug)]
pub enum Change {
    /// Partitions that this member is assigned in addition.
    Assigned(Vec<i32>),
    /// Partitions that this member no longer has.
    Revoked(Vec<i32>),
}

impl Membership {
    /// Of a member that has not joined yet.
    pub(crate) fn new(topic: &str, health: &Arc<Health>) -> Self {
        Self {
            topic: topic.to_owned(),
            changes: Mutex::default(),
            leaving: AtomicBool::new(false),
            health: Arc::clone(health),
        }
    }

    pub(crate) fn changes(&self) -> MutexGuard<'_, Vec<Change>> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn partitions(&self, list: &TopicPartitionList) -> Vec<i32> {
        let ours = list.elements_for_topic(&self.topic);
        ours.iter().map(TopicPartitionListElem::partition).collect()
    }

    /// Answers what was noted, then `more`, and from here on every change where it is told: Kafka
    /// waits for an answer before it lets a member go.
    pub(crate) fn answer_at_once(&self, consumer: &Consumer, more: impl IntoIterator<Item = Change>) {
        self.leaving.store(true, Ordering::Release);
        let noted = std::mem::take(&mut *self.changes());
        for change in noted.into_iter().chain(more) {
            let answered = match change {
                Change::Assigned(_) => consumer.incremental_assign(&TopicPartitionList::new()),
                Change::Revoked(partitions) => consumer.incremental_unassign(&list(&self.topic, &partitions)),
            };
            if let Err(error) = answered {
                tracing::debug!(%error, "leave the group");
            }
        }
    }
}

impl ClientContext for Membership {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        // Brokers that come and go are told by `error`, once.
        tracing::debug!("librdkafka: {facility}: {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.health.kafka_away();
        } else {
            tracing::debug!("librdkafka: {error}: {reason}");
        }
    }
}

impl ConsumerContext for Membership {
    fn rebalance(&self, consumer: &Consumer, told: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let assigned = told == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.leaving.load(Ordering::Acquire) {
            let done = if assigned {
                consumer.incremental_assign(list)
            } else {
                consumer.incremental_unassign(list)
            };
            if let Err(error) = done {
                tracing::debug!(%error, "leave the group");
            }
            return;
        }
        let partitions = self.partitions(list);
        let change = if assigned { Change::Assigned(partitions) } else { Change::Revoked(partitions) };
        self.changes().push(change);
    }
}
