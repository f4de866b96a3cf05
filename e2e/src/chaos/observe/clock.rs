//! The clock of a run. It is stopped while a server starts, so that a slow machine gets the same faults under the same
//! load as a fast machine, only later.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{self, Instant};

/// Longest sleep between two checks of the clock.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// A clock that starts when it is created.
#[derive(Debug)]
pub(crate) struct Clock(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Time that had elapsed at `since`.
    elapsed: Duration,
    since: Instant,
    holds: usize,
}

/// Stops the clock until this value is dropped.
pub(crate) struct Hold<'c>(&'c Clock);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Mutex::new(State::new(Instant::now())))
    }

    /// The time that has passed since the start, without the times for which the clock was stopped.
    pub(crate) fn elapsed(&self) -> Duration {
        self.state().elapsed(Instant::now())
    }

    /// Stops the clock until the returned value and all other [`Hold`]s are dropped.
    pub(crate) fn hold(&self) -> Hold<'_> {
        self.state().change(1, Instant::now());
        Hold(self)
    }

    /// Waits until the clock shows `moment`.
    pub(crate) async fn wait_until(&self, moment: Duration) {
        while self.elapsed() < moment {
            time::sleep((moment - self.elapsed().min(moment)).min(CHECK_INTERVAL)).await;
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
        Self { elapsed: Duration::ZERO, since: now, holds: 0 }
    }

    fn elapsed(&self, now: Instant) -> Duration {
        if self.holds == 0 { self.elapsed + now.duration_since(self.since) } else { self.elapsed }
    }

    fn change(&mut self, holds: isize, now: Instant) {
        *self =
            Self { elapsed: self.elapsed(now), since: now, holds: self.holds.saturating_add_signed(holds) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_stopped_while_any_hold_exists() {
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
