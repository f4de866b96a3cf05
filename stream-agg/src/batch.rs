//! Records collect until they are worth an insert.
//!
//! A batch closes by rows, bytes, age, or the number of table partitions it touches;
//! the record that reaches a limit is its last. The caller owns the clock.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use schemas::rollup::{PartitionBy, Rollups};
use schemas::time::UnixMillis;

use crate::config::BatchConfig;
use crate::decode::{Decoded, Entry};
use crate::progress::{NextOffset, Offset};

/// Table partitions of one table that a batch touches before it closes. Each costs an
/// insert, and a client may send any time since 2000.
const MAX_TABLE_PARTITIONS: usize = 64;

/// Records `[lo..=last]` of one partition that are inserted together.
#[derive(Debug)]
pub struct Batch {
    /// Where the batch before it ended; its first record may come later.
    pub lo: NextOffset,
    /// Its last record.
    pub last: Offset,
    /// What its records hold, in the order of offset and line.
    pub decoded: Decoded,
    /// A line in the ledger for each record, in the order of offsets; never empty.
    pub entries: Vec<Entry>,
}

/// Collects the records of one partition.
#[derive(Debug)]
pub struct Batcher {
    config: BatchConfig,
    /// How the tables with rows by event time are cut.
    cuts: Vec<PartitionBy>,
    lo: NextOffset,
    open: Open,
}

#[derive(Debug, Default)]
struct Open {
    decoded: Decoded,
    entries: Vec<Entry>,
    bytes: usize,
    since: Option<Instant>,
    by_event_time: BTreeSet<(PartitionBy, UnixMillis)>,
    by_arrival: BTreeSet<UnixMillis>,
    /// Rows whose table partitions are counted.
    counted: usize,
}

impl Batcher {
    /// Nothing collected yet; the next record is at `lo` or later.
    pub fn new(config: BatchConfig, rollups: &Rollups, lo: NextOffset) -> Self {
        let cuts: BTreeSet<_> = rollups.iter().map(schemas::rollup::Rollup::partition_by).collect();
        Self { config, cuts: cuts.into_iter().collect(), lo, open: Open::default() }
    }

    /// Where the lines of the next record go, before it is pushed.
    pub fn decoded(&mut self) -> &mut Decoded {
        &mut self.open.decoded
    }

    /// Adds a record of `bytes` whose rows were appended; hands back the batch it completed, if any.
    pub fn push(&mut self, entry: Entry, bytes: usize, now: Instant) -> Option<Batch> {
        self.count_table_partitions();
        let open = &mut self.open;
        open.since.get_or_insert(now);
        open.bytes += bytes;
        open.entries.push(entry);
        let full = open.decoded.rows.len().max(open.decoded.dead_letters.len()) >= self.config.max_rows.get()
            || open.bytes >= self.config.max_bytes.get()
            || open.by_arrival.len() >= MAX_TABLE_PARTITIONS
            || self.cuts.iter().any(|cut| open.touched(*cut) >= MAX_TABLE_PARTITIONS);
        if full { self.close() } else { None }
    }

    /// When the open batch must close even if nothing more arrives.
    pub fn deadline(&self) -> Option<Instant> {
        self.open.since.map(|since| since + self.config.max_age)
    }

    /// How long until then; zero if that has passed.
    pub fn due_in(&self, now: Instant) -> Option<Duration> {
        self.deadline().map(|deadline| deadline.saturating_duration_since(now))
    }

    /// The open batch, if there is one.
    pub fn close(&mut self) -> Option<Batch> {
        let last = self.open.entries.last()?.offset;
        let Open { decoded, entries, .. } = std::mem::take(&mut self.open);
        let lo = std::mem::replace(&mut self.lo, last.next());
        Some(Batch { lo, last, decoded, entries })
    }

    fn count_table_partitions(&mut self) {
        let Open { decoded: Decoded { rows, .. }, by_event_time, by_arrival, counted, .. } = &mut self.open;
        let (event_times, server_times) = (&rows.event_time[*counted..], &rows.server_time[*counted..]);
        for (event_time, server_time) in event_times.iter().zip(server_times) {
            by_arrival.insert(PartitionBy::Day.start(*server_time));
            by_event_time.extend(self.cuts.iter().map(|cut| (*cut, cut.start(*event_time))));
        }
        *counted = rows.len();
    }
}

impl Open {
    fn touched(&self, cut: PartitionBy) -> usize {
        let of_cut = (cut, UnixMillis(i64::MIN))..=(cut, UnixMillis(i64::MAX));
        self.by_event_time.range(of_cut).count()
    }
}

#[cfg(test)]
mod tests;
