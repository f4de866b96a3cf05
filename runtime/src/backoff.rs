//! How long to wait before trying again: doubling, bounded, with jitter.
//!
//! No clock and no sleep in here; the caller waits.

use std::time::Duration;

/// Waits of one series of tries.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    /// Waits from `first` up to `most`, doubling.
    pub fn new(first: Duration, most: Duration) -> Self {
        assert!(first <= most && !first.is_zero(), "a backoff starts above zero and grows");
        Self { first, most, next: first }
    }

    /// The wait before the next try: between half and the whole of the current
    /// step, so that many processes do not return in step.
    pub fn wait(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.most);
        step.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// A try succeeded: the next series starts from the first step.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_most_and_start_anew_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
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
