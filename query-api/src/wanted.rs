//! Keys that a refresh reads only if readers ask for them: hours before the recent (hot) hours, polls that are not
//! among the largest polls, and tenants other than the default tenant.
//!
//! After a reader has asked for such a key, every refresh reads the key for at least one minute ([`KEY_REMEMBERED`],
//! [`TENANT_REMEMBERED`]), so the answer for this key is as fresh as the other answers. An answer that is kept from an
//! earlier refresh would hide new events, and events of an old hour may arrive at any moment. Only while ClickHouse is
//! too slow do refreshes leave out such hours and polls (`left_out.rs`). The number of keys is bounded: at the limit, a
//! new key is refused until another key has been forgotten.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Maximum number of hours that a refresh reads besides the hot hours.
pub(crate) const MAX_HOURS: usize = 2_000;
/// Maximum number of polls that a refresh reads besides the largest polls.
pub(crate) const MAX_POLLS: usize = 100;
/// Maximum number of tenants that a refresh reads besides the default tenant.
pub(crate) const MAX_TENANTS: usize = 99;
/// An hour or a poll is kept at least this long after a reader last asked for it.
pub(crate) const KEY_REMEMBERED: Duration = Duration::from_secs(60);
/// A tenant is kept at least this long after a reader last asked for an answer of this tenant.
pub(crate) const TENANT_REMEMBERED: Duration = Duration::from_secs(600);

/// Keys, and when a reader last asked for each.
pub(crate) struct Wanted<K> {
    keys: Mutex<HashMap<K, Instant>>,
    most: usize,
    remembered: Duration,
}

/// The number of keys has reached its limit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooMany;

impl<K: Clone + Ord + Hash> Wanted<K> {
    /// An empty set of at most `most` keys. After a reader last asked for a key, the key is kept for `remembered`, or
    /// for three refresh intervals (`interval`) if that is longer.
    pub(crate) fn new(most: usize, remembered: Duration, interval: Duration) -> Self {
        Self { keys: Mutex::default(), most, remembered: remembered.max(3 * interval) }
    }

    /// Notes that a reader asks for `key`.
    ///
    /// # Errors
    /// `key` is new, and the set has its maximum number of keys.
    pub(crate) fn want(&self, key: K, now: Instant) -> Result<(), TooMany> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.len() >= self.most && !keys.contains_key(&key) {
            return Err(TooMany);
        }
        keys.insert(key, now);
        Ok(())
    }

    /// The keys to read now, sorted. Forgets keys that no reader has asked for lately.
    pub(crate) fn current(&self, now: Instant) -> Vec<K> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.retain(|_, wanted| now.duration_since(*wanted) < self.remembered);
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
    fn an_hour_is_forgotten_when_no_reader_asks_for_it_any_more() {
        let wanted = Wanted::new(MAX_HOURS, KEY_REMEMBERED, Duration::from_secs(5));
        let start = Instant::now();
        wanted.want(UnixMillis(2), start).unwrap();
        wanted.want(UnixMillis(1), start).unwrap();
        wanted.want(UnixMillis(2), start + Duration::from_secs(30)).unwrap();
        assert_eq!(wanted.current(start + Duration::from_secs(59)), [UnixMillis(1), UnixMillis(2)]);
        assert_eq!(wanted.current(start + Duration::from_secs(60)), [UnixMillis(2)]);
    }

    #[test]
    fn at_the_limit_new_hours_are_refused_and_known_hours_are_accepted() {
        let wanted = Wanted::new(MAX_HOURS, KEY_REMEMBERED, Duration::from_secs(5));
        let now = Instant::now();
        for hour in 0..MAX_HOURS as i64 {
            wanted.want(UnixMillis(hour), now).unwrap();
        }
        assert_eq!(wanted.want(UnixMillis(-1), now), Err(TooMany));
        assert_eq!(wanted.want(UnixMillis(0), now), Ok(()));
    }
}
