//! How many events a second may come: of a key, or from an address. By GCRA.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota};
use moka::sync::Cache;
use runtime::vars::{VarError, Vars};

use crate::auth::client_ip;
use crate::outcome::Refusal;

/// Addresses that are remembered at once; beyond them those seen longest ago start anew.
const MAX_ADDRESSES: u64 = 100_000;
/// An address that sent nothing for so long is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

/// How much may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateConfig {
    /// Events a second in the long run.
    pub rate: NonZeroU32,
    /// Events at once.
    pub burst: NonZeroU32,
}

impl RateConfig {
    /// The rate of each address: `IP_EVENTS_PER_SECOND`, default 0, which is no limit, and
    /// `IP_EVENTS_BURST`, default as many.
    pub fn of_addresses(vars: &Vars) -> Result<Option<Self>, VarError> {
        let rate = NonZeroU32::new(vars.parsed_or("IP_EVENTS_PER_SECOND", 0)?);
        let burst = NonZeroU32::new(vars.parsed_or("IP_EVENTS_BURST", rate.map_or(0, NonZeroU32::get))?);
        Ok(rate.map(|rate| Self { rate, burst: burst.unwrap_or(rate) }))
    }
}

/// A request's events are taken in two parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// One, before its body is read.
    First,
    /// The others, of so many in all.
    Rest(usize),
}

/// What is left of a rate.
pub struct Rate {
    pub(super) config: RateConfig,
    limiter: DefaultDirectRateLimiter,
}

impl Rate {
    /// Nothing is used of it yet.
    pub fn new(config: RateConfig) -> Self {
        let quota = Quota::per_second(config.rate).allow_burst(config.burst);
        Self { config, limiter: DefaultDirectRateLimiter::direct(quota) }
    }

    /// Takes events, or none and says when they could be; a request with more than ever
    /// fit has too many.
    pub fn take(&self, part: Part) -> Result<(), Refusal> {
        let burst = self.config.burst.get();
        let events = match part {
            Part::First => 1,
            Part::Rest(all) if all > burst as usize => return Err(Refusal::TooManyEvents(burst as usize)),
            Part::Rest(all) => all.saturating_sub(1) as u32,
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

/// The rate of each address, of v6 of each /64.
pub struct ByAddress {
    config: RateConfig,
    rates: Cache<IpAddr, Arc<Rate>>,
}

impl ByAddress {
    /// Nobody has come yet.
    pub fn new(config: RateConfig) -> Self {
        let rates = Cache::builder().max_capacity(MAX_ADDRESSES).time_to_idle(FORGOTTEN_AFTER).build();
        Self { config, rates }
    }

    /// Takes events of an address's rate.
    pub fn take(&self, ip: IpAddr, part: Part) -> Result<(), Refusal> {
        let rate = self.rates.get_with(client_ip::network(ip, 32, 64), || Arc::new(Rate::new(self.config)));
        rate.take(part)
    }
}
