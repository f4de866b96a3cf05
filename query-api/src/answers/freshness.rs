//! How fresh the answers are, and which rollups the aggregator stores: the first SELECT of the statement that reads
//! all answers.
//!
//! This SELECT consists of scalar subqueries, because ClickHouse evaluates them before it selects the data parts of the
//! tables in the other SELECTs. So the other SELECTs read everything that was in Kafka before `as_of`.

use clickhouse::query::Query;
use schemas::time::UnixMillis;

use super::row::{Columns, SnapshotRow};
use crate::reach::Reach;

/// A scalar subquery: a moment, in milliseconds since 1970; everything that was in Kafka before it is in every table.
/// The moment is the minimum over all partitions of the topic. Only progress in the newest generation of the Kafka log
/// counts. The moment is 0 until the aggregator has reported progress of every partition in this generation.
const AS_OF: &str = "assumeNotNull((SELECT argMax(known, g) FROM (SELECT g, if(count() >= max(partitions), toUnixTimestamp64Milli(min(as_of)), 0) AS known FROM progress FINAL GROUP BY g)))";

/// A scalar subquery: the hash of the rollups of the aggregator that started last; 0 if no aggregator has started yet.
const ROLLUPS: &str = "assumeNotNull((SELECT argMax(rollups, since) FROM configs))";

/// A scalar subquery: the text of the rollups whose hash [`ROLLUPS`] returns; empty if the hash is 0 or equals the
/// value of the `?`, which is the hash of the rollups of this process.
const DECLARED: &str = "assumeNotNull((SELECT if(argMax(rollups, since) IN (0, ?), '', JSONExtractString(argMax(declared, since), 'rollups')) FROM configs))";

/// A scalar subquery: for each rollup, its name and the moment from which on the rollup has every event.
const SINCE: &str = "(SELECT CAST(groupArray((Name, Since)), 'Array(Tuple(String, Int64))') FROM (SELECT toString(rollup) AS Name, toUnixTimestamp64Milli(max(since)) AS Since FROM rollup_since FINAL GROUP BY Name))";

/// The text of the SELECT that returns freshness and rollups.
pub(crate) fn select() -> String {
    let columns =
        Columns { as_of: AS_OF, rollups: ROLLUPS, declared: DECLARED, since: SINCE, ..Columns::DEFAULT };
    columns.select_named()
}

/// Binds the only `?` of [`select`]: the hash of the rollups of this process.
pub(crate) fn bind(statement: Query, ours: u64) -> Query {
    statement.bind(ours)
}

/// Hash of the rollups of the aggregator that started last; 0 if no aggregator has started yet.
pub(crate) fn aggregator_rollups_hash(rows: &[SnapshotRow]) -> u64 {
    rows.iter().map(|row| row.rollups).max().unwrap_or(0)
}

/// The [`Reach`] of the tables, from the only row of [`select`].
pub(crate) fn reach(rows: &[SnapshotRow]) -> Reach {
    row(rows).map_or_else(Reach::default, |row| Reach::new(as_of(rows), &row.since, &row.declared))
}

/// Everything that was in Kafka before this moment is in every table; `None` before the aggregator has
/// reported progress of every partition.
pub(crate) fn as_of(rows: &[SnapshotRow]) -> Option<UnixMillis> {
    row(rows).map(|row| row.as_of).filter(|as_of| *as_of > 0).map(UnixMillis)
}

/// The only row that [`select`] returned.
fn row(rows: &[SnapshotRow]) -> Option<&SnapshotRow> {
    rows.iter().find(|row| row.part == 0)
}
