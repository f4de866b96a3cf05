//! After a backfill has filled a rollup, moves back the moment from which the rollup has every event. The table
//! `rollup_since` has one such moment for each rollup and Kafka partition.
//!
//! Invariant: a backfill replaces only moments that were stored before it read the raw rows. While it reads them, a
//! partition may move to a process that does not count the rollup, or to one that begins to count it. Such a process
//! stores its own moment with a greater version than the backfill, so ClickHouse keeps the moment of that process.

use std::time::Duration;

use runtime::backoff::RetryPolicy;
use schemas::tables::RAW_DAYS;
use schemas::time::{DAY, UnixMillis};
use tokio::time::{self, Instant};

use crate::apply::since::{self, SincePartition, SinceRow};
use crate::apply::store::{Store, StoreError};
use crate::ops::backfill::EXPIRY_MARGIN_MS;
use crate::protocol::since::NOT_COUNTED;

/// How long to wait for aggregators that have committed a declaration with the rollup for a partition, but have not yet
/// stored the moment from which on they count the rollup. They store this moment right after the commit.
const MAX_SINCE_WAIT: Duration = Duration::from_secs(15);
/// Shortest and longest wait between two queries of the stored moments.
const SINCE_RETRIES: RetryPolicy = RetryPolicy::new(Duration::from_millis(50), Duration::from_secs(1));

/// The moments of a rollup that were stored before a backfill, and that the backfill may replace.
pub(super) struct SinceBefore {
    replaced: Vec<SincePartition>,
}

impl SinceBefore {
    /// Reads the stored moments of `rollup`. `in_use` lists the partitions whose declaration contains the rollup. Waits
    /// up to [`MAX_SINCE_WAIT`] while the row of any of these partitions still has [`NOT_COUNTED`] instead of a moment.
    /// The backfill does not replace such a row.
    pub(super) async fn read(store: &Store, rollup: &str, in_use: &[u16]) -> Result<Self, StoreError> {
        let mut backoff = SINCE_RETRIES.backoff();
        let latest = Instant::now() + MAX_SINCE_WAIT;
        loop {
            let all = since::of_rollup(store, rollup).await?;
            let is_open =
                |row: &SincePartition| row.since_ms == NOT_COUNTED.0 && in_use.contains(&row.partition);
            let (open, replaced): (Vec<_>, Vec<_>) = all.into_iter().partition(is_open);
            if open.is_empty() {
                return Ok(Self { replaced });
            }
            if Instant::now() >= latest {
                let open: Vec<_> = open.iter().map(|row| row.partition.to_string()).collect();
                tracing::warn!(
                    "for partitions {}, no aggregator has stored the moment from which on it counts `{rollup}`, so \
                     readers treat `{rollup}` as incomplete; run this command again once an aggregator owns these \
                     partitions",
                    open.join(", ")
                );
                return Ok(Self { replaced });
            }
            time::sleep(backoff.wait()).await;
        }
    }

    /// Stores, for the partitions that were read, that `rollup` has every event that arrived at `first` or later.
    pub(super) async fn replace(
        &self,
        store: &Store,
        rollup: &str,
        first: UnixMillis,
    ) -> Result<(), StoreError> {
        since::write(store, &rows(&self.replaced, rollup, first)).await
    }
}

/// The rows that move the moments in `replaced` back to `first`. Moments at or before `first` get no row.
fn rows<'r>(replaced: &[SincePartition], rollup: &'r str, first: UnixMillis) -> Vec<SinceRow<'r>> {
    let later = replaced.iter().filter(|row| row.since_ms > first.0);
    later
        .map(|row| SinceRow {
            rollup,
            partition: row.partition,
            since: first,
            // If a new owner of the partition has stored a moment since `replaced` was read, the version of that moment
            // must be greater than this one. Unless ClickHouse's clock was set back, that version is ClickHouse's time
            // after a rebalance. The rebalance began after `noted_ms` and took longer than a millisecond.
            noted: UnixMillis(row.noted_ms + 1),
        })
        .collect()
}

/// The first day whose raw rows ClickHouse certainly keeps for [`EXPIRY_MARGIN_MS`] after `now`.
pub(super) fn first_raw_day(now: UnixMillis) -> UnixMillis {
    UnixMillis(UnixMillis(now.0 + EXPIRY_MARGIN_MS).floor(DAY).0 - i64::from(RAW_DAYS) * DAY)
}

#[cfg(test)]
mod tests {
    use schemas::tables::partition_droppable_from;
    use schemas::time::HOUR;

    use super::*;

    #[test]
    fn the_first_raw_day_is_the_first_one_that_is_not_about_to_be_dropped() {
        for now in [20_000 * DAY, 20_000 * DAY + 22 * HOUR, 20_000 * DAY + 23 * HOUR, 20_001 * DAY - 1] {
            let first = first_raw_day(UnixMillis(now));
            let is_held =
                |day: i64| now < partition_droppable_from(UnixMillis(day), RAW_DAYS).0 - EXPIRY_MARGIN_MS;
            assert!(is_held(first.0) && !is_held(first.0 - DAY), "{first} at {}", UnixMillis(now));
        }
    }

    #[test]
    fn a_moment_only_moves_back_and_only_in_rows_that_were_read() {
        let row = |partition, since_ms| SincePartition { partition, since_ms, noted_ms: 50 };
        let moved = rows(&[row(0, 9), row(1, 10), row(2, 11), row(3, NOT_COUNTED.0)], "r", UnixMillis(10));
        let row =
            |partition| SinceRow { rollup: "r", partition, since: UnixMillis(10), noted: UnixMillis(51) };
        assert_eq!(moved, [row(2), row(3)]);
    }
}
