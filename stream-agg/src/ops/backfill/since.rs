//! Stores the moment since which a rollup has every event, after the rollup was filled.
//!
//! Invariant: a backfill replaces only moments that were stored before it read the raw rows. While it reads them, a
//! partition may move to a process without the rollup, or begin to count the rollup. The row that records such a change
//! has a later version, so the backfill does not replace it.

use std::time::Duration;

use runtime::backoff::RetryPolicy;
use schemas::tables::RAW_DAYS;
use schemas::time::{DAY, UnixMillis};
use tokio::time::{self, Instant};

use crate::apply::since::{self, SincePartition, SinceRow};
use crate::apply::store::{Store, StoreError};
use crate::ops::backfill::EXPIRY_MARGIN_MS;
use crate::protocol::since::NOT_COUNTED;

/// How long to wait for partitions that have committed a declaration with the rollup, but have not yet stored the
/// moment since which they count the rollup. They store it right after the commit.
const MAX_SINCE_WAIT: Duration = Duration::from_secs(15);
/// Shortest and longest wait between two queries.
const SINCE_RETRIES: RetryPolicy = RetryPolicy::new(Duration::from_millis(50), Duration::from_secs(1));

/// The moments that were stored for a rollup before it is filled.
pub(super) struct SinceBefore {
    replaced: Vec<SincePartition>,
}

impl SinceBefore {
    /// Reads the stored moments of `rollup`. The partitions `in_use` have a declaration with the rollup. If one of them
    /// does not store its moment within [`MAX_SINCE_WAIT`], its row is not replaced.
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
                    "partitions {} have not stored the moment since which they count `{rollup}`, so readers treat it \
                     as incomplete; run this command again once an aggregator owns these partitions",
                    open.join(", ")
                );
                return Ok(Self { replaced });
            }
            time::sleep(backoff.wait()).await;
        }
    }

    /// Stores that `rollup` has every event that arrived at `first` or later.
    pub(super) async fn replace(
        &self,
        store: &Store,
        rollup: &str,
        first: UnixMillis,
    ) -> Result<(), StoreError> {
        since::write(store, &rows(&self.replaced, rollup, first)).await
    }
}

/// The rows that move the moments in `replaced` back to `first`.
fn rows<'r>(replaced: &[SincePartition], rollup: &'r str, first: UnixMillis) -> Vec<SinceRow<'r>> {
    let later = replaced.iter().filter(|row| row.since_ms > first.0);
    later
        .map(|row| SinceRow {
            rollup,
            partition: row.partition,
            since: first,
            // If an owner of the partition stores a moment after `replaced` was read, it chooses a greater version than
            // this one, because a rebalance takes longer than a millisecond.
            noted: UnixMillis(row.noted_ms + 1),
        })
        .collect()
}

/// The first day that the raw table holds completely at the time `now`.
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
