//! `stream-agg audit`: compares the tables with each other, even while rows are inserted.
//!
//! Invariant: the audit compares no records whose inserts may be in flight. So if the tables are correct, it reports no
//! error, whenever it runs. The table `progress` has an offset for each log: every record below this offset is in every
//! table. In the following text, `progress` means this offset. The audit makes three comparisons, each of them exact
//! below certain offsets:
//!
//! 1. *The ledger with itself*: each offset below `progress` must have a row ([`gaps`]), no record may have a second
//!    row, and each row must have `stored = lines - rejected - duplicates`.
//! 2. *Raw rows with the ledger*, for offsets below `progress`. The audit reads `progress` before the rows, so all of
//!    these rows are in ClickHouse. For each span of offsets, the audit compares the number of rows and the sum of a
//!    hash of (offset, line). The ledger predicts this sum, because the stored lines of a record are numbered without
//!    gaps. Lines arrive at most two days before Kafka appends their record, unless a spool held the record. So raw
//!    rows that arrived still earlier are read only for spans that differ. The ids of the records in these spans show
//!    on which day the first of their lines arrived. Spans that still differ are read once more, record by record.
//! 3. *Rollups with raw rows*, by the day of the event. The rows of a rollup contain no offsets, but its markers do.
//!    One statement reads sums and markers from the same parts. A table partition holds every record of a log below
//!    the offset in its marker, and no record at or above this offset. The audit waits until `progress` has passed all
//!    markers, so that the raw rows below them are in ClickHouse. Then it counts the raw rows below exactly these
//!    offsets.
//!
//! Expired rows are not compared. If no raw row of a day can have expired, a rollup must have exactly as many events of
//! that day as there are raw rows that it counts. Otherwise it must have at least as many, because it still counts
//! events whose raw rows have expired. Markers (tenant `''`) are not counted. The audit reports what it could not
//! compare ([`frame`]). It repairs nothing and does not read Kafka.

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

/// Maximum number of days before today, by Kafka's time, that an audit compares. The ledger keeps one day more, so none
/// of these days expires during the audit.
pub const MAX_DAYS: u16 = (LEDGER_DAYS - 1) as u16;
/// Maximum time that an audit waits until `progress` has passed the markers of the rollups.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an audit waits for `progress` of a log that has markers but no `progress` yet: the first batch of the log
/// may be in flight.
const FIRST_BATCH_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause between two queries of `progress`.
const PROGRESS_POLL_INTERVAL: Duration = Duration::from_millis(200);

/// How far back an audit looks, and the timeout of its queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// Days before today, by Kafka's time; at most [`MAX_DAYS`].
    pub days: u16,
    /// Timeout of one query.
    pub query_timeout: Duration,
}

impl Reach {
    /// The reach of an audit that an operator starts. Its queries may take long.
    pub fn of_days(days: u16) -> Self {
        Self { days: days.min(MAX_DAYS), query_timeout: Duration::from_secs(30 * 60) }
    }

    /// The reach of the periodic audit, which runs while the aggregator works.
    pub fn recent() -> Self {
        Self { days: 2, query_timeout: Duration::from_secs(60) }
    }
}

/// The result of an audit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// When the audit began, by ClickHouse's clock, in milliseconds since 1970.
    pub at: i64,
    /// The result for each table.
    pub tables: Vec<Audited>,
    /// The wrong parts of tables: the first [`judge::MAX_FINDINGS`] of each table.
    pub findings: Vec<Finding>,
    /// Whether the ledger has a row for each offset.
    pub offsets: Offsets,
}

/// The result for one table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Audited {
    /// The name of the table; for a rollup, the name of the rollup.
    pub table: String,
    /// What the table must hold: the number of records for the ledger, of rows for `events`, of events for a rollup.
    pub expected: u64,
    /// What the table holds, as a number of the same kind.
    pub found: u64,
    /// How many of the expected rows or events are not in the table. For the ledger: the lines by which `stored` is
    /// below `lines - rejected - duplicates`.
    pub missing: u64,
    /// How many of the rows or events in the table are not expected. For the ledger: the number of repeated rows, plus
    /// the lines by which `stored` is above `lines - rejected - duplicates`.
    pub duplicate: u64,
    /// What was not compared or not judged, and why; empty if there is nothing to note.
    pub note: String,
}

/// A wrong part of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The name of the table; for a rollup, the name of the rollup.
    pub table: String,
    /// The part: a day of events, offsets of a Kafka partition, or `all` for a rollup that is not divided by time.
    pub part: String,
    /// How many records, rows or events the part must hold.
    pub expected: u64,
    /// How many records, rows or events the part holds.
    pub found: u64,
    /// How much is missing in the part, counted like [`Audited::missing`].
    pub missing: u64,
    /// How much of the part is not expected, counted like [`Audited::duplicate`].
    pub duplicate: u64,
}

impl Audit {
    /// The sum of [`Audited::missing`] over all tables.
    pub fn missing(&self) -> u64 {
        self.tables.iter().map(|table| table.missing).sum()
    }

    /// The sum of [`Audited::duplicate`] over all tables.
    pub fn duplicate(&self) -> u64 {
        self.tables.iter().map(|table| table.duplicate).sum()
    }

    /// Whether the audit found nothing wrong.
    pub fn is_sound(&self) -> bool {
        self.missing() == 0 && self.duplicate() == 0 && self.offsets.in_gaps() == 0
    }
}

/// Why an audit failed.
#[derive(Debug, thiserror::Error)]
#[error("audit: {what}")]
pub struct AuditError {
    what: &'static str,
    source: StoreError,
}

/// Counts of the ledger, by span ([`read::SPAN`] offsets of a log).
type Ledger = BTreeMap<Key, LedgerSpan>;

/// Audits the ledger, the raw table and the rollups of `declaration`.
///
/// # Errors
/// ClickHouse did not answer, or refused the request. This does not mean that a table is wrong.
pub async fn audit(store: &Store, declaration: &Declaration, reach: Reach) -> Result<Audit, AuditError> {
    let failed = |what| move |source| AuditError { what, source };
    let Declaration { rollups, limits, .. } = declaration;
    let reader = Reader { store, query_timeout: reach.query_timeout };
    let mut frame =
        reader.frame(reach.days, limits.time).await.map_err(failed("find the days to compare"))?;
    let declared_in = reader.declared_in(rollups).await.map_err(failed("read the table configs"))?;

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
    if reader.may_lack_raw_rows(&frame).await.map_err(failed("look in the ledger for old lines"))? {
        frame.may_have_lost_raw_rows();
    }
    let days =
        reader.days(&frame, &snapshots, &declared_in).await.map_err(failed("count raw rows by day"))?;
    let events = tables.iter().find(|table| table.table == EVENTS);
    let wrong = events.filter(|table| table.missing + table.duplicate > 0);
    let surplus = wrong.map(|table| table.duplicate.cast_signed() - table.missing.cast_signed());
    for (at, snapshot) in snapshots.iter().enumerate() {
        let (table, wrong) = judge::rollup(&frame, snapshot, at, &days, &declared_in[at], surplus);
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
    let mut arrivals = reader.arrivals(frame, &differing).await?;
    let since = arrivals.values().map(|span| span.since).min().unwrap_or(i64::MAX);
    judge::add(&mut raw, reader.earlier_raw(frame, &differing, since).await?);
    let differing = judge::differing(ledger, &raw);
    arrivals.retain(|key, _| differing.contains(key));
    let details = reader.details(frame, &judge::spans_to_detail(&differing, &arrivals), since).await?;
    Ok(judge::rows(frame, ledger, &raw, &arrivals, &details))
}

/// Waits at most [`CATCH_UP_TIMEOUT`] until `progress` has passed the markers of the rollups in `snapshots`. Returns
/// the logs whose `progress` is still below a marker. For logs that have no `progress` yet, the function waits only
/// [`FIRST_BATCH_TIMEOUT`], and it does not return them.
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
        if (late.is_empty() && !(unknown && waited < FIRST_BATCH_TIMEOUT)) || waited >= CATCH_UP_TIMEOUT {
            return Ok(late);
        }
        time::sleep(PROGRESS_POLL_INTERVAL).await;
        progress = reader.progress().await?;
    }
}
