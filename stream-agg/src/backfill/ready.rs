//! Whether every Kafka partition works under a declaration that has the rollup.
//!
//! Only then is what raw rows lack complete: everything below a partition's committed
//! offset is in every cell, and what is above is counted as it comes.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::metadata::MetadataTopic;

use crate::backfill::BackfillError;
use crate::commit;
use crate::config::Config;
use crate::configs;
use crate::intent::Intent;
use crate::store::Store;

/// How long Kafka may take for one answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// What is committed of one Kafka partition.
struct Committed {
    kp: u16,
    /// None if nothing ever was, though there are records.
    metadata: Option<String>,
}

/// Returns if all partitions are past the rollup `name`'s first declaration.
///
/// # Errors
/// Those that are not, or that nobody could tell.
pub(super) async fn check(config: &Config, store: &Store, name: &str) -> Result<(), BackfillError> {
    let mut known = BTreeMap::<u64, bool>::new();
    let mut behind = Vec::new();
    for Committed { kp, metadata } in committed(config).map_err(BackfillError::Kafka)? {
        let Some(metadata) = metadata else {
            behind.push(format!("partition {kp} works under none yet"));
            continue;
        };
        let intent: Intent = metadata.parse().map_err(|source| BackfillError::Unreadable { kp, source })?;
        let has_it = match known.get(&intent.cfg) {
            Some(has_it) => *has_it,
            None => {
                let declared = configs::read(store, intent.cfg).await??;
                let has_it = declared.rollups.get(name).is_some();
                known.insert(intent.cfg, has_it);
                has_it
            }
        };
        if !has_it {
            behind.push(format!("partition {kp} works under {:016x}", intent.cfg));
        }
    }
    if behind.is_empty() {
        return Ok(());
    }
    Err(BackfillError::Behind { name: name.to_owned(), partitions: behind.join(", ") })
}

/// What the group has committed of each partition; those without any record are left out.
fn committed(config: &Config) -> Result<Vec<Committed>, KafkaError> {
    let kafka = &config.migrate.kafka;
    let group: BaseConsumer = kafka.client(&[("group.id", &config.group)]).create()?;
    let metadata = group.fetch_metadata(Some(&kafka.topic), ASK_TIMEOUT)?;
    let mut list = TopicPartitionList::new();
    for partition in metadata.topics().iter().flat_map(MetadataTopic::partitions) {
        list.add_partition(&kafka.topic, partition.id());
    }
    let mut all = Vec::new();
    for element in group.committed_offsets(list, ASK_TIMEOUT)?.elements() {
        let metadata = commit::committed(&element)?.map(|(_, metadata)| metadata);
        let (_, end) = group.fetch_watermarks(&kafka.topic, element.partition(), ASK_TIMEOUT)?;
        if metadata.is_some() || end > 0 {
            let kp = u16::try_from(element.partition()).expect("kafka numbers partitions from 0");
            all.push(Committed { kp, metadata });
        }
    }
    Ok(all)
}
