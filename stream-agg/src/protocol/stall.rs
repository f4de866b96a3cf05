//! Finds stalled partitions: the log has records that are not applied, but the aggregator applies none of them.
//!
//! Most causes of a stall are reported elsewhere, with a better message. This check finds the stalls whose cause was
//! not expected. Pure: the caller passes the time.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::protocol::progress::NextOffset;

/// A partition is stalled if records have waited this long and none of them was applied. An insert and one retry
/// usually take less time.
pub const STALLED_AFTER: Duration = Duration::from_secs(90);

/// For each partition: the first offset that is not applied, and the latest time at which this offset had changed or no
/// record was waiting.
#[derive(Debug, Default)]
pub struct Stalls(BTreeMap<i32, (Option<NextOffset>, Instant)>);

impl Stalls {
    /// Notes the state of `partition` at `now`, and returns whether the partition is stalled. `next` is the first
    /// offset that is not applied, or `None` before the partition is restored. `waits` says whether records wait: it
    /// is false if the end of the log is unknown; otherwise it is true if the end is after `next` or `next` is `None`.
    pub fn is_stalled(
        &mut self,
        partition: i32,
        next: Option<NextOffset>,
        waits: bool,
        now: Instant,
    ) -> bool {
        let (known, since) = self.0.entry(partition).or_insert((next, now));
        if *known != next || !waits {
            (*known, *since) = (next, now);
        }
        now.duration_since(*since) >= STALLED_AFTER
    }

    /// Forgets the partitions for which `is_gone` is true, and returns them.
    pub fn forget(&mut self, is_gone: impl Fn(i32) -> bool) -> Vec<i32> {
        self.0.extract_if(.., |partition, _| is_gone(*partition)).map(|(partition, _)| partition).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks every ten seconds whether a partition is stalled. The answer must be yes at exactly the `expected` seconds.
    #[track_caller]
    fn check(observe: impl Fn(u64) -> (Option<i64>, bool), expected: &[u64]) {
        let (start, mut stalls) = (Instant::now(), Stalls::default());
        let is_stalled = |second: &u64| {
            let (next, waits) = observe(*second);
            stalls.is_stalled(3, next.map(NextOffset::new), waits, start + Duration::from_secs(*second))
        };
        let found: Vec<_> = (0..=200).step_by(10).filter(is_stalled).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_partition_is_stalled_if_no_waiting_record_is_applied_for_90_seconds() {
        check(|_| (Some(7), true), &(90..=200).step_by(10).collect::<Vec<_>>());
        check(|second| (Some(if second < 100 { 7 } else { 8 }), true), &[90, 190, 200]);
        check(|second| (Some(i64::try_from(second).unwrap()), true), &[]);
    }

    #[test]
    fn without_waiting_records_it_is_not_stalled_but_without_a_restore_it_is() {
        check(|_| (Some(7), false), &[]);
        check(|second| (Some(7), second != 80), &[170, 180, 190, 200]);
        check(|_| (None, true), &(90..=200).step_by(10).collect::<Vec<_>>());
    }

    #[test]
    fn a_revoked_partition_is_forgotten_once_and_its_time_starts_anew() {
        let (start, mut stalls) = (Instant::now(), Stalls::default());
        let next = Some(NextOffset::new(7));
        assert!(!stalls.is_stalled(3, next, true, start));
        assert!(stalls.is_stalled(3, next, true, start + STALLED_AFTER));
        assert_eq!(stalls.forget(|partition| partition == 3), [3]);
        assert!(stalls.forget(|partition| partition == 3).is_empty());
        assert!(!stalls.is_stalled(3, next, true, start + STALLED_AFTER));
    }
}
