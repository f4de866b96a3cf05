//! Looks for partitions that the group has given to nobody, and has it assign all anew.
//!
//! Kafka gives a member that it knows by its `GROUP_INSTANCE_ID` what it had, when it comes
//! back, and assigns nothing. If that member, before it went away, was to let partitions go
//! that a second assignment would have handed on, the second one never comes: they have no
//! owner for as long as the same members come and go. A member that the group does not
//! know makes it assign all partitions; so a guest joins, and leaves ([`visit`]).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaResult;
use rdkafka::metadata::{MetadataPartition, MetadataTopic};
use tokio::task::spawn_blocking;
use tokio::time;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::group::{GroupError, RELEASE};
use crate::health::Health;
use crate::kafka::client::{POLL, consumer};
use crate::pipeline::context::Shared;

/// From an assignment to the first look, and between two. Who lets a partition go takes no
/// longer, so what has no owner in two looks is an orphan.
const LOOK: Duration = RELEASE;
/// How long Kafka may take to tell of the group.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// The state of a group in which everybody has what he is to have.
const STABLE: &str = "Stable";

/// For a guest to be assigned something: until all members have joined anew.
const VISIT: Duration = Duration::from_secs(60);
/// Looks after each assignment of this member, until every partition has an owner.
pub async fn watch(
    config: Arc<Config>,
    shared: Arc<Shared>,
    asker: Arc<BaseConsumer>,
    stop: CancellationToken,
) {
    let watching = async {
        loop {
            shared.assigned.notified().await;
            until_all_have_owners(&config, &shared, &asker, &stop).await;
        }
    };
    let _stopped = stop.run_until_cancelled(watching).await;
}

async fn until_all_have_owners(
    config: &Arc<Config>,
    shared: &Arc<Shared>,
    asker: &Arc<BaseConsumer>,
    stop: &CancellationToken,
) {
    let mut before = BTreeSet::new();
    loop {
        time::sleep(LOOK).await;
        let (asker, asked) = (Arc::clone(asker), Arc::clone(config));
        let Ok(found) = spawn_blocking(move || look(&asker, &asked)).await else { return };
        let now = match found {
            Ok(Some(without_owner)) if without_owner.is_empty() => return,
            Ok(Some(without_owner)) => without_owner,
            Ok(None) => BTreeSet::new(),
            Err(error) => {
                tracing::debug!(%error, "ask kafka for the group");
                BTreeSet::new()
            }
        };
        let orphans: Vec<i32> = before.intersection(&now).copied().collect();
        before = now;
        if orphans.is_empty() {
            continue;
        }
        tracing::warn!("partitions {orphans:?} belong to no member of the group; making it assign them");
        shared.metrics.orphans.inc_by(orphans.len() as u64);
        let (config, shared, stop) = (Arc::clone(config), Arc::clone(shared), stop.clone());
        let visited = spawn_blocking(move || visit(&config, &shared.health, &stop)).await;
        if let Ok(Err(error)) = visited {
            tracing::warn!("{error}");
        }
        before.clear();
    }
}

/// The partitions of the topic that no member has; nothing is known while the group assigns.
fn look(asker: &BaseConsumer, config: &Config) -> KafkaResult<Option<BTreeSet<i32>>> {
    let topic = &config.migrate.kafka.topic;
    let groups = asker.fetch_group_list(Some(&config.group), ASK_TIMEOUT)?;
    let stable = groups.groups().iter().find(|group| group.name() == config.group && group.state() == STABLE);
    let Some(group) = stable else { return Ok(None) };
    let metadata = asker.fetch_metadata(Some(topic), ASK_TIMEOUT)?;
    let found = metadata.topics().iter().filter(|found| found.name() == topic);
    let all = found.flat_map(MetadataTopic::partitions).map(MetadataPartition::id);
    let mut all: BTreeSet<i32> = all.collect();
    for member in group.members() {
        let Some(assigned) = member.assignment().and_then(|bytes| assigned(bytes, topic)) else {
            return Ok(None);
        };
        all.retain(|kp| !assigned.contains(kp));
    }
    Ok(Some(all))
}

/// The partitions of `topic` in an assignment as the group's leader writes it: Kafka's
/// `ConsumerProtocolAssignment`, any version. `None` if it is not one.
fn assigned(bytes: &[u8], topic: &str) -> Option<BTreeSet<i32>> {
    let mut rest = bytes;
    let _version = take::<2>(&mut rest)?;
    let mut ours = BTreeSet::new();
    for _ in 0..i32::from_be_bytes(take(&mut rest)?) {
        let length = usize::try_from(i16::from_be_bytes(take(&mut rest)?)).ok()?;
        let (name, after) = rest.split_at_checked(length)?;
        rest = after;
        for _ in 0..i32::from_be_bytes(take(&mut rest)?) {
            let kp = i32::from_be_bytes(take(&mut rest)?);
            if name == topic.as_bytes() {
                ours.insert(kp);
            }
        }
    }
    Some(ours)
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}

/// Joins the group as a member that it does not know, and leaves it as soon as it is assigned
/// something or nothing: so the group assigns all partitions anew. Blocks; reads and commits nothing.
///
/// # Errors
/// A setting that Kafka's client does not take.
pub fn visit(config: &Config, health: &Arc<Health>, shutdown: &CancellationToken) -> Result<(), GroupError> {
    let topic = &config.migrate.kafka.topic;
    let failed = |source| GroupError::Kafka { topic: topic.clone(), source };
    let guest = consumer(config, None, health).map_err(failed)?;
    guest.subscribe(&[topic]).map_err(failed)?;
    let latest = Instant::now() + VISIT;
    while guest.context().changes().is_empty() && Instant::now() < latest && !shutdown.is_cancelled() {
        let _served = guest.poll(POLL);
    }
    guest.context().answer_at_once(&guest, []);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two topics, as Kafka documents the format, with user data behind.
    const BYTES: &[u8] = b"\0\x01\0\0\0\x02\0\x02ab\0\0\0\x01\0\0\0\x07\0\x06events\0\0\0\x02\0\0\0\0\0\0\0\x03\xff\xff\xff\xff";

    #[test]
    fn an_assignment_says_which_partitions_of_each_topic() {
        assert_eq!(assigned(BYTES, "events"), Some(BTreeSet::from([0, 3])));
        assert_eq!(assigned(BYTES, "ab"), Some(BTreeSet::from([7])));
        assert_eq!(assigned(BYTES, "other"), Some(BTreeSet::new()));
    }

    #[test]
    fn what_is_no_assignment_says_nothing() {
        for length in 0..BYTES.len() - 4 {
            assert_eq!(assigned(&BYTES[..length], "events"), None, "{length} bytes");
        }
        assert_eq!(assigned(b"\0\0\0\0\0\x01\xff\xff", "events"), None);
    }
}
