//! The report of an audit: for people, and for the table `audits`.

use std::fmt;
use std::fmt::Write as _;

use schemas::time::UnixMillis;

use super::gaps::Gap;
use super::judge::offsets;
use super::read::LEDGER;
use super::{Audit, AuditError, Audited, Finding};
use crate::apply::store::Store;

/// Adds an audit to the table `audits`: a row for each audited table, a row for each finding, a row that counts the
/// offsets in the ledger, and a row for each gap.
///
/// # Errors
/// ClickHouse did not answer, or refused the request.
pub async fn record(store: &Store, audit: &Audit) -> Result<(), AuditError> {
    let failed = |source| AuditError { what: "write the table audits", source };
    store.execute(&insert(audit)).await.map_err(failed)
}

fn insert(audit: &Audit) -> String {
    let mut sql = "INSERT INTO audits (audited_at, table, part, expected, found, missing, duplicate, note) \
                   SETTINGS async_insert = 0 VALUES"
        .to_owned();
    let at = UnixMillis(audit.at);
    let mut separator = "";
    let mut row = |table: &str, part: &str, numbers: [u64; 4], note: &str| {
        let [expected, found, missing, duplicate] = numbers;
        // Writing to a String cannot fail.
        let _ = write!(
            sql,
            "{separator} ('{at}', '{table}', '{part}', {expected}, {found}, {missing}, {duplicate}, '{note}')"
        );
        separator = ",";
    };
    for Audited { table, expected, found, missing, duplicate, note } in &audit.tables {
        row(table, "all", [*expected, *found, *missing, *duplicate], note);
    }
    for Finding { table, part, expected, found, missing, duplicate } in &audit.findings {
        row(table, part, [*expected, *found, *missing, *duplicate], "");
    }
    row(LEDGER, "offsets", [audit.offsets.expected, audit.offsets.found, 0, 0], "");
    for Gap { log_generation, partition, first, last } in &audit.offsets.gaps {
        let part = offsets((*log_generation, *partition), *first, *last);
        row(LEDGER, &part, [last - first + 1, 0, 0, 0], "in no ledger row");
    }
    sql
}

/// For example `events, offsets 0-9999 of partition 3: 1 missing, 0 duplicate; found 59, expected 60`.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, part, expected, found, missing, duplicate } = self;
        write!(
            f,
            "{table}, {part}: {missing} missing, {duplicate} duplicate; found {found}, expected {expected}"
        )
    }
}

/// A line for each audited table, then the findings, the gaps and the verdict.
impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.tables.iter().map(|table| table.table.len());
        let width = names.max().unwrap_or_default().max("table".len());
        writeln!(
            f,
            "{:width$} {:>14} {:>14} {:>9} {:>9}  note",
            "table", "expected", "found", "missing", "duplicate"
        )?;
        for Audited { table, expected, found, missing, duplicate, note } in &self.tables {
            let line =
                format!("{table:width$} {expected:>14} {found:>14} {missing:>9} {duplicate:>9}  {note}");
            writeln!(f, "{}", line.trim_end())?;
        }
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        for gap in &self.offsets.gaps {
            writeln!(f, "{gap}")?;
        }
        let (missing, duplicate, gaps) = (self.missing(), self.duplicate(), self.offsets.in_gaps());
        if gaps > 0 {
            writeln!(f, "{GAPS}")?;
        }
        let verdict = match (missing + duplicate, gaps) {
            (0, 0) => "sound",
            (0, _) => "incomplete",
            _ => "wrong",
        };
        writeln!(f, "audit: {verdict}, missing={missing} duplicate={duplicate} gaps={gaps}")
    }
}

/// How an operator finds the cause of a gap.
const GAPS: &str = "Read the log from the first offset of a gap (kafka-console-consumer --partition … --offset …). \
     If Kafka has a record at an offset of the gap, aggregators passed over it by mistake and it is in no table: send \
     its lines to the edge again. If the first record that is read comes after the gap, Kafka has no record in the \
     gap: a transaction or compaction left the offsets empty, or retention deleted the records.";

#[cfg(test)]
mod tests;
