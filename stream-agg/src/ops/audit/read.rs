//! The queries of an audit. Each one is limited in time, memory and threads.

use std::collections::BTreeMap;
use std::time::Duration;

use schemas::row::TimeLimits;
use schemas::time::UnixMillis;

use super::frame::{Frame, Held, Log, day};
use crate::apply::store::{Store, StoreError};
use sql::start_of;

mod spans;

mod rollups;

mod sql;

pub use rollups::DeclaredIn;
pub use spans::{LedgerSpan, RawSpan, SpanArrivals};

/// The name of the raw table, which has one row for each stored event.
pub const EVENTS: &str = "events";
/// The name of the ledger in ClickHouse.
pub const LEDGER: &str = "ledger";
/// Number of consecutive offsets whose rows are compared as one sum.
pub const SPAN: u64 = 10_000;

/// A span, which is [`SPAN`] offsets of a log: log generation, Kafka partition, and first offset divided by [`SPAN`].
pub type Key = (u16, u16, u64);

/// Reads what an audit compares.
pub struct Reader<'s> {
    /// The database.
    pub store: &'s Store,
    /// Timeout of one query.
    pub query_timeout: Duration,
}

impl Reader<'_> {
    async fn rows<T>(&self, sql: &str) -> Result<Vec<T>, StoreError>
    where
        T: clickhouse::RowOwned + clickhouse::RowRead,
    {
        let seconds = self.query_timeout.as_secs();
        let sql = format!(
            "{sql} SETTINGS max_threads = 2, max_memory_usage = 1073741824, max_execution_time = {seconds}, \
             optimize_aggregation_in_order = 1"
        );
        self.store.rows_within(self.query_timeout, &sql).await
    }

    /// Which offsets and which of the last `days` days can be compared.
    pub async fn frame(&self, days: u16, time: TimeLimits) -> Result<Frame, StoreError> {
        let progress = self.progress().await?;
        let millis = "toUnixTimestamp64Milli";
        let sql = format!(
            "SELECT {millis}(now64(3)), \
             ifNull((SELECT {millis}(min(since)) FROM configs), 0), \
             ifNull((SELECT {millis}(min(server_time)) FROM {EVENTS}), 0), \
             ifNull((SELECT {millis}(min(kafka_time)) FROM {LEDGER} WHERE tenant != '' AND stored > 0), 0)"
        );
        let rows: Vec<(i64, i64, i64, i64)> = self.rows(&sql).await?;
        let (now, since, raw, stored) = rows.first().copied().unwrap_or_default();
        let day = |millis: i64| day(UnixMillis(millis));
        let first = |millis: i64| (millis != 0).then(|| day(millis));
        let held = Held { now: UnixMillis(now), since: day(since), raw: first(raw), stored: first(stored) };
        let mut frame = Frame::new(&held, days, progress, time);
        frame.set_floors(&self.first_offsets(frame.compared_from.unwrap_or(0)).await?);
        Ok(frame)
    }

    /// For each log with records of the day `from` or later, by Kafka's time: an offset at and above which every record
    /// is of these days. Usually this is the lowest offset of the records of these days. If Kafka's clock was set back,
    /// records of earlier days may follow that offset. The highest marker of the days before `from` is above all
    /// records of those days, so the function returns this marker if it is greater.
    async fn first_offsets(&self, from: i64) -> Result<BTreeMap<Log, u64>, StoreError> {
        let from = start_of(from);
        let sql = format!(
            "SELECT g, kp, max(at) FROM (\
             SELECT g, kp, min(ko) AS at, 1 AS known FROM {LEDGER} \
             WHERE tenant = '*' AND kafka_time >= {from} GROUP BY g, kp \
             UNION ALL SELECT g, kp, max(hwm), 0 FROM {LEDGER} \
             WHERE tenant = '' AND kafka_time < {from} GROUP BY g, kp\
             ) GROUP BY g, kp HAVING max(known) = 1"
        );
        Ok(by_log(self.rows(&sql).await?))
    }

    /// For each log, the offset below which every record is in every table.
    pub async fn progress(&self) -> Result<BTreeMap<Log, u64>, StoreError> {
        let sql = "SELECT g, kp, argMax(next_offset, (as_of, next_offset)) FROM progress GROUP BY g, kp";
        Ok(by_log(self.rows(sql).await?))
    }
}

/// The offset of each log, from rows of log generation, Kafka partition and offset.
fn by_log(rows: Vec<(u16, u16, u64)>) -> BTreeMap<Log, u64> {
    rows.into_iter()
        .map(|(log_generation, partition, offset)| ((log_generation, partition), offset))
        .collect()
}
