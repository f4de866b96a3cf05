//! Which users send so much that one partition should not have all of it.
//!
//! A user is counted in two cells, picked by two halves of a hash; as often as the one that
//! counts less says, they may have come. So memory is fixed, and what shares one cell with a
//! hot key is not taken for it. Counting takes no lock; an event that
//! is missed when a second begins does not matter.
//!
//! Who was hot stays so for an hour: repeats of their events look for them in the partition
//! that `event_id` chooses, and should not find the choice changed. No clock.

use std::array;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use schemas::time::UnixMillis;

/// Cells of each half; 256 KiB in all.
const CELLS: usize = 1 << 13;
/// How long a key stays hot, in seconds.
const STAYS: u32 = 3600;

/// Counts keys; shared by all requests.
pub struct HotKeys {
    rate: NonZeroU32,
    halves: [Box<[Cell]>; 2],
}

#[derive(Default)]
struct Cell {
    /// A second, since 1970, in the upper half and how many events came in it in the lower.
    window: AtomicU64,
    /// The last second in which it is hot.
    hot_until: AtomicU32,
}

/// The counts in the second of one request.
#[derive(Clone, Copy)]
pub struct Counting<'a> {
    keys: &'a HotKeys,
    second: u32,
}

impl HotKeys {
    /// Keys are hot once they have more than `rate` events in a second.
    pub fn new(rate: NonZeroU32) -> Self {
        let half = |_| (0..CELLS).map(|_| Cell::default()).collect();
        Self { rate, halves: array::from_fn(half) }
    }

    /// The counts of a request that arrived at `time`.
    pub fn at(&self, time: UnixMillis) -> Counting<'_> {
        Counting { keys: self, second: (time.0 / 1000) as u32 }
    }
}

impl Counting<'_> {
    /// Counts one event of the key with this hash. Returns whether the key is hot.
    pub fn is_hot(self, hash: u64) -> bool {
        let Self { keys: HotKeys { rate, halves: [left, right] }, second } = self;
        let cells = [&left[hash as usize % CELLS], &right[(hash >> 32) as usize % CELLS]];
        let [left, right] = cells.map(|cell| cell.count(second));
        if left.min(right) > rate.get() {
            cells.iter().for_each(|cell| _ = cell.hot_until.fetch_max(second + STAYS, Ordering::Relaxed));
        }
        cells.iter().all(|cell| cell.hot_until.load(Ordering::Relaxed) >= second)
    }
}

impl Cell {
    /// Returns how many events it has had in this second, with this one.
    fn count(&self, second: u32) -> u32 {
        // A request whose body took long is counted in the second that others have reached.
        if (self.window.load(Ordering::Relaxed) >> 32) as u32 >= second {
            return self.window.fetch_add(1, Ordering::Relaxed) as u32 + 1;
        }
        self.window.store((u64::from(second) << 32) + 1, Ordering::Relaxed);
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
    fn a_key_is_hot_beyond_the_rate_and_stays_so_for_an_hour() {
        let keys = HotKeys::new(const { NonZeroU32::new(3).unwrap() });
        let hot = |seconds| keys.at(after(seconds)).is_hot(7);
        assert_eq!([hot(0), hot(0), hot(0)], [false; 3]);
        assert_eq!(
            [hot(1), hot(1), hot(1), hot(0)],
            [false, false, false, true],
            "a late request counts too"
        );
        assert!(hot(2) && hot(STAYS));
        assert!(!hot(1 + STAYS));
    }

    #[test]
    fn a_key_that_shares_one_cell_with_a_hot_one_is_not_hot() {
        let keys = HotKeys::new(const { NonZeroU32::new(3).unwrap() });
        let hot: Vec<_> = (0..10).map(|_| keys.at(NOW).is_hot(7)).collect();
        assert_eq!(hot, [&[false; 3][..], &[true; 7]].concat());
        for beside in [7 + (1 << 32), 8, 7 << 32] {
            assert!(!keys.at(NOW).is_hot(beside), "{beside:x}");
        }
    }
}
