//! How many events a second a key or an address may send: rate limiters (GCRA).

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota};
use moka::sync::Cache;
use runtime::vars::{VarError, Vars};

use super::client_ip;
use crate::outcome::Refusal;

/// Addresses whose rates are kept at once; beyond them the least recently seen address starts with an unused rate.
const MAX_ADDRESSES: u64 = 100_000;
/// How long the rate of an address is kept after its last request.
const IDLE_TIME: Duration = Duration::from_secs(600);

/// How many events may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateConfig {
    /// Events a second in the long run.
    pub rate: NonZeroU32,
    /// Events at once.
    pub burst: NonZeroU32,
}

impl RateConfig {
    /// The rate of each address: `IP_EVENTS_PER_SECOND`, default 0, which is no limit, and
    /// `IP_EVENTS_BURST`, by default the same number.
    pub fn of_addresses(vars: &Vars) -> Result<Option<Self>, VarError> {
        let rate = NonZeroU32::new(vars.parsed_or("IP_EVENTS_PER_SECOND", 0)?);
        let burst = NonZeroU32::new(vars.parsed_or("IP_EVENTS_BURST", rate.map_or(0, NonZeroU32::get))?);
        Ok(rate.map(|rate| Self { rate, burst: burst.unwrap_or(rate) }))
    }
}

/// The events that a request is charged for, in two steps: one event before the body is read, the rest once they are
/// counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charge {
    /// One event, so that a sender without any rate left is refused before its body is read.
    First,
    /// The other events of a request that has this many in all.
    Rest(usize),
}

/// The rate limiter of one key or address.
pub struct Rate {
    pub(super) config: RateConfig,
    limiter: DefaultDirectRateLimiter,
}

impl Rate {
    /// An unused rate.
    pub fn new(config: RateConfig) -> Self {
        let quota = Quota::per_second(config.rate).allow_burst(config.burst);
        Self { config, limiter: DefaultDirectRateLimiter::direct(quota) }
    }

    /// Charges all of the events or none; a refusal says when the request would be allowed, or that it has
    /// more events than are ever allowed.
    pub fn charge(&self, charge: Charge) -> Result<(), Refusal> {
        let burst = self.config.burst.get();
        let events = match charge {
            Charge::First => 1,
            Charge::Rest(all) if all > burst as usize => {
                return Err(Refusal::TooManyEvents(burst as usize));
            }
            Charge::Rest(all) => all.saturating_sub(1) as u32,
        };
        let Some(events) = NonZeroU32::new(events) else { return Ok(()) };
        match self.limiter.check_n(events).expect("no more than a burst") {
            Ok(()) => Ok(()),
            Err(later) => {
                let wait = later.wait_time_from(DefaultClock::default().now());
                Err(Refusal::RateLimited(wait.as_secs() as u32 + 1))
            }
        }
    }
}

impl fmt::Debug for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.config.fmt(f)
    }
}

/// The rate of each IPv4 address and of each IPv6 /64 network.
pub struct AddressRates {
    config: RateConfig,
    rates: Cache<IpAddr, Arc<Rate>>,
}

impl AddressRates {
    /// Starts with no address.
    pub fn new(config: RateConfig) -> Self {
        let rates = Cache::builder().max_capacity(MAX_ADDRESSES).time_to_idle(IDLE_TIME).build();
        Self { config, rates }
    }

    /// Charges events to the rate of an address.
    pub fn charge(&self, ip: IpAddr, charge: Charge) -> Result<(), Refusal> {
        let rate = self.rates.get_with(client_ip::network(ip, 32, 64), || Arc::new(Rate::new(self.config)));
        rate.charge(charge)
    }
}
