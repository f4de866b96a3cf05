//! Compares counts that were read from the tables: finds which parts of the tables differ, and by how much. Pure.

use std::collections::{BTreeMap, BTreeSet};

use schemas::rollup::{Condition, Dimension, Grain, Rollup};
use schemas::time::{DAY, UnixMillis};

use super::frame::{Frame, Log};
use super::read::{DeclaredIn, EVENTS, Key, LEDGER, LedgerSpan, RawSpan, SPAN, SpanArrivals};
use super::{Audited, Finding};

/// Maximum number of findings that are listed for a table, and of gaps that are listed for the ledger. The sums include
/// the findings and gaps beyond this number.
pub const MAX_FINDINGS: usize = 20;

/// A rollup is compared only if the path of each of its conditions on `props` has at most this number of steps. For a
/// longer path, the query would have to try too many ways to write the path with dots and nesting.
const MAX_STEPS: usize = 4;

/// Numbers of raw rows by the day of the event (days since 1970). Each day has a pair for each rollup, in the order of
/// the snapshots: how many raw rows the rollup must count, and how many it may count at most.
pub type Days = BTreeMap<i64, Vec<(u64, u64)>>;

/// A row that is read from a rollup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotRow {
    /// A table partition holds all records of a log below the offset `applied_end`.
    Marker {
        /// The day on which the table partition expires, as a number of days since 1970.
        expiry: u64,
        /// The log.
        log: Log,
        /// The first offset that the table partition does not hold.
        applied_end: u64,
    },
    /// How many events of a day the rollup has counted.
    Sum {
        /// The day, as a number of days since 1970.
        day: i64,
        /// The number of events.
        sum: u64,
    },
}

/// The sums and markers of a rollup, as one statement read them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot<'r> {
    /// The declaration of the rollup.
    pub rollup: &'r Rollup,
    /// Number of events by day (days since 1970).
    pub sums: BTreeMap<i64, u64>,
    /// The offset below which a table partition holds all records of a log. The key is the day on which the table
    /// partition expires (days since 1970), and the log.
    pub cuts: BTreeMap<(u64, Log), u64>,
    /// Why the rollup is not compared; `None` if it is compared.
    left_out: Option<String>,
}

impl<'r> Snapshot<'r> {
    /// Builds the snapshot from the rows that one statement read.
    pub fn new(rollup: &'r Rollup, rows: Vec<SnapshotRow>) -> Self {
        let (mut sums, mut cuts) = (BTreeMap::new(), BTreeMap::new());
        for row in rows {
            match row {
                SnapshotRow::Marker { expiry, log, applied_end } => {
                    let cut = cuts.entry((expiry, log)).or_insert(applied_end);
                    *cut = applied_end.max(*cut);
                }
                SnapshotRow::Sum { day, sum } => *sums.entry(day).or_default() += sum,
            }
        }
        let left_out = rollup.conditions.iter().find_map(not_compared).map(str::to_owned);
        Self { rollup, sums, cuts, left_out }
    }

    /// Leaves the rollup out if it holds records of one of the logs `behind`, whose `progress` has not caught up.
    pub fn leave_out(&mut self, behind: &[Log]) {
        let late = self.cuts.keys().map(|(_, log)| log).find(|log| behind.contains(log));
        if let Some((_, partition)) = late {
            self.left_out =
                Some(format!("not compared: progress of partition {partition} stayed below the markers"));
        }
    }
}

/// Why a query cannot find the raw rows that meet a condition; `None` if it can.
fn not_compared(condition: &Condition) -> Option<&'static str> {
    let Dimension::Prop(path) = &condition.field else { return None };
    if path.steps().len() > MAX_STEPS {
        return Some("not compared: a condition in `where` has a path of too many steps into props");
    }
    let is_number = |text: &String| text.parse::<f64>().is_ok();
    let is_compared = !condition.values.iter().any(is_number);
    (!is_compared).then_some("not compared: a condition in `where` compares a number in props as text")
}

/// For each log, the highest marker of any table partition of any rollup.
pub fn reached(snapshots: &[Snapshot<'_>]) -> BTreeMap<Log, u64> {
    let mut reached = BTreeMap::new();
    for ((_, log), applied_end) in snapshots.iter().flat_map(|snapshot| &snapshot.cuts) {
        let far = reached.entry(*log).or_insert(*applied_end);
        *far = (*applied_end).max(*far);
    }
    reached
}

/// The spans in which raw rows differ from the ledger.
pub fn differing(ledger: &BTreeMap<Key, LedgerSpan>, raw: &BTreeMap<Key, RawSpan>) -> Vec<Key> {
    let keys: BTreeSet<_> = ledger.keys().chain(raw.keys()).copied().collect();
    let differs = |key: &Key| {
        let (must, has) = (of(ledger, key), of(raw, key));
        (must.rows, must.digest) != (has.rows, has.digest)
    };
    keys.into_iter().filter(differs).collect()
}

/// Adds to `raw` the counts of `more` raw rows, which were read separately.
pub fn add(raw: &mut BTreeMap<Key, RawSpan>, more: BTreeMap<Key, RawSpan>) {
    for (key, RawSpan { rows, digest }) in more {
        let sum = raw.entry(key).or_default();
        sum.rows += rows;
        sum.digest = sum.digest.wrapping_add(digest);
    }
}

/// The differing spans whose records are read one by one, at most [`MAX_FINDINGS`]. Spans whose raw rows cannot have
/// expired come first, because something other than expiry makes them differ.
pub fn spans_to_detail(differing: &[Key], arrivals: &BTreeMap<Key, SpanArrivals>) -> Vec<Key> {
    let (may_be, wrong): (Vec<_>, Vec<_>) =
        differing.iter().partition(|key| may_be_dropped(arrivals, key) > 0);
    wrong.into_iter().chain(may_be).take(MAX_FINDINGS).collect()
}

/// How many stored lines of a span may have no raw row any more, because the raw row may have expired.
fn may_be_dropped(arrivals: &BTreeMap<Key, SpanArrivals>, key: &Key) -> u64 {
    arrivals.get(key).map_or(0, |span| span.may_be_dropped)
}

fn of<T: Copy + Default>(spans: &BTreeMap<Key, T>, key: &Key) -> T {
    spans.get(key).copied().unwrap_or_default()
}

/// Judges the ledger and the raw table. For the differing spans, `arrivals` has the number of raw rows that may have
/// expired. For some of these spans, `details` has the numbers of missing and duplicate rows, counted record by record.
pub fn rows(
    frame: &Frame,
    ledger: &BTreeMap<Key, LedgerSpan>,
    raw: &BTreeMap<Key, RawSpan>,
    arrivals: &BTreeMap<Key, SpanArrivals>,
    details: &BTreeMap<Key, (u64, u64)>,
) -> (Vec<Audited>, Vec<Finding>) {
    let mut records = Table::new(LEDGER, note(frame));
    for (key, span) in ledger {
        let LedgerSpan { records: count, repeated, short, over, .. } = *span;
        records.add(|| span_of(*key), count, count + repeated, (short, repeated + over));
    }
    let mut events = Table::new(EVENTS, note(frame));
    let differing: BTreeSet<_> = differing(ledger, raw).into_iter().collect();
    let keys: BTreeSet<_> = ledger.keys().chain(raw.keys()).copied().collect();
    let mut unknown = 0;
    for key in keys {
        let (most, found) = (of(ledger, &key).rows, of(raw, &key).rows);
        if !differing.contains(&key) {
            events.add(|| span_of(key), most, found, (0, 0));
            continue;
        }
        let may_be_dropped = may_be_dropped(arrivals, &key);
        unknown += may_be_dropped;
        let least = most.saturating_sub(may_be_dropped);
        let counted = (least.saturating_sub(found), found.saturating_sub(most));
        let wrong = details.get(&key).copied().unwrap_or(counted);
        events.add(|| span_of(key), found.clamp(least, most), found, wrong);
    }
    if unknown > 0 {
        let kept = date(frame.kept_from());
        events.remark(&format!(
            "{unknown} lines may have arrived before {kept}, so their raw rows may have expired"
        ));
    }
    let mut findings = records.findings;
    findings.extend(events.findings);
    (vec![records.sum, events.sum], findings)
}

/// Judges the rollup of a snapshot: compares its sums with the numbers of raw rows that it must count, which are at
/// index `at` of each day in `days`. `surplus` is set if the raw rows themselves differ from the ledger: it is the
/// number of duplicate raw rows minus the number of missing raw rows. A rollup that differs from the raw rows by
/// `-surplus` agrees with the ledger, so its findings are cleared. If `surplus` is set and a rollup with conditions
/// differs, the rollup is not judged, because `surplus` does not show how many of the missing and duplicate raw rows
/// meet the conditions.
pub fn rollup(
    frame: &Frame,
    snapshot: &Snapshot<'_>,
    at: usize,
    days: &Days,
    declared_in: &DeclaredIn,
    surplus: Option<i64>,
) -> (Audited, Vec<Finding>) {
    let rollup = snapshot.rollup;
    if let Some(why) = &snapshot.left_out {
        return (Audited { table: rollup.name.clone(), note: why.clone(), ..Audited::default() }, Vec::new());
    }
    let undivided = rollup.grain == Grain::None;
    let mut must = BTreeMap::<i64, (u64, u64)>::new();
    for (day, counts) in days {
        let sums = must.entry(if undivided { 0 } else { *day }).or_default();
        let (declared, any) = counts[at];
        *sums = (sums.0 + declared, sums.1 + any);
    }
    let mut notes = Vec::from_iter(Some(note(frame)).filter(|note| !note.is_empty()));
    if !declared_in.always {
        notes.push(
            "some declarations lack this rollup: it must count at least the events stored under the others, at most all"
                .to_owned(),
        );
    }
    if rollup.retention_days.is_some() {
        notes.push("days past its retention are left out".to_owned());
    }
    let mut table = Table::new(&rollup.name, notes.join("; "));
    let days: BTreeSet<_> = must.keys().chain(snapshot.sums.keys()).copied().collect();
    let mut difference = 0_i128;
    for day in days.into_iter().filter(|day| undivided || is_kept(rollup, *day, frame.now)) {
        let whole = if undivided { frame.whole_from.is_none() } else { frame.is_whole(day) };
        let (least, any) = must.get(&day).copied().unwrap_or_default();
        let most = match (whole, declared_in.always) {
            (false, _) => u64::MAX,
            (true, false) => any,
            (true, true) => least,
        };
        let found = snapshot.sums.get(&day).copied().unwrap_or_default();
        let wrong = (least.saturating_sub(found), found.saturating_sub(most));
        let expected = found.clamp(least, most);
        difference += i128::from(found) - i128::from(expected);
        let part = || if undivided { "all".to_owned() } else { format!("events of {}", date(day)) };
        table.add(part, expected, found, wrong);
    }
    match surplus {
        Some(_) if !rollup.conditions.is_empty() && table.is_wrong() => {
            table.clear_findings("not judged: the table events differs from the ledger");
        }
        Some(surplus) if table.is_wrong() && difference == -i128::from(surplus) => {
            table.clear_findings("differs from the table events by as much as the ledger does");
        }
        _ => {}
    }
    (table.sum, table.findings)
}

/// Whether the rollup keeps a day for more than 24 hours from `now` on.
fn is_kept(rollup: &Rollup, day: i64, now: UnixMillis) -> bool {
    rollup.kept_until(UnixMillis(day * DAY)).is_none_or(|until| now.0 + DAY < until.0)
}

/// The result for a table while it is being judged.
struct Table {
    sum: Audited,
    findings: Vec<Finding>,
}

impl Table {
    fn new(table: &str, note: String) -> Self {
        let sum = Audited { table: table.to_owned(), note, ..Audited::default() };
        Self { sum, findings: Vec::new() }
    }

    fn add(
        &mut self,
        part: impl Fn() -> String,
        expected: u64,
        found: u64,
        (missing, duplicate): (u64, u64),
    ) {
        let Audited { table, .. } = &self.sum;
        if missing + duplicate > 0 && self.findings.len() < MAX_FINDINGS {
            let (table, part) = (table.clone(), part());
            self.findings.push(Finding { table, part, expected, found, missing, duplicate });
        }
        self.sum.expected += expected;
        self.sum.found += found;
        self.sum.missing += missing;
        self.sum.duplicate += duplicate;
    }

    fn is_wrong(&self) -> bool {
        !self.findings.is_empty()
    }

    /// Clears the findings, because their cause is in another table, and notes why.
    fn clear_findings(&mut self, why: &str) {
        self.findings.clear();
        (self.sum.missing, self.sum.duplicate) = (0, 0);
        self.remark(why);
    }

    fn remark(&mut self, what: &str) {
        let before = std::mem::take(&mut self.sum.note);
        self.sum.note = if before.is_empty() { what.to_owned() } else { format!("{what}; {before}") };
    }
}

/// The note, which is the same for all tables, about days that are not compared.
fn note(frame: &Frame) -> String {
    match (frame.raw_dropped_before, frame.compared_from) {
        (Some(dropped), Some(from)) => {
            format!("compared from {} on: raw rows before {} were dropped", date(from), date(dropped))
        }
        (None, Some(from)) => format!("compared from {} on", date(from)),
        (_, None) => String::new(),
    }
}

fn span_of((log_generation, partition, span): Key) -> String {
    let first = span * SPAN;
    offsets((log_generation, partition), first, first + SPAN - 1)
}

/// For example `offsets 5-7 of partition 3, log generation 1`. Log generation 0 is not named.
pub fn offsets((log_generation, partition): Log, first: u64, last: u64) -> String {
    let log = if log_generation == 0 { String::new() } else { format!(", log generation {log_generation}") };
    format!("offsets {first}-{last} of partition {partition}{log}")
}

fn date(day: i64) -> String {
    let mut text = UnixMillis(day * DAY).to_string();
    text.truncate("YYYY-MM-DD".len());
    text
}

#[cfg(test)]
mod tests;
