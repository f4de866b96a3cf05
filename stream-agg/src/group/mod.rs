//! The member of the consumer group: it joins, gets partitions, releases them and leaves.
//!
//! [`run_member`] joins the group, and joins it again whenever a commit was not confirmed or committed offsets could
//! not be validated. `member` polls and acts on rebalances, `assignment` starts pipelines, `rebalance` releases
//! partitions, and [`orphans`] finds partitions that the group has assigned to no member.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;
use runtime::backoff::{Backoff, RetryPolicy};
use tokio::runtime::Handle;
use tokio::time;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::group::applied_watches::AppliedWatches;
use crate::group::member::Member;
use crate::kafka::client::group_consumer;
use crate::pipeline::context::Services;

mod member;

mod assignment;

mod rebalance;

pub mod applied_watches;

pub mod orphans;

pub use rebalance::RELEASE_TIMEOUT;

/// The waits before this process joins the group again. The waits grow, because each join disturbs the other members:
/// the group assigns all partitions again.
const JOIN_RETRIES: RetryPolicy = RetryPolicy::new(Duration::from_secs(1), Duration::from_secs(30));
/// After a membership of at least this length, the wait before the next join is the shortest one again.
const BACKOFF_RESET_AFTER: Duration = Duration::from_secs(120);

/// Why the process cannot be a member of the group.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// Kafka's client does not accept a setting, or reported a fatal error.
    #[error("consume `{topic}`")]
    Kafka {
        /// The topic.
        topic: String,
        /// The error of Kafka's client.
        source: KafkaError,
    },
    /// Another process uses the same `GROUP_INSTANCE_ID`.
    #[error(
        "consume `{0}`: another process with the same `GROUP_INSTANCE_ID` has taken the place of this process"
    )]
    Fenced(String),
    /// A commit did not end within its time limit.
    #[error("consume partitions {0:?}: a commit did not end within its time limit")]
    CommitTimedOut(Vec<i32>),
    /// A pipeline ended although nothing stopped it, or its thread panicked.
    #[error("consume partition {0}: its pipeline ended unexpectedly")]
    PipelineEnded(i32),
    /// Kafka's client returned a record outside the queue of its partition, where no pipeline reads the record. This
    /// error is also returned if the client has no queue for the partition, or if the number of the partition exceeds
    /// 65,535.
    #[error("consume partition {0}: kafka's client returned a record outside the queue of its partition")]
    Stray(i32),
    /// The operating system cannot start a thread.
    #[error("start a thread for partition {partition}")]
    Thread {
        /// The Kafka partition.
        partition: i32,
        /// The error of the operating system.
        source: std::io::Error,
    },
}

/// Why a member left its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeaveReason {
    /// The process shuts down.
    Shutdown,
    /// The outcome of a commit is unknown, or Kafka does not accept the commit in this membership.
    CommitUnknown,
    /// The committed offsets of assigned partitions could not be validated.
    OffsetsNotValidated,
}

/// Runs a member of the group until `shutdown`, then finishes the current batches, commits them and leaves the
/// group. Blocks: the caller runs it on a thread of its own.
///
/// # Errors
/// An error after which the process must not join the group again.
pub fn run_member(
    config: &Config,
    services: &Arc<Services>,
    applied_watches: &Arc<AppliedWatches>,
    shutdown: &CancellationToken,
) -> Result<(), GroupError> {
    let topic = &services.topic;
    let mut pauses = JOIN_RETRIES.backoff();
    loop {
        let since = Instant::now();
        let consumer = group_consumer(config, config.group_instance.as_deref(), &services.health);
        let consumer = consumer.map_err(|source| GroupError::Kafka { topic: topic.clone(), source })?;
        services.metrics.joins.inc();
        let member = Member::new(Arc::clone(services), Arc::new(consumer), Arc::clone(applied_watches));
        let reason = match member.run(shutdown)? {
            LeaveReason::Shutdown => return Ok(()),
            LeaveReason::CommitUnknown => "the outcome of a commit is unknown, or kafka refuses the commit",
            LeaveReason::OffsetsNotValidated => "the committed offsets could not be validated",
        };
        tracing::warn!("consume `{topic}`: {reason}; joining the group again");
        pause(&services.runtime, shutdown, pause_after(&mut pauses, since.elapsed()));
    }
}

/// How long to wait after a membership that lasted for `lived`. The wait grows while memberships are short, for example
/// because Kafka refuses every commit.
fn pause_after(pauses: &mut Backoff, lived: Duration) -> Duration {
    if lived >= BACKOFF_RESET_AFTER {
        pauses.reset();
    }
    pauses.wait()
}

/// Blocks for `wait`, or until `shutdown`.
fn pause(runtime: &Handle, shutdown: &CancellationToken, wait: Duration) {
    // The timer is created inside the future, because it cannot be created outside the runtime.
    runtime.block_on(async { shutdown.run_until_cancelled(time::sleep(wait)).await });
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Builder;

    use super::*;

    /// The length of the pause that must not end early.
    const SHORT_WAIT: Duration = Duration::from_millis(500);
    const DEADLINE: Duration = Duration::from_secs(30);

    #[test]
    fn a_pause_works_on_a_thread_outside_the_runtime_and_ends_at_shutdown() {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let before = Instant::now();
        pause(runtime.handle(), &CancellationToken::new(), SHORT_WAIT);
        assert!(before.elapsed() >= SHORT_WAIT);
        let stopped = CancellationToken::new();
        stopped.cancel();
        pause(runtime.handle(), &stopped, DEADLINE);
        assert!(before.elapsed() < DEADLINE);
    }

    #[test]
    fn waits_before_a_join_grow_while_memberships_are_short() {
        let mut pauses = JOIN_RETRIES.backoff();
        let short = BACKOFF_RESET_AFTER.mul_f64(0.5);
        let waits: Vec<_> = (0..7).map(|_| pause_after(&mut pauses, short)).collect();
        assert!(waits[0] <= JOIN_RETRIES.shortest(), "{waits:?}");
        assert!(
            waits[5] >= JOIN_RETRIES.longest() / 2 && waits[6] >= JOIN_RETRIES.longest() / 2,
            "{waits:?}"
        );
        assert!(pause_after(&mut pauses, BACKOFF_RESET_AFTER) <= JOIN_RETRIES.shortest());
    }
}
