//! Cuts raw rows into chunks. For each raw day, a table partition has a marker that shows which chunks of this day the
//! table partition holds.
//!
//! A chunk contains rows of one day of the raw table and one Kafka partition ([`RawDay`]). A day must be cut into the
//! same chunks at any time and in any process. ClickHouse drops the days of the raw table one by one, so the chunks of
//! a day must not depend on other days. The functions here are pure. Invariants:
//!
//! - The chunks of a raw day ascend and never overlap.
//! - No marker is inside a chunk, so a table partition holds either a chunk's whole cell or none of its rows.
//! - The markers of a raw day differ from those of live batches and of other days ([`RawDay::marker_generation`]).

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use schemas::time::{DAY, UnixMillis};

use crate::protocol::generation::FIRST_BACKFILL_GENERATION;
use crate::protocol::progress::NextOffset;

/// How many of the lowest bits of a position ([`marker_position`]) hold the offset. The bits above them hold the
/// generation of the log.
const OFFSET_BITS: u32 = 47;

/// One day of the raw table, for one Kafka partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RawDay {
    /// Start of the day on which the rows arrived.
    pub(super) day: UnixMillis,
    /// The Kafka partition.
    pub(super) partition: u16,
}

impl RawDay {
    /// The value of column `g` in the markers of a raw day. It encodes the day and is greater than every log
    /// generation, which column `g` holds in other markers. Days from 2059-09-19 on do not fit.
    pub(super) fn marker_generation(self) -> u16 {
        let days = u16::try_from(self.day.0.div_euclid(DAY)).unwrap_or(u16::MAX);
        assert!(days < FIRST_BACKFILL_GENERATION, "days from 2059-09-19 on do not fit into a marker");
        FIRST_BACKFILL_GENERATION | days
    }
}

/// A Kafka record that has raw rows to count in a raw day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clickhouse::Row, serde::Deserialize)]
pub(super) struct RawRecord {
    /// Generation of the Kafka log.
    #[serde(rename = "g")]
    pub(super) log_generation: u16,
    /// The offset of the record.
    #[serde(rename = "ko")]
    pub(super) offset: u64,
    /// Number of these raw rows.
    pub(super) rows: u64,
}

/// Records of a raw day that are aggregated and inserted together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chunk {
    /// Generation of the Kafka log.
    pub(super) log_generation: u16,
    /// The offsets from the first to the last record.
    pub(super) offsets: RangeInclusive<u64>,
    /// Number of raw rows of these records.
    pub(super) rows: u64,
}

impl Chunk {
    /// The position at which the chunk begins. Until the chunk is inserted into a table partition, the raw day's marker
    /// in this table partition is at or below this position.
    pub(super) fn start(&self) -> NextOffset {
        marker_position(self.log_generation, *self.offsets.start())
    }

    /// The position after the last record. When the chunk is inserted into a table partition, the raw day's marker in
    /// this table partition moves to this position.
    pub(super) fn applied_end(&self) -> NextOffset {
        marker_position(self.log_generation, *self.offsets.end() + 1)
    }
}

/// The position of a record among the records of a raw day. Positions are ordered by log generation, then by offset.
/// The markers of a raw day hold a position where other markers hold an offset.
fn marker_position(log_generation: u16, offset: u64) -> NextOffset {
    assert!(
        log_generation < FIRST_BACKFILL_GENERATION && offset < 1 << OFFSET_BITS,
        "log generation {log_generation} and offset {offset} must fit into a marker"
    );
    NextOffset::new(i64::from(log_generation) << OFFSET_BITS | offset.cast_signed())
}

/// Cuts the records of a raw day into chunks. The records must ascend by log generation and offset. A chunk ends after
/// the record that brings it to `max_rows` rows, and where the log generation changes. It also ends at each position in
/// `markers`, where a chunk of an earlier run ended.
pub(super) fn cut(
    records: impl IntoIterator<Item = RawRecord>,
    markers: &BTreeSet<NextOffset>,
    max_rows: u64,
) -> Vec<Chunk> {
    let mut chunks: Vec<Chunk> = Vec::new();
    for RawRecord { log_generation, offset, rows } in records {
        let joins = |chunk: &Chunk| {
            let begins_later =
                markers.range(chunk.applied_end()..=marker_position(log_generation, offset)).next().is_some();
            chunk.log_generation == log_generation && chunk.rows < max_rows && !begins_later
        };
        match chunks.last_mut().filter(|chunk| joins(chunk)) {
            Some(chunk) => {
                chunk.offsets = *chunk.offsets.start()..=offset;
                chunk.rows += rows;
            }
            None => chunks.push(Chunk { log_generation, offsets: offset..=offset, rows }),
        }
    }
    chunks
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(log_generation: u16, offset: u64, rows: u64) -> RawRecord {
        RawRecord { log_generation, offset, rows }
    }

    fn ranges(chunks: &[Chunk]) -> Vec<(u16, u64, u64, u64)> {
        chunks.iter().map(|c| (c.log_generation, *c.offsets.start(), *c.offsets.end(), c.rows)).collect()
    }

    #[test]
    fn a_chunk_ends_with_the_record_that_fills_it_and_with_its_log() {
        let records = [record(0, 3, 6), record(0, 4, 6), record(0, 9, 1), record(1, 0, 1), record(1, 5, 30)];
        let chunks = cut(records, &BTreeSet::new(), 10);
        assert_eq!(ranges(&chunks), [(0, 3, 4, 12), (0, 9, 9, 1), (1, 0, 5, 31)]);
    }

    #[test]
    fn a_chunk_ends_at_a_marker() {
        let records = [1, 2, 5, 6].map(|offset| record(0, offset, 1));
        let chunks = cut(records, &[marker_position(0, 3)].into(), 10);
        assert_eq!(ranges(&chunks), [(0, 1, 2, 2), (0, 5, 6, 2)]);
    }

    #[test]
    fn markers_of_a_raw_day_differ_from_live_ones_and_from_other_days() {
        let raw_day = |day: i64| RawDay { day: UnixMillis(day * DAY), partition: 3 };
        assert!(raw_day(20_000).marker_generation() >= FIRST_BACKFILL_GENERATION);
        assert_ne!(raw_day(20_000).marker_generation(), raw_day(20_001).marker_generation());
    }

    proptest! {
        /// If a backfill is killed at any point and another release, which cuts differently, finishes it, then each
        /// record counts once.
        #[test]
        fn every_record_counts_once_after_any_partial_backfill(
            rows in proptest::collection::vec(1..5_u64, 1..40),
            (first, second) in (1..12_u64, 1..12_u64),
            filled in 0..10_usize,
        ) {
            let records: Vec<_> = (0..).zip(&rows).map(|(at, rows)| record(u16::from(at > 20), at * 2, *rows)).collect();
            let before = cut(records.clone(), &BTreeSet::new(), first);
            let filled = &before[..filled.min(before.len())];
            let marker = filled.last().map_or(NextOffset::ZERO, Chunk::applied_end);
            let after = cut(records, &[marker].into(), second);
            let counted = filled.iter().chain(after.iter().filter(|chunk| {
                assert!(marker <= chunk.start() || marker >= chunk.applied_end(), "a marker inside a chunk");
                marker <= chunk.start()
            }));
            prop_assert_eq!(counted.map(|chunk| chunk.rows).sum::<u64>(), rows.iter().sum::<u64>());
        }
    }
}
