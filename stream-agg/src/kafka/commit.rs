//! Commits the offset below which every record of a partition is applied. The metadata of the commit declares the next
//! batch, if there is one.
//!
//! Each call commits one partition, because a commit of several partitions is not atomic, and its error does not say
//! which partitions failed. Invariant: a commit of unknown outcome is never repeated here, because its first copy may
//! arrive after a later commit and overwrite that commit.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};
use runtime::backoff::RetryPolicy;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use crate::health::{Component, Health};
use crate::kafka::group_context::GroupConsumer;
use crate::kafka::librdkafka;
use crate::metrics::Metrics;
use crate::protocol::intent::Intent;
use crate::protocol::progress::{AfterCommit, CommitOutcome, NextOffset, after_commit};

/// Timeout of reading the committed offset.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// The waits between the attempts of a refused commit.
const COMMIT_RETRIES: RetryPolicy = RetryPolicy::new(Duration::from_millis(50), Duration::from_secs(1));
/// How long a refused commit is retried before this process joins the group again.
const RETRY_TIMEOUT: Duration = Duration::from_secs(15);

/// The committed offset of a partition and the metadata of the commit; `None` if nothing is committed.
pub type Committed = Option<(NextOffset, String)>;

/// Why a commit was not confirmed. The pipeline must then end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitAborted {
    /// The pipeline was stopped at once (`Pipeline::give_up`), before the commit was confirmed.
    GivenUp,
    /// The outcome is unknown, or Kafka does not accept the commit in this membership. This process must leave the
    /// group and join it again.
    OutcomeUnknown,
    /// Another process with the same `GROUP_INSTANCE_ID` has taken the place of this process in the group.
    Fenced,
}

/// Commits the offsets of one partition.
pub struct Committer {
    /// The consumer of the group.
    pub consumer: Arc<GroupConsumer>,
    /// Topic of the records.
    pub topic: String,
    /// The Kafka partition.
    pub partition: u16,
    /// The member id under which the partition was assigned.
    pub member: Arc<str>,
    /// The last commit that Kafka accepted.
    pub committed: Committed,
    /// Each commit under way holds a reference. The number of references shows whether a commit is under way.
    pub under_way: Arc<()>,
    /// Cancelled when the pipeline must stop at once (`Pipeline::give_up`).
    pub give_up: CancellationToken,
    /// Counts failed commits.
    pub metrics: Arc<Metrics>,
    /// Shows an alarm while Kafka denies commits. The next successful commit ends the alarm.
    pub health: Arc<Health>,
}

impl Committer {
    /// Commits offset `from` with `intent` as its metadata. Every record below `from` must already be applied.
    ///
    /// # Errors
    /// Why the commit was not confirmed. The pipeline must end.
    pub async fn commit(&mut self, from: NextOffset, intent: &Intent) -> Result<(), CommitAborted> {
        let metadata = intent.to_string();
        let mut backoff = COMMIT_RETRIES.backoff();
        let until = Instant::now() + RETRY_TIMEOUT;
        loop {
            let (topic, partition, text) = (self.topic.clone(), self.partition, metadata.clone());
            let member = Arc::clone(&self.member);
            let commit =
                move |consumer: &GroupConsumer| commit(consumer, &member, &topic, partition, from, &text);
            let result = self.blocking(commit).await?;
            let outcome = outcome(&result);
            if let Err(error) = &result {
                self.metrics.commit_failed();
                tracing::warn!("partition {partition}: commit offset {from}: {error}");
                alarm_if_denied(&self.health, partition, from, outcome, error);
            }
            match after_commit(outcome) {
                AfterCommit::Proceed => {
                    self.health.recovered(Component::Commits(partition.into()));
                    self.committed = Some((from, metadata));
                    return Ok(());
                }
                AfterCommit::Rejoin => return Err(CommitAborted::OutcomeUnknown),
                AfterCommit::Shutdown => return Err(CommitAborted::Fenced),
                AfterCommit::ReadBack => {
                    let (topic, partition) = (self.topic.clone(), self.partition);
                    let found = self.blocking(move |consumer| read(consumer, &topic, partition)).await?;
                    if found.ok().as_ref() != Some(&self.committed) || Instant::now() >= until {
                        return Err(CommitAborted::OutcomeUnknown);
                    }
                    let pause = time::sleep(backoff.wait());
                    self.give_up.run_until_cancelled(pause).await.ok_or(CommitAborted::GivenUp)?;
                }
            }
        }
    }

    /// Runs `call` on a thread that may block, because the call blocks while Kafka does not answer.
    async fn blocking<T: Send + 'static>(
        &self,
        call: impl FnOnce(&GroupConsumer) -> T + Send + 'static,
    ) -> Result<T, CommitAborted> {
        let (consumer, held) = (Arc::clone(&self.consumer), Arc::clone(&self.under_way));
        let running = tokio::task::spawn_blocking(move || {
            let done = call(&consumer);
            drop((consumer, held));
            done
        });
        // If the runtime shuts down, the task fails. The pipeline then stops at once.
        self.give_up
            .run_until_cancelled(running)
            .await
            .ok_or(CommitAborted::GivenUp)?
            .map_err(|_| CommitAborted::GivenUp)
    }
}

/// Raises an alarm if commits can succeed only after an operator acts. A commit that succeeds ends the alarm.
fn alarm_if_denied(
    health: &Health,
    partition: u16,
    from: NextOffset,
    outcome: CommitOutcome,
    error: &KafkaError,
) {
    if outcome == CommitOutcome::Denied {
        let reason = format!(
            "commit offset {from}: {error}; the commit is retried automatically. Check that this aggregator is \
             authorized for the group and the topic, that the topic exists, and that `offset.metadata.max.bytes` of \
             the brokers is at least 4096 (Kafka's default)"
        );
        health.alarm(Component::Commits(partition.into()), reason);
    }
}

/// Commits only if the consumer still has the id `member`, under which the partition was assigned.
///
/// If the group removes a static member while that member is rejoining, the member rejoins under another id. The member
/// keeps its partitions, because librdkafka does not consider them lost. These partitions may already have another
/// owner, but Kafka would accept a commit under the new id. So this function does not send the commit.
fn commit(
    consumer: &GroupConsumer,
    member: &str,
    topic: &str,
    partition: u16,
    from: NextOffset,
    metadata: &str,
) -> KafkaResult<()> {
    if librdkafka::member_id(consumer) != member {
        return Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::UnknownMemberId));
    }
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition(topic, partition.into()).set_metadata(metadata);
    offsets.set_all_offsets(KafkaOffset::Offset(from.to_i64()))?;
    consumer.commit(&offsets, CommitMode::Sync)
}

fn read(consumer: &GroupConsumer, topic: &str, partition: u16) -> KafkaResult<Committed> {
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, partition.into());
    let answer = consumer.committed_offsets(list, ASK_TIMEOUT)?;
    answer.elements().first().map_or(Ok(None), committed)
}

/// The committed offset and metadata of one partition, from Kafka's answer.
///
/// # Errors
/// Kafka's error for this partition.
pub fn committed(
    element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>,
) -> KafkaResult<Committed> {
    element.error()?;
    Ok(match element.offset() {
        KafkaOffset::Offset(offset) => Some((NextOffset::new(offset), element.metadata().to_owned())),
        _ => None,
    })
}

/// The outcome of a commit, as far as its result proves it.
fn outcome(result: &KafkaResult<()>) -> CommitOutcome {
    use RDKafkaErrorCode as C;
    match result {
        Ok(()) => CommitOutcome::Accepted,
        Err(KafkaError::ConsumerCommit(code)) => match code {
            C::IllegalGeneration | C::RebalanceInProgress | C::StaleMemberEpoch => CommitOutcome::Refused,
            C::UnknownMemberId => CommitOutcome::Removed,
            C::FencedInstanceId | C::Fatal => CommitOutcome::Fenced,
            C::GroupAuthorizationFailed
            | C::TopicAuthorizationFailed
            | C::UnknownTopicOrPartition
            | C::OffsetMetadataTooLarge
            | C::InvalidCommitOffsetSize => CommitOutcome::Denied,
            _ => CommitOutcome::Unknown,
        },
        Err(_) => CommitOutcome::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use runtime::admin::Readiness;

    use super::*;
    use crate::pipeline::context::PartitionContext;

    #[track_caller]
    fn check(code: RDKafkaErrorCode, expected: CommitOutcome) {
        assert_eq!(outcome(&Err(KafkaError::ConsumerCommit(code))), expected);
    }

    #[test]
    fn kafkas_error_codes_determine_the_outcome_of_a_commit() {
        use RDKafkaErrorCode as C;
        for code in [C::IllegalGeneration, C::RebalanceInProgress, C::StaleMemberEpoch] {
            check(code, CommitOutcome::Refused);
        }
        check(C::UnknownMemberId, CommitOutcome::Removed);
        for code in [C::GroupAuthorizationFailed, C::TopicAuthorizationFailed, C::OffsetMetadataTooLarge] {
            check(code, CommitOutcome::Denied);
        }
        for code in [C::FencedInstanceId, C::Fatal] {
            check(code, CommitOutcome::Fenced);
        }
        for code in
            [C::WaitingForCoordinator, C::OperationTimedOut, C::BrokerTransportFailure, C::RequestTimedOut]
        {
            check(code, CommitOutcome::Unknown);
        }
        assert_eq!(outcome(&Ok(())), CommitOutcome::Accepted);
        assert_eq!(outcome(&Err(KafkaError::Canceled)), CommitOutcome::Unknown);
    }

    #[test]
    fn a_commit_of_a_member_that_the_group_has_removed_is_not_sent() {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        // This consumer has not joined a group, and Kafka never answers it.
        let consumer = PartitionContext::unanswered(runtime.handle().clone()).consumer();
        let committed = commit(&consumer, "removed", "events", 0, NextOffset::ZERO, "");
        assert_eq!(committed, Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::UnknownMemberId)));
    }

    #[test]
    fn only_a_commit_that_kafka_denies_raises_an_alarm() {
        use RDKafkaErrorCode as C;
        let health = Health::new("k:1");
        for component in [Component::Kafka, Component::ClickHouse, Component::Group] {
            health.recovered(component);
        }
        for (code, alarmed) in [
            (C::IllegalGeneration, false),
            (C::UnknownMemberId, false),
            (C::OperationTimedOut, false),
            (C::GroupAuthorizationFailed, true),
        ] {
            let error = KafkaError::ConsumerCommit(code);
            alarm_if_denied(&health, 3, NextOffset::new(7), outcome(&Err(error.clone())), &error);
            assert_eq!(health.readiness() != Readiness::Ready, alarmed, "{code}");
        }
        let Readiness::Not(reason) = health.readiness() else { panic!("ready despite an alarm") };
        assert!(reason.starts_with("commits of partition 3: commit offset 7: "), "{reason}");
        // The member joins the group again and gets the partition back. The alarm stays.
        health.recovered(Component::Group);
        health.forget_commits(|partition| partition == 3);
        assert_ne!(health.readiness(), Readiness::Ready);
    }
}
