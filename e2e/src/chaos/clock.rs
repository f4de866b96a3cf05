//! The time of a run: it stands still while a server is on its way up, so that a slow
//! machine suffers the same faults under the same load as a fast one, only later.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{self, Instant};

/// Between two looks, at most.
const LOOK: Duration = Duration::from_millis(100);

/// Goes from the moment it is made.
#[derive(Debug)]
pub(crate) struct Clock(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Up to `since`.
    gone: Duration,
    since: Instant,
    holds: usize,
}

/// Stops the clock until it is dropped.
pub(crate) struct Hold<'c>(&'c Clock);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Mutex::new(State::new(Instant::now())))
    }

    /// How much of the run is over.
    pub(crate) fn elapsed(&self) -> Duration {
        self.state().elapsed(Instant::now())
    }

    pub(crate) fn hold(&self) -> Hold<'_> {
        self.state().change(1, Instant::now());
        Hold(self)
    }

    /// Returns once so much of the run is over.
    pub(crate) async fn reaches(&self, moment: Duration) {
        while self.elapsed() < moment {
            time::sleep((moment - self.elapsed().min(moment)).min(LOOK)).await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.0.state().change(-1, Instant::now());
    }
}

impl State {
    fn new(now: Instant) -> Self {
        Self { gone: Duration::ZERO, since: now, holds: 0 }
    }

    fn elapsed(&self, now: Instant) -> Duration {
        if self.holds == 0 { self.gone + now.duration_since(self.since) } else { self.gone }
    }

    fn change(&mut self, holds: isize, now: Instant) {
        *self = Self { gone: self.elapsed(now), since: now, holds: self.holds.saturating_add_signed(holds) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stands_still_as_long_as_anybody_holds_it() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut clock = State::new(start);
        clock.change(1, at(3));
        clock.change(1, at(8));
        clock.change(-1, at(10));
        assert_eq!(clock.elapsed(at(15)), Duration::from_secs(3));
        clock.change(-1, at(20));
        assert_eq!(clock.elapsed(at(21)), Duration::from_secs(4));
    }
}
