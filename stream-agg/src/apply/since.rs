//! The table `rollup_since`: from which moment on a rollup has every event of a Kafka partition
//! ([`crate::protocol::since`]).
//!
//! Invariant: each row has a version, `noted`, that the writer chose before it sent the statement. The table is a
//! `ReplacingMergeTree(noted)`, so of each rollup and partition only the row with the highest version counts, and a
//! statement that arrives late does not replace a newer row.

use std::fmt::Write as _;

use schemas::time::UnixMillis;

use crate::apply::store::{Store, StoreError};
use crate::protocol::since::NotedSince;

/// A row to write to `rollup_since`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SinceRow<'r> {
    /// The name of the rollup.
    pub rollup: &'r str,
    /// The Kafka partition.
    pub partition: u16,
    /// The rollup has every event of the Kafka partition that arrived at this moment or later.
    pub since: UnixMillis,
    /// The version of the row. The row replaces rows of the same rollup and partition that have a lower version.
    pub noted: UnixMillis,
}

/// The row of a rollup for one Kafka partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clickhouse::Row, serde::Deserialize)]
pub struct SincePartition {
    /// The Kafka partition.
    #[serde(rename = "kp")]
    pub partition: u16,
    /// The moment from which on the rollup has every event of the Kafka partition, in milliseconds since 1970.
    pub since_ms: i64,
    /// The version of the row, in milliseconds since 1970.
    pub noted_ms: i64,
}

/// The row that the query of [`of_partition`] returns.
#[derive(clickhouse::Row, serde::Deserialize)]
struct PartitionRow {
    version_ms: i64,
    all: Vec<(String, i64)>,
}

/// The stored moments of a Kafka partition, and the version of the rows to write next. This version is the later of two
/// times: ClickHouse's time, and one millisecond after the highest stored version of the partition.
///
/// # Errors
/// The error of ClickHouse.
pub async fn of_partition(store: &Store, partition: u16) -> Result<(NotedSince, UnixMillis), StoreError> {
    let sql = format!(
        "SELECT toUnixTimestamp64Milli(greatest(now64(3, 'UTC'), max(noted) + INTERVAL 1 MILLISECOND)) AS version_ms, \
         groupArray((rollup, toUnixTimestamp64Milli(since))) AS all \
         FROM rollup_since FINAL WHERE kp = {partition}"
    );
    let rows: Vec<PartitionRow> = store.rows(&sql).await?;
    let PartitionRow { version_ms, all } =
        rows.into_iter().next().expect("an aggregate without groups has one row");
    Ok((all.into_iter().map(|(name, since)| (name, UnixMillis(since))).collect(), UnixMillis(version_ms)))
}

/// The rows of a rollup, by Kafka partition.
///
/// # Errors
/// The error of ClickHouse.
pub async fn of_rollup(store: &Store, rollup: &str) -> Result<Vec<SincePartition>, StoreError> {
    let sql = format!(
        "SELECT kp, toUnixTimestamp64Milli(since) AS since_ms, toUnixTimestamp64Milli(noted) AS noted_ms \
         FROM rollup_since FINAL WHERE rollup = '{rollup}' ORDER BY kp"
    );
    store.rows(&sql).await
}

/// ClickHouse's time.
///
/// # Errors
/// The error of ClickHouse.
pub async fn now(store: &Store) -> Result<UnixMillis, StoreError> {
    let now: Vec<i64> = store.rows("SELECT toUnixTimestamp64Milli(now64(3))").await?;
    Ok(UnixMillis(now.first().copied().unwrap_or_default()))
}

/// The latest append time of a record of a Kafka partition, in any generation of its log. `None` if the ledger has no
/// record that Kafka appended at `least` or later.
///
/// # Errors
/// The error of ClickHouse.
pub async fn latest_record(
    store: &Store,
    partition: u16,
    least: UnixMillis,
) -> Result<Option<UnixMillis>, StoreError> {
    let sql = format!(
        "SELECT toUnixTimestamp64Milli(max(kafka_time)) FROM ledger WHERE tenant = '*' AND kp = {partition} \
         AND kafka_time >= '{least}' HAVING count() > 0"
    );
    let latest: Vec<i64> = store.rows(&sql).await?;
    Ok(latest.first().copied().map(UnixMillis))
}

/// Writes rows, in one statement. Writing them again changes nothing.
///
/// # Errors
/// The error of ClickHouse.
pub async fn write(store: &Store, rows: &[SinceRow<'_>]) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut sql =
        "INSERT INTO rollup_since (rollup, kp, since, noted) SETTINGS async_insert = 0 VALUES".to_owned();
    for (at, SinceRow { rollup, partition, since, noted }) in rows.iter().enumerate() {
        let separator = if at == 0 { "" } else { "," };
        // Writing to a String cannot fail.
        let _ = write!(sql, "{separator} ('{rollup}', {partition}, '{since}', '{noted}')");
    }
    store.execute(&sql).await
}
