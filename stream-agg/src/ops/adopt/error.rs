//! Why a partition was not adopted, and what the operator can do.

use crate::apply::store::StoreError;
use crate::ops::offline::OfflineError;
use crate::protocol::declaration::UnknownDeclaration;
use crate::protocol::progress::NextOffset;
use crate::protocol::recover::AFTER_TRUNCATION;

/// Why a partition was not adopted.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// The log ends below offsets whose records are in the tables.
    #[error(
        "adopt partition {partition}: tables hold records below {applied_end}, but the log ends at {end}; if the topic was deleted and \
         created again, add --new-log"
    )]
    OtherLog {
        /// The Kafka partition.
        partition: u16,
        /// The highest marker in any table.
        applied_end: NextOffset,
        /// The end of the log: the offset after its last record.
        end: NextOffset,
    },
    /// The topic is not the one for which the offset was committed.
    #[error("adopt partition {partition}: the topic was deleted and created again: add --new-log")]
    OtherTopic {
        /// The Kafka partition.
        partition: u16,
    },
    /// The log was truncated below an offset up to which it had been read. New records may have been written since.
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
    /// The whole log would be stored again, although the topic is the same.
    #[error(
        "adopt partition {partition}: the topic is the same as before, so tables may hold records that its log still holds: \
         if the log was truncated, add {AFTER_TRUNCATION}; if not, leave out --new-log"
    )]
    SameTopic {
        /// The Kafka partition.
        partition: u16,
    },
    /// Records before the chosen offset would never be read.
    #[error(
        "adopt partition {partition}: records from offset {reached} on, below offset {from}, are in no table and \
         would never be read: start an aggregator, which reads them"
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
        "adopt partition {partition}: reading of the log can start at offsets {low} to {end}, not at offset {from}"
    )]
    NotInLog {
        /// The Kafka partition.
        partition: u16,
        /// Where the operator wants to read from.
        from: NextOffset,
        /// Where the log begins.
        low: NextOffset,
        /// The end of the log: the offset after its last record.
        end: NextOffset,
    },
    /// Rows of some records are missing in some tables, and it is unknown under which declaration to make these rows.
    #[error(
        "adopt partition {partition}: some tables may lack rows of the records from offset {from} on, below offset \
         {applied_end}; these records were decoded under {}; choose with --cfg the declaration under which to make \
         the missing rows",
        listed(declaration_hashes)
    )]
    UnknownDeclaration {
        /// The Kafka partition.
        partition: u16,
        /// The first offset that may be stored in part.
        from: NextOffset,
        /// The offset after the last one that may be stored in part.
        applied_end: NextOffset,
        /// Hashes of the possible declarations.
        declaration_hashes: Vec<u64>,
    },
    /// This process cannot use the declaration that `--cfg`, the raw rows or the committed intent name.
    #[error("adopt partition {partition}")]
    NoDeclaration {
        /// The Kafka partition.
        partition: u16,
        /// Why this process cannot use the declaration.
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

impl AdoptError {
    /// Returns a function that turns an error of [`crate::ops::offline`] into an error of the adoption of `partition`.
    pub(super) fn offline(partition: u16) -> impl Fn(OfflineError) -> Self + Copy {
        move |source| Self::Offline { partition, source }
    }

    /// Returns a function that turns an error of ClickHouse into an error of the adoption of `partition`.
    pub(super) fn store(partition: u16) -> impl Fn(StoreError) -> Self + Copy {
        move |source| Self::Offline { partition, source: OfflineError::Store(source) }
    }
}

fn listed(declaration_hashes: &[u64]) -> String {
    if declaration_hashes.is_empty() {
        return "a declaration that is not known".to_owned();
    }
    let hashes: Vec<_> =
        declaration_hashes.iter().map(|declaration_hash| format!("{declaration_hash:016x}")).collect();
    format!("declaration {}", hashes.join(" or "))
}
