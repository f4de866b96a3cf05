//! `stream-agg adopt`: makes a partition that was refused fit together again.
//!
//! Chooses an offset below which every cell is complete for sure, and commits it with
//! what the markers say, so that records are read again and each cell takes what it
//! lacks. Nothing in ClickHouse is changed. Only with all aggregators stopped ([`crate::offline`]).

use std::fmt;

use crate::config::Config;
use crate::configs::{self, Unknown};
use crate::declaration::Declaration;
use crate::intent::{Intent, LogMark};
use crate::markers;
use crate::offline::{Offline, OfflineError};
use crate::progress::NextOffset;
use crate::recover::{Found, Resume};
use crate::restore;
use crate::store::{Store, StoreError};

/// What an operator knows of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Log {
    /// It is the one that tables know.
    Same,
    /// The topic was deleted and created again, or truncated: it is read from this offset on, else
    /// from its beginning.
    New {
        /// The first offset that tables do not hold.
        from: Option<NextOffset>,
    },
}

/// Why a partition was not adopted.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// The log is another one.
    #[error(
        "adopt partition {kp}: tables hold records below {hwm}, but the log ends at {end}; if the topic was deleted and \
         created again, add --new-log"
    )]
    OtherLog {
        /// The Kafka partition.
        kp: u16,
        /// The highest marker.
        hwm: NextOffset,
        /// Where the log ends.
        end: NextOffset,
    },
    /// The topic is another one than that of the committed offset.
    #[error("adopt partition {kp}: the topic was deleted and created again: add --new-log")]
    OtherTopic {
        /// The Kafka partition.
        kp: u16,
    },
    /// The log has no such offset.
    #[error("adopt partition {kp}: the log holds offsets {low} to {end}, it cannot be read from {from} on")]
    NotInLog {
        /// The Kafka partition.
        kp: u16,
        /// Where it was to be read from.
        from: NextOffset,
        /// Where the log begins.
        low: NextOffset,
        /// Where it ends.
        end: NextOffset,
    },
    /// Nobody can tell how rows were made that tables hold in part.
    #[error(
        "adopt partition {kp}: offsets {from} to {hwm} may be stored in part, and were declared under {}; say by --cfg \
         under which of them the missing rows are made",
        listed(cfgs)
    )]
    UnknownDeclaration {
        /// The Kafka partition.
        kp: u16,
        /// The first offset that may be stored in part.
        from: NextOffset,
        /// Where they end.
        hwm: NextOffset,
        /// Hashes of the declarations that come into question.
        cfgs: Vec<u64>,
    },
    /// What `--cfg` or the committed offset names is not known.
    #[error("adopt partition {kp}")]
    NoDeclaration {
        /// The Kafka partition.
        kp: u16,
        /// Why.
        source: Unknown,
    },
    /// Kafka or ClickHouse, or aggregators that run.
    #[error("adopt partition {kp}")]
    Offline {
        /// The Kafka partition.
        kp: u16,
        /// What is in the way.
        source: OfflineError,
    },
}

/// What was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adopted {
    /// The Kafka partition.
    pub kp: u16,
    /// Where it goes on.
    pub from: NextOffset,
    /// Records before that are not in the log, and may be missing.
    pub lost: i64,
    /// What is committed beside the offset.
    pub intent: Intent,
}

/// Adopts the Kafka partition `kp`. `cfg` names the declaration under which rows are made that tables
/// hold in part; if absent, tables tell.
///
/// # Errors
/// What keeps it from that; nothing has changed then.
pub async fn adopt(config: &Config, kp: u16, log: Log, cfg: Option<u64>) -> Result<Adopted, AdoptError> {
    let offline_error = |source| AdoptError::Offline { kp, source };
    let store_error = |source| AdoptError::Offline { kp, source: OfflineError::Store(source) };
    let offline = Offline::new(config, kp).map_err(offline_error)?;
    let found = offline.found().map_err(offline_error)?;
    let store = Store::new(&config.migrate.store);
    let g = generation(&store, kp).await.map_err(store_error)?;
    let ours = config.declaration();
    let (wanted, intent) = match log {
        Log::New { from } => {
            let from = from.unwrap_or(found.low);
            if from < found.low || from > found.end {
                let Found { low, end, .. } = found;
                return Err(AdoptError::NotInLog { kp, from, low, end });
            }
            (from, Intent::fresh(from, ours.cfg(), g.map_or(0, |g| g + 1), mark(&found)))
        }
        Log::Same => same_log(&store, kp, &found, g.unwrap_or(0), &ours, cfg).await?,
    };
    let from = wanted.max(found.low);
    let resume = Resume { from, rebuild: None, intent };
    let limits = declared(&store, kp, resume.intent.cfg, &ours).await?.limits;
    let window = restore::window_anew(&store, kp, &resume, &limits).await.map_err(store_error)?;
    let intent = Intent { window, start: from, ..resume.intent };
    offline.commit(from, &intent).map_err(offline_error)?;
    Ok(Adopted { kp, from, lost: (found.low.to_i64() - wanted.to_i64()).max(0), intent })
}

/// The same topic; the epoch of the record before the offset is not known.
fn mark(found: &Found) -> LogMark {
    LogMark { topic: found.topic, epoch: None }
}

/// Where the log goes on that tables know, and what is committed there.
async fn same_log(
    store: &Store,
    kp: u16,
    found: &Found,
    g: u16,
    ours: &Declaration,
    cfg: Option<u64>,
) -> Result<(NextOffset, Intent), AdoptError> {
    let store_error = |source| AdoptError::Offline { kp, source: OfflineError::Store(source) };
    let committed = found.committed.as_ref().and_then(|(_, metadata)| metadata.parse::<Intent>().ok());
    let topic = committed.as_ref().and_then(|intent| intent.log.topic);
    if topic.is_some() && found.topic.is_some() && topic != found.topic {
        return Err(AdoptError::OtherTopic { kp });
    }
    let every = configs::all(store).await.map_err(store_error)?;
    let names = every.iter().flat_map(|declaration| restore::tables(ours, declaration));
    let tables: Vec<_> = names.collect::<std::collections::BTreeSet<_>>().into_iter().collect();
    let markers = markers::of_tables(store, &tables, kp, Some(g)).await.map_err(store_error)?;
    let hwm = markers.all.iter().map(|marker| marker.hwm).max().unwrap_or(NextOffset::ZERO);
    if hwm > found.end {
        return Err(AdoptError::OtherLog { kp, hwm, end: found.end });
    }
    let from = complete_below(store, kp, g).await.map_err(store_error)?;
    let cfg = if hwm <= from {
        ours.cfg()
    } else {
        let mut cfgs = cfgs_from(store, kp, g, from).await.map_err(store_error)?;
        let declared = committed.filter(|intent| intent.last.is_some() && intent.g == g);
        cfgs.extend(declared.map(|intent| intent.cfg));
        if cfgs.is_empty() {
            cfgs.extend(every.iter().map(Declaration::cfg));
        }
        cfgs.sort_unstable();
        cfgs.dedup();
        match (cfg, &*cfgs) {
            (Some(cfg), _) | (None, &[cfg]) => cfg,
            (None, _) => return Err(AdoptError::UnknownDeclaration { kp, from, hwm, cfgs }),
        }
    };
    let intent =
        Intent { adopted: Some(hwm).filter(|hwm| *hwm > from), ..Intent::fresh(from, cfg, g, mark(found)) };
    Ok((from, intent))
}

/// The declaration of this hash.
async fn declared(store: &Store, kp: u16, cfg: u64, ours: &Declaration) -> Result<Declaration, AdoptError> {
    if cfg == ours.cfg() {
        return Ok(ours.clone());
    }
    let store_error = |source| AdoptError::Offline { kp, source: OfflineError::Store(source) };
    let found = configs::read(store, cfg).await.map_err(store_error)?;
    found.map_err(|source| AdoptError::NoDeclaration { kp, source })
}

fn listed(cfgs: &[u64]) -> String {
    if cfgs.is_empty() {
        return "a declaration that is not known".to_owned();
    }
    cfgs.iter().map(|cfg| format!("{cfg:016x}")).collect::<Vec<_>>().join(" or ")
}

/// The declarations of the raw rows from `from` on.
async fn cfgs_from(store: &Store, kp: u16, g: u16, from: NextOffset) -> Result<Vec<u64>, StoreError> {
    let sql = format!(
        "SELECT DISTINCT cfg FROM events WHERE tenant != '' AND g = {g} AND kp = {kp} AND ko >= {from} LIMIT 10"
    );
    store.rows(&sql).await
}

/// The newest generation of the log that tables know.
async fn generation(store: &Store, kp: u16) -> Result<Option<u16>, StoreError> {
    let sql = format!("SELECT max(g) FROM ledger WHERE tenant = '' AND kp = {kp} HAVING count() > 0");
    Ok(store.rows::<u16>(&sql).await?.first().copied())
}

/// An offset below which every cell is complete: where the ledger's last batch begins. That
/// batch may lack cells, and so may the one after it, of which the ledger knows nothing.
async fn complete_below(store: &Store, kp: u16, g: u16) -> Result<NextOffset, StoreError> {
    let sql = format!(
        "SELECT DISTINCT hwm FROM ledger WHERE tenant = '' AND g = {g} AND kp = {kp} ORDER BY hwm DESC LIMIT 2"
    );
    let ends: Vec<u64> = store.rows(&sql).await?;
    Ok(ends.get(1).map_or(NextOffset::ZERO, |end| NextOffset::new(end.cast_signed())))
}

impl fmt::Display for Adopted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kp, from, lost, intent } = self;
        write!(f, "partition {kp}: goes on at offset {from} of log generation {}", intent.g)?;
        if let Some(adopted) = intent.adopted {
            write!(f, "; what tables hold up to {adopted} is not stored again")?;
        }
        if *lost > 0 {
            write!(f, "; {lost} records before are no longer in the log and may be missing")?;
        }
        Ok(())
    }
}
