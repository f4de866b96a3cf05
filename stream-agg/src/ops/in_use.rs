//! Finds the [`Declaration`] that the consumer group uses for each Kafka partition. It contains the rollups and all
//! settings that change the rows of a batch.
//!
//! The intent, which is the metadata of the committed offset, names the declaration by its hash. Every record below the
//! committed offset is in every table. Records at or above this offset are counted under this declaration or a later
//! one.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::metadata::MetadataTopic;
use rdkafka::topic_partition_list::TopicPartitionListElem;

use crate::apply::configs;
use crate::apply::store::{Store, StoreError};
use crate::config::Config;
use crate::kafka::commit;
use crate::protocol::declaration::{Declaration, UnknownDeclaration};
use crate::protocol::intent::{Intent, IntentError};

/// Timeout of one request to Kafka.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the declarations in use cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum InUseError {
    /// Kafka did not answer, or refused the request.
    #[error("read the committed offsets from kafka")]
    Kafka(#[from] KafkaError),
    /// The metadata of a commit is not an intent that this release can read.
    #[error(
        "read the declaration that partition {partition} uses: the metadata of its commit cannot be read"
    )]
    Unreadable {
        /// The Kafka partition.
        partition: u16,
        /// Why this release cannot read the metadata.
        source: IntentError,
    },
    /// The declaration that a committed intent names by its hash is missing in the table `configs`, or cannot be read.
    #[error("read the declaration that is in use")]
    Unknown(#[from] UnknownDeclaration),
    /// ClickHouse did not answer, or refused the request.
    #[error("read the declaration that is in use from the table `configs`")]
    Store(#[from] StoreError),
}

/// The declaration of each Kafka partition; `None` if the group has committed no offset for the partition. A partition
/// is left out if it has no commit and its log never had a record.
///
/// # Errors
/// Why the declarations cannot be read.
pub async fn by_partition(
    config: &Config,
    store: &Store,
) -> Result<Vec<(u16, Option<Declaration>)>, InUseError> {
    let mut known = BTreeMap::<u64, Declaration>::new();
    let mut all = Vec::new();
    for (partition, metadata) in committed(config)? {
        let Some(metadata) = metadata else {
            all.push((partition, None));
            continue;
        };
        let intent: Intent =
            metadata.parse().map_err(|source| InUseError::Unreadable { partition, source })?;
        let declared = match known.entry(intent.declaration_hash) {
            Entry::Occupied(declared) => declared.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(configs::read(store, intent.declaration_hash).await??),
        };
        all.push((partition, Some(declared.clone())));
    }
    Ok(all)
}

/// The Kafka partitions for which the group has committed an offset. Records of other partitions were never counted,
/// because an aggregator commits before the first insert of a partition. This call blocks.
///
/// # Errors
/// The error of Kafka.
pub fn committed_partitions(config: &Config) -> Result<Vec<u16>, KafkaError> {
    let group = group(config)?;
    let all = all_committed(config, &group)?.into_iter();
    Ok(all.filter(|(_, metadata)| metadata.is_some()).map(|(partition, _)| partition).collect())
}

/// The metadata that the group has committed for each partition; `None` if no offset is committed. A partition is
/// left out if it has no commit and its log never had a record.
fn committed(config: &Config) -> Result<Vec<(u16, Option<String>)>, KafkaError> {
    let group = group(config)?;
    let mut with_records = Vec::new();
    for (partition, metadata) in all_committed(config, &group)? {
        let (_, end) = group.fetch_watermarks(&config.migrate.kafka.topic, partition.into(), ASK_TIMEOUT)?;
        if metadata.is_some() || end > 0 {
            with_records.push((partition, metadata));
        }
    }
    Ok(with_records)
}

fn group(config: &Config) -> Result<BaseConsumer, KafkaError> {
    config.migrate.kafka.client(&[("group.id", &config.group)]).create()
}

/// The metadata that the group has committed for each partition; `None` if no offset is committed.
fn all_committed(config: &Config, group: &BaseConsumer) -> Result<Vec<(u16, Option<String>)>, KafkaError> {
    let topic = &config.migrate.kafka.topic;
    let metadata = group.fetch_metadata(Some(topic), ASK_TIMEOUT)?;
    let mut list = TopicPartitionList::new();
    for partition in metadata.topics().iter().flat_map(MetadataTopic::partitions) {
        list.add_partition(topic, partition.id());
    }
    let answer = group.committed_offsets(list, ASK_TIMEOUT)?;
    let committed = |element: &TopicPartitionListElem<'_>| {
        let metadata = commit::committed(element)?.map(|(_, metadata)| metadata);
        Ok((u16::try_from(element.partition()).expect("kafka numbers partitions from 0"), metadata))
    };
    answer.elements().iter().map(committed).collect()
}
