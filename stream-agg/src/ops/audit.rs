//! `stream-agg audit`: counts the tables against each other, while they are written to.
//!
//! Invariant: nothing is judged that may still be under way, so a sound system audits clean
//! at any moment. Three comparisons, each exact below a cut of its own:
//!
//! 1. *The ledger with itself*: one row per record, `stored = lines - rejected - duplicates`, and a row
//!    for each offset below `progress` ([`gaps`]).
//! 2. *Raw rows with the ledger*, below `progress`, which is read first: by spans of offsets the
//!    number of rows and the sum of a hash of (offset, line), which the ledger foretells because
//!    the stored lines of a record are numbered densely. Lines arrive at most two days before Kafka
//!    takes their record, unless the spool held it; so raw rows of earlier days are read of spans that
//!    differ only, as far back as the ids of their records say. Spans that differ even so are read
//!    once more, record by record.
//! 3. *Rollups with raw rows*, by the day of the event. A rollup knows no offsets, but its markers
//!    do: one statement reads sums and markers from the same parts, and the markers say below which
//!    offset a table partition holds everything and from where on nothing. Once `progress` has
//!    passed all of them, raw rows are counted below exactly these offsets.
//!
//! What has expired is not compared: an event's day is held to be equal if all raw rows of it must
//! still be there, else to be at least what raw rows say. Markers (tenant `''`) count nowhere.
//! What cannot be compared is said ([`frame`]). Absent: any repair, and any look at Kafka.

use std::collections::BTreeMap;
use std::time::Duration;

use schemas::tables::LEDGER_DAYS;
use serde::Serialize;
use tokio::time::{self, Instant};

use crate::apply::store::{Store, StoreError};
use crate::protocol::declaration::Declaration;
use frame::{Frame, Log};
use gaps::Offsets;
use judge::Snapshot;
use read::{EVENTS, Key, LedgerSpan, Reader};

pub mod frame;

pub mod judge;

pub mod gaps;

pub mod read;

mod report;

mod watch;

pub use report::record;
pub use watch::Auditor;

/// Days of arrival that can be audited: the ledger keeps one more, so that none leaves meanwhile.
pub const MAX_DAYS: u16 = (LEDGER_DAYS - 1) as u16;
/// How long `progress` may take to pass what the rollups hold.
const CATCH_UP: Duration = Duration::from_secs(30);
/// How long a marker may be of a log that `progress` does not know: its first batch is under way.
const FIRST_BATCH: Duration = Duration::from_secs(2);
/// Between two looks at `progress`.
const LOOK: Duration = Duration::from_millis(200);

/// How far back an audit looks, and how long a query of it may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// Days of arrival before today, at most [`MAX_DAYS`].
    pub days: u16,
    /// Longest for one query.
    pub patience: Duration,
}

impl Reach {
    /// What a person asks for, who can wait.
    pub fn of_days(days: u16) -> Self {
        Self { days: days.min(MAX_DAYS), patience: Duration::from_secs(30 * 60) }
    }

    /// What is looked at again and again while the aggregator works.
    pub fn recent() -> Self {
        Self { days: 2, patience: Duration::from_secs(60) }
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// When it began, by ClickHouse's clock, in milliseconds since 1970.
    pub at: i64,
    /// All tables, each once.
    pub tables: Vec<Audited>,
    /// What is wrong, part by part; the first [`judge::MAX_FINDINGS`] of each table.
    pub findings: Vec<Finding>,
    /// Whether the ledger has a row for each offset.
    pub offsets: Offsets,
}

/// One table in sum.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Audited {
    /// Its name.
    pub table: String,
    /// What it must hold: records of the ledger, rows of events, events of a rollup.
    pub expected: u64,
    /// What it holds.
    pub found: u64,
    /// Of the expected ones, those that are not there.
    pub missing: u64,
    /// Those that are there and not expected.
    pub duplicate: u64,
    /// What was not compared, and why; empty if all was.
    pub note: String,
}

/// One part of a table that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The table.
    pub table: String,
    /// What of it: a day of events, or offsets of a Kafka partition.
    pub part: String,
    /// What it must hold.
    pub expected: u64,
    /// What it holds.
    pub found: u64,
    /// Of the expected ones, those that are not there.
    pub missing: u64,
    /// Those that are there and not expected.
    pub duplicate: u64,
}

impl Audit {
    /// Missing in all tables.
    pub fn missing(&self) -> u64 {
        self.tables.iter().map(|table| table.missing).sum()
    }

    /// Duplicate in all tables.
    pub fn duplicate(&self) -> u64 {
        self.tables.iter().map(|table| table.duplicate).sum()
    }

    /// Whether nothing at all was found.
    pub fn is_sound(&self) -> bool {
        self.missing() == 0 && self.duplicate() == 0 && self.offsets.in_gaps() == 0
    }
}

/// Why there is no audit.
#[derive(Debug, thiserror::Error)]
#[error("audit: {what}")]
pub struct AuditError {
    what: &'static str,
    source: StoreError,
}

/// The ledger by spans.
type Ledger = BTreeMap<Key, LedgerSpan>;

/// Audits the ledger, the raw table and the rollups of `declaration`.
///
/// # Errors
/// ClickHouse did not answer, or refused; nothing is said about the tables then.
pub async fn audit(store: &Store, declaration: &Declaration, reach: Reach) -> Result<Audit, AuditError> {
    let failed = |what| move |source| AuditError { what, source };
    let Declaration { rollups, limits, .. } = declaration;
    let reader = Reader { store, patience: reach.patience };
    let mut frame =
        reader.frame(reach.days, limits.time).await.map_err(failed("read what can be compared"))?;
    let known = reader.declared_in(rollups).await.map_err(failed("read configs"))?;

    let ledger = reader.ledger(&frame).await.map_err(failed("read the ledger"))?;
    let offsets = offsets(&reader, &frame, &ledger).await.map_err(failed("look for gaps in the ledger"))?;
    let (mut tables, mut findings) =
        rows(&reader, &frame, &ledger).await.map_err(failed("count raw rows"))?;

    let mut snapshots = Vec::new();
    for rollup in rollups.iter() {
        let read = reader.rollup(rollup).await.map_err(failed("read a rollup"))?;
        snapshots.push(Snapshot::new(rollup, read));
    }
    let behind = caught_up(&reader, &frame, &snapshots).await.map_err(failed("read progress"))?;
    for snapshot in &mut snapshots {
        snapshot.leave_out(&behind);
    }
    if reader.may_lack_raw_rows(&frame).await.map_err(failed("look for lines that arrived long ago"))? {
        frame.may_have_lost_raw_rows();
    }
    let days = reader.days(&frame, &snapshots, &known).await.map_err(failed("count raw rows by day"))?;
    let events = tables.iter().find(|table| table.table == EVENTS);
    let wrong = events.filter(|table| table.missing + table.duplicate > 0);
    let surplus = wrong.map(|table| table.duplicate.cast_signed() - table.missing.cast_signed());
    for (at, snapshot) in snapshots.iter().enumerate() {
        let (table, wrong) = judge::rollup(&frame, snapshot, at, &days, &known[at], surplus);
        tables.push(table);
        findings.extend(wrong);
    }
    Ok(Audit { at: frame.now.0, tables, findings, offsets })
}

/// Looks for offsets without a ledger row.
async fn offsets(reader: &Reader<'_>, frame: &Frame, ledger: &Ledger) -> Result<Offsets, StoreError> {
    let gaps::Counted { mut offsets, within } = gaps::count(frame, ledger);
    let named = &within[..within.len().min(judge::MAX_FINDINGS)];
    offsets.gaps.extend(reader.gaps(frame, named).await?);
    offsets.gaps.sort_unstable();
    offsets.gaps.truncate(judge::MAX_FINDINGS);
    Ok(offsets)
}

/// Compares raw rows with the ledger.
async fn rows(
    reader: &Reader<'_>,
    frame: &Frame,
    ledger: &Ledger,
) -> Result<(Vec<Audited>, Vec<Finding>), StoreError> {
    let mut raw = reader.raw(frame).await?;
    let differing = judge::differing(ledger, &raw);
    let mut made = reader.made(frame, &differing).await?;
    let since = made.values().map(|made| made.since).min().unwrap_or(i64::MAX);
    judge::add(&mut raw, reader.earlier_raw(frame, &differing, since).await?);
    let differing = judge::differing(ledger, &raw);
    made.retain(|key, _| differing.contains(key));
    let details = reader.details(frame, &judge::looked_into(&differing, &made), since).await?;
    Ok(judge::rows(frame, ledger, &raw, &made, &details))
}

/// Waits until `progress` has passed everything that the rollups held when they were read.
/// Returns the partitions of which that cannot be said.
async fn caught_up(
    reader: &Reader<'_>,
    frame: &Frame,
    snapshots: &[Snapshot<'_>],
) -> Result<Vec<Log>, StoreError> {
    let reached = judge::reached(snapshots);
    let begun = Instant::now();
    let mut progress = frame.progress.clone();
    loop {
        let behind = |log: &Log, applied_end: u64| progress.get(log).is_some_and(|next| *next < applied_end);
        let late: Vec<_> = reached
            .iter()
            .filter(|(log, applied_end)| behind(log, **applied_end))
            .map(|(log, _)| *log)
            .collect();
        let unknown = reached.keys().any(|log| !progress.contains_key(log));
        let waited = begun.elapsed();
        if (late.is_empty() && !(unknown && waited < FIRST_BATCH)) || waited >= CATCH_UP {
            return Ok(late);
        }
        time::sleep(LOOK).await;
        progress = reader.progress().await?;
    }
}
