//! Decides when a batch closes.
//!
//! A batch closes when it is full or has reached its maximum age. During a backlog it may close later or earlier
//! ([`Batcher::due_in`]). The rows, the dead letters and the records of a batch have one common limit, and its bytes
//! and its cells have a limit each. The batch is full when one of these numbers reaches its limit; the record that
//! reaches the limit is the last one of the batch. A batch also ends at the offset of each marker that
//! `stream-agg adopt` found. A declared batch closes only at the ends that its intent names. The caller passes the
//! time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use hashbrown::HashSet;
use schemas::rollup::layout::{Expiry, Table};
use schemas::rollup::{Rollup, Rollups};
use schemas::time::{DAY, UnixMillis};
use uuid::Uuid;

use crate::config::BatchConfig;
use crate::pipeline::budget::LARGE_BYTES;
use crate::protocol::progress::{NextOffset, Offset};
use crate::rows::batch::Batch;
use crate::rows::decode::{DecodedLines, LedgerEntry};

/// A batch closes when it has `MAX_CELLS` cells, plus `MAX_CELLS_OF_RETENTION` cells for each different retention of
/// the rollups. The number is limited, because each cell needs an insert. `MAX_CELLS` is enough for events that arrived
/// on several days, and for rollup rows that never expire. `MAX_CELLS_OF_RETENTION` leaves room for late events, whose
/// rollup rows expire on other days.
const MAX_CELLS: usize = 16;
const MAX_CELLS_OF_RETENTION: usize = 6;
/// Longest time that a backlog keeps a batch open beyond its maximum age.
const MAX_BACKLOG_WAIT: Duration = Duration::from_secs(20);

/// Collects the records of one partition into batches.
#[derive(Debug)]
pub struct Batcher {
    /// `None` while a declared batch is rebuilt: the open batch then closes only at one of `ends`.
    limits: Option<BatchLimits>,
    /// The offsets at which a batch must end regardless of the limits; ascending.
    ends: VecDeque<NextOffset>,
    start: NextOffset,
    open: Open,
}

#[derive(Debug)]
struct BatchLimits {
    config: BatchConfig,
    /// One rollup for each combination of table and retention. It represents all rollups with this combination: for
    /// events of the same day, the rows of these rollups expire on the same day, so the rows are in the same cell.
    cell_kinds: Vec<Rollup>,
    max_cells: usize,
}

/// A cell of the open batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum TouchedCell {
    /// A cell of `events`, for the day on which its events arrived.
    Events(UnixMillis),
    /// A cell of `ledger`, for the day on which Kafka appended its records.
    Ledger(UnixMillis),
    /// A cell of `dead_letters`, for the day on which Kafka appended its records.
    DeadLetters(UnixMillis),
    Rollups(Table, Expiry),
}

#[derive(Debug, Default)]
struct Open {
    decoded: DecodedLines,
    entries: Vec<LedgerEntry>,
    bytes: usize,
    since: Option<Instant>,
    cells: HashSet<TouchedCell>,
    /// Number of rows whose cells are in `cells`.
    counted: usize,
    /// The last counted row: the day of its event, and the day on which the event arrived.
    days: Option<(UnixMillis, UnixMillis)>,
    /// The ids of the first `identified` records. [`Batcher::holds`] adds the ids of the later records when it is
    /// called.
    record_ids: HashSet<Uuid>,
    identified: usize,
}

impl Batcher {
    /// A batcher with an empty batch, whose first record is at `start` or later. A batch that reaches one of the
    /// ascending offsets `ends` closes at that offset.
    pub fn new(
        config: BatchConfig,
        rollups: &Rollups,
        start: NextOffset,
        ends: impl IntoIterator<Item = NextOffset>,
    ) -> Self {
        let limits = Some(BatchLimits::new(config, rollups));
        Self { limits, ends: ends.into_iter().collect(), start, open: Open::default() }
    }

    /// A batcher that rebuilds the declared batch that begins at `start`, and collects no later records. `ends` is
    /// ascending, and its last offset is the end of the batch. If an operator has split the batch, the earlier offsets
    /// are the ends of its other parts.
    pub fn rebuild(start: NextOffset, ends: impl IntoIterator<Item = NextOffset>) -> Self {
        Self { limits: None, ends: ends.into_iter().collect(), start, open: Open::default() }
    }

    /// Whether no record was added since the last batch was closed.
    pub fn is_empty(&self) -> bool {
        self.open.since.is_none()
    }

    /// Whether the open batch holds a record with this id.
    pub fn holds(&mut self, record_id: Uuid) -> bool {
        let Open { entries, record_ids, identified, .. } = &mut self.open;
        record_ids.extend(entries[*identified..].iter().map(|entry| entry.record_id));
        *identified = entries.len();
        record_ids.contains(&record_id)
    }

    /// Where the open batch begins.
    pub fn start(&self) -> NextOffset {
        self.start
    }

    /// If the open batch must end before a record at `offset`, closes the batch and returns it.
    pub fn close_before(&mut self, offset: Offset) -> Option<Batch> {
        let mut closed = None;
        while let Some(end) = self.ends.pop_front_if(|end| end.is_at_or_below(offset)) {
            closed = closed.or(self.close_at(end));
            self.start = end;
        }
        closed
    }

    /// Whether the declared batch has been rebuilt completely.
    pub fn is_rebuilt(&self) -> bool {
        self.limits.is_none() && self.ends.is_empty()
    }

    /// Whether the open batch is part of a declared batch. The open batch then closes only at a declared end.
    pub fn is_rebuilding(&self) -> bool {
        self.limits.is_none()
    }

    /// Bytes of the records in the open batch.
    pub fn bytes(&self) -> usize {
        self.open.bytes
    }

    /// Excludes `time` from the age of the open batch, because during this time the batch waited for a permit, not for
    /// records.
    pub fn exclude_from_age(&mut self, time: Duration) {
        self.open.since = self.open.since.map(|since| since + time);
    }

    /// The decoded lines of the open batch. The caller appends the lines of a record here before it calls
    /// [`Self::push`].
    pub fn decoded_mut(&mut self) -> &mut DecodedLines {
        &mut self.open.decoded
    }

    /// Adds a record of `bytes` bytes, whose lines were appended to [`Self::decoded_mut`] before. Returns the batch
    /// that the record completes, if any.
    pub fn push(&mut self, entry: LedgerEntry, bytes: usize, now: Instant) -> Option<Batch> {
        self.count_cells(&entry);
        let open = &mut self.open;
        open.since.get_or_insert(now);
        open.bytes += bytes;
        open.entries.push(entry);
        let ends_here = self.ends.front() == Some(&open.end());
        if ends_here {
            self.ends.pop_front();
        }
        let full = self.limits.as_ref().is_some_and(|limits| self.open.is_full(limits));
        if ends_here || full { self.close_at(self.open.end()) } else { None }
    }

    /// When the open batch reaches its maximum age; `None` if no batch is open or a declared batch is rebuilt.
    pub fn deadline(&self) -> Option<Instant> {
        Some(self.open.since? + self.limits.as_ref()?.config.max_age)
    }

    /// How long until the open batch must close: zero if it must close now, `None` if it has no [`Self::deadline`].
    /// Without a backlog, a batch closes at its deadline. During a backlog, which lasts at least until `backlog_until`,
    /// a batch stays open beyond its deadline, by at most `MAX_BACKLOG_WAIT`. At the end of the backlog, a batch of at
    /// least [`LARGE_BYTES`] closes at once, even before its deadline.
    pub fn due_in(&self, now: Instant, backlog_until: Option<Instant>) -> Option<Duration> {
        let deadline = self.deadline()?;
        let overdue = deadline + MAX_BACKLOG_WAIT;
        let due = match backlog_until {
            None => deadline,
            Some(until) if self.open.bytes >= LARGE_BYTES => until.min(overdue),
            Some(until) => until.clamp(deadline, overdue),
        };
        Some(due.saturating_duration_since(now))
    }

    /// Closes the open batch, if there is one, after its last record. A declared batch is not closed, because it ends
    /// only at its declared ends.
    pub fn close(&mut self) -> Option<Batch> {
        if self.is_empty() || self.is_rebuilding() { None } else { self.close_at(self.open.end()) }
    }

    /// Closes the open batch so that it ends at `end`.
    fn close_at(&mut self, end: NextOffset) -> Option<Batch> {
        self.open.since?;
        let Open { decoded, entries, .. } = std::mem::take(&mut self.open);
        let start = std::mem::replace(&mut self.start, end);
        Some(Batch { start, end, decoded, entries })
    }

    fn count_cells(&mut self, entry: &LedgerEntry) {
        let Some(BatchLimits { cell_kinds, .. }) = &self.limits else { return };
        let Open { decoded: DecodedLines { rows, dead_letters, .. }, cells, counted, days, .. } =
            &mut self.open;
        let taken = entry.kafka_time.floor(DAY);
        cells.insert(TouchedCell::Ledger(taken));
        if dead_letters.kafka_time.last().is_some_and(|last| last.floor(DAY) == taken) {
            cells.insert(TouchedCell::DeadLetters(taken));
        }
        for row in *counted..rows.len() {
            let (happened, arrived) = (rows.event_time[row].floor(DAY), rows.server_time[row].floor(DAY));
            // Neighbouring rows usually have the same days, so their cells are already counted.
            if days.replace((happened, arrived)) == Some((happened, arrived)) {
                continue;
            }
            cells.insert(TouchedCell::Events(arrived));
            let received = rows.received[row];
            let kept = |rollup: &&Rollup| rollup.kept_until(happened).is_none_or(|until| until > received);
            let of_rollup = |rollup: &Rollup| TouchedCell::Rollups(rollup.table(), rollup.expires(happened));
            cells.extend(cell_kinds.iter().filter(kept).map(of_rollup));
        }
        *counted = rows.len();
    }
}

impl BatchLimits {
    fn new(config: BatchConfig, rollups: &Rollups) -> Self {
        let mut cell_kinds = Vec::<Rollup>::new();
        for rollup in rollups.iter() {
            let same = |other: &Rollup| {
                (other.table(), other.retention_days) == (rollup.table(), rollup.retention_days)
            };
            if !cell_kinds.iter().any(same) {
                cell_kinds.push(rollup.clone());
            }
        }
        let retentions: HashSet<_> = cell_kinds.iter().filter_map(|rollup| rollup.retention_days).collect();
        let max_cells = MAX_CELLS + MAX_CELLS_OF_RETENTION * retentions.len();
        Self { config, cell_kinds, max_cells }
    }
}

impl Open {
    /// The offset after the last record.
    ///
    /// # Panics
    /// If there is no record.
    fn end(&self) -> NextOffset {
        self.entries.last().expect("a batch that is closed has a record").offset.next()
    }

    fn is_full(&self, limits: &BatchLimits) -> bool {
        let BatchLimits { config, max_cells, .. } = limits;
        // Each record becomes a row of the ledger, even if it has no lines and no bytes.
        let DecodedLines { rows, dead_letters, .. } = &self.decoded;
        let rows = rows.len().max(dead_letters.len()).max(self.entries.len());
        rows >= config.max_rows.get()
            || self.bytes >= config.max_bytes.get()
            || self.cells.len() >= *max_cells
    }
}

#[cfg(test)]
mod tests;
