//! `stream-agg adopt`: lets a partition start again whose commit, log and tables do not fit together.
//!
//! The command chooses an offset below which every cell is complete for sure, and commits it with what the markers
//! say. Records are then read again from there, and each cell takes what it lacks. Nothing in ClickHouse is
//! changed. All aggregators must be stopped ([`crate::ops::offline`]), and none of their inserts may still be under
//! way, because an insert would raise markers that were read before.

use std::fmt;

use crate::apply::store::{Store, StoreError};
use crate::apply::{configs, markers};
use crate::config::Config;
use crate::kafka::commit::Committed;
use crate::ops::offline::{Offline, OfflineError};
use crate::pipeline::restore;
use crate::protocol::declaration::{Declaration, UnknownDeclaration};
use crate::protocol::intent::{Intent, LogMark};
use crate::protocol::progress::NextOffset;
use crate::protocol::recover::{AFTER_TRUNCATION, KafkaState, Resume};

/// What an operator knows about the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Log {
    /// It is the log that the tables know.
    Same,
    /// The topic was deleted and created again, or the log was truncated. It is read from this offset on; if the
    /// topic is another one, from its beginning by default.
    New {
        /// The first offset that the tables do not hold.
        from: Option<NextOffset>,
    },
}

/// Why a partition was not adopted.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// The log differs from the one that the tables know.
    #[error(
        "adopt partition {partition}: tables hold records below {applied_end}, but the log ends at {end}; if the topic was deleted and \
         created again, add --new-log"
    )]
    OtherLog {
        /// The Kafka partition.
        partition: u16,
        /// The highest marker.
        applied_end: NextOffset,
        /// Where the log ends.
        end: NextOffset,
    },
    /// The topic is not the one of the committed offset.
    #[error("adopt partition {partition}: the topic was deleted and created again: add --new-log")]
    OtherTopic {
        /// The Kafka partition.
        partition: u16,
    },
    /// The log was truncated below the records that were read, and perhaps written again.
    #[error(
        "adopt partition {partition}: records below {from} were read from the log, which was then truncated below that \
         offset: add {AFTER_TRUNCATION}"
    )]
    Truncated {
        /// The Kafka partition.
        partition: u16,
        /// Every record below this offset was read.
        from: NextOffset,
    },
    /// Everything in the log would be stored again.
    #[error(
        "adopt partition {partition}: the topic is the same as before, so tables may hold records that its log still holds: \
         if the log was truncated, add {AFTER_TRUNCATION}; if not, leave out --new-log"
    )]
    SameTopic {
        /// The Kafka partition.
        partition: u16,
    },
    /// Records would never be read.
    #[error(
        "adopt partition {partition}: records from {reached} to {from} are in no table, and would be passed over: start an \
         aggregator, which reads them"
    )]
    PassesOver {
        /// The Kafka partition.
        partition: u16,
        /// Records below this offset may be in tables.
        reached: NextOffset,
        /// Where the operator wants to read from.
        from: NextOffset,
    },
    /// The log does not have the offset.
    #[error(
        "adopt partition {partition}: the log holds offsets {low} to {end}, it cannot be read from {from} on"
    )]
    NotInLog {
        /// The Kafka partition.
        partition: u16,
        /// Where the operator wants to read from.
        from: NextOffset,
        /// Where the log begins.
        low: NextOffset,
        /// Where it ends.
        end: NextOffset,
    },
    /// It is not known under which declaration the rows were made that tables hold in part.
    #[error(
        "adopt partition {partition}: offsets {from} to {applied_end} may be stored in part, and were declared under {}; say by --cfg \
         under which of them the missing rows are made",
        listed(declaration_hashes)
    )]
    UnknownDeclaration {
        /// The Kafka partition.
        partition: u16,
        /// The first offset that may be stored in part.
        from: NextOffset,
        /// The end of these offsets.
        applied_end: NextOffset,
        /// Hashes of the possible declarations.
        declaration_hashes: Vec<u64>,
    },
    /// The declaration that `--cfg` or the committed offset names is not known.
    #[error("adopt partition {partition}")]
    NoDeclaration {
        /// The Kafka partition.
        partition: u16,
        /// Why it is not known.
        source: UnknownDeclaration,
    },
    /// Kafka or ClickHouse failed, or aggregators run.
    #[error("adopt partition {partition}")]
    Offline {
        /// The Kafka partition.
        partition: u16,
        /// What failed.
        source: OfflineError,
    },
}

/// What was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adopted {
    /// The Kafka partition.
    pub partition: u16,
    /// The offset at which the partition goes on.
    pub from: NextOffset,
    /// How many records before that offset are no longer in the log, and may be missing.
    pub lost: i64,
    /// The intent that was committed with the offset.
    pub intent: Intent,
}

/// A Kafka partition that may be adopted, and of which no insert is under way.
#[derive(Debug)]
pub struct Adoptable {
    partition: u16,
    log: Log,
    committed: Committed,
}

/// Checks whether the Kafka partitions may be adopted, then waits, once for all of them, until no insert can be
/// under way.
///
/// # Errors
/// Why one of them cannot be adopted.
pub async fn begin(config: &Config, partitions: &[u16], log: Log) -> Result<Vec<Adoptable>, AdoptError> {
    let look = |partition: &u16| {
        let (partition, (_, found)) = (*partition, look(config, *partition, log)?);
        Ok(Adoptable { partition, log, committed: found.committed })
    };
    let all = partitions.iter().map(look).collect::<Result<Vec<_>, _>>()?;
    // All partitions have the same group, so it is empty for all of them or for none.
    let asked = all.iter().find(|part| part.committed.is_some()).or(all.first());
    if let Some(Adoptable { partition, committed, .. }) = asked {
        let offline_error = |source| AdoptError::Offline { partition: *partition, source };
        let offline = Offline::new(config, *partition).map_err(offline_error)?;
        offline.outlast_inserts(committed).await.map_err(offline_error)?;
    }
    Ok(all)
}

/// What Kafka tells of `partition`, if the log is as the operator says.
fn look(config: &Config, partition: u16, log: Log) -> Result<(Offline<'_>, KafkaState), AdoptError> {
    let offline_error = |source| AdoptError::Offline { partition, source };
    let offline = Offline::new(config, partition).map_err(offline_error)?;
    let found = offline.found().map_err(offline_error)?;
    match check_log(partition, log, &found)? {
        Some((end, epoch)) if !offline.holds(end, epoch).map_err(offline_error)? => {
            Err(AdoptError::Truncated { partition, from: end })
        }
        _ => Ok((offline, found)),
    }
}

/// Adopts a Kafka partition. `declaration_hash` names the declaration under which the rows are made that tables
/// hold in part; if it is absent, the tables tell.
///
/// # Errors
/// Why it cannot be adopted; nothing has changed then.
pub async fn adopt(
    config: &Config,
    part: Adoptable,
    declaration_hash: Option<u64>,
) -> Result<Adopted, AdoptError> {
    let Adoptable { partition, log, committed } = part;
    let offline_error = |source| AdoptError::Offline { partition, source };
    let store_error = |source| AdoptError::Offline { partition, source: OfflineError::Store(source) };
    let (offline, found) = look(config, partition, log)?;
    let store = Store::new(&config.migrate.store);
    let in_tables = markers::newest_generation(&store, partition).await.map_err(store_error)?;
    let log_generation = in_tables.max(found.intent().map(|(_, intent)| intent.log_generation));
    let ours = configs::ours(&store, config).await.map_err(store_error)?;
    let last = last_declaration(&store, partition, &found, &ours).await.map_err(store_error)?;
    let (wanted, intent) = match log {
        Log::New { from } => {
            let from = from.unwrap_or(found.low);
            (
                from,
                Intent::fresh(
                    from,
                    last,
                    log_generation.map_or(0, |log_generation| log_generation + 1),
                    mark(&found),
                ),
            )
        }
        Log::Same => {
            same_log(&store, partition, &found, log_generation.unwrap_or(0), last, declaration_hash).await?
        }
    };
    let from = wanted.max(found.low);
    let resume = Resume { from, rebuild: None, intent };
    let limits = match resume.intent.adopted {
        Some(_) => declared(&store, partition, resume.intent.declaration_hash, &ours).await?.limits,
        None => ours.limits,
    };
    let window = restore::rebuild_window(&store, partition, &resume, &limits).await.map_err(store_error)?;
    let intent = Intent { window, start: from, ..resume.intent };
    // No batch may have been declared since the wait began: markers could belong to it.
    offline.replace(&committed, from, &intent).map_err(offline_error)?;
    Ok(Adopted { partition, from, lost: (found.low.to_i64() - wanted.to_i64()).max(0), intent })
}

/// Whether the log that was `found` contradicts what the operator says of it. Returns where the records that were
/// read end, and the leader epoch of the last of them, if the log must still hold that record.
fn check_log(partition: u16, log: Log, found: &KafkaState) -> Result<Option<(NextOffset, i32)>, AdoptError> {
    let committed = found.intent();
    let same_topic = committed.as_ref().is_some_and(|(_, intent)| found.is_of(intent));
    let topics = (committed.as_ref().and_then(|(_, intent)| intent.log.topic), found.topic);
    let reached = committed.as_ref().map(|(from, intent)| intent.reached(*from));
    match (log, reached) {
        (Log::New { from: None }, _) if same_topic => Err(AdoptError::SameTopic { partition }),
        (Log::New { from: Some(from) }, Some(reached)) if same_topic && from > reached => {
            Err(AdoptError::PassesOver { partition, reached, from })
        }
        (Log::New { from: Some(from) }, _) if from < found.low || from > found.end => {
            Err(AdoptError::NotInLog { partition, from, low: found.low, end: found.end })
        }
        (Log::New { .. }, _) => Ok(None),
        (Log::Same, _) if topics.0.is_some() && topics.1.is_some() && topics.0 != topics.1 => {
            Err(AdoptError::OtherTopic { partition })
        }
        (Log::Same, Some(from)) if same_topic && from > found.end => {
            Err(AdoptError::Truncated { partition, from })
        }
        (Log::Same, _) => {
            let newest = committed.and_then(|(from, intent)| intent.newest_epoch(from));
            // Records that retention took tell nothing.
            Ok(newest.filter(|(end, _)| *end >= found.low))
        }
    }
}

/// The mark of the same topic. The epoch of the record before the offset is not known.
fn mark(found: &KafkaState) -> LogMark {
    LogMark { topic: found.topic, epoch: None }
}

/// Where the log that the tables know goes on, and the intent to commit there.
async fn same_log(
    store: &Store,
    partition: u16,
    found: &KafkaState,
    log_generation: u16,
    last: u64,
    declaration_hash: Option<u64>,
) -> Result<(NextOffset, Intent), AdoptError> {
    let store_error = |source| AdoptError::Offline { partition, source: OfflineError::Store(source) };
    let committed = found.intent().map(|(_, intent)| intent);
    let markers = markers::of_log(store, partition, Some(log_generation)).await.map_err(store_error)?;
    let applied_end = markers.all.iter().map(|marker| marker.applied_end).max().unwrap_or(NextOffset::ZERO);
    if applied_end > found.end {
        return Err(AdoptError::OtherLog { partition, applied_end, end: found.end });
    }
    let from = complete_below(store, partition, log_generation).await.map_err(store_error)?;
    let declaration_hash = if applied_end <= from {
        last
    } else {
        let mut declaration_hashes =
            declarations_from(store, partition, log_generation, from).await.map_err(store_error)?;
        let declared =
            committed.filter(|intent| intent.last.is_some() && intent.log_generation == log_generation);
        declaration_hashes.extend(declared.map(|intent| intent.declaration_hash));
        if declaration_hashes.is_empty() {
            let every = configs::all(store).await.map_err(store_error)?;
            declaration_hashes.extend(every.iter().map(Declaration::hash));
        }
        declaration_hashes.sort_unstable();
        declaration_hashes.dedup();
        match (declaration_hash, &*declaration_hashes) {
            (Some(declaration_hash), _) | (None, &[declaration_hash]) => declaration_hash,
            (None, _) => {
                return Err(AdoptError::UnknownDeclaration {
                    partition,
                    from,
                    applied_end,
                    declaration_hashes,
                });
            }
        }
    };
    let intent = Intent {
        adopted: Some(applied_end).filter(|applied_end| *applied_end > from),
        ..Intent::fresh(from, declaration_hash, log_generation, mark(found))
    };
    Ok((from, intent))
}

/// The declaration under which records of the partition were counted last, as far as it is known: of the last commit,
/// or else of the newest raw row. The next owner of the partition compares its rollups with it, to note which of them
/// lack records ([`crate::protocol::since`]).
async fn last_declaration(
    store: &Store,
    partition: u16,
    found: &KafkaState,
    ours: &Declaration,
) -> Result<u64, StoreError> {
    let committed = found.intent().map(|(_, intent)| intent.declaration_hash);
    let newest = format!(
        "SELECT cfg FROM events WHERE tenant != '' AND kp = {partition} AND _partition_id = \
         (SELECT max(_partition_id) FROM events WHERE tenant = '' AND kp = {partition}) \
         ORDER BY g DESC, ko DESC LIMIT 1"
    );
    let last = match committed {
        Some(committed) => Some(committed),
        None => store.rows::<u64>(&newest).await?.first().copied(),
    };
    let Some(last) = last else { return Ok(ours.hash()) };
    Ok(if configs::read(store, last).await?.is_ok() { last } else { ours.hash() })
}

/// The declaration of this hash.
async fn declared(
    store: &Store,
    partition: u16,
    declaration_hash: u64,
    ours: &Declaration,
) -> Result<Declaration, AdoptError> {
    if declaration_hash == ours.hash() {
        return Ok(ours.clone());
    }
    let store_error = |source| AdoptError::Offline { partition, source: OfflineError::Store(source) };
    let found = configs::read(store, declaration_hash).await.map_err(store_error)?;
    found.map_err(|source| AdoptError::NoDeclaration { partition, source })
}

fn listed(declaration_hashes: &[u64]) -> String {
    if declaration_hashes.is_empty() {
        return "a declaration that is not known".to_owned();
    }
    declaration_hashes
        .iter()
        .map(|declaration_hash| format!("{declaration_hash:016x}"))
        .collect::<Vec<_>>()
        .join(" or ")
}

/// The declarations of the raw rows from `from` on.
async fn declarations_from(
    store: &Store,
    partition: u16,
    log_generation: u16,
    from: NextOffset,
) -> Result<Vec<u64>, StoreError> {
    let sql = format!(
        "SELECT DISTINCT cfg FROM events WHERE tenant != '' AND g = {log_generation} AND kp = {partition} AND ko >= {from} LIMIT 10"
    );
    store.rows(&sql).await
}

/// An offset below which every cell is complete: the beginning of the last batch in the ledger. That batch may lack
/// cells, and so may the batch after it, of which the ledger has no row.
async fn complete_below(
    store: &Store,
    partition: u16,
    log_generation: u16,
) -> Result<NextOffset, StoreError> {
    let sql = format!(
        "SELECT DISTINCT hwm FROM ledger WHERE tenant = '' AND g = {log_generation} AND kp = {partition} ORDER BY hwm DESC LIMIT 2"
    );
    let ends: Vec<u64> = store.rows(&sql).await?;
    Ok(ends.get(1).map_or(NextOffset::ZERO, |end| NextOffset::new(end.cast_signed())))
}

impl fmt::Display for Adopted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partition, from, lost, intent } = self;
        write!(
            f,
            "partition {partition}: goes on at offset {from} of log generation {}",
            intent.log_generation
        )?;
        if let Some(adopted) = intent.adopted {
            write!(f, "; what tables hold up to {adopted} is not stored again")?;
        }
        if *lost > 0 {
            write!(f, "; {lost} records before are no longer in the log and may be missing")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::intent::TopicId;
    use crate::protocol::progress::Offset;

    const TOPIC: Option<TopicId> = Some(TopicId(9));

    /// Every record below 10 is committed, and a batch up to `last` is declared, if there is one.
    fn found(last: Option<i64>, topic: Option<TopicId>) -> KafkaState {
        let log = LogMark { topic, epoch: Some(3) };
        let next = NextOffset::new;
        let intent = Intent { last: last.map(Offset::new), ..Intent::fresh(next(10), 7, 0, log) };
        let committed = Some((next(10), intent.to_string()));
        KafkaState { committed, low: next(3), end: next(20), topic: TOPIC }
    }

    /// Checks which record must be asked of the log, or how a refusal begins.
    #[track_caller]
    fn check(log: Log, found: &KafkaState, expected: Result<Option<(i64, i32)>, &str>) {
        match (check_log(0, log, found), expected) {
            (Ok(asked), Ok(expected)) => {
                assert_eq!(asked.map(|(from, epoch)| (from.to_i64(), epoch)), expected);
            }
            (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{error}"),
            (result, _) => panic!("{result:?}"),
        }
    }

    fn new(from: i64) -> Log {
        Log::New { from: Some(NextOffset::new(from)) }
    }

    #[test]
    fn a_log_is_the_same_only_if_it_was_not_truncated_below_what_was_read() {
        check(Log::Same, &found(None, TOPIC), Ok(Some((10, 3))));
        let shorter = KafkaState { end: NextOffset::new(9), ..found(None, TOPIC) };
        check(Log::Same, &shorter, Err("records below 10 were read from the log"));
        let inside = KafkaState { end: NextOffset::new(12), ..found(Some(14), TOPIC) };
        check(Log::Same, &inside, Err("records below 15 were read from the log"));
        // What retention took is no truncation, and an offset that a tool committed tells nothing.
        check(Log::Same, &KafkaState { low: NextOffset::new(11), ..found(None, TOPIC) }, Ok(None));
        let reset = KafkaState { committed: Some((NextOffset::ZERO, String::new())), ..found(None, TOPIC) };
        check(Log::Same, &reset, Ok(None));
        // A declared batch ends with an epoch of its own; intents of earlier releases do not tell it.
        let (from, metadata) = found(Some(14), TOPIC).committed.unwrap();
        check(Log::Same, &found(Some(14), TOPIC), Ok(Some((10, 3))));
        let intent = Intent { last_epoch: Some(4), ..metadata.parse().unwrap() };
        let declared = KafkaState { committed: Some((from, intent.to_string())), ..found(None, TOPIC) };
        check(Log::Same, &declared, Ok(Some((15, 4))));
        check(Log::Same, &found(None, Some(TopicId(8))), Err("deleted and created again"));
    }

    #[test]
    fn a_new_log_of_the_same_topic_begins_where_somebody_says_and_no_record_is_passed_over() {
        let beginning = Log::New { from: None };
        check(beginning, &found(None, TOPIC), Err("the topic is the same as before"));
        check(beginning, &found(None, Some(TopicId(8))), Ok(None));
        check(beginning, &KafkaState { committed: None, ..found(None, TOPIC) }, Ok(None));
        check(new(10), &found(None, TOPIC), Ok(None));
        check(new(11), &found(None, TOPIC), Err("from 10 to 11 are in no table"));
        check(new(15), &found(Some(14), TOPIC), Ok(None));
        check(new(16), &found(Some(14), TOPIC), Err("from 15 to 16 are in no table"));
        check(new(16), &found(Some(14), Some(TopicId(8))), Ok(None));
        check(new(2), &found(None, TOPIC), Err("the log holds offsets 3 to 20"));
    }
}
