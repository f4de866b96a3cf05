//! Partitions are let go.

use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use tokio_util::sync::CancellationToken;

use crate::group::member::Member;
use crate::group::{GroupError, Left};
use crate::kafka::client::{POLL, list};
use crate::kafka::commit::Ended;
use crate::kafka::membership::Change;
use crate::pipeline::Pipeline;

/// How long a pipeline may take to finish the batch it is inserting.
pub const RELEASE: Duration = Duration::from_secs(10);
/// How long a partition may be held for a commit under way: longer than one try of a request takes
/// (`socket.timeout.ms`, 60 s), of which librdkafka makes three at most.
///
/// Until the partition is let go, nobody else has it. This member keeps polling and its heartbeats go on,
/// so neither `max.poll.interval.ms` nor the session ends, and librdkafka joins no later generation before
/// `incremental_unassign` is called (`RD_KAFKA_CGRP_WAIT_ASSIGN_CALL`). If another member joins meanwhile, a
/// guest too, Kafka waits for this one as long as the rebalance timeout, which is `max.poll.interval.ms`
/// (300 s), and takes its commits. Where it is held longer (after this limit, [`Member::leave`] waits as long
/// once more), Kafka begins a generation that it has not joined. Only then may the partition get another
/// owner, and a commit under way, which belongs to the generation before, is refused with 22 or 25.
const HELD: Duration = Duration::from_secs(150);
impl Member {
    pub(super) fn begin_release(&mut self, partitions: Vec<i32>) {
        // A lost partition may have a new owner already: what we commit could undo his.
        let lost = self.consumer.assignment_lost();
        for pipeline in partitions.iter().filter_map(|kp| self.pipelines.get(kp)) {
            if lost {
                pipeline.give_up();
            } else {
                pipeline.stop();
            }
        }
        let how = if lost { "lost" } else { "revoked" };
        tracing::info!("partitions {partitions:?} {how}");
        let unassigned = self.wait_no_longer(&partitions);
        let partitions = partitions.into_iter().filter(|kp| !unassigned.contains(kp)).collect();
        self.releasing = Some((partitions, Instant::now() + RELEASE));
    }

    /// Lets revoked partitions go once nothing of them is under way.
    pub(super) fn end_release(&mut self) -> Result<Option<Left>, GroupError> {
        let Some((partitions, latest)) = &self.releasing else { return Ok(None) };
        let pipelines = partitions.iter().filter_map(|kp| self.pipelines.get(kp));
        let held: Vec<_> = pipelines.filter(|pipeline| !pipeline.may_let_go()).collect();
        if !held.is_empty() {
            let late = Instant::now().saturating_duration_since(*latest);
            if late > HELD {
                return Err(GroupError::Held(partitions.clone()));
            }
            if !late.is_zero() {
                held.iter().for_each(|pipeline| pipeline.give_up());
            }
            return Ok(None);
        }
        let list = list(&self.shared.topic, partitions);
        for kp in partitions.clone() {
            // Not let go: a commit of this member may still arrive.
            match self.pipelines.remove(&kp).map(Pipeline::ended) {
                Some(Some(Ended::Unsure)) => return Ok(Some(Left::Unsure)),
                Some(Some(Ended::Fenced)) => return Err(GroupError::Fenced(self.shared.topic.clone())),
                Some(None) => return Err(GroupError::PipelineEnded(kp)),
                Some(Some(Ended::Told)) | None => {}
            }
            self.tracks.lock().remove(&kp);
            self.shared.metrics.forget(kp);
        }
        self.releasing = None;
        self.consumer.incremental_unassign(&list).map_err(|error| self.failed(error))?;
        self.shared.health.forget_commits(|kp| self.pipelines.contains_key(&kp));
        self.count();
        Ok(None)
    }

    pub(super) fn is_releasing(&self, kp: i32) -> bool {
        self.releasing.as_ref().is_some_and(|(partitions, _)| partitions.contains(&kp))
    }

    /// Finishes what is being inserted, then leaves the group.
    pub(super) fn leave(mut self, shutdown: &CancellationToken) -> Result<(), GroupError> {
        self.pipelines.values().for_each(Pipeline::stop);
        let latest = Instant::now() + RELEASE;
        // Changes are only noted meanwhile: a partition let go while its batch is on the way
        // would be read again by its next owner from before that batch.
        while self.pipelines.values().any(|pipeline| !pipeline.may_let_go()) {
            let late = Instant::now().saturating_duration_since(latest);
            if !late.is_zero() {
                self.pipelines.values().for_each(Pipeline::give_up);
                // The end of the process ends what is under way.
                if shutdown.is_cancelled() && self.pipelines.values().all(Pipeline::has_ended) {
                    break;
                }
            }
            if late > HELD {
                return Err(GroupError::Held(self.pipelines.keys().copied().collect()));
            }
            let _served = self.consumer.poll(POLL);
        }
        let waiting: Vec<_> = self.waiting.iter().map(|waiting| waiting.kp).collect();
        self.wait_no_longer(&waiting);
        for kp in std::mem::take(&mut self.pipelines).into_keys() {
            self.tracks.lock().remove(&kp);
            self.shared.metrics.forget(kp);
        }
        self.count();

        let opening = self.opening.take().map(Change::Assigned);
        let releasing = self.releasing.take().map(|(partitions, _)| Change::Revoked(partitions));
        self.consumer.context().answer_at_once(&self.consumer, opening.into_iter().chain(releasing));
        // Dropping the last handle of the consumer leaves the group.
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};
    use std::thread;

    use tokio::runtime::{Builder, Handle};

    use super::*;
    use crate::pipeline::context::Part;

    /// Long enough for a member that does not wait.
    const AT_ONCE: Duration = Duration::from_millis(500);
    const DEADLINE: Duration = Duration::from_secs(30);

    /// A member of a group that never answers, with a pipeline whose commit is under way.
    fn committing(runtime: Handle) -> (Member, Arc<()>) {
        let part = Part::unanswered(runtime);
        let mut member = Member::new(part.shared(), part.consumer(), Arc::default());
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
        assert!(leaving.recv_timeout(AT_ONCE).is_err(), "a commit under way could arrive after the next one");
        drop(commit);
        assert_eq!(leaving.recv_timeout(DEADLINE), Ok(true));
        thread.join().unwrap().unwrap();
    }

    #[test]
    fn a_revoked_partition_is_let_go_only_once_no_commit_of_it_is_under_way() {
        let runtime = Builder::new_multi_thread().enable_all().build().unwrap();
        let (mut member, commit) = committing(runtime.handle().clone());
        member.begin_release(vec![0]);
        let until = Instant::now() + AT_ONCE;
        while Instant::now() < until {
            assert!(matches!(member.end_release(), Ok(None)) && member.releasing.is_some());
        }
        drop(commit);
        // The pipeline ended without knowing what became of its commit.
        assert!(matches!(member.end_release(), Ok(Some(Left::Unsure))));
    }
}
