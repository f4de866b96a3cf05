//! Releases the partitions that the coordinator revoked, and all partitions before the member leaves the group.
//!
//! A partition is released only once its pipeline has ended and none of its commits is under way. Otherwise a late
//! commit of this member could overwrite the first commit of the next owner. When the process shuts down, the member
//! waits for commits only for [`RELEASE_TIMEOUT`].

use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use tokio_util::sync::CancellationToken;

use crate::group::member::Member;
use crate::group::{GroupError, LeaveReason};
use crate::kafka::client::{POLL_TIMEOUT, partition_list};
use crate::kafka::group_context::RebalanceEvent;
use crate::pipeline::{Pipeline, PipelineEnd};

/// How long a stopped pipeline may take to finish the batch that it is inserting.
pub const RELEASE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long, after [`RELEASE_TIMEOUT`], a partition may be held because a commit is under way. One attempt of a request
/// takes up to `socket.timeout.ms` (60 s), and librdkafka makes at most three attempts. So this limit is long enough
/// for two attempts that time out (120 s), but not for three (180 s).
///
/// Until the rebalance timeout, no other member gets the partition while this member holds it. This member keeps
/// polling and sending heartbeats, so it exceeds neither `max.poll.interval.ms` nor the session timeout. librdkafka
/// joins no later generation before `incremental_unassign` is called (`RD_KAFKA_CGRP_WAIT_ASSIGN_CALL`). If another
/// member joins the group meanwhile, even a temporary one, Kafka waits for this member until the rebalance timeout,
/// which is `max.poll.interval.ms` (300 s), and accepts the commits of this member until then.
///
/// The partition may be held for longer than the rebalance timeout, because [`Member::leave`] waits once more, for up
/// to [`RELEASE_TIMEOUT`] plus this limit. At the rebalance timeout, Kafka begins a generation that this member has not
/// joined. From that moment, the partition may have another owner although this member has not released it. If a commit
/// of this member is still under way at that moment, Kafka refuses the commit with ILLEGAL_GENERATION (22) or
/// UNKNOWN_MEMBER_ID (25), because the commit belongs to the previous generation.
const MAX_COMMIT_WAIT: Duration = Duration::from_secs(150);

/// Revoked partitions that are not released yet.
pub(super) struct Release {
    pub(super) partitions: Vec<i32>,
    limit: HoldLimit,
}

/// How long stopped pipelines may still hold their partitions. Pure: the caller passes the time.
#[derive(Debug, Clone, Copy)]
struct HoldLimit {
    /// Until this moment, pipelines may finish their batches.
    finish_by: Instant,
}

/// What to do about pipelines that still hold their partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    /// Let them finish their batches.
    Finish,
    /// Stop them at once, and wait for their commits.
    GiveUp,
    /// Stop waiting: a commit did not end within its time limit.
    TimedOut,
}

impl HoldLimit {
    /// The limit for pipelines that were stopped at `now`.
    fn from(now: Instant) -> Self {
        Self { finish_by: now + RELEASE_TIMEOUT }
    }

    fn check(self, now: Instant) -> Held {
        let late = now.saturating_duration_since(self.finish_by);
        match late {
            Duration::ZERO => Held::Finish,
            late if late > MAX_COMMIT_WAIT => Held::TimedOut,
            _ => Held::GiveUp,
        }
    }
}

impl Member {
    /// Stops the pipelines of revoked partitions.
    pub(super) fn begin_release(&mut self, partitions: Vec<i32>) {
        // A lost partition may already have a new owner, and a late commit of this member could overwrite the commit of
        // that owner. So the pipeline of a lost partition does not finish its batch.
        let lost = self.consumer.assignment_lost();
        for pipeline in partitions.iter().filter_map(|partition| self.pipelines.get(partition)) {
            if lost {
                pipeline.give_up();
            } else {
                pipeline.stop();
            }
        }
        let how = if lost { "lost" } else { "revoked" };
        tracing::info!("partitions {partitions:?} {how}");
        let unassigned = self.stop_waiting(&partitions);
        let partitions = partitions.into_iter().filter(|partition| !unassigned.contains(partition)).collect();
        self.releasing = Some(Release { partitions, limit: HoldLimit::from(Instant::now()) });
    }

    /// Releases revoked partitions once their pipelines have ended and no commit is under way.
    pub(super) fn end_release(&mut self) -> Result<Option<LeaveReason>, GroupError> {
        let Some(Release { partitions, limit }) = &self.releasing else { return Ok(None) };
        let pipelines = partitions.iter().filter_map(|partition| self.pipelines.get(partition));
        let held: Vec<_> = pipelines.filter(|pipeline| !pipeline.may_release()).collect();
        if !held.is_empty() {
            match limit.check(Instant::now()) {
                Held::Finish => {}
                Held::GiveUp => held.iter().for_each(|pipeline| pipeline.give_up()),
                Held::TimedOut => return Err(GroupError::CommitTimedOut(partitions.clone())),
            }
            return Ok(None);
        }
        let list = partition_list(&self.services.topic, partitions);
        for partition in partitions.clone() {
            match self.pipelines.remove(&partition).map(Pipeline::ended) {
                // The partitions are not released, because a commit of this member may still reach Kafka.
                Some(Some(PipelineEnd::CommitUnknown)) => return Ok(Some(LeaveReason::CommitUnknown)),
                Some(Some(PipelineEnd::Fenced)) => return Err(self.fenced()),
                Some(None) => return Err(GroupError::PipelineEnded(partition)),
                Some(Some(PipelineEnd::Stopped)) | None => {}
            }
            self.forget(partition);
        }
        self.releasing = None;
        self.consumer.incremental_unassign(&list).map_err(|error| self.kafka_error(error))?;
        self.services.health.forget_commits(|partition| self.pipelines.contains_key(&partition));
        self.count_partitions();
        Ok(None)
    }

    pub(super) fn is_releasing(&self, partition: i32) -> bool {
        self.releasing.as_ref().is_some_and(|release| release.partitions.contains(&partition))
    }

    /// Finishes the batches that are being inserted, then leaves the group.
    pub(super) fn leave(mut self, shutdown: &CancellationToken) -> Result<(), GroupError> {
        self.pipelines.values().for_each(Pipeline::stop);
        let limit = HoldLimit::from(Instant::now());
        // During this loop, rebalances are recorded but not acknowledged. If a partition were released while its batch
        // is being inserted, its next owner would read the records of that batch again.
        while self.pipelines.values().any(|pipeline| !pipeline.may_release()) {
            let held = limit.check(Instant::now());
            if held != Held::Finish {
                self.pipelines.values().for_each(Pipeline::give_up);
                // The process is about to exit, and the commits under way end with it, so there is no need to wait for
                // them.
                if shutdown.is_cancelled() && self.pipelines.values().all(Pipeline::has_ended) {
                    break;
                }
            }
            if held == Held::TimedOut {
                return Err(GroupError::CommitTimedOut(self.pipelines.keys().copied().collect()));
            }
            let _served = self.consumer.poll(POLL_TIMEOUT);
        }
        let waiting: Vec<_> = self.waiting.iter().map(|waiting| waiting.partition).collect();
        self.stop_waiting(&waiting);
        for partition in std::mem::take(&mut self.pipelines).into_keys() {
            self.forget(partition);
        }
        self.count_partitions();

        let opening = self.opening.take().map(RebalanceEvent::Assigned);
        let releasing = self.releasing.take().map(|release| RebalanceEvent::Revoked(release.partitions));
        self.consumer.context().acknowledge_immediately(&self.consumer, opening.into_iter().chain(releasing));
        // Dropping the last reference to the consumer leaves the group.
        Ok(())
    }

    /// Removes the metrics and the applied watch of a partition.
    fn forget(&self, partition: i32) {
        self.applied_watches.lock().remove(&partition);
        self.services.metrics.forget(partition);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};
    use std::thread;

    use tokio::runtime::{Builder, Handle};

    use super::*;
    use crate::pipeline::context::PartitionContext;

    /// A member that does not wait for a commit leaves the group within this time.
    const SHORT_WAIT: Duration = Duration::from_millis(500);
    const DEADLINE: Duration = Duration::from_secs(30);

    /// A member whose pipeline has ended while a commit is under way. Kafka does not answer the member.
    fn committing(runtime: Handle) -> (Member, Arc<()>) {
        let context = PartitionContext::unanswered(runtime);
        let mut member = Member::new(context.services(), context.consumer(), Arc::default());
        let (pipeline, commit) = Pipeline::ended_while_committing();
        member.pipelines.insert(0, pipeline);
        (member, commit)
    }

    #[test]
    fn the_group_is_left_only_once_no_commit_is_under_way() {
        let runtime = Builder::new_multi_thread().enable_all().build().unwrap();
        let (member, commit) = committing(runtime.handle().clone());
        let (left, leaving) = mpsc::channel();
        let thread = thread::spawn(move || left.send(member.leave(&CancellationToken::new()).is_ok()));
        assert!(
            leaving.recv_timeout(SHORT_WAIT).is_err(),
            "a commit under way could reach kafka after a commit of the next owner"
        );
        drop(commit);
        assert_eq!(leaving.recv_timeout(DEADLINE), Ok(true));
        thread.join().unwrap().unwrap();
    }

    #[test]
    fn a_revoked_partition_is_released_only_once_none_of_its_commits_is_under_way() {
        let runtime = Builder::new_multi_thread().enable_all().build().unwrap();
        let (mut member, commit) = committing(runtime.handle().clone());
        member.begin_release(vec![0]);
        let until = Instant::now() + SHORT_WAIT;
        while Instant::now() < until {
            assert!(matches!(member.end_release(), Ok(None)) && member.releasing.is_some());
        }
        drop(commit);
        // The pipeline ended with a commit of unknown outcome.
        assert!(matches!(member.end_release(), Ok(Some(LeaveReason::CommitUnknown))));
    }

    #[test]
    fn a_stopped_pipeline_has_time_for_its_batch_and_then_only_for_its_commit() {
        let start = Instant::now();
        let limit = HoldLimit::from(start);
        for (after, expected) in [
            (Duration::ZERO, Held::Finish),
            (RELEASE_TIMEOUT, Held::Finish),
            (RELEASE_TIMEOUT + Duration::from_millis(1), Held::GiveUp),
            (RELEASE_TIMEOUT + MAX_COMMIT_WAIT, Held::GiveUp),
            (RELEASE_TIMEOUT + MAX_COMMIT_WAIT + Duration::from_millis(1), Held::TimedOut),
        ] {
            assert_eq!(limit.check(start + after), expected, "{after:?}");
        }
    }
}
