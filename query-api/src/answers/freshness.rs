//! How fresh the answers are, and which rollups the aggregator stores. The first SELECT of the statement.
//!
//! Scalar subqueries: ClickHouse evaluates them before it selects the data parts of the tables that follow
//! in the statement, so no row is older than `as_of` says.

use schemas::time::UnixMillis;

use super::row::{Columns, SnapshotRow};

/// A scalar subquery: everything that was in Kafka before this moment is in every table, in milliseconds since
/// 1970. The minimum over all partitions of the topic in the newest generation of the Kafka log; 0 while a
/// partition has not reported.
pub(crate) const AS_OF: &str = "assumeNotNull((SELECT if(count() >= max(partitions), toUnixTimestamp64Milli(min(as_of)), 0) FROM (SELECT kp, max(partitions) AS partitions, max(as_of) AS as_of FROM progress WHERE g = (SELECT max(g) FROM progress) GROUP BY kp)))";

/// A scalar subquery: the hash of the rollups that the aggregator started with last; 0 before one has started.
pub(crate) const ROLLUPS: &str = "assumeNotNull((SELECT argMax(rollups, since) FROM configs))";

/// The SELECT.
pub(crate) fn select() -> String {
    let columns = Columns { as_of: AS_OF, rollups: ROLLUPS, ..Columns::DEFAULT };
    columns.select_named()
}

/// Hash of the rollups that the aggregator started with last; 0 before one has started.
pub(crate) fn aggregator_rollups(rows: &[SnapshotRow]) -> u64 {
    rows.iter().map(|row| row.rollups).max().unwrap_or(0)
}

/// Everything that was in Kafka before this moment is in every table; `None` before the aggregator has
/// reported progress of every partition. `rows` are those that belong to no answer.
pub(crate) fn as_of(rows: &[SnapshotRow]) -> Option<UnixMillis> {
    rows.iter().map(|row| row.as_of).find(|as_of| *as_of > 0).map(UnixMillis)
}
