//! Changes the committed offset or metadata of a partition while no aggregator runs. The commands `adopt`, `split`
//! and `skip` share this code.
//!
//! Invariant: nothing is committed while the group has members. Kafka accepts a commit from outside a group only
//! while the group is empty, so each commit also checks that the group is empty.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::time::{self, Instant};

use crate::apply::store::StoreError;
use crate::apply::verdict::MAX_INSERT_LIFETIME_MS;
use crate::config::{Config, fixed};
use crate::kafka::client::seek;
use crate::kafka::commit;
use crate::kafka::commit::Committed;
use crate::kafka::librdkafka::{self, TopicDescription};
use crate::kafka::read_error::{ReadError, classify};
use crate::protocol::intent::{Intent, IntentError};
use crate::protocol::progress::NextOffset;
use crate::protocol::recover::KafkaState;

/// Timeout of one request to Kafka.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause between two checks that the group is still empty.
const CHECK_PAUSE: Duration = Duration::from_secs(1);
/// Pause before a request is repeated, after it failed because the group had no coordinator.
const COORDINATOR_PAUSE: Duration = Duration::from_millis(100);
/// Timeout of one poll of the queue of fetched records.
const POLL_TIMEOUT: Duration = Duration::from_millis(50);
/// Assumed maximum difference between the clocks of two machines.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(5);

/// Why a command did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// Aggregators run.
    #[error(
        "group `{group}` has members: stop all aggregators, then run the command again (a killed aggregator stays a \
         member for 45 s)"
    )]
    Busy {
        /// The consumer group.
        group: String,
    },
    /// Another process committed while the command ran.
    #[error(
        "another process committed while the command ran: stop all aggregators and other commands, then run the \
         command again"
    )]
    Changed,
    /// No offset is committed.
    #[error("no offset is committed, so there is nothing to split or skip")]
    NothingCommitted,
    /// The metadata of the commit is not an intent that this process can read.
    #[error("the metadata of the committed offset cannot be used")]
    Unreadable(#[source] IntentError),
    /// Kafka did not answer, or refused the request.
    #[error("send a request to kafka")]
    Kafka(#[source] KafkaError),
    /// ClickHouse did not answer, or refused the request.
    #[error("query clickhouse")]
    Store(#[source] StoreError),
}

/// How long an insert may store rows, counted from the moment when its statement was made.
pub(crate) fn insert_lifetime() -> Duration {
    Duration::from_millis(MAX_INSERT_LIFETIME_MS.unsigned_abs()) + CLOCK_TOLERANCE
}

/// Whether the error means that the group's coordinator is not ready yet. The coordinator is not ready for a moment
/// after a broker has started, and after the first request that a Kafka cluster gets about any consumer group.
fn has_no_coordinator(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as C;
    let codes = [C::NotCoordinator, C::CoordinatorNotAvailable, C::CoordinatorLoadInProgress];
    error.rdkafka_error_code().is_some_and(|code| codes.contains(&code))
}

/// What is committed for a partition, and its intent.
pub struct CommittedIntent {
    /// The committed offset and metadata, as Kafka stores them.
    pub committed: Committed,
    /// The committed offset.
    pub from: NextOffset,
    /// The intent that the metadata encodes.
    pub intent: Intent,
}

/// Access to the committed offset and the log of one partition, for a command that requires a group without members.
pub struct Offline<'c> {
    config: &'c Config,
    partition: u16,
    group: BaseConsumer,
}

impl<'c> Offline<'c> {
    /// Access to `partition` of the topic and of the group that `config` names.
    ///
    /// # Errors
    /// Kafka's client does not accept a setting.
    pub fn new(config: &'c Config, partition: u16) -> Result<Self, OfflineError> {
        let group = config.migrate.kafka.client(&[("group.id", &config.group)]).create();
        Ok(Self { config, partition, group: group.map_err(OfflineError::Kafka)? })
    }

    /// The committed offset and metadata, the id of the topic, and where the log begins and ends.
    ///
    /// # Errors
    /// The error of Kafka.
    pub async fn kafka_state(&self) -> Result<KafkaState, OfflineError> {
        self.ask(Self::find).await
    }

    fn find(&self) -> Result<KafkaState, KafkaError> {
        let (topic, partition) = (self.topic(), i32::from(self.partition));
        let (low, end) = self.group.fetch_watermarks(topic, partition, ASK_TIMEOUT)?;
        let committed = self.find_committed()?;
        let TopicDescription { id, .. } =
            librdkafka::describe_topic(&self.group, topic, ASK_TIMEOUT).map_err(KafkaError::AdminOp)?;
        Ok(KafkaState { committed, low: NextOffset::new(low), end: NextOffset::new(end), topic: id })
    }

    fn find_committed(&self) -> Result<Committed, KafkaError> {
        let mut list = TopicPartitionList::new();
        list.add_partition(self.topic(), self.partition.into());
        let answer = self.group.committed_offsets(list, ASK_TIMEOUT)?;
        answer.elements().first().map_or(Ok(None), commit::committed)
    }

    /// Sends a request to Kafka. Repeats it while the group has no coordinator, for at most [`ASK_TIMEOUT`].
    async fn ask<T>(&self, request: impl Fn(&Self) -> Result<T, KafkaError>) -> Result<T, OfflineError> {
        let until = Instant::now() + ASK_TIMEOUT;
        loop {
            match request(self) {
                Err(error) if has_no_coordinator(&error) && Instant::now() < until => {
                    time::sleep(COORDINATOR_PAUSE).await;
                }
                answer => return answer.map_err(OfflineError::Kafka),
            }
        }
    }

    /// What is committed, and its intent.
    ///
    /// # Errors
    /// No offset is committed, the intent cannot be read, or a request to Kafka failed.
    pub async fn intent(&self) -> Result<CommittedIntent, OfflineError> {
        let committed = self.ask(Self::find_committed).await?;
        let (from, metadata) = committed.as_ref().ok_or(OfflineError::NothingCommitted)?;
        let intent = metadata.parse().map_err(OfflineError::Unreadable)?;
        Ok(CommittedIntent { from: *from, intent, committed })
    }

    /// Whether the log still has, below `end`, the records that an aggregator has read. `epoch` is the leader epoch of
    /// the last record that the aggregator read below `end`. If the log was truncated below `end` since, that record
    /// is missing or has a later epoch.
    ///
    /// # Errors
    /// The error of Kafka.
    pub fn holds(&self, end: NextOffset, epoch: i32) -> Result<bool, OfflineError> {
        self.ask_epoch(end, epoch).map_err(OfflineError::Kafka)
    }

    fn ask_epoch(&self, end: NextOffset, epoch: i32) -> Result<bool, KafkaError> {
        let (topic, partition) = (self.topic(), i32::from(self.partition));
        // With `enable.partition.eof`, the client reports `PartitionEOF` for a valid offset at the end of the log,
        // where there is no record.
        let settings = [("group.id", self.config.group.as_str()), ("enable.partition.eof", "true")];
        let reader: BaseConsumer =
            self.config.migrate.kafka.client(&[&settings[..], &fixed::CONSUMER].concat()).create()?;
        let reader = Arc::new(reader);
        let queue = reader.split_partition_queue(topic, partition).ok_or(KafkaError::Canceled)?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, rdkafka::Offset::Offset(end.to_i64()))?;
        reader.assign(&list)?;
        seek(&reader, topic, partition, end, epoch)?;
        let until = std::time::Instant::now() + ASK_TIMEOUT;
        while std::time::Instant::now() < until {
            match queue.poll(POLL_TIMEOUT) {
                Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) => return Ok(true),
                Some(Err(error)) => match classify(&error) {
                    ReadError::OffsetGone => return Ok(false),
                    // The client fetches records only from a valid offset, so the offset is valid although the record
                    // cannot be read.
                    ReadError::Unreadable => return Ok(true),
                    ReadError::Transient => {}
                },
                None => {}
            }
        }
        Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut))
    }

    /// Commits `intent` at `from`, if the committed offset and metadata are still what the command has `found`.
    ///
    /// # Errors
    /// Another process has committed in the meantime, aggregators run, or a request to Kafka failed.
    pub async fn replace(
        &self,
        found: &Committed,
        from: NextOffset,
        intent: &Intent,
    ) -> Result<(), OfflineError> {
        self.replace_text(found, from, &intent.to_string()).await
    }

    async fn replace_text(
        &self,
        found: &Committed,
        from: NextOffset,
        metadata: &str,
    ) -> Result<(), OfflineError> {
        // Kafka has no commit with a condition. If another command commits between this check and the commit below, its
        // commit is lost. The check and the commit are only milliseconds apart.
        if self.ask(Self::find_committed).await? != *found {
            return Err(OfflineError::Changed);
        }
        match self.try_commit(from, metadata) {
            Err(KafkaError::ConsumerCommit(
                RDKafkaErrorCode::UnknownMemberId
                | RDKafkaErrorCode::IllegalGeneration
                | RDKafkaErrorCode::RebalanceInProgress,
            )) => Err(OfflineError::Busy { group: self.config.group.clone() }),
            committed => committed.map_err(OfflineError::Kafka),
        }
    }

    fn try_commit(&self, from: NextOffset, metadata: &str) -> Result<(), KafkaError> {
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition(self.topic(), self.partition.into()).set_metadata(metadata);
        offsets.set_all_offsets(rdkafka::Offset::Offset(from.to_i64()))?;
        self.group.commit(&offsets, CommitMode::Sync)
    }

    /// Waits until no insert that an aggregator has sent, for any partition, can still store rows. ClickHouse may begin
    /// an insert until its deadline, and then run it until the time limit of a statement; the wait covers both.
    ///
    /// During the wait, the offset in `committed` is committed repeatedly, which fails if an aggregator has joined the
    /// group or if another process has committed. If `committed` is `None`, nothing is committed, and the
    /// wait detects neither members of the group nor other commits.
    ///
    /// # Errors
    /// An aggregator joined the group during the wait, another process committed, or a request to Kafka failed.
    pub async fn wait_for_inserts_to_end(&self, committed: &Committed) -> Result<(), OfflineError> {
        let wait = insert_lifetime();
        self.commit_again(committed).await?;
        tracing::info!(
            "waiting {} s until no insert that an aggregator has sent can still store rows",
            wait.as_secs()
        );
        let until = Instant::now() + wait;
        while Instant::now() < until {
            time::sleep(CHECK_PAUSE).await;
            self.commit_again(committed).await?;
        }
        Ok(())
    }

    /// Commits `committed` again without a change. Fails if the group has members or if another process has committed.
    async fn commit_again(&self, committed: &Committed) -> Result<(), OfflineError> {
        let Some((from, metadata)) = committed else { return Ok(()) };
        self.replace_text(committed, *from, metadata).await
    }

    fn topic(&self) -> &str {
        &self.config.migrate.kafka.topic
    }
}
