//! How far a partition is: what was delivered, what is in every cell, what may be committed.
//!
//! Invariant: everything *delivered* below the committed offset is in every cell.
//! Delivered, not consecutive: compaction and transactions leave gaps that no
//! consumer is ever shown. No I/O and no clock in here; the partition's pipeline
//! reports each event and does what may be done then.

use std::collections::VecDeque;
use std::fmt;

/// Where a record stands in its partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Offset(i64);

/// The next offset to read, which is what Kafka stores when we commit, and what a
/// marker says: everything below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NextOffset(i64);

impl Offset {
    /// The offset that Kafka gave a record.
    ///
    /// # Panics
    /// If it is negative: those are librdkafka's signs, never a record's place.
    pub fn new(offset: i64) -> Self {
        assert!(offset >= 0, "a record's offset is not negative, as {offset} is");
        Self(offset)
    }

    /// Everything up to and with this one.
    pub fn next(self) -> NextOffset {
        NextOffset(self.0 + 1)
    }

    /// As ClickHouse holds it.
    pub fn to_u64(self) -> u64 {
        self.0.unsigned_abs()
    }
}

impl NextOffset {
    /// Nothing below `offset` is missing.
    ///
    /// # Panics
    /// If it is negative.
    pub fn new(offset: i64) -> Self {
        assert!(offset >= 0, "an offset to read is not negative, as {offset} is");
        Self(offset)
    }

    /// As Kafka holds it.
    pub fn to_i64(self) -> i64 {
        self.0
    }

    /// As ClickHouse holds it.
    pub fn to_u64(self) -> u64 {
        self.0.unsigned_abs()
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for NextOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What happened to a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A record was taken from Kafka.
    Delivered(Offset),
    /// All delivered records that no batch holds yet became one, of so many cells.
    Closed {
        /// Cells that must have it.
        cells: usize,
    },
    /// One cell has the oldest closed batch.
    CellApplied,
    /// Kafka took the commit.
    Committed(NextOffset),
    /// The partition belongs to somebody else.
    Revoked,
}

/// A batch that is closed and not in every cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Closed {
    next: NextOffset,
    cells_left: usize,
}

/// The state of one partition, from its assignment to its revocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    committed: NextOffset,
    applied: NextOffset,
    delivered: NextOffset,
    closed: VecDeque<Closed>,
    revoked: bool,
}

impl Progress {
    /// An assigned partition: everything below `committed` is in every cell.
    pub fn new(committed: NextOffset) -> Self {
        Self { committed, applied: committed, delivered: committed, closed: VecDeque::new(), revoked: false }
    }

    /// Takes note of `event`.
    ///
    /// # Panics
    /// If it cannot happen now: records out of order, an empty batch, a cell of no batch,
    /// a commit of what is not applied. Going on then could lose or double events.
    pub fn on(&mut self, event: Event) {
        match event {
            Event::Delivered(offset) => {
                assert!(offset.next() > self.delivered, "{offset} is delivered after {}", self.delivered);
                self.delivered = offset.next();
            }
            Event::Closed { cells } => {
                assert!(
                    cells > 0 && self.delivered > self.closed_below(),
                    "a batch holds a record and has a cell"
                );
                self.closed.push_back(Closed { next: self.delivered, cells_left: cells });
            }
            Event::CellApplied => self.cell_applied(),
            Event::Committed(next) => {
                assert!(self.committed <= next && next <= self.applied, "{next} is committed, not applied");
                self.committed = next;
            }
            Event::Revoked => self.revoked = true,
        }
    }

    fn cell_applied(&mut self) {
        let batch = self.closed.front_mut().expect("a cell is applied of a closed batch");
        batch.cells_left -= 1;
        if batch.cells_left == 0 {
            self.applied = batch.next;
            self.closed.pop_front();
        }
    }

    fn closed_below(&self) -> NextOffset {
        self.closed.back().map_or(self.applied, |batch| batch.next)
    }

    /// What may be committed, if that is more than is committed and the partition is ours.
    pub fn committable(&self) -> Option<NextOffset> {
        (self.applied > self.committed && !self.revoked).then_some(self.applied)
    }

    /// Everything below it is in every cell.
    pub fn applied(&self) -> NextOffset {
        self.applied
    }
}

#[cfg(test)]
mod tests;
