//! A rate limit: how much of something is allowed per second. The algorithm is the generic cell rate algorithm (GCRA).

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

/// A rate: how much is allowed per second, and how much in a burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateConfig {
    /// How much is allowed per second, on average.
    pub rate: NonZeroU32,
    /// The maximum that is allowed at once. After a full burst, the next full burst is allowed `burst / rate` seconds
    /// later.
    pub burst: NonZeroU32,
}

/// The limiter of one rate, for example of one key or of one network of clients.
pub struct Rate {
    config: RateConfig,
    limiter: RateLimiter<NotKeyed, InMemoryState, DefaultClock, StateInformationMiddleware>,
}

impl Rate {
    /// A limiter that has charged nothing yet: the whole burst is allowed.
    pub fn new(config: RateConfig) -> Self {
        let quota = Quota::per_second(config.rate).allow_burst(config.burst);
        Self { config, limiter: RateLimiter::direct(quota).with_middleware() }
    }

    /// The rate that this limiter enforces.
    pub fn config(&self) -> RateConfig {
        self.config
    }

    /// Charges all of `count`, and returns how much more is allowed at once. If `count` is not allowed now, charges
    /// nothing.
    ///
    /// # Errors
    /// How long to wait until `count` is allowed.
    ///
    /// # Panics
    /// If `count` is more than the burst, which is never allowed.
    pub fn charge(&self, count: NonZeroU32) -> Result<u32, Duration> {
        match self.limiter.check_n(count).expect("the count is not above the burst") {
            Ok(state) => Ok(state.remaining_burst_capacity()),
            Err(later) => Err(later.wait_time_from(DefaultClock::default().now())),
        }
    }
}

impl fmt::Debug for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.config.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(number: u32) -> NonZeroU32 {
        NonZeroU32::new(number).unwrap()
    }

    #[test]
    fn a_charge_reduces_the_allowance_and_a_refusal_says_how_long_to_wait() {
        let rate = Rate::new(RateConfig { rate: number(1), burst: number(10) });
        assert_eq!(rate.charge(number(4)), Ok(6));
        assert_eq!(rate.charge(number(6)), Ok(0));
        // The allowance grows by one per second, so on a slow machine a few of these charges may succeed before one is
        // refused.
        let refused = (0..100).find_map(|_| rate.charge(number(2)).err());
        assert!(refused.is_some_and(|wait| wait <= Duration::from_secs(2)), "{refused:?}");
    }
}
