//! Finds hot users, who send too many events for one partition. The user of an event is its `user_id`, else its
//! `device_id`, else its `session`. In names, such as `HotKeys`, the user is called the key.
//!
//! The counts are a count-min sketch of two arrays. Each event of a user is counted in one slot of each array: one half
//! of the user's hash selects the slot of the first array, the other half that of the second. The lower of the two
//! counts is the estimate. The memory is fixed. A user who shares only one slot with a hot user does not become hot
//! because of the shared slot. Counting takes no lock. So if several requests reset a slot at the start of a second,
//! each reset discards what the others have counted in the slot. The count is then slightly too low, which is accurate
//! enough.
//!
//! While a user is hot, the `event_id` of each event selects its partition, and an event without an `event_id` goes to
//! the spare partition of its request, which the edge picks for each request ([`super::enrich`]). A user stays hot for
//! an hour after the last second with too many events. Each edge counts for itself, so a user may be hot at one edge
//! and not at another. If the user is hot when an event is sent and not hot when it is repeated, or the other way
//! round, the repeat may go to another partition and be counted again.
//!
//! No clock: the caller passes in the time.

use std::array;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use schemas::time::UnixMillis;

/// The number of slots of each array. Both arrays together take 256 KiB.
const SLOTS: usize = 1 << 13;
/// How long a user stays hot after the last second in which the user exceeded the rate, in seconds.
const HOT_SECONDS: u32 = 3600;

/// Counts events per user; shared by all requests.
pub struct HotKeys {
    rate: NonZeroU32,
    arrays: [Box<[Slot]>; 2],
}

#[derive(Default)]
struct Slot {
    /// The upper 32 bits are a time in seconds since 1970, the lower 32 bits the number of events in that second.
    second_and_count: AtomicU64,
    /// The last second in which the slot is hot, in seconds since 1970. A user is hot if both slots are hot.
    hot_until: AtomicU32,
}

/// The counts, and the second in which a request arrived: the events of the request are counted in that second.
#[derive(Clone, Copy)]
pub struct HotKeyCounts<'a> {
    keys: &'a HotKeys,
    second: u32,
}

impl HotKeys {
    /// A user becomes hot with more than `rate` events in one second.
    pub fn new(rate: NonZeroU32) -> Self {
        let slots = |_| (0..SLOTS).map(|_| Slot::default()).collect();
        Self { rate, arrays: array::from_fn(slots) }
    }

    /// The counts for a request that arrived at `time`.
    pub fn at(&self, time: UnixMillis) -> HotKeyCounts<'_> {
        HotKeyCounts { keys: self, second: (time.0 / 1000) as u32 }
    }
}

impl HotKeyCounts<'_> {
    /// Counts one event of the user with this hash. Returns whether the user is hot.
    pub fn is_hot(self, hash: u64) -> bool {
        let Self { keys: HotKeys { rate, arrays: [left, right] }, second } = self;
        let slots = [&left[hash as usize % SLOTS], &right[(hash >> 32) as usize % SLOTS]];
        let [left, right] = slots.map(|slot| slot.count(second));
        if left.min(right) > rate.get() {
            slots
                .iter()
                .for_each(|slot| _ = slot.hot_until.fetch_max(second + HOT_SECONDS, Ordering::Relaxed));
        }
        slots.iter().all(|slot| slot.hot_until.load(Ordering::Relaxed) >= second)
    }
}

impl Slot {
    /// Counts one event. Returns how many events the slot has counted in its current second, which is usually `second`.
    fn count(&self, second: u32) -> u32 {
        // While the body of a request arrives slowly, other requests may have moved the slot on to a later second. The
        // events of the slow request are then counted in that later second.
        if (self.second_and_count.load(Ordering::Relaxed) >> 32) as u32 >= second {
            return self.second_and_count.fetch_add(1, Ordering::Relaxed) as u32 + 1;
        }
        self.second_and_count.store((u64::from(second) << 32) + 1, Ordering::Relaxed);
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_763_697_600_123);

    fn after(seconds: u32) -> UnixMillis {
        UnixMillis(NOW.0 + i64::from(seconds) * 1000)
    }

    #[test]
    fn a_key_that_exceeds_the_rate_is_hot_for_an_hour() {
        let keys = HotKeys::new(const { NonZeroU32::new(3).unwrap() });
        let hot = |seconds| keys.at(after(seconds)).is_hot(7);
        assert_eq!([hot(0), hot(0), hot(0)], [false; 3]);
        assert_eq!(
            [hot(1), hot(1), hot(1), hot(0)],
            [false, false, false, true],
            "a late request counts too"
        );
        assert!(hot(2) && hot(HOT_SECONDS));
        assert!(!hot(1 + HOT_SECONDS));
    }

    #[test]
    fn a_key_that_shares_one_slot_with_a_hot_one_is_not_hot() {
        let keys = HotKeys::new(const { NonZeroU32::new(3).unwrap() });
        let hot: Vec<_> = (0..10).map(|_| keys.at(NOW).is_hot(7)).collect();
        assert_eq!(hot, [&[false; 3][..], &[true; 7]].concat());
        for beside in [7 + (1 << 32), 8, 7 << 32] {
            assert!(!keys.at(NOW).is_hot(beside), "{beside:x}");
        }
    }
}
