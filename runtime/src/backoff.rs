//! Exponential backoff with an upper bound and jitter.
//!
//! No clock and no sleep in here; the caller waits.

use std::time::Duration;

/// How long to wait between attempts. The wait is at most `shortest` after the first failure. This maximum doubles with
/// each further failure, until it is `longest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    shortest: Duration,
    longest: Duration,
}

impl RetryPolicy {
    /// A policy whose maximum wait doubles with each failure, from `shortest` up to `longest`.
    ///
    /// # Panics
    /// If `shortest` is zero or above `longest`. In the initializer of a constant, this is a compile error.
    pub const fn new(shortest: Duration, longest: Duration) -> Self {
        let (least, most) = (shortest.as_nanos(), longest.as_nanos());
        assert!(0 < least && least <= most, "the shortest wait must be above zero and at most the longest");
        Self { shortest, longest }
    }

    /// The maximum wait after the first failure.
    pub const fn shortest(self) -> Duration {
        self.shortest
    }

    /// The maximum wait after many failures.
    pub const fn longest(self) -> Duration {
        self.longest
    }

    /// The waits for a new series of attempts.
    pub const fn backoff(self) -> Backoff {
        Backoff { policy: self, next: self.shortest }
    }
}

/// The waits of one series of attempts.
#[derive(Debug, Clone)]
pub struct Backoff {
    policy: RetryPolicy,
    next: Duration,
}

impl Backoff {
    /// Returns how long to wait before the next attempt: a random time between half of the current maximum and the
    /// maximum, so that many processes do not retry at the same time. Then doubles the maximum, up to the longest wait.
    pub fn wait(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.policy.longest);
        step.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// Resets the maximum after a success: after the next failure, the wait is at most the shortest wait of the policy.
    pub fn reset(&mut self) {
        self.next = self.policy.shortest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_reset_after_a_success() {
        let mut backoff = RetryPolicy::new(Duration::from_millis(100), Duration::from_secs(1)).backoff();
        let within = |wait: Duration, step: u64| {
            assert!(
                wait >= Duration::from_millis(step / 2) && wait <= Duration::from_millis(step),
                "{wait:?} of {step} ms"
            );
        };
        for step in [100, 200, 400, 800, 1000, 1000] {
            within(backoff.wait(), step);
        }
        backoff.reset();
        within(backoff.wait(), 100);
    }
}
