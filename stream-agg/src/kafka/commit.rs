//! Tells Kafka's group coordinator what a partition has applied and declared.
//!
//! One partition a call: a commit of several is neither atomic nor told apart when it
//! fails. Invariant: a commit whose end is not known is never repeated here, for the
//! first one may arrive after what follows the second.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};
use runtime::backoff::Backoff;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use crate::health::{Concern, Health};
use crate::kafka::librdkafka;
use crate::kafka::membership::Consumer;
use crate::metrics::Metrics;
use crate::protocol::intent::Intent;
use crate::protocol::progress::{AfterCommit, CommitEnd, NextOffset, after_commit};

/// How long Kafka may take to tell what is committed.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// Shortest and longest wait before a refused commit is tried again.
const WAITS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// How long commits are refused before the group is joined anew.
const PATIENCE: Duration = Duration::from_secs(15);

/// What is committed of a partition: the offset and its metadata.
pub type Committed = Option<(NextOffset, String)>;

/// How a pipeline ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was told to.
    Told,
    /// Nobody knows what became of a commit: the group must be joined anew.
    Unsure,
    /// Another process has this one's place in the group.
    Fenced,
}

/// Commits for one partition.
pub struct Committer {
    /// A member of the group.
    pub consumer: Arc<Consumer>,
    /// Topic of the records.
    pub topic: String,
    /// The Kafka partition.
    pub kp: u16,
    /// Member id under which the partition was assigned.
    pub member: Arc<str>,
    /// What is known to be committed.
    pub known: Committed,
    /// Held while a commit is under way.
    pub under_way: Arc<()>,
    /// Told when the partition is given up.
    pub give_up: CancellationToken,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What is in trouble.
    pub health: Arc<Health>,
}

impl Committer {
    /// Commits `intent` at `from`, below which everything is in every cell.
    ///
    /// # Errors
    /// The pipeline must end.
    pub async fn commit(&mut self, from: NextOffset, intent: &Intent) -> Result<(), Ended> {
        let metadata = intent.to_string();
        let mut backoff = Backoff::new(WAITS.0, WAITS.1);
        let until = Instant::now() + PATIENCE;
        loop {
            let (topic, kp, text) = (self.topic.clone(), self.kp, metadata.clone());
            let member = Arc::clone(&self.member);
            let commit = move |consumer: &Consumer| commit(consumer, &member, &topic, kp, from, &text);
            let committed = self.blocking(commit).await?;
            let end = end(&committed);
            if let Err(error) = &committed {
                self.metrics.commit_failed();
                tracing::warn!("partition {kp}: commit offset {from}: {error}");
                tell_denied(&self.health, kp, from, end, error);
            }
            match after_commit(end) {
                AfterCommit::GoOn => {
                    self.health.well(Concern::Commits(kp.into()));
                    self.known = Some((from, metadata));
                    return Ok(());
                }
                AfterCommit::JoinAnew => return Err(Ended::Unsure),
                AfterCommit::End => return Err(Ended::Fenced),
                AfterCommit::ReadAgain => {
                    let (topic, kp) = (self.topic.clone(), self.kp);
                    let read = self.blocking(move |consumer| read(consumer, &topic, kp)).await?;
                    if read.ok().as_ref() != Some(&self.known) || Instant::now() >= until {
                        return Err(Ended::Unsure);
                    }
                    let pause = time::sleep(backoff.wait());
                    self.give_up.run_until_cancelled(pause).await.ok_or(Ended::Told)?;
                }
            }
        }
    }

    /// Runs a call that may block for as long as Kafka is away.
    async fn blocking<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Consumer) -> T + Send + 'static,
    ) -> Result<T, Ended> {
        let (consumer, held) = (Arc::clone(&self.consumer), Arc::clone(&self.under_way));
        let running = tokio::task::spawn_blocking(move || {
            let done = call(&consumer);
            drop((consumer, held));
            done
        });
        // An error: the runtime ends.
        self.give_up.run_until_cancelled(running).await.ok_or(Ended::Told)?.map_err(|_| Ended::Told)
    }
}

/// Has people know of a commit that only they can help. A commit that is taken ends the alarm.
fn tell_denied(health: &Health, kp: u16, from: NextOffset, end: CommitEnd, error: &KafkaError) {
    if end == CommitEnd::Denied {
        let reason = format!(
            "commit offset {from}: {error}; it is tried again by itself. Look at the rights of this aggregator on \
             group and topic, at whether the topic exists, and at `offset.metadata.max.bytes` of the brokers"
        );
        health.alarm(Concern::Commits(kp.into()), reason);
    }
}

/// Commits while the consumer is the `member` that was assigned the partition.
///
/// A static member that was removed while it joined the group joins under another id with the partitions that
/// it had: librdkafka takes none of them for lost. They may have another owner, and Kafka would take the commit.
fn commit(
    consumer: &Consumer,
    member: &str,
    topic: &str,
    kp: u16,
    from: NextOffset,
    metadata: &str,
) -> KafkaResult<()> {
    if librdkafka::member_id(consumer) != member {
        return Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::UnknownMemberId));
    }
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition(topic, kp.into()).set_metadata(metadata);
    offsets.set_all_offsets(KafkaOffset::Offset(from.to_i64()))?;
    consumer.commit(&offsets, CommitMode::Sync)
}

fn read(consumer: &Consumer, topic: &str, kp: u16) -> KafkaResult<Committed> {
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, kp.into());
    let answer = consumer.committed_offsets(list, ASK_TIMEOUT)?;
    answer.elements().first().map_or(Ok(None), committed)
}

/// What Kafka tells of one partition.
///
/// # Errors
/// Its error for this partition.
pub fn committed(
    element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>,
) -> KafkaResult<Committed> {
    element.error()?;
    Ok(match element.offset() {
        KafkaOffset::Offset(offset) => Some((NextOffset::new(offset), element.metadata().to_owned())),
        _ => None,
    })
}

/// What became of a commit, as far as that is known.
fn end(result: &KafkaResult<()>) -> CommitEnd {
    use RDKafkaErrorCode as C;
    match result {
        Ok(()) => CommitEnd::Taken,
        Err(KafkaError::ConsumerCommit(code)) => match code {
            C::IllegalGeneration | C::RebalanceInProgress | C::StaleMemberEpoch => CommitEnd::Refused,
            C::UnknownMemberId => CommitEnd::Removed,
            C::FencedInstanceId | C::Fatal => CommitEnd::Fenced,
            C::GroupAuthorizationFailed
            | C::TopicAuthorizationFailed
            | C::UnknownTopicOrPartition
            | C::OffsetMetadataTooLarge
            | C::InvalidCommitOffsetSize => CommitEnd::Denied,
            _ => CommitEnd::Unknown,
        },
        Err(_) => CommitEnd::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use runtime::admin::Readiness;

    use super::*;
    use crate::pipeline::context::Part;

    #[track_caller]
    fn check(code: RDKafkaErrorCode, expected: CommitEnd) {
        assert_eq!(end(&Err(KafkaError::ConsumerCommit(code))), expected);
    }

    #[test]
    fn kafkas_codes_say_what_is_known_of_a_commit() {
        use RDKafkaErrorCode as C;
        for code in [C::IllegalGeneration, C::RebalanceInProgress, C::StaleMemberEpoch] {
            check(code, CommitEnd::Refused);
        }
        check(C::UnknownMemberId, CommitEnd::Removed);
        for code in [C::GroupAuthorizationFailed, C::TopicAuthorizationFailed, C::OffsetMetadataTooLarge] {
            check(code, CommitEnd::Denied);
        }
        for code in [C::FencedInstanceId, C::Fatal] {
            check(code, CommitEnd::Fenced);
        }
        for code in
            [C::WaitingForCoordinator, C::OperationTimedOut, C::BrokerTransportFailure, C::RequestTimedOut]
        {
            check(code, CommitEnd::Unknown);
        }
        assert_eq!(end(&Ok(())), CommitEnd::Taken);
        assert_eq!(end(&Err(KafkaError::Canceled)), CommitEnd::Unknown);
    }

    #[test]
    fn a_commit_of_a_member_that_the_group_has_removed_is_not_sent() {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        // It has not joined a group, and Kafka never answers it.
        let consumer = Part::unanswered(runtime.handle().clone()).consumer();
        let committed = commit(&consumer, "removed", "events", 0, NextOffset::ZERO, "");
        assert_eq!(committed, Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::UnknownMemberId)));
    }

    #[test]
    fn a_commit_that_only_people_can_help_is_an_alarm_and_others_are_none() {
        use RDKafkaErrorCode as C;
        let health = Health::new("k:1");
        for concern in [Concern::Kafka, Concern::ClickHouse, Concern::Group] {
            health.well(concern);
        }
        for (code, told) in [
            (C::IllegalGeneration, false),
            (C::UnknownMemberId, false),
            (C::OperationTimedOut, false),
            (C::GroupAuthorizationFailed, true),
        ] {
            let error = KafkaError::ConsumerCommit(code);
            tell_denied(&health, 3, NextOffset::new(7), end(&Err(error.clone())), &error);
            assert_eq!(health.readiness() != Readiness::Ready, told, "{code}");
        }
        let Readiness::Not(reason) = health.readiness() else { panic!("it is alarmed") };
        assert!(reason.starts_with("commits of partition 3: commit offset 7: "), "{reason}");
        // Assigned again after the group was joined again.
        health.well(Concern::Group);
        health.forget_commits(|kp| kp == 3);
        assert_ne!(health.readiness(), Readiness::Ready);
    }
}
