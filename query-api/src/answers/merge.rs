//! Whether the users of an hour or a day need to be merged again.
//!
//! Merging takes about 100 ns for each user; counting events costs almost nothing. So the users of an hour or a day are
//! merged only if the number of its events has changed since the last merge, or if the last merge is not settled.
//!
//! Events and users are in two tables, and the inserts of a batch into these tables end at different times. So a merge
//! soon after the number of events changed may lack the users of the new events. Invariant: a merge is settled only if
//! its `as_of` is at least [`CLOCK_SKEW`] later than the arrival of the answer to the first merge with the present
//! number of events. The counted events were in Kafka before this arrival, and a merge includes the users of everything
//! that was in Kafka before the `as_of` of the merge.

use schemas::time::{SECOND, UnixMillis};

/// Largest difference, in milliseconds, that is expected between the clock of this process and the clocks from which
/// `as_of` comes: those of the aggregator and of Kafka's brokers.
const CLOCK_SKEW: i64 = 2 * SECOND;

/// The last merge of the users of an hour or a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Merge {
    /// The number of events at the merge.
    pub(super) events: u64,
    /// Distinct users.
    pub(super) users: u64,
    /// When the answer to the first merge with this number of events arrived.
    changed: UnixMillis,
    /// Whether the merge certainly includes the users of all these events.
    pub(super) settled: bool,
}

impl Merge {
    /// A merge that found `events` and `users`. Its statement read everything that was in Kafka before `as_of`; the
    /// answer to the statement arrived at `read_at`. `previous` is the last merge of the same hour or day.
    pub(super) fn new(
        previous: Option<&Self>,
        events: u64,
        users: u64,
        as_of: Option<UnixMillis>,
        read_at: UnixMillis,
    ) -> Self {
        let same = previous.filter(|previous| previous.events == events);
        let changed = same.map_or(read_at, |previous| previous.changed);
        let settled = as_of.is_some_and(|as_of| as_of.0 >= changed.0 + CLOCK_SKEW);
        Self { events, users, changed, settled }
    }

    /// Whether this merge has all users of the hour or day, which now has `events` events.
    pub(super) fn holds(&self, events: u64) -> bool {
        self.settled && self.events == events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANGED: UnixMillis = UnixMillis(100_000);

    /// Makes a merge whose answer arrives at `CHANGED`, then a second merge with `as_of`, and checks whether the second
    /// merge holds for `events` events.
    #[track_caller]
    fn check(as_of: i64, events: u64, holds: bool) {
        let first = Merge::new(None, 5, 3, Some(UnixMillis(99_000)), CHANGED);
        assert!(!first.holds(5), "the merge may lack users of the new events");
        let second = Merge::new(Some(&first), 5, 4, Some(UnixMillis(as_of)), UnixMillis(as_of + 3_000));
        assert_eq!(second.holds(events), holds);
    }

    #[test]
    fn users_are_merged_again_until_as_of_is_later_than_the_last_change() {
        check(CHANGED.0 + CLOCK_SKEW - 1, 5, false);
        check(CHANGED.0 + CLOCK_SKEW, 5, true);
    }

    #[test]
    fn users_are_merged_again_when_the_number_of_events_differs() {
        check(CHANGED.0 + CLOCK_SKEW, 6, false);
        check(CHANGED.0 + CLOCK_SKEW, 4, false);
    }

    #[test]
    fn users_never_settle_while_as_of_is_unknown() {
        let first = Merge::new(None, 5, 3, None, CHANGED);
        let second = Merge::new(Some(&first), 5, 3, None, UnixMillis(i64::MAX));
        assert!(!second.holds(5));
    }
}
