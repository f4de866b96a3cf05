//! What is not in every statement and readers ask for: hours outside the hot window, polls beyond
//! the largest.
//!
//! What was asked for joins every statement of the next minutes, so that it is as fresh as
//! the rest: events with a historic time may arrive at any moment, and a cache that lived
//! longer than a tick would hide them. Bounded: beyond the limit one is refused until others have
//! been forgotten.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Most hours that a statement asks for besides the hot ones.
pub const MAX_HOURS: usize = 2_000;
/// Most polls that a statement asks for by name.
pub const MAX_POLLS: usize = 100;
/// How long after it was last asked for one is forgotten, at least.
const REMEMBERED: Duration = Duration::from_secs(60);

/// Keys and when each was last asked for.
pub struct Wanted<K> {
    keys: Mutex<HashMap<K, Instant>>,
    most: usize,
    remembered: Duration,
}

/// There are already as many as there may be.
#[derive(Debug, PartialEq, Eq)]
pub struct TooMany;

impl<K: Clone + Ord + Hash> Wanted<K> {
    /// None yet and never above `most`, for statements `interval` apart.
    pub fn new(most: usize, interval: Duration) -> Self {
        Self { keys: Mutex::default(), most, remembered: REMEMBERED.max(3 * interval) }
    }

    /// Asks for `key`.
    pub fn ask(&self, key: K, now: Instant) -> Result<(), TooMany> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.len() >= self.most && !keys.contains_key(&key) {
            return Err(TooMany);
        }
        keys.insert(key, now);
        Ok(())
    }

    /// The keys to ask for now, in order; forgets those that nobody asked for in a while.
    pub fn current(&self, now: Instant) -> Vec<K> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.retain(|_, asked| now.duration_since(*asked) < self.remembered);
        let mut keys: Vec<_> = keys.keys().cloned().collect();
        keys.sort_unstable();
        keys
    }
}

#[cfg(test)]
mod tests {
    use schemas::time::UnixMillis;

    use super::*;

    #[test]
    fn an_hour_is_forgotten_when_nobody_asks_any_more() {
        let wanted = Wanted::new(MAX_HOURS, Duration::from_secs(5));
        let start = Instant::now();
        wanted.ask(UnixMillis(2), start).unwrap();
        wanted.ask(UnixMillis(1), start).unwrap();
        wanted.ask(UnixMillis(2), start + Duration::from_secs(30)).unwrap();
        assert_eq!(wanted.current(start + Duration::from_secs(59)), [UnixMillis(1), UnixMillis(2)]);
        assert_eq!(wanted.current(start + Duration::from_secs(60)), [UnixMillis(2)]);
    }

    #[test]
    fn there_is_a_limit_and_known_hours_pass_it() {
        let wanted = Wanted::new(MAX_HOURS, Duration::from_secs(5));
        let now = Instant::now();
        for hour in 0..MAX_HOURS as i64 {
            wanted.ask(UnixMillis(hour), now).unwrap();
        }
        assert_eq!(wanted.ask(UnixMillis(-1), now), Err(TooMany));
        assert_eq!(wanted.ask(UnixMillis(0), now), Ok(()));
    }
}
