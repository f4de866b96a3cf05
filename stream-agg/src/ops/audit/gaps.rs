//! Finds offsets below `progress` that are in no ledger row. Pure.
//!
//! The producer of an edge is idempotent and not transactional, and the topic is not compacted, so a log has a record
//! at each offset, and the ledger has a row for each record. An offset without a row has one of two causes. Either the
//! record at this offset is in Kafka but in no table, because aggregators passed over it by mistake. Or Kafka has no
//! record at this offset, because of a transaction, compaction or retention. The log shows which of the two is the
//! cause; the tables do not.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::frame::{Frame, Log};
use super::read::{Key, LedgerSpan};

/// Consecutive offsets that are in no ledger row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Gap {
    /// Generation of the log.
    #[serde(rename = "g")]
    pub log_generation: u16,
    /// Kafka partition.
    #[serde(rename = "kp")]
    pub partition: u16,
    /// The first offset.
    pub first: u64,
    /// The last offset.
    pub last: u64,
}

/// Whether the ledger has a row for each offset.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Offsets {
    /// Number of offsets from the first compared offset up to, but not including, `progress`.
    pub expected: u64,
    /// Number of these offsets that have a ledger row.
    pub found: u64,
    /// The first gaps; at most [`super::judge::MAX_FINDINGS`] in the result of an audit.
    pub gaps: Vec<Gap>,
}

impl Offsets {
    /// The number of offsets that are in no ledger row.
    pub fn in_gaps(&self) -> u64 {
        self.expected - self.found
    }
}

/// What the totals of the spans ([`Key`]) show about gaps, before single records are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counted {
    /// The totals, and the gaps between spans.
    pub offsets: Offsets,
    /// Spans with gaps between their records.
    pub within: Vec<Key>,
}

/// Counts the offsets of each log from its floor ([`Frame::floors`]) up to `progress`. If the floor is 0, the count
/// starts at the first record in the ledger, because it is unknown whether the log had earlier records.
pub fn count(frame: &Frame, ledger: &BTreeMap<Key, LedgerSpan>) -> Counted {
    let mut counted = Counted::default();
    let mut ends = BTreeMap::<Log, u64>::new();
    for (key @ (log_generation, partition, _), span) in ledger {
        let floor = frame.floors.get(&(*log_generation, *partition)).copied().filter(|floor| *floor > 0);
        let end = ends.entry((*log_generation, *partition)).or_insert_with(|| floor.unwrap_or(span.first));
        counted.add_gap((*log_generation, *partition), *end, span.first);
        let (all, records) = (span.last + 1 - span.first, span.records);
        counted.offsets.expected += all;
        counted.offsets.found += records;
        if records < all {
            counted.within.push(*key);
        }
        *end = span.last + 1;
    }
    for (log, end) in ends {
        counted.add_gap(log, end, frame.progress.get(&log).copied().unwrap_or(end));
    }
    counted
}

impl Counted {
    /// Counts the offsets from `end` up to, but not including, `next` as expected, and adds them as a gap. Does nothing
    /// if there are no such offsets.
    fn add_gap(&mut self, (log_generation, partition): Log, end: u64, next: u64) {
        if end < next {
            self.offsets.expected += next - end;
            self.offsets.gaps.push(Gap { log_generation, partition, first: end, last: next - 1 });
        }
    }
}

/// For example `offsets 5-7 of partition 3, log generation 1: in no ledger row`.
impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { log_generation, partition, first, last } = self;
        write!(f, "{}: in no ledger row", super::judge::offsets((*log_generation, *partition), *first, *last))
    }
}

#[cfg(test)]
mod tests;
