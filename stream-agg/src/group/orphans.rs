//! Finds partitions that the group has assigned to no member, and makes the group assign all partitions again.
//!
//! A cooperative rebalance has two steps. In the first step, members release partitions. Each of these members then
//! joins again, which starts the second step: another rebalance, which assigns the released partitions to other
//! members. When a static member (`GROUP_INSTANCE_ID`) comes back after a restart, Kafka gives it the partitions of its
//! latest assignment without a rebalance. If the member stopped before it released partitions, its latest assignment
//! does not contain these partitions any more. So after the restart the member has nothing to release, and does not
//! start the second step. These partitions then have no owner until something else makes the group rebalance. When an
//! unknown member joins, the group must rebalance, so a temporary member joins and leaves ([`force_rebalance`]).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaResult;
use rdkafka::metadata::{MetadataPartition, MetadataTopic};
use runtime::error::chain;
use tokio::task::spawn_blocking;
use tokio::time;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::group::{GroupError, RELEASE_TIMEOUT};
use crate::health::Health;
use crate::kafka::client::{POLL_TIMEOUT, group_consumer};
use crate::pipeline::context::Services;

/// Time from an assignment to the first check, and between two checks. A member usually releases a partition in less
/// time, so a partition that has no owner in two consecutive checks is treated as an orphan.
const CHECK_INTERVAL: Duration = RELEASE_TIMEOUT;
/// Timeout of a request to Kafka about the group or the topic.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// Kafka's name for the state of a group that has members and is not rebalancing.
const STABLE: &str = "Stable";
/// How long the temporary member waits for its assignment, which comes once all members have joined again.
const REBALANCE_TIMEOUT: Duration = Duration::from_secs(60);

/// After each assignment to this member, checks repeatedly until every partition has an owner. Forces a rebalance if a
/// partition has no owner in two consecutive checks.
pub async fn watch(
    config: Arc<Config>,
    services: Arc<Services>,
    metadata_client: Arc<BaseConsumer>,
    stop: CancellationToken,
) {
    let watching = async {
        loop {
            services.assigned.notified().await;
            until_all_have_owners(&config, &services, &metadata_client, &stop).await;
        }
    };
    let _stopped = stop.run_until_cancelled(watching).await;
}

async fn until_all_have_owners(
    config: &Arc<Config>,
    services: &Arc<Services>,
    metadata_client: &Arc<BaseConsumer>,
    stop: &CancellationToken,
) {
    let mut before = BTreeSet::new();
    loop {
        time::sleep(CHECK_INTERVAL).await;
        let (metadata_client, asked) = (Arc::clone(metadata_client), Arc::clone(config));
        let Ok(found) = spawn_blocking(move || without_owner(&metadata_client, &asked)).await else { return };
        let now = match found {
            Ok(Some(without_owner)) if without_owner.is_empty() => return,
            Ok(Some(without_owner)) => without_owner,
            Ok(None) => BTreeSet::new(),
            Err(error) => {
                tracing::debug!(%error, "read from kafka which partitions the members of the group own");
                BTreeSet::new()
            }
        };
        let orphans: Vec<i32> = before.intersection(&now).copied().collect();
        before = now;
        if orphans.is_empty() {
            continue;
        }
        tracing::warn!(
            "partitions {orphans:?} are assigned to no member of the group; making the group assign them again"
        );
        services.metrics.orphans.inc_by(orphans.len() as u64);
        let (config, services, stop) = (Arc::clone(config), Arc::clone(services), stop.clone());
        let forced = spawn_blocking(move || force_rebalance(&config, &services.health, &stop)).await;
        if let Ok(Err(error)) = forced {
            tracing::warn!("force a rebalance of the group: {}", chain(&error));
        }
        before.clear();
    }
}

/// Joins the group as a new, temporary member. Leaves the group after the first assignment, even an empty one, after
/// [`REBALANCE_TIMEOUT`], or at `shutdown`. The group then assigns all partitions again. The temporary member reads no
/// records and commits nothing. Blocks.
///
/// # Errors
/// Kafka's client does not accept a setting.
fn force_rebalance(
    config: &Config,
    health: &Arc<Health>,
    shutdown: &CancellationToken,
) -> Result<(), GroupError> {
    let topic = &config.migrate.kafka.topic;
    let failed = |source| GroupError::Kafka { topic: topic.clone(), source };
    let temporary = group_consumer(config, None, health).map_err(failed)?;
    temporary.subscribe(&[topic]).map_err(failed)?;
    let latest = Instant::now() + REBALANCE_TIMEOUT;
    while !temporary.context().has_events() && Instant::now() < latest && !shutdown.is_cancelled() {
        let _served = temporary.poll(POLL_TIMEOUT);
    }
    temporary.context().acknowledge_immediately(&temporary, []);
    Ok(())
}

/// The partitions of the topic that are assigned to no member; `None` if the group is not in the state [`STABLE`], or
/// if a member's assignment cannot be decoded.
fn without_owner(metadata_client: &BaseConsumer, config: &Config) -> KafkaResult<Option<BTreeSet<i32>>> {
    let topic = &config.migrate.kafka.topic;
    let groups = metadata_client.fetch_group_list(Some(&config.group), ASK_TIMEOUT)?;
    let stable = groups.groups().iter().find(|group| group.name() == config.group && group.state() == STABLE);
    let Some(group) = stable else { return Ok(None) };
    let metadata = metadata_client.fetch_metadata(Some(topic), ASK_TIMEOUT)?;
    let found = metadata.topics().iter().filter(|found| found.name() == topic);
    let all = found.flat_map(MetadataTopic::partitions).map(MetadataPartition::id);
    let mut all: BTreeSet<i32> = all.collect();
    for member in group.members() {
        let Some(assigned) = member.assignment().and_then(|bytes| decode_assignment(bytes, topic)) else {
            return Ok(None);
        };
        all.retain(|partition| !assigned.contains(partition));
    }
    Ok(Some(all))
}

/// The partitions of `topic` in an assignment. `bytes` is the assignment as the leader of the group encodes it: Kafka's
/// `ConsumerProtocolAssignment`, any version. `None` if the bytes have another format.
fn decode_assignment(bytes: &[u8], topic: &str) -> Option<BTreeSet<i32>> {
    let mut rest = bytes;
    let _version = take::<2>(&mut rest)?;
    let mut ours = BTreeSet::new();
    for _ in 0..i32::from_be_bytes(take(&mut rest)?) {
        let length = usize::try_from(i16::from_be_bytes(take(&mut rest)?)).ok()?;
        let (name, after) = rest.split_at_checked(length)?;
        rest = after;
        for _ in 0..i32::from_be_bytes(take(&mut rest)?) {
            let partition = i32::from_be_bytes(take(&mut rest)?);
            if name == topic.as_bytes() {
                ours.insert(partition);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// An assignment of two topics in the format that Kafka documents, followed by user data.
    const BYTES: &[u8] = b"\0\x01\0\0\0\x02\0\x02ab\0\0\0\x01\0\0\0\x07\0\x06events\0\0\0\x02\0\0\0\0\0\0\0\x03\xff\xff\xff\xff";

    #[test]
    fn an_assignment_is_decoded_into_the_partitions_of_each_topic() {
        assert_eq!(decode_assignment(BYTES, "events"), Some(BTreeSet::from([0, 3])));
        assert_eq!(decode_assignment(BYTES, "ab"), Some(BTreeSet::from([7])));
        assert_eq!(decode_assignment(BYTES, "other"), Some(BTreeSet::new()));
    }

    #[test]
    fn malformed_assignments_are_not_decoded() {
        for length in 0..BYTES.len() - 4 {
            assert_eq!(decode_assignment(&BYTES[..length], "events"), None, "{length} bytes");
        }
        assert_eq!(decode_assignment(b"\0\0\0\0\0\x01\xff\xff", "events"), None);
    }
}
