//! Assigned partitions: from where each goes on.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};

use crate::group::member::Member;
use crate::group::{GroupError, Left};
use crate::health::Concern;
use crate::kafka::client::{list, seek};
use crate::kafka::{commit, librdkafka};
use crate::pipeline::Pipeline;
use crate::protocol::progress::NextOffset;
use crate::protocol::recover::Found;

/// How long Kafka may take to tell offsets.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it may take at least to tell of one partition after others took longer, and how long until it is
/// asked again about those of which it did not tell.
const ASK_LATE: Duration = Duration::from_millis(500);

/// A partition of ours without a pipeline.
pub(super) struct Waiting {
    pub(super) kp: i32,
    /// Member id under which it was assigned.
    pub(super) member: Arc<str>,
}

/// What `ask` told of each partition, and the partitions of which it did not.
fn told<T, U>(
    partitions: impl IntoIterator<Item = (i32, T)>,
    mut ask: impl FnMut(i32, T) -> KafkaResult<U>,
) -> (BTreeMap<i32, U>, Vec<i32>) {
    let (mut told, mut silent) = (BTreeMap::new(), Vec::new());
    for (kp, known) in partitions {
        match ask(kp, known) {
            Ok(answer) => drop(told.insert(kp, answer)),
            Err(error) => {
                tracing::debug!(%error, "read where the log of partition {kp} begins and ends");
                silent.push(kp);
            }
        }
    }
    (told, silent)
}

impl Member {
    /// Takes what was assigned, once Kafka tells from where on.
    pub(super) fn open(&mut self) -> Result<Option<Left>, GroupError> {
        let Some(partitions) = &self.opening else { return self.open_late() };
        let (found, silent) = match self.find(partitions, ASK_TIMEOUT) {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(%error, "read committed offsets");
                self.shared.health.kafka_away();
                return Ok(None);
            }
        };
        self.opening = None;
        // Before the assignment is answered, so that no later one can have begun.
        let member = Arc::from(librdkafka::member_id(&self.consumer));
        silent.into_iter().for_each(|kp| self.wait(Waiting { kp, member: Arc::clone(&member) }));
        if let Some(left) = self.take(found, &member)? {
            return Ok(Some(left));
        }
        self.shared.health.well(Concern::Group);
        self.shared.health.forget_commits(|kp| self.pipelines.contains_key(&kp));
        self.shared.assigned.notify_one();
        Ok(None)
    }

    /// Takes the partition that has waited longest, if a broker tells by now where its log begins and ends.
    pub(super) fn open_late(&mut self) -> Result<Option<Left>, GroupError> {
        // The answer to a revocation comes first: to the client, an assignment means that none was lost.
        let revoked = self.releasing.is_some() || self.consumer.assignment_lost();
        if revoked || Instant::now() < self.ask_again {
            return Ok(None);
        }
        let Some(waiting) = self.waiting.pop_front() else { return Ok(None) };
        let found = self.find(&[waiting.kp], ASK_LATE).map(|(found, _)| found).unwrap_or_default();
        if found.is_empty() {
            self.wait(waiting);
            return Ok(None);
        }
        self.shared.health.well(Concern::Partition(waiting.kp));
        self.take(found, &waiting.member)
    }

    /// Leaves a partition for later, behind those that wait already.
    pub(super) fn wait(&mut self, waiting: Waiting) {
        let reason = "no broker tells where its log begins and ends: has it a leader? it is asked for again";
        self.shared.health.trouble(Concern::Partition(waiting.kp), reason);
        self.waiting.push_back(waiting);
        self.ask_again = Instant::now() + ASK_LATE;
    }

    /// Those of `partitions` that have waited for a broker, which are not assigned in the client, wait no longer.
    pub(super) fn wait_no_longer(&mut self, partitions: &[i32]) -> Vec<i32> {
        let (ended, left) =
            self.waiting.drain(..).partition::<VecDeque<_>, _>(|waiting| partitions.contains(&waiting.kp));
        self.waiting = left;
        let ended: Vec<_> = ended.into_iter().map(|waiting| waiting.kp).collect();
        ended.iter().for_each(|kp| self.shared.health.well(Concern::Partition(*kp)));
        ended
    }

    /// Starts a pipeline for each partition that was found.
    pub(super) fn take(
        &mut self,
        found: BTreeMap<i32, Found>,
        member: &Arc<str>,
    ) -> Result<Option<Left>, GroupError> {
        // Queues first, so that no record comes beside them.
        let topic = &self.shared.topic;
        let split = |kp| self.consumer.split_partition_queue(topic, kp).ok_or(GroupError::Stray(kp));
        let queues = found.keys().map(|kp| Ok((*kp, split(*kp)?))).collect::<Result<Vec<_>, _>>()?;
        let mut list = TopicPartitionList::new();
        for (kp, found) in &found {
            let from = found.committed.as_ref().map_or(found.low, |(from, _)| *from);
            list.add_partition_offset(topic, *kp, KafkaOffset::Offset(from.to_i64()))
                .map_err(|error| self.failed(error))?;
        }
        self.consumer.incremental_assign(&list).map_err(|error| self.failed(error))?;
        if let Err(error) = self.validate(&found) {
            tracing::warn!(%error, "validate the committed offsets of partitions {:?}", found.keys());
            return Ok(Some(Left::Unsure));
        }
        for ((kp, queue), found) in queues.into_iter().zip(found.into_values()) {
            let number = u16::try_from(kp).map_err(|_| GroupError::Stray(kp))?;
            let pipeline = Pipeline::start(&self.shared, &self.consumer, member, queue, number, found)
                .map_err(|source| GroupError::Thread { partition: kp, source })?;
            self.tracks.lock().insert(kp, Arc::clone(&pipeline.track));
            self.pipelines.insert(kp, pipeline);
        }
        self.count();
        Ok(None)
    }

    /// Has the offsets validated by the leader epochs of the records before them: where a log was truncated
    /// below, its queue gives an error instead of records. librdkafka validates where it seeks, and not where
    /// it is assigned.
    ///
    /// # Errors
    /// The client did not get to it in time: the group is joined again, as after any doubt.
    pub(super) fn validate(&self, found: &BTreeMap<i32, Found>) -> KafkaResult<()> {
        let topic = &self.shared.topic;
        for (kp, found) in found {
            let Some((from, intent)) = found.intent() else { continue };
            let Some(epoch) = intent.log.epoch else { continue };
            seek(&self.consumer, topic, *kp, from, epoch)?;
        }
        Ok(())
    }

    /// What is committed of each partition, and what its log holds; and the partitions of whose log no broker
    /// told in time, such as those without a leader.
    pub(super) fn find(
        &self,
        partitions: &[i32],
        timeout: Duration,
    ) -> KafkaResult<(BTreeMap<i32, Found>, Vec<i32>)> {
        if partitions.is_empty() {
            return Ok((BTreeMap::new(), Vec::new()));
        }
        let topic = self.shared.topic_watch.id().map_err(KafkaError::AdminOp)?;
        let answer = self.consumer.committed_offsets(list(&self.shared.topic, partitions), ASK_TIMEOUT)?;
        let committed = answer.elements();
        let committed =
            committed.iter().map(|element| Ok((element.partition(), commit::committed(element)?)));
        let committed = committed.collect::<KafkaResult<Vec<_>>>()?;
        let until = Instant::now() + timeout;
        Ok(told(committed, |kp, committed| {
            let left = until.saturating_duration_since(Instant::now()).max(ASK_LATE);
            let (low, end) = self.consumer.fetch_watermarks(&self.shared.topic, kp, left)?;
            Ok(Found { committed, low: NextOffset::new(low), end: NextOffset::new(end), topic })
        }))
    }
}

#[cfg(test)]
mod tests {
    use ::runtime::admin::Readiness;
    use rdkafka::error::RDKafkaErrorCode;
    use tokio::runtime::Builder;

    use super::*;
    use crate::pipeline::context::Part;

    #[test]
    fn a_partition_without_a_leader_keeps_no_other_waiting() {
        let ask = |kp, known| match kp {
            1 => Err(KafkaError::MetadataFetch(RDKafkaErrorCode::LeaderNotAvailable)),
            _ => Ok(known),
        };
        let found = told([(0, "a"), (1, "b"), (2, "c")], ask);
        assert_eq!(found, (BTreeMap::from([(0, "a"), (2, "c")]), vec![1]));
    }

    #[test]
    fn partitions_that_wait_for_a_broker_are_named_and_asked_for_in_turn_until_they_are_revoked() {
        let runtime = Builder::new_multi_thread().enable_all().build().unwrap();
        let part = Part::unanswered(runtime.handle().clone());
        let mut member = Member::new(part.shared(), part.consumer(), Arc::default());
        [1, 2].into_iter().for_each(|kp| member.wait(Waiting { kp, member: Arc::default() }));
        let named = |kp: i32| {
            let Readiness::Not(reason) = part.shared().health.readiness() else { panic!("kafka is away") };
            reason.contains(&format!("partition {kp}: no broker tells"))
        };
        assert!(named(1) && named(2));
        member.ask_again = Instant::now();
        assert!(matches!(member.open_late(), Ok(None)));
        assert_eq!(member.waiting.iter().map(|waiting| waiting.kp).collect::<Vec<_>>(), [2, 1]);
        member.begin_release(vec![0, 1]);
        assert!(!named(1) && named(2));
        let releasing = member.releasing.as_ref().map(|(partitions, _)| partitions.clone());
        assert_eq!(releasing, Some(vec![0]), "the client can let go only what it is assigned");
    }
}
