//! The callbacks of the group's consumer: they record assignments and revocations for the member to act on.

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
use crate::kafka::client::partition_list;

/// The consumer of the group.
pub type GroupConsumer = BaseConsumer<GroupContext>;

/// Records the rebalances of the group until the member acts on them.
pub struct GroupContext {
    topic: String,
    events: Mutex<Vec<RebalanceEvent>>,
    /// True once this member leaves the group. The callbacks then acknowledge rebalances themselves.
    leaving: AtomicBool,
    health: Arc<Health>,
}

/// A change of the partitions that are assigned to this member.
#[derive(Debug)]
pub enum RebalanceEvent {
    /// These partitions were added.
    Assigned(Vec<i32>),
    /// These partitions were revoked or lost.
    Revoked(Vec<i32>),
}

impl GroupContext {
    /// The context of a consumer that has not joined the group yet.
    pub(crate) fn new(topic: &str, health: &Arc<Health>) -> Self {
        Self {
            topic: topic.to_owned(),
            events: Mutex::default(),
            leaving: AtomicBool::new(false),
            health: Arc::clone(health),
        }
    }

    /// Removes the recorded rebalances and returns them.
    pub(crate) fn take_events(&self) -> Vec<RebalanceEvent> {
        std::mem::take(&mut *self.events())
    }

    /// Whether a rebalance was recorded.
    pub(crate) fn has_events(&self) -> bool {
        !self.events().is_empty()
    }

    /// Acknowledges the recorded rebalances and then `more`. Later rebalances are acknowledged in their callbacks,
    /// because Kafka's client waits for an acknowledgement before it leaves the group.
    pub(crate) fn acknowledge_immediately(
        &self,
        consumer: &GroupConsumer,
        more: impl IntoIterator<Item = RebalanceEvent>,
    ) {
        self.leaving.store(true, Ordering::Release);
        let recorded = self.take_events();
        for event in recorded.into_iter().chain(more) {
            let acknowledged = match event {
                RebalanceEvent::Assigned(_) => consumer.incremental_assign(&TopicPartitionList::new()),
                RebalanceEvent::Revoked(partitions) => {
                    consumer.incremental_unassign(&partition_list(&self.topic, &partitions))
                }
            };
            if let Err(error) = acknowledged {
                tracing::debug!(%error, "acknowledge a rebalance while leaving the group");
            }
        }
    }

    fn events(&self) -> MutexGuard<'_, Vec<RebalanceEvent>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn partitions(&self, list: &TopicPartitionList) -> Vec<i32> {
        let of_topic = list.elements_for_topic(&self.topic);
        of_topic.iter().map(TopicPartitionListElem::partition).collect()
    }
}

impl ClientContext for GroupContext {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        // Debug level is enough, because the callback `error` already reports when all brokers are down.
        tracing::debug!("librdkafka: {facility}: {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.health.kafka_unreachable();
        } else {
            tracing::debug!("librdkafka: {error}: {reason}");
        }
    }
}

impl ConsumerContext for GroupContext {
    fn rebalance(&self, consumer: &GroupConsumer, kind: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let assigned = kind == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.leaving.load(Ordering::Acquire) {
            let acknowledged = if assigned {
                consumer.incremental_assign(list)
            } else {
                consumer.incremental_unassign(list)
            };
            if let Err(error) = acknowledged {
                tracing::debug!(%error, "acknowledge a rebalance while leaving the group");
            }
            return;
        }
        let partitions = self.partitions(list);
        let event =
            if assigned { RebalanceEvent::Assigned(partitions) } else { RebalanceEvent::Revoked(partitions) };
        self.events().push(event);
    }
}
