//! `stream-agg skip`: turns the lines of one record into dead letters, for example because ClickHouse permanently
//! refuses the rows of the record, or because this release does not know the format of the record.
//!
//! The command adds the offset of the record to the intent, which is the metadata of the committed offset. Every later
//! owner of the partition reads the intent, so every owner creates the same dead letters. If the record is in a
//! declared batch, the record becomes a separate part of the batch ([`crate::ops::split`]), so the dead letters are not
//! in the same insert as the rows of other records.
//!
//! Invariant: a record is skipped only while no table can hold rows of the record.

use std::fmt;

use crate::apply::markers;
use crate::apply::store::Store;
use crate::config::Config;
use crate::ops::offline::{CommittedIntent, Offline, OfflineError};
use crate::protocol::intent::{Intent, MAX_SKIPPED, MAX_SPLIT_POINTS};
use crate::protocol::progress::{NextOffset, Offset};

/// Why a record was not skipped.
#[derive(Debug, thiserror::Error)]
pub enum SkipError {
    /// The rows of the record are in every table already.
    #[error(
        "skip partition {partition}: the record at offset {offset} is in every table already, because the committed \
         offset is {from}"
    )]
    Applied {
        /// The Kafka partition.
        partition: u16,
        /// The offset of the record that was to be skipped.
        offset: Offset,
        /// The committed offset: the rows of every record below it are in every table.
        from: NextOffset,
    },
    /// The offset is after the last record of the log.
    #[error(
        "skip partition {partition}: the log ends before offset {end}, so there is no record at offset {offset}"
    )]
    Beyond {
        /// The Kafka partition.
        partition: u16,
        /// The offset of the record that was to be skipped.
        offset: Offset,
        /// The offset after the last record of the log.
        end: NextOffset,
    },
    /// Some rows of the record may be stored: the marker of a table partition is above the offset of the record.
    #[error(
        "skip partition {partition}: table partition {partition_id} of `{table}` already has its rows of all offsets \
         below {applied_end}, so rows of offset {offset} may be stored; fix what makes clickhouse refuse the rows of \
         other tables or table partitions, or run `stream-agg split {partition}`"
    )]
    Stored {
        /// The Kafka partition.
        partition: u16,
        /// The offset of the record that was to be skipped.
        offset: Offset,
        /// The table that may hold rows of the record.
        table: String,
        /// The id of the table partition that may hold rows of the record.
        partition_id: String,
        /// The marker: the table partition already has its rows of every record below this offset.
        applied_end: NextOffset,
    },
    /// The intent has no room for another skipped offset, or for the split points around it.
    #[error(
        "skip partition {partition}: the metadata of the committed offset has no room for another skipped record \
         (limits: {MAX_SKIPPED} skipped records and {MAX_SPLIT_POINTS} split points); start the aggregators, which \
         make room when they commit a later offset"
    )]
    TooMany {
        /// The Kafka partition.
        partition: u16,
    },
    /// Aggregators run, another process committed, no readable intent is committed, or a request to Kafka or ClickHouse
    /// failed.
    #[error("skip partition {partition}")]
    Offline {
        /// The Kafka partition.
        partition: u16,
        /// The cause.
        source: OfflineError,
    },
}

/// The result of [`skip`]: which records the committed intent now skips.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The Kafka partition.
    pub partition: u16,
    /// The offsets of all skipped records, including those that earlier runs of the command skipped; none is below the
    /// committed offset.
    pub offsets: Vec<Offset>,
}

/// Adds the record at `offset` to the skipped records of a Kafka partition, so aggregators turn the lines of the record
/// into dead letters.
///
/// # Errors
/// The record cannot be skipped, or a request failed. The intent is then unchanged, unless Kafka stored the new intent
/// and its answer was lost. It is safe to call the function again.
pub async fn skip(config: &Config, partition: u16, offset: Offset) -> Result<Skipped, SkipError> {
    let offline_error = |source| SkipError::Offline { partition, source };
    let offline = Offline::new(config, partition).map_err(offline_error)?;
    let CommittedIntent { committed, from, intent } = offline.intent().await.map_err(offline_error)?;
    if !from.is_at_or_below(offset) {
        return Err(SkipError::Applied { partition, offset, from });
    }
    let end = offline.kafka_state().await.map_err(offline_error)?.end;
    if end.is_at_or_below(offset) {
        return Err(SkipError::Beyond { partition, offset, end });
    }
    let skipping = skipping(from, &intent, offset).ok_or(SkipError::TooMany { partition })?;
    let is_declared = intent.last.is_some_and(|last| offset <= last);
    // After `stream-agg adopt`, aggregators read the records from the committed offset up to `adopted` again, so some
    // tables may already hold rows of these records.
    let is_adopted = intent.adopted.is_some_and(|adopted| !adopted.is_at_or_below(offset));
    if is_declared || is_adopted {
        // The first check avoids the long wait if rows are stored already. The second check also finds rows of inserts
        // that were in flight during the first check.
        check_not_stored(config, partition, &intent, offset).await?;
        offline.wait_for_inserts_to_end(&committed).await.map_err(offline_error)?;
        check_not_stored(config, partition, &intent, offset).await?;
    }
    offline.replace(&committed, from, &skipping).await.map_err(offline_error)?;
    Ok(Skipped { partition, offsets: skipping.skipped })
}

/// `intent` with the record at `offset` skipped; if the record is in the declared batch, it becomes a separate part
/// of the batch. `None` if the intent would have too many skipped records or split points.
fn skipping(from: NextOffset, intent: &Intent, offset: Offset) -> Option<Intent> {
    let mut skipping = intent.clone();
    if !skipping.skipped.contains(&offset) {
        skipping.skipped.push(offset);
        skipping.skipped.sort_unstable();
    }
    if let Some(last) = intent.last.filter(|last| offset <= *last) {
        let inside = |point: &NextOffset| *point > from && *point < last.next();
        skipping.split.extend([offset.as_next(), offset.next()].into_iter().filter(inside));
        skipping.split.sort_unstable();
        skipping.split.dedup();
    }
    let fits = skipping.skipped.len() <= MAX_SKIPPED && skipping.split.len() <= MAX_SPLIT_POINTS;
    fits.then_some(skipping)
}

async fn check_not_stored(
    config: &Config,
    partition: u16,
    intent: &Intent,
    offset: Offset,
) -> Result<(), SkipError> {
    let offline_error = |source| SkipError::Offline { partition, source: OfflineError::Store(source) };
    let store = Store::new(&config.migrate.store);
    let markers =
        markers::of_log(&store, partition, Some(intent.log_generation)).await.map_err(offline_error)?;
    match markers.all.into_iter().find(|marker| !marker.applied_end.is_at_or_below(offset)) {
        None => Ok(()),
        Some(marker) => Err(SkipError::Stored {
            partition,
            offset,
            table: marker.table,
            partition_id: marker.partition_id,
            applied_end: marker.applied_end,
        }),
    }
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let offsets: Vec<_> = self.offsets.iter().map(ToString::to_string).collect();
        write!(
            f,
            "partition {}: aggregators will turn the records at these offsets into dead letters: {}",
            self.partition,
            offsets.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::intent::LogMark;

    fn declared(last: Option<i64>, split: &[i64]) -> Intent {
        Intent {
            last: last.map(Offset::new),
            split: split.iter().copied().map(NextOffset::new).collect(),
            ..Intent::fresh(NextOffset::new(10), 7, 0, LogMark::default())
        }
    }

    #[track_caller]
    fn check(intent: &Intent, offset: i64, split: &[i64]) {
        let skipping = skipping(NextOffset::new(10), intent, Offset::new(offset)).expect("there is room");
        assert_eq!(skipping.skipped, [Offset::new(offset)]);
        assert_eq!(skipping.split, declared(None, split).split);
        assert_eq!(skipping.last, intent.last);
    }

    #[test]
    fn a_skipped_record_of_a_declared_batch_has_a_part_of_its_own() {
        check(&declared(Some(14), &[]), 12, &[12, 13]);
        check(&declared(Some(14), &[]), 10, &[11]);
        check(&declared(Some(14), &[]), 14, &[14]);
        check(&declared(Some(14), &[12]), 12, &[12, 13]);
        check(&declared(Some(10), &[]), 10, &[]);
    }

    #[test]
    fn skipping_an_undeclared_record_adds_no_split_points() {
        check(&declared(None, &[]), 12, &[]);
        check(&declared(Some(14), &[]), 15, &[]);
    }

    #[test]
    fn an_intent_holds_a_bounded_number_of_skipped_records() {
        let mut intent = declared(None, &[]);
        for offset in 0..MAX_SKIPPED as i64 {
            intent = skipping(NextOffset::new(10), &intent, Offset::new(20 + offset)).expect("there is room");
        }
        assert_eq!(skipping(NextOffset::new(10), &intent, Offset::new(19)), None);
        // The record at offset 20 is skipped already, so skipping it again needs no room.
        assert!(skipping(NextOffset::new(10), &intent, Offset::new(20)).is_some());
    }
}
