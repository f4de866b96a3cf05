//! Starts the pipelines of assigned partitions: each at the committed offset of its partition, or at the beginning of
//! the log if no offset is committed.
//!
//! A partition waits in a queue while no broker reports where its log begins and ends, for example because the
//! partition has no leader. The pipelines of the other partitions start without it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};

use crate::group::member::Member;
use crate::group::{GroupError, LeaveReason};
use crate::health::Component;
use crate::kafka::client::{partition_list, seek};
use crate::kafka::{commit, librdkafka};
use crate::pipeline::Pipeline;
use crate::protocol::progress::NextOffset;
use crate::protocol::recover::KafkaState;

/// Timeout of the request for the committed offsets of assigned partitions. For newly assigned partitions, also the
/// time that all requests for the beginnings and ends of their logs may take together.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// Minimum timeout of a request that asks where the log of one partition begins and ends, even if the requests for
/// other partitions have used up [`ASK_TIMEOUT`]. For a waiting partition, this is both the timeout of each request and
/// the pause between two requests.
const ASK_ONE_TIMEOUT: Duration = Duration::from_millis(500);

/// An assigned partition without a pipeline, because no broker reports where the log of the partition begins and ends.
pub(super) struct WaitingPartition {
    pub(super) partition: i32,
    /// The member id under which the partition was assigned.
    pub(super) member: Arc<str>,
}

/// Calls `ask` for each partition. Returns the answers by partition, and the partitions for which the call failed.
fn ask_each<T, U>(
    partitions: impl IntoIterator<Item = (i32, T)>,
    mut ask: impl FnMut(i32, T) -> KafkaResult<U>,
) -> (BTreeMap<i32, U>, Vec<i32>) {
    let (mut answers, mut failed) = (BTreeMap::new(), Vec::new());
    for (partition, known) in partitions {
        match ask(partition, known) {
            Ok(answer) => drop(answers.insert(partition, answer)),
            Err(error) => {
                tracing::debug!(%error, "read where the log of partition {partition} begins and ends");
                failed.push(partition);
            }
        }
    }
    (answers, failed)
}

impl Member {
    /// Starts the pipelines of newly assigned partitions, once Kafka has returned their committed offsets. If no
    /// partition is newly assigned, tries to start the pipeline of a waiting partition.
    pub(super) fn open_assigned(&mut self) -> Result<Option<LeaveReason>, GroupError> {
        let Some(partitions) = &self.opening else { return self.open_waiting() };
        let (found, without_leader) = match self.find(partitions, ASK_TIMEOUT) {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(%error, "read the topic id and the committed offsets of partitions {partitions:?}");
                self.services.health.kafka_unreachable();
                return Ok(None);
            }
        };
        self.opening = None;
        // The member id is read before `incremental_assign` acknowledges the assignment. Until the acknowledgement, no
        // later assignment can begin, so this is the id under which the partitions were assigned.
        let member = Arc::from(librdkafka::member_id(&self.consumer));
        for partition in without_leader {
            self.wait_for_leader(WaitingPartition { partition, member: Arc::clone(&member) });
        }
        if let Some(reason) = self.start_pipelines(found, &member)? {
            return Ok(Some(reason));
        }
        self.services.health.recovered(Component::Group);
        self.services.health.forget_commits(|partition| self.pipelines.contains_key(&partition));
        self.services.assigned.notify_one();
        Ok(None)
    }

    /// Starts the pipeline of the partition that has waited longest, if a broker reports where its log begins and
    /// ends.
    fn open_waiting(&mut self) -> Result<Option<LeaveReason>, GroupError> {
        // A revocation must be acknowledged before partitions are assigned in Kafka's client, because
        // `incremental_assign` resets the client's flag that partitions were lost (`assignment_lost`).
        let revoked = self.releasing.is_some() || self.consumer.assignment_lost();
        if revoked || Instant::now() < self.ask_again {
            return Ok(None);
        }
        let Some(waiting) = self.waiting.pop_front() else { return Ok(None) };
        let found =
            self.find(&[waiting.partition], ASK_ONE_TIMEOUT).map(|(found, _)| found).unwrap_or_default();
        if found.is_empty() {
            self.wait_for_leader(waiting);
            return Ok(None);
        }
        self.services.health.recovered(Component::Partition(waiting.partition));
        self.start_pipelines(found, &waiting.member)
    }

    /// Adds a partition at the end of the queue of waiting partitions.
    fn wait_for_leader(&mut self, waiting: WaitingPartition) {
        let reason = "no broker reports where its log begins and ends; check that it has a leader. The request is \
                      retried automatically";
        self.services.health.degraded(Component::Partition(waiting.partition), reason);
        self.waiting.push_back(waiting);
        self.ask_again = Instant::now() + ASK_ONE_TIMEOUT;
    }

    /// Removes `partitions` from the queue of waiting partitions. Returns the partitions that were removed. The caller
    /// must not release them through Kafka's client, because they were never assigned in the client.
    pub(super) fn stop_waiting(&mut self, partitions: &[i32]) -> Vec<i32> {
        let (ended, left) = self
            .waiting
            .drain(..)
            .partition::<VecDeque<_>, _>(|waiting| partitions.contains(&waiting.partition));
        self.waiting = left;
        let ended: Vec<_> = ended.into_iter().map(|waiting| waiting.partition).collect();
        ended.iter().for_each(|partition| self.services.health.recovered(Component::Partition(*partition)));
        ended
    }

    /// Assigns the partitions in `found` in Kafka's client, and starts a pipeline for each partition.
    fn start_pipelines(
        &mut self,
        found: BTreeMap<i32, KafkaState>,
        member: &Arc<str>,
    ) -> Result<Option<LeaveReason>, GroupError> {
        // The queues are created before the partitions are assigned in the client, so that no record arrives outside
        // the queue of its partition.
        let topic = &self.services.topic;
        let split = |partition| {
            self.consumer.split_partition_queue(topic, partition).ok_or(GroupError::Stray(partition))
        };
        let queues = found
            .keys()
            .map(|partition| Ok((*partition, split(*partition)?)))
            .collect::<Result<Vec<_>, _>>()?;
        let mut list = TopicPartitionList::new();
        for (partition, found) in &found {
            let from = found.committed.as_ref().map_or(found.low, |(from, _)| *from);
            list.add_partition_offset(topic, *partition, KafkaOffset::Offset(from.to_i64()))
                .map_err(|error| self.kafka_error(error))?;
        }
        self.consumer.incremental_assign(&list).map_err(|error| self.kafka_error(error))?;
        if let Err(error) = self.validate_offsets(&found) {
            tracing::warn!(%error, "validate the committed offsets of partitions {:?}", found.keys());
            return Ok(Some(LeaveReason::OffsetsNotValidated));
        }
        for ((partition, queue), found) in queues.into_iter().zip(found.into_values()) {
            let number = u16::try_from(partition).map_err(|_| GroupError::Stray(partition))?;
            let pipeline = Pipeline::start(&self.services, &self.consumer, member, queue, number, found)
                .map_err(|source| GroupError::Thread { partition, source })?;
            self.applied_watches.lock().insert(partition, Arc::clone(&pipeline.applied_watch));
            self.pipelines.insert(partition, pipeline);
        }
        self.count_partitions();
        Ok(None)
    }

    /// Makes the brokers validate the committed offset of each partition whose intent has the leader epoch of the last
    /// record below that offset. If the log of a partition was truncated below the committed offset, the queue of the
    /// partition then returns an error instead of records. The validation needs a seek, because librdkafka validates
    /// offsets in a seek, but not in an assignment.
    ///
    /// # Errors
    /// The client did not seek in time. The member then joins the group again, as after a commit of unknown outcome.
    fn validate_offsets(&self, found: &BTreeMap<i32, KafkaState>) -> KafkaResult<()> {
        let topic = &self.services.topic;
        for (partition, found) in found {
            let Some((from, intent)) = found.intent() else { continue };
            let Some(epoch) = intent.log.epoch else { continue };
            seek(&self.consumer, topic, *partition, from, epoch)?;
        }
        Ok(())
    }

    /// Asks Kafka for the topic id, for the committed offset of each partition, and for the offsets at which the log of
    /// each partition begins and ends. Also returns the partitions whose log offsets no broker reported, for example
    /// because they have no leader. All requests for log offsets together may take `timeout`, but each of them may take
    /// at least [`ASK_ONE_TIMEOUT`].
    fn find(
        &self,
        partitions: &[i32],
        timeout: Duration,
    ) -> KafkaResult<(BTreeMap<i32, KafkaState>, Vec<i32>)> {
        if partitions.is_empty() {
            return Ok((BTreeMap::new(), Vec::new()));
        }
        let topic = self.services.topic_watch.id().map_err(KafkaError::AdminOp)?;
        let answer =
            self.consumer.committed_offsets(partition_list(&self.services.topic, partitions), ASK_TIMEOUT)?;
        let committed = answer.elements();
        let committed =
            committed.iter().map(|element| Ok((element.partition(), commit::committed(element)?)));
        let committed = committed.collect::<KafkaResult<Vec<_>>>()?;
        let until = Instant::now() + timeout;
        Ok(ask_each(committed, |partition, committed| {
            let left = until.saturating_duration_since(Instant::now()).max(ASK_ONE_TIMEOUT);
            let (low, end) = self.consumer.fetch_watermarks(&self.services.topic, partition, left)?;
            Ok(KafkaState { committed, low: NextOffset::new(low), end: NextOffset::new(end), topic })
        }))
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::error::RDKafkaErrorCode;
    use runtime::admin::Readiness;
    use tokio::runtime::Builder;

    use super::*;
    use crate::pipeline::context::PartitionContext;

    #[test]
    fn a_partition_without_a_leader_does_not_delay_others() {
        let ask = |partition, known| match partition {
            1 => Err(KafkaError::MetadataFetch(RDKafkaErrorCode::LeaderNotAvailable)),
            _ => Ok(known),
        };
        let found = ask_each([(0, "a"), (1, "b"), (2, "c")], ask);
        assert_eq!(found, (BTreeMap::from([(0, "a"), (2, "c")]), vec![1]));
    }

    #[test]
    fn waiting_partitions_are_reported_and_retried_in_turn_until_they_are_revoked() {
        let runtime = Builder::new_multi_thread().enable_all().build().unwrap();
        let context = PartitionContext::unanswered(runtime.handle().clone());
        let mut member = Member::new(context.services(), context.consumer(), Arc::default());
        for partition in [1, 2] {
            member.wait_for_leader(WaitingPartition { partition, member: Arc::default() });
        }
        let named = |partition: i32| {
            let Readiness::Not(reason) = context.services().health.readiness() else {
                panic!("ready although kafka does not answer")
            };
            reason.contains(&format!("partition {partition}: no broker reports"))
        };
        assert!(named(1) && named(2));
        member.ask_again = Instant::now();
        assert!(matches!(member.open_waiting(), Ok(None)));
        assert_eq!(member.waiting.iter().map(|waiting| waiting.partition).collect::<Vec<_>>(), [2, 1]);
        member.begin_release(vec![0, 1]);
        assert!(!named(1) && named(2));
        let releasing = member.releasing.as_ref().map(|release| release.partitions.clone());
        assert_eq!(releasing, Some(vec![0]), "a waiting partition is not assigned in the client");
    }
}
