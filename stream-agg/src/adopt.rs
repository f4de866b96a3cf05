//! `stream-agg adopt`: makes a partition that was refused fit together again.
//!
//! Chooses an offset below which every cell is complete for sure, and commits it with
//! what the markers say, so that records are read again and each cell takes what it
//! lacks. Nothing in ClickHouse is changed. Only with all aggregators stopped: Kafka
//! takes a commit from outside only while the group has no member.

use std::fmt;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::commit;
use crate::config::Config;
use crate::intent::{Intent, WindowMark};
use crate::markers;
use crate::progress::NextOffset;
use crate::recover::{Found, Resume};
use crate::restore;
use crate::store::{Store, StoreError};

/// How long Kafka may take for one answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a partition was not adopted.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// Aggregators run.
    #[error("adopt partition {kp}: group `{group}` has members; stop all aggregators, then run it again")]
    Busy {
        /// The Kafka partition.
        kp: u16,
        /// The consumer group.
        group: String,
    },
    /// The log is another one.
    #[error(
        "adopt partition {kp}: tables hold records below {hwm}, but the log ends at {end}; if the topic was made anew, add --new-log"
    )]
    OtherLog {
        /// The Kafka partition.
        kp: u16,
        /// The highest marker.
        hwm: NextOffset,
        /// Where the log ends.
        end: NextOffset,
    },
    /// Kafka did not answer, or refused.
    #[error("adopt partition {kp}")]
    Kafka {
        /// The Kafka partition.
        kp: u16,
        /// What it says.
        source: KafkaError,
    },
    /// ClickHouse did not answer, or refused.
    #[error("adopt partition {kp}")]
    Store {
        /// The Kafka partition.
        kp: u16,
        /// What it says.
        source: StoreError,
    },
}

/// What was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adopted {
    /// The Kafka partition.
    pub kp: u16,
    /// Where it goes on.
    pub from: NextOffset,
    /// Where the log begins: what lies between `wanted` and here is lost.
    pub lost: i64,
    /// What is committed beside the offset.
    pub intent: Intent,
}

/// Adopts the Kafka partition `kp`; `new_log` if its topic was made anew.
///
/// # Errors
/// What keeps it from that; nothing has changed then.
pub async fn adopt(config: &Config, kp: u16, new_log: bool) -> Result<Adopted, AdoptError> {
    let kafka = |source| AdoptError::Kafka { kp, source };
    let store_error = |source| AdoptError::Store { kp, source };
    let settings = &config.migrate.kafka;
    let group: BaseConsumer = settings.client(&[("group.id", &config.group)]).create().map_err(kafka)?;
    let found = find(&group, &settings.topic, kp).map_err(kafka)?;
    let store = Store::new(&config.migrate.store);
    let declaration = config.declaration();
    let g = generation(&store, kp).await.map_err(store_error)?;
    let (wanted, g, adopted) = if new_log {
        (found.low, g.map_or(0, |g| g + 1), None)
    } else {
        let g = g.unwrap_or(0);
        let tables = restore::tables(&declaration, &declaration);
        let markers = markers::of_tables(&store, &tables, kp, Some(g)).await.map_err(store_error)?;
        let hwm = markers.all.iter().map(|marker| marker.hwm).max().unwrap_or(NextOffset::ZERO);
        if hwm > found.end {
            return Err(AdoptError::OtherLog { kp, hwm, end: found.end });
        }
        (complete_below(&store, kp, g).await.map_err(store_error)?, g, Some(hwm))
    };
    let from = wanted.max(found.low);
    let intent = Intent {
        last: None,
        cfg: declaration.cfg(),
        g,
        start: from,
        window: WindowMark { floor: from, digest: crate::window::Digest::default() },
        newest: None,
        adopted: adopted.filter(|adopted| *adopted > from),
    };
    let resume = Resume { from, rebuild: None, intent };
    let window = restore::window_anew(&store, kp, &resume, &declaration.limits).await.map_err(store_error)?;
    let intent = Intent { window, ..resume.intent };
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition(&settings.topic, kp.into()).set_metadata(intent.to_string());
    offsets.set_all_offsets(rdkafka::Offset::Offset(from.to_i64())).map_err(kafka)?;
    match group.commit(&offsets, CommitMode::Sync) {
        Ok(()) => Ok(Adopted { kp, from, lost: (found.low.to_i64() - wanted.to_i64()).max(0), intent }),
        Err(KafkaError::ConsumerCommit(
            RDKafkaErrorCode::UnknownMemberId
            | RDKafkaErrorCode::IllegalGeneration
            | RDKafkaErrorCode::RebalanceInProgress,
        )) => Err(AdoptError::Busy { kp, group: config.group.clone() }),
        Err(source) => Err(kafka(source)),
    }
}

fn find(group: &BaseConsumer, topic: &str, kp: u16) -> Result<Found, KafkaError> {
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, kp.into());
    let (low, end) = group.fetch_watermarks(topic, kp.into(), ASK_TIMEOUT)?;
    let answer = group.committed_offsets(list, ASK_TIMEOUT)?;
    let committed = answer.elements().first().map_or(Ok(None), commit::committed)?;
    Ok(Found { committed, low: NextOffset::new(low), end: NextOffset::new(end) })
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
