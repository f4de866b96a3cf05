//! Reads the tables of rollups, and the raw rows of the same days.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use schemas::rollup::{Dimension, PropPath, Rollup, Rollups};
use schemas::time::DAY;

use super::sql::{LOG, by_log_number, log_number, lookup, start_of};
use super::{EVENTS, Reader};
use crate::apply::store::StoreError;
use crate::ops::audit::frame::{Frame, Log};
use crate::ops::audit::judge::{Snapshot, SnapshotRow};
use crate::protocol::declaration::{Declaration, known};

/// Which of the stored declarations contain a rollup exactly as this process declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredIn {
    /// The hashes of the declarations that contain the rollup unchanged.
    pub declaration_hashes: Vec<u64>,
    /// Whether all stored declarations contain the rollup unchanged.
    pub always: bool,
}

impl Reader<'_> {
    /// For each rollup, which of the stored declarations contain it unchanged.
    pub async fn declared_in(&self, rollups: &Rollups) -> Result<Vec<DeclaredIn>, StoreError> {
        let rows: Vec<(u64, String)> = self.rows("SELECT DISTINCT cfg, declared FROM configs").await?;
        let all: Vec<_> = rows
            .into_iter()
            .map(|(declaration_hash, text)| (declaration_hash, known(declaration_hash, &[text]).ok()))
            .collect();
        let of_rollup = |rollup: &Rollup| {
            let contains = |declaration: &Option<Declaration>| {
                declaration.as_ref().is_some_and(|d| d.rollups.get(&rollup.name) == Some(rollup))
            };
            let declaration_hashes: Vec<_> = all
                .iter()
                .filter(|(_, d)| contains(d))
                .map(|(declaration_hash, _)| *declaration_hash)
                .collect();
            DeclaredIn { always: declaration_hashes.len() == all.len(), declaration_hashes }
        };
        Ok(rollups.iter().map(of_rollup).collect())
    }

    /// The sums and the markers of a rollup, read from the same parts. Markers of a backfill are left out, because they
    /// do not contain offsets of a log.
    pub async fn rollup(&self, rollup: &Rollup) -> Result<Vec<SnapshotRow>, StoreError> {
        let sql = format!(
            "SELECT toInt64(intDiv(toUnixTimestamp(bucket), 86400)) AS day, toUInt64(toUInt16(expires)) AS expiry, \
             tenant = '' AS marker, g, kp, sum(rows), max(hwm) FROM {} \
             WHERE (tenant != '' AND rollup = '{}') OR (tenant = '' AND rollup = '') \
             GROUP BY day, expiry, marker, g, kp",
            rollup.table().name(),
            rollup.name
        );
        type Row = (i64, u64, u8, u16, u16, u64, u64);
        let rows: Vec<Row> = self.rows(&sql).await?;
        let read = |(day, expiry, marker, log_generation, partition, sum, applied_end): Row| {
            if marker == 1 {
                SnapshotRow::Marker { expiry, log: (log_generation, partition), applied_end }
            } else {
                SnapshotRow::Sum { day, sum }
            }
        };
        Ok(rows.into_iter().map(read).collect())
    }

    /// Numbers of raw rows by the day of the event (days since 1970). For each rollup, counts the raw rows that meet
    /// its conditions and whose offset is below `progress`, or below the marker of the table partition in which the
    /// rollup counts the row ([`Snapshot::cuts`]). Each rollup gets two numbers. The first counts only rows that were
    /// stored under a declaration that contains the rollup unchanged. The second counts rows that were stored under any
    /// declaration.
    pub async fn days(
        &self,
        frame: &Frame,
        snapshots: &[Snapshot<'_>],
        declared_in: &[DeclaredIn],
    ) -> Result<BTreeMap<i64, Vec<(u64, u64)>>, StoreError> {
        let mut counts = Vec::new();
        for (snapshot, declared_in) in snapshots.iter().zip(declared_in) {
            let rollup = snapshot.rollup;
            let expiry = format!("toUInt64({})", rollup.expires_sql("toUnixTimestamp64Milli(event_time)"));
            let cell = |(expiry, (log_generation, partition)): (u64, Log)| {
                expiry << 32 | log_number((log_generation, partition))
            };
            let cuts = snapshot.cuts.iter().map(|(at, applied_end)| (cell(*at), *applied_end));
            let cut = lookup(&format!("bitShiftLeft({expiry}, 32) + log"), cuts, 0);
            let counted = format!("(ko < bound OR ko < {cut}) AND {}", condition(rollup));
            let stored = if declared_in.always {
                counted.clone()
            } else {
                let declaration_hashes: Vec<_> =
                    declared_in.declaration_hashes.iter().map(u64::to_string).collect();
                format!("{counted} AND has(CAST([{}], 'Array(UInt64)'), cfg)", declaration_hashes.join(", "))
            };
            counts.push(format!("(countIf({stored}), countIf({counted}))"));
        }
        if counts.is_empty() {
            return Ok(BTreeMap::new());
        }
        let sql = format!(
            "WITH {LOG} AS log, {bound} AS bound, \
             toUnixTimestamp64Milli(client_time) AS sent, toUnixTimestamp64Milli(server_time) AS arrived, \
             if(sent >= {earliest} AND sent <= arrived + {ahead}, client_time, server_time) AS event_time \
             SELECT intDiv(toUnixTimestamp64Milli(event_time), {DAY}) AS day, [{counts}] AS counts FROM {EVENTS} \
             WHERE tenant != '' AND server_time >= {from} GROUP BY day",
            bound = lookup("log", by_log_number(&frame.progress), 0),
            earliest = frame.time.earliest.0,
            ahead = frame.time.ahead,
            counts = counts.join(", "),
            from = start_of(frame.raw_from().unwrap_or(0)),
        );
        // One row for each day and rollup, because the client cannot read an array into a Rust tuple.
        let sql = format!(
            "SELECT day, pair.1, pair.2 FROM ({sql}) ARRAY JOIN counts AS pair, \
             arrayEnumerate(counts) AS at ORDER BY day, at"
        );
        let rows: Vec<(i64, u64, u64)> = self.rows(&sql).await?;
        let mut days = BTreeMap::<_, Vec<_>>::new();
        for (day, declared, any) in rows {
            days.entry(day).or_default().push((declared, any));
        }
        Ok(days)
    }
}

/// SQL condition: whether the rollup counts the raw row.
fn condition(rollup: &Rollup) -> String {
    let quoted = |text: &String| format!("'{}'", escaped(text));
    let mut sql = "1".to_owned();
    for condition in &rollup.conditions {
        let field = match &condition.field {
            Dimension::Column(column) => column.name().to_owned(),
            Dimension::Prop(path) => prop(path),
        };
        let values: Vec<_> = condition.values.iter().map(quoted).collect();
        // Writing to a String cannot fail.
        let _ = write!(sql, " AND {field} IN ({})", values.join(", "));
    }
    sql
}

/// SQL expression: the text of the value at a path of `props`. It equals the text that
/// [`crate::rows::decode::props::scalar`] returns, unless the value is a number: ClickHouse formats numbers in another
/// way.
fn prop(path: &PropPath) -> String {
    let texts = nestings(path.steps()).into_iter().map(|names| {
        let names: Vec<_> = names.iter().map(|name| format!("'{}'", escaped(name))).collect();
        let at = format!("props, {}", names.join(", "));
        format!(
            "JSONType({at}) = 'String', JSONExtractString({at}), \
             JSONType({at}) IN ('Bool', 'Int64', 'UInt64', 'Double'), JSONExtractRaw({at})"
        )
    });
    format!("multiIf({}, '')", texts.collect::<Vec<_>>().join(", "))
}

/// All ways to join the steps of a path by dots into names of nested fields, the longest names first: `["a.b"]` and
/// `["a", "b"]` for the steps `a` and `b`.
fn nestings(steps: &[String]) -> Vec<Vec<String>> {
    if steps.is_empty() {
        return vec![Vec::new()];
    }
    let named = |length: usize| {
        let name = steps[..length].join(".");
        let rest = nestings(&steps[length..]).into_iter();
        rest.map(move |rest| [vec![name.clone()], rest].concat())
    };
    (1..=steps.len()).rev().flat_map(named).collect()
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\'', "\\'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_looked_up_by_its_longest_names_first() {
        let steps: Vec<_> = ["a", "b", "c"].map(str::to_owned).into();
        let ways: Vec<_> = nestings(&steps).iter().map(|names| names.join("/")).collect();
        assert_eq!(ways, ["a.b.c", "a.b/c", "a/b.c", "a/b/c"]);
    }
}
