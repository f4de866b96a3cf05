//! `stream-agg adopt`: chooses the offset at which to continue a partition whose commit, log and tables contradict
//! each other.
//!
//! If the log still contains the records that are in the tables ([`Log::Same`]), the command finds an offset below
//! which every table holds every record. It commits this offset with an intent that contains the highest marker of any
//! table. The next owner of the partition reads records again from that offset, and each table partition gets only the
//! rows that it lacks according to its marker.
//! If the log is a new one ([`Log::New`]), the command commits the offset that the operator names, or the beginning of
//! the log, under a new log generation. Markers of earlier generations then no longer count.
//!
//! The command changes nothing in ClickHouse. All aggregators must be stopped ([`crate::ops::offline`]), and none of
//! their inserts may be in flight, because an insert would raise markers that the command has already read.

use std::fmt;

use crate::apply::store::{Store, StoreError};
use crate::apply::{configs, markers};
use crate::config::Config;
use crate::kafka::commit::Committed;
use crate::ops::offline::Offline;
use crate::pipeline::restore;
use crate::protocol::declaration::Declaration;
use crate::protocol::intent::{Intent, LogMark};
use crate::protocol::progress::NextOffset;
use crate::protocol::recover::{KafkaState, Resume};

mod log;

mod error;

use log::check_log;

pub use error::AdoptError;
pub use log::Log;

/// The result of an adoption, as it was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adopted {
    /// The Kafka partition.
    pub partition: u16,
    /// The offset from which records are read.
    pub from: NextOffset,
    /// Number of offsets directly before `from` that are no longer in the log. Some tables may lack the records at
    /// these offsets.
    pub lost: i64,
    /// The intent that was committed with the offset.
    pub intent: Intent,
}

/// A Kafka partition that may be adopted, and that has no insert in flight.
#[derive(Debug)]
pub struct Adoptable {
    partition: u16,
    log: Log,
    committed: Committed,
}

/// Checks whether the Kafka partitions may be adopted, then waits, once for all of them, until no insert can be in
/// flight.
///
/// # Errors
/// Why one of the partitions cannot be adopted.
pub async fn begin(config: &Config, partitions: &[u16], log: Log) -> Result<Vec<Adoptable>, AdoptError> {
    let mut all = Vec::with_capacity(partitions.len());
    for partition in partitions.iter().copied() {
        let (_, found) = read_state(config, partition, log).await?;
        all.push(Adoptable { partition, log, committed: found.committed });
    }
    // All partitions belong to one consumer group, so one partition suffices to check during the wait that the group is
    // empty. The check repeats the commit of the partition, so a partition with a committed offset is preferred.
    let asked = all.iter().find(|part| part.committed.is_some()).or(all.first());
    if let Some(Adoptable { partition, committed, .. }) = asked {
        let offline_error = AdoptError::offline(*partition);
        let offline = Offline::new(config, *partition).map_err(offline_error)?;
        offline.wait_for_inserts_to_end(committed).await.map_err(offline_error)?;
    }
    Ok(all)
}

/// Reads the state of `partition` in Kafka. Returns an error if this state contradicts what the operator says about the
/// log.
async fn read_state(
    config: &Config,
    partition: u16,
    log: Log,
) -> Result<(Offline<'_>, KafkaState), AdoptError> {
    let offline_error = AdoptError::offline(partition);
    let offline = Offline::new(config, partition).map_err(offline_error)?;
    let found = offline.kafka_state().await.map_err(offline_error)?;
    match check_log(partition, log, &found)? {
        Some((end, epoch)) if !offline.holds(end, epoch).map_err(offline_error)? => {
            Err(AdoptError::Truncated { partition, from: end })
        }
        _ => Ok((offline, found)),
    }
}

/// Adopts a Kafka partition. If some tables hold rows of a record that other tables lack, the next owner of the
/// partition decodes the record again under the declaration with the hash `declaration_hash`. If `declaration_hash` is
/// `None`, the candidates are the declarations whose hashes are in the raw rows of such records and, if the committed
/// intent declares a batch of the newest log generation, in this intent. If there are no such hashes, every stored
/// declaration is a candidate. The function fails unless there is exactly one candidate.
///
/// # Errors
/// Why the partition cannot be adopted; in that case nothing has changed.
pub async fn adopt(
    config: &Config,
    part: Adoptable,
    declaration_hash: Option<u64>,
) -> Result<Adopted, AdoptError> {
    let Adoptable { partition, log, committed } = part;
    let offline_error = AdoptError::offline(partition);
    let store_error = AdoptError::store(partition);
    let (offline, found) = read_state(config, partition, log).await?;
    let store = Store::new(&config.migrate.store);
    let in_tables = markers::newest_generation(&store, partition).await.map_err(store_error)?;
    let log_generation = in_tables.max(found.intent().map(|(_, intent)| intent.log_generation));
    let ours = configs::own_declaration(&store, config).await.map_err(store_error)?;
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
    // `replace` refuses to commit if the committed offset or its metadata has changed since `begin`. In that case,
    // another batch may have been declared, and the markers that were read above may belong to that batch.
    offline.replace(&committed, from, &intent).await.map_err(offline_error)?;
    Ok(Adopted { partition, from, lost: (found.low.to_i64() - wanted.to_i64()).max(0), intent })
}

/// The log mark of a new intent. It has no leader epoch, because the epoch of the last record below the new offset is
/// unknown.
fn mark(found: &KafkaState) -> LogMark {
    LogMark { topic: found.topic, epoch: None }
}

/// Computes, for [`Log::Same`], the offset from which to read the log again, and the intent to commit at that offset.
async fn same_log(
    store: &Store,
    partition: u16,
    found: &KafkaState,
    log_generation: u16,
    last: u64,
    declaration_hash: Option<u64>,
) -> Result<(NextOffset, Intent), AdoptError> {
    let store_error = AdoptError::store(partition);
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

/// The hash of the declaration under which records of the partition were last stored: the hash in the committed intent
/// or, if there is no intent, in the newest raw row. If there is no raw row either, or if this process cannot use the
/// declaration with that hash, returns the hash of `ours`, the declaration of this process. The next owner of the
/// partition compares its own rollups with the returned declaration, and stores which of its rollups lack records
/// ([`crate::protocol::since`]).
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

/// The declaration with this hash: either `ours` or one that is stored in ClickHouse.
async fn declared(
    store: &Store,
    partition: u16,
    declaration_hash: u64,
    ours: &Declaration,
) -> Result<Declaration, AdoptError> {
    if declaration_hash == ours.hash() {
        return Ok(ours.clone());
    }
    let store_error = AdoptError::store(partition);
    let found = configs::read(store, declaration_hash).await.map_err(store_error)?;
    found.map_err(|source| AdoptError::NoDeclaration { partition, source })
}

/// The hashes of the declarations of the raw rows at offset `from` and above; 10 hashes at most.
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

/// An offset below which every table holds every record: the start of the last batch that is in the ledger. A marker is
/// the end of its batch, so the second-highest marker in the ledger is this start. If there are fewer than two markers,
/// the offset is 0. The end of the last batch would not be safe, because other tables may lack rows of this batch. The
/// highest marker in any table would not be safe either: it may belong to the next batch, for which the ledger has no
/// marker yet.
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
            "partition {partition}: continues at offset {from} of log generation {}",
            intent.log_generation
        )?;
        if let Some(adopted) = intent.adopted {
            write!(f, "; rows that tables already hold of records below {adopted} are not stored again")?;
        }
        if *lost > 0 {
            write!(
                f,
                "; the {lost} offsets before {from} are no longer in the log, so tables may lack their records"
            )?;
        }
        Ok(())
    }
}
