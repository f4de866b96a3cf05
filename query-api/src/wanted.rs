//! The hours outside the hot window that readers ask for.
//!
//! An hour that was asked for joins every statement of the next minutes, so that it is as
//! fresh as the hot ones: events with a historic time may arrive at any moment, and a
//! cache that lived longer than a tick would hide them. Bounded: beyond
//! [`MAX_HOURS`] an hour is refused until others have been forgotten.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use schemas::time::UnixMillis;

/// Most hours that a statement asks for besides the hot ones.
pub const MAX_HOURS: usize = 2_000;
/// How long after it was last asked for an hour is forgotten, at least.
const REMEMBERED: Duration = Duration::from_secs(60);

/// Hours and when each was last asked for.
pub struct Wanted {
    hours: Mutex<HashMap<UnixMillis, Instant>>,
    remembered: Duration,
}

/// There are already [`MAX_HOURS`] of them.
#[derive(Debug, PartialEq, Eq)]
pub struct TooMany;

impl Wanted {
    /// None yet, for statements `interval` apart.
    pub fn new(interval: Duration) -> Self {
        Self { hours: Mutex::default(), remembered: REMEMBERED.max(3 * interval) }
    }

    /// Asks for the hour that starts at `hour`.
    pub fn ask(&self, hour: UnixMillis, now: Instant) -> Result<(), TooMany> {
        let mut hours = self.hours.lock().unwrap_or_else(PoisonError::into_inner);
        if hours.len() >= MAX_HOURS && !hours.contains_key(&hour) {
            return Err(TooMany);
        }
        hours.insert(hour, now);
        Ok(())
    }

    /// The hours to ask for now, in order; forgets those that nobody asked for in a while.
    pub fn current(&self, now: Instant) -> Vec<UnixMillis> {
        let mut hours = self.hours.lock().unwrap_or_else(PoisonError::into_inner);
        hours.retain(|_, asked| now.duration_since(*asked) < self.remembered);
        let mut hours: Vec<_> = hours.keys().copied().collect();
        hours.sort_unstable();
        hours
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_forgotten_when_nobody_asks_any_more() {
        let wanted = Wanted::new(Duration::from_secs(5));
        let start = Instant::now();
        wanted.ask(UnixMillis(2), start).unwrap();
        wanted.ask(UnixMillis(1), start).unwrap();
        wanted.ask(UnixMillis(2), start + Duration::from_secs(30)).unwrap();
        assert_eq!(wanted.current(start + Duration::from_secs(59)), [UnixMillis(1), UnixMillis(2)]);
        assert_eq!(wanted.current(start + Duration::from_secs(60)), [UnixMillis(2)]);
    }

    #[test]
    fn there_is_a_limit_and_known_hours_pass_it() {
        let wanted = Wanted::new(Duration::from_secs(5));
        let now = Instant::now();
        for hour in 0..MAX_HOURS as i64 {
            wanted.ask(UnixMillis(hour), now).unwrap();
        }
        assert_eq!(wanted.ask(UnixMillis(-1), now), Err(TooMany));
        assert_eq!(wanted.ask(UnixMillis(0), now), Ok(()));
    }
}
