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

/// A marker: a row that says up to which offset a table partition in ClickHouse holds the rows of a Kafka partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    /// The table.
    pub table: String,
    /// Id of the table partition.
    pub partition_id: String,
    /// The table partition holds all of its rows that come from records of the Kafka partition below this offset.
    pub applied_end: NextOffset,
}

/// The state of a partition in Kafka when the partition is assigned.
#[derive(Debug, Clone)]
pub struct KafkaState {
    /// The committed offset and its metadata, if there is one.
    pub committed: Option<(NextOffset, String)>,
    /// Where the log begins: Kafka has deleted every record below this offset.
    pub low: NextOffset,
    /// Where the log ends: the offset after its last record.
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

/// Where a partition continues, and which batch must be finished first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    /// The next offset to read; every record below it is applied.
    pub from: NextOffset,
    /// The last record of the declared batch, which begins at `from` and may be partly inserted. `None` if no batch is
    /// declared.
    pub rebuild: Option<Offset>,
    /// The committed intent, to which the id of the topic is added if the commit lacks it. If no intent is committed:
    /// a new one, which declares no batch.
    pub intent: Intent,
}

/// Why a partition cannot start, or cannot continue.
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
        /// Why the intent cannot be read. This field is not the `source` of the error, because the message already
        /// contains its text.
        reason: IntentError,
    },
    /// The log ends before the committed offset or before the end of the declared batch, and it is unknown whether the
    /// topic was created again after the commit.
    #[error(
        "records below {reached} are committed or declared, but the log ends at {end}; was the topic deleted and created again?"
    )]
    BeyondLog {
        /// Records below this offset are committed or declared.
        reached: NextOffset,
        /// Where the log ends.
        end: NextOffset,
    },
    /// The id of the topic is not the id in the commit.
    #[error(
        "the offset was committed for topic id {committed}, but the topic now has id {found}: the topic was deleted and created again"
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
    /// The log was truncated, and records that were read from it are gone. New records may already have their offsets.
    #[error("records below {from} were read from the log, which was then truncated below that offset")]
    LogTruncated {
        /// Every record below this offset was read.
        from: NextOffset,
    },
    /// Records that are not applied are no longer in the log.
    #[error(
        "records from {from} on are not applied, but the log begins at {low}: retention or an operator deleted earlier \
         records"
    )]
    RecordsGone {
        /// The committed offset.
        from: NextOffset,
        /// Where the log begins.
        low: NextOffset,
    },
    /// A marker is above the committed offset. It is neither at the end or a split point of the declared batch, nor at
    /// or below the highest marker that `stream-agg adopt` found.
    #[error(
        "table partition {partition_id} of `{table}` holds records below {applied_end}, but only records below {from} are committed; were the group's offsets reset?"
    )]
    MarkerAhead {
        /// The table.
        table: String,
        /// Id of the table partition.
        partition_id: String,
        /// The offset of the marker.
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
    /// The deduplication window that was restored from the ledger is not the window that the commit describes.
    #[error(
        "the ledger's records from {floor} to {from} are not those of the committed window (digest {found} instead of {expected})"
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
    /// The declaration of the declared batch, or of the records that `stream-agg adopt` found in tables, is missing in
    /// the table `configs`, was changed there, or cannot be read by this release.
    #[error("the declared batch, or the records that `stream-agg adopt` found in tables, cannot be finished")]
    UnknownDeclaration(#[source] UnknownDeclaration),
}

/// What an operator must do about a stopped partition. Like the other help texts, it is appended to an error message.
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
        "; restore the log from a replica and restart the aggregator, or, if the records may be lost, delete all records \
         before the next readable offset with kafka-delete-records.sh, stop all aggregators and run `stream-agg adopt {partition}`"
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

/// Decides where a partition continues: compares what was `found` in Kafka with the `markers` of all table partitions,
/// which were read at ClickHouse's time `now`. A partition without a commit and without markers starts at the beginning
/// of its log, under the declaration of this process, whose hash is `declaration_hash`.
///
/// # Errors
/// The commit, the log and the markers contradict each other, or this release cannot read the committed intent.
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
            // Nothing is stored yet. The aggregator never commits without metadata, so an operator has chosen this
            // offset with a tool of Kafka.
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

/// Checks that the id of the topic is the id in the commit. If only one of these two ids is known, the check passes and
/// all later intents contain the known id.
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

/// Checks that each marker is at an offset that the intent explains: at or below the committed offset, at or below the
/// highest marker that `stream-agg adopt` found, at the end of the declared batch, or at one of its split points.
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
/// marker into a table partition of the ledger. The check is skipped if ClickHouse may have dropped that table
/// partition because of its age, or if no batch lies between the intent's `start` and the committed offset.
fn check_ledger(resume: &Resume, markers: &[Marker], now: UnixMillis) -> Result<(), RecoverError> {
    let of_ledger = markers.iter().filter(|marker| marker.table == "ledger").map(|marker| marker.applied_end);
    let ledger = of_ledger.max().unwrap_or(NextOffset::ZERO);
    let dropped = resume.intent.newest.is_some_and(|newest| ledger_ends(newest) <= now);
    if ledger >= resume.from || resume.from <= resume.intent.start || dropped {
        return Ok(());
    }
    Err(RecoverError::StoreBehind { from: resume.from, ledger })
}

/// The earliest time at which ClickHouse may drop the ledger's table partition for the day of `kafka_time`.
fn ledger_ends(kafka_time: UnixMillis) -> UnixMillis {
    UnixMillis(kafka_time.floor(DAY).0 + (1 + i64::from(LEDGER_DAYS)) * DAY)
}

#[cfg(test)]
mod tests;
