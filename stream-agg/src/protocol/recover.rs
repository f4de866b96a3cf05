//! The checks before a pipeline starts. They decide at which offset an assigned partition continues.
//!
//! The committed offset, the log and the markers in ClickHouse must agree. If they do not, one of them was changed
//! from outside, and continuing would count events twice or not at all. Pure.

use schemas::tables::LEDGER_DAYS;
use schemas::time::{DAY, UnixMillis};

use crate::protocol::declaration::UnknownDeclaration;
use crate::protocol::intent::{Intent, IntentError, LogMark, TopicId};
use crate::protocol::progress::{NextOffset, Offset};
use crate::protocol::window::Digest;

/// The marker of one Kafka partition in one table partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    /// The table.
    pub table: String,
    /// Id of the table partition.
    pub partition_id: String,
    /// The table partition holds the records of the Kafka partition below this offset.
    pub applied_end: NextOffset,
}

/// The state of a partition in Kafka when the partition is assigned.
#[derive(Debug, Clone)]
pub struct KafkaState {
    /// The committed offset and its metadata, if there is one.
    pub committed: Option<(NextOffset, String)>,
    /// The first offset that the log still holds.
    pub low: NextOffset,
    /// Where the log ends.
    pub end: NextOffset,
    /// Id of the topic; `None` if the brokers do not support topic ids.
    pub topic: Option<TopicId>,
}

impl KafkaState {
    /// The committed offset and its intent, if the metadata is an intent that this release can read.
    pub fn intent(&self) -> Option<(NextOffset, Intent)> {
        let (from, metadata) = self.committed.as_ref()?;
        Some((*from, metadata.parse().ok()?))
    }

    /// Whether the topic is known to be the one that `intent` was committed for.
    pub fn is_of(&self, intent: &Intent) -> bool {
        self.topic.is_some() && self.topic == intent.log.topic
    }
}

/// Where a partition continues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    /// The next offset to read; every record below it is applied.
    pub from: NextOffset,
    /// The batch `[from..=last]` is declared under `intent.declaration_hash` and must be finished first.
    pub rebuild: Option<Offset>,
    /// The committed intent.
    pub intent: Intent,
}

/// Why a partition cannot start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecoverError {
    /// No offset is committed, but tables hold rows.
    #[error(
        "no offset is committed, but `{table}` holds records below {applied_end}; was the topic deleted and created again, or the group deleted?"
    )]
    CommitMissing {
        /// Table with the highest marker.
        table: String,
        /// The highest marker.
        applied_end: NextOffset,
    },
    /// The committed offset was not written by the aggregator.
    #[error(
        "offset {from} is committed without an intent, but `{table}` holds records below {applied_end}; were offsets reset by a tool?"
    )]
    IntentMissing {
        /// The committed offset.
        from: NextOffset,
        /// Table with the highest marker.
        table: String,
        /// The highest marker.
        applied_end: NextOffset,
    },
    /// The intent cannot be read.
    #[error("offset {from} is committed, but {reason}")]
    Unreadable {
        /// The committed offset.
        from: NextOffset,
        /// Why the intent cannot be read. It is no source of this error, because the text already contains it.
        reason: IntentError,
    },
    /// The log ends below the commit or the declared batch, and it is unknown whether the topic is the same.
    #[error(
        "records below {reached} are committed or declared, but the log ends at {end}; was the topic deleted and created again?"
    )]
    BeyondLog {
        /// Records below this offset are committed or declared.
        reached: NextOffset,
        /// Where the log ends.
        end: NextOffset,
    },
    /// The topic has another id than the one that the offset was committed for.
    #[error(
        "its offset was committed for topic id {committed}, but the topic now has id {found}: it was deleted and created again"
    )]
    TopicRecreated {
        /// The id in the commit.
        committed: TopicId,
        /// The id of the topic now.
        found: TopicId,
    },
    /// The topic got another id while its records were read.
    #[error("the topic was deleted and created again while its records were read")]
    TopicReplaced,
    /// The log was truncated below the records that were read, and perhaps written again.
    #[error("records below {from} were read from the log, which was then truncated below that offset")]
    LogTruncated {
        /// Every record below this offset was read.
        from: NextOffset,
    },
    /// Records that are not applied are no longer in the log.
    #[error("records from {from} on are not applied, but the log begins at {low}: retention deleted them")]
    RecordsGone {
        /// The committed offset.
        from: NextOffset,
        /// Where the log begins.
        low: NextOffset,
    },
    /// A marker matches neither the commit nor the declared batch.
    #[error(
        "table partition {partition_id} of `{table}` holds records below {applied_end}, but only those below {from} are committed; were offsets reset?"
    )]
    MarkerAhead {
        /// The table.
        table: String,
        /// Id of the table partition.
        partition_id: String,
        /// The marker.
        applied_end: NextOffset,
        /// The committed offset.
        from: NextOffset,
    },
    /// ClickHouse lacks records that are committed.
    #[error(
        "records below {from} are committed, but the ledger holds only those below {ledger}; was clickhouse restored from an older backup? restore all tables from the same backup"
    )]
    StoreBehind {
        /// The committed offset.
        from: NextOffset,
        /// The ledger's highest marker.
        ledger: NextOffset,
    },
    /// The window in the ledger differs from the committed one.
    #[error(
        "the ledger's records from {floor} to {from} are not those of the committed window ({found} instead of {expected})"
    )]
    WindowDiffers {
        /// Where the window begins.
        floor: NextOffset,
        /// The committed offset.
        from: NextOffset,
        /// The digest of the window in the ledger.
        found: Digest,
        /// The committed digest.
        expected: Digest,
    },
    /// The declaration of the unfinished batch is not known.
    #[error("the declared batch cannot be finished")]
    UnknownDeclaration(#[source] UnknownDeclaration),
}

/// What an operator must do about a partition that cannot start.
pub fn help(partition: u16) -> String {
    format!("; stop all aggregators and run `stream-agg adopt {partition}`")
}

/// The arguments that an operator adds to `stream-agg adopt` if the log of the same topic was truncated.
pub const AFTER_TRUNCATION: &str =
    "--new-log --from N, where N is the first offset that was written after the truncation";

/// What an operator can do if this release does not know the format of a record.
pub fn help_format(partition: u16, offset: Offset) -> String {
    format!(
        "; or, to turn the record into dead letters, stop all aggregators and run `stream-agg skip {partition} --offset {offset}`"
    )
}

/// What an operator can do if Kafka's client cannot read records.
pub fn help_unreadable(partition: u16) -> String {
    format!(
        "; restore the log from a replica and restart the aggregator, or give the records up: delete those before \
         the next readable offset with kafka-delete-records.sh, stop all aggregators and run `stream-agg adopt {partition}`"
    )
}

impl RecoverError {
    /// What an operator must do; empty if the error message already says it.
    pub fn help(&self, partition: u16) -> String {
        match self {
            Self::Unreadable { reason: IntentError::Version(_), .. } | Self::UnknownDeclaration(_) => {
                String::new()
            }
            Self::CommitMissing { .. } | Self::BeyondLog { .. } => {
                help(partition) + ", with --new-log if the topic was deleted and created again"
            }
            Self::TopicRecreated { .. } | Self::TopicReplaced => help(partition) + " --new-log",
            Self::LogTruncated { .. } => help(partition) + " " + AFTER_TRUNCATION,
            _ => help(partition),
        }
    }
}

/// Checks what was `found` in Kafka against the `markers` of all table partitions, which were read at ClickHouse's time
/// `now`. A partition without a commit and without markers starts at the beginning of its log, under the declaration of
/// this process, whose hash is `declaration_hash`.
///
/// # Errors
/// The commit, the log and the markers contradict each other.
pub fn resume(
    found: &KafkaState,
    markers: &[Marker],
    now: UnixMillis,
    declaration_hash: u64,
) -> Result<Resume, RecoverError> {
    let highest =
        markers.iter().max_by_key(|marker| marker.applied_end).filter(|m| m.applied_end > NextOffset::ZERO);
    let Some((from, metadata)) = &found.committed else {
        return match highest {
            None => Ok(fresh(found, found.low, declaration_hash)),
            Some(Marker { table, applied_end, .. }) => {
                Err(RecoverError::CommitMissing { table: table.clone(), applied_end: *applied_end })
            }
        };
    };
    let from = *from;
    if metadata.is_empty() {
        return match highest {
            // An operator chose the offset before any record was stored.
            None => in_log(fresh(found, from, declaration_hash), found),
            Some(Marker { table, applied_end, .. }) => {
                Err(RecoverError::IntentMissing { from, table: table.clone(), applied_end: *applied_end })
            }
        };
    }
    let mut intent: Intent = metadata.parse().map_err(|reason| RecoverError::Unreadable { from, reason })?;
    let (reached, same_topic) = (intent.reached(from), found.is_of(&intent));
    if same_topic && reached > found.end {
        return Err(RecoverError::LogTruncated { from: reached });
    }
    check_topic(&mut intent, found)?;
    let resume = in_log(Resume { from, rebuild: intent.last, intent }, found)?;
    check_markers(&resume, markers)?;
    check_ledger(&resume, markers, now)?;
    Ok(resume)
}

fn fresh(found: &KafkaState, from: NextOffset, declaration_hash: u64) -> Resume {
    let log = LogMark { topic: found.topic, epoch: None };
    Resume { from, rebuild: None, intent: Intent::fresh(from, declaration_hash, 0, log) }
}

/// Checks that the topic is the one that the offset was committed for. If only one of the two ids is known, all later
/// intents contain that id.
fn check_topic(intent: &mut Intent, found: &KafkaState) -> Result<(), RecoverError> {
    match (intent.log.topic, found.topic) {
        (Some(committed), Some(found)) if committed != found => {
            Err(RecoverError::TopicRecreated { committed, found })
        }
        (None, found) => {
            intent.log.topic = found;
            Ok(())
        }
        (Some(_), _) => Ok(()),
    }
}

fn in_log(resume: Resume, found: &KafkaState) -> Result<Resume, RecoverError> {
    let reached = resume.intent.reached(resume.from);
    if reached > found.end {
        return Err(RecoverError::BeyondLog { reached, end: found.end });
    }
    if resume.from < found.low {
        return Err(RecoverError::RecordsGone { from: resume.from, low: found.low });
    }
    Ok(resume)
}

/// Checks that each marker is at or below the committed offset, or at or below the end of the adopted records, or at
/// the end of the declared batch or of one of its parts.
fn check_markers(resume: &Resume, markers: &[Marker]) -> Result<(), RecoverError> {
    let declared = resume.rebuild.map(Offset::next);
    let Intent { adopted, split, .. } = &resume.intent;
    let fits = |applied_end| {
        applied_end <= resume.from
            || Some(applied_end) == declared
            || Some(applied_end) <= *adopted
            || split.contains(&applied_end)
    };
    match markers.iter().find(|marker| !fits(marker.applied_end)) {
        None => Ok(()),
        Some(Marker { table, partition_id, applied_end }) => Err(RecoverError::MarkerAhead {
            table: table.clone(),
            partition_id: partition_id.clone(),
            applied_end: *applied_end,
            from: resume.from,
        }),
    }
}

/// Checks that the ledger has a marker at or above the committed offset. The last batch below that offset wrote such a
/// marker, which stays until ClickHouse drops its table partition. The check is skipped if ClickHouse may have dropped
/// that table partition, or if no batch was ever inserted below the committed offset.
fn check_ledger(resume: &Resume, markers: &[Marker], now: UnixMillis) -> Result<(), RecoverError> {
    let of_ledger = markers.iter().filter(|marker| marker.table == "ledger").map(|marker| marker.applied_end);
    let ledger = of_ledger.max().unwrap_or(NextOffset::ZERO);
    let dropped = resume.intent.newest.is_some_and(|newest| ledger_ends(newest) <= now);
    if ledger >= resume.from || resume.from <= resume.intent.start || dropped {
        return Ok(());
    }
    Err(RecoverError::StoreBehind { from: resume.from, ledger })
}

/// When ClickHouse may drop the ledger's table partition that contains `kafka_time`.
fn ledger_ends(kafka_time: UnixMillis) -> UnixMillis {
    UnixMillis(kafka_time.floor(DAY).0 + (1 + i64::from(LEDGER_DAYS)) * DAY)
}

#[cfg(test)]
mod tests;
