//! Membership of the consumer group.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;
use runtime::backoff::Backoff;
use tokio::runtime::Handle;
use tokio::time;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::group::member::Member;
use crate::group::tracks::Tracks;
use crate::kafka::client::consumer;
use crate::pipeline::context::Shared;

pub mod tracks;

mod member;

mod assignment;

mod rebalance;

pub mod orphans;

pub use rebalance::RELEASE;

/// Shortest and longest wait before the group is joined anew. Each time, all members are assigned anew.
const JOIN_PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How long a member must last for the next one to wait no longer than the first.
const LASTING: Duration = Duration::from_secs(120);
/// Why the process cannot go on as a member.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// Kafka's client does not take a setting, or gave up for good.
    #[error("consume `{topic}`")]
    Kafka {
        /// The topic.
        topic: String,
        /// What Kafka's client says.
        source: KafkaError,
    },
    /// Another process has our `GROUP_INSTANCE_ID`.
    #[error("consume `{0}`: another process has taken this one's place in the group")]
    Fenced(String),
    /// A commit does not end.
    #[error("consume partitions {0:?}: a commit is under way that does not end")]
    Held(Vec<i32>),
    /// A pipeline ended that was not told to.
    #[error("consume partition {0}: its pipeline ended")]
    PipelineEnded(i32),
    /// A record came beside its partition's queue, so that nobody would store it.
    #[error("consume partition {0}: a record came beside its queue")]
    Stray(i32),
    /// The system gave no thread.
    #[error("start a thread for partition {partition}")]
    Thread {
        /// The Kafka partition.
        partition: i32,
        /// What the system says.
        source: std::io::Error,
    },
}

/// Why a member left its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// It was told to.
    Told,
    /// Nobody knows what became of a commit.
    Unsure,
}

/// Takes part in the group until `shutdown`, then finishes, commits and leaves it.
/// Blocks: it has a thread of its own.
///
/// # Errors
/// What only a new start of the process can mend.
pub fn take_part(
    config: &Config,
    shared: &Arc<Shared>,
    tracks: &Arc<Tracks>,
    shutdown: &CancellationToken,
) -> Result<(), GroupError> {
    let mut pauses = Backoff::new(JOIN_PAUSES.0, JOIN_PAUSES.1);
    loop {
        let since = Instant::now();
        let instance = config.group_instance.as_deref();
        let consumer = Arc::new(
            consumer(config, instance, &shared.health)
                .map_err(|source| GroupError::Kafka { topic: shared.topic.clone(), source })?,
        );
        shared.metrics.joins.inc();
        let member = Member::new(Arc::clone(shared), consumer, Arc::clone(tracks));
        if member.run(shutdown)? == Left::Told {
            return Ok(());
        }
        tracing::warn!("consume `{}`: the end of a commit is unknown; joining the group anew", shared.topic);
        pause(&shared.runtime, shutdown, pause_after(&mut pauses, since.elapsed()));
    }
}

/// How long to wait after a member that lasted for `lived`: longer each time that none lasts, as where Kafka
/// refuses its commits.
fn pause_after(pauses: &mut Backoff, lived: Duration) -> Duration {
    if lived >= LASTING {
        pauses.reset();
    }
    pauses.wait()
}

/// Blocks for `wait`, or until `shutdown`.
fn pause(runtime: &Handle, shutdown: &CancellationToken, wait: Duration) {
    // Inside the future, for no timer can be made outside the runtime.
    runtime.block_on(async { shutdown.run_until_cancelled(time::sleep(wait)).await });
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Builder;

    use super::*;

    /// Long enough for a member that does not wait.
    const AT_ONCE: Duration = Duration::from_millis(500);
    const DEADLINE: Duration = Duration::from_secs(30);

    #[test]
    fn the_thread_that_polls_pauses_though_it_is_none_of_the_runtimes() {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let before = Instant::now();
        pause(runtime.handle(), &CancellationToken::new(), AT_ONCE);
        assert!(before.elapsed() >= AT_ONCE);
        let told = CancellationToken::new();
        told.cancel();
        pause(runtime.handle(), &told, DEADLINE);
        assert!(before.elapsed() < DEADLINE);
    }

    #[test]
    fn a_group_is_joined_ever_more_slowly_while_no_member_lasts() {
        let mut pauses = Backoff::new(JOIN_PAUSES.0, JOIN_PAUSES.1);
        let short = LASTING.mul_f64(0.5);
        let waits: Vec<_> = (0..7).map(|_| pause_after(&mut pauses, short)).collect();
        assert!(waits[0] <= JOIN_PAUSES.0, "{waits:?}");
        assert!(waits[5] >= JOIN_PAUSES.1 / 2 && waits[6] >= JOIN_PAUSES.1 / 2, "{waits:?}");
        assert!(pause_after(&mut pauses, LASTING) <= JOIN_PAUSES.0);
    }
}
