//! What an audit says to people, and to the table `audits`.

use std::fmt;
use std::fmt::Write as _;

use schemas::time::UnixMillis;

use super::{Audit, AuditError, Audited, Finding};
use crate::store::Store;

/// Adds an audit to the table `audits`: a row for each table, and one for each finding.
///
/// # Errors
/// ClickHouse did not take them.
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
    sql
}

/// `events, offsets 0-9999 of partition 3: 1 missing, 0 duplicate; 59 of 60`.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, part, expected, found, missing, duplicate } = self;
        write!(f, "{table}, {part}: {missing} missing, {duplicate} duplicate; {found} of {expected}")
    }
}

/// A table with a line for each table, the findings, and the verdict.
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
        let (missing, duplicate) = (self.missing(), self.duplicate());
        let verdict = if missing + duplicate == 0 { "sound" } else { "wrong" };
        writeln!(f, "audit: {verdict}, missing={missing} duplicate={duplicate}")
    }
}
