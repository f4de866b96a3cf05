//! How many events per second a key or an address may send.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use runtime::keys::{Rate, RateConfig};
use runtime::vars::{VarError, Vars};

use super::client_ip;
use crate::outcome::Refusal;

/// Maximum number of addresses whose rates are kept. Beyond this number, the edge forgets the address that has sent no
/// request for the longest time. If this address sends a request again, its whole burst is available.
const MAX_ADDRESSES: u64 = 100_000;
/// How long the rate of an address is kept after its last request.
const IDLE_TIME: Duration = Duration::from_secs(600);

/// Events per second that one client address may send in the long run: `IP_EVENTS_PER_SECOND`, default 0. 0 means no
/// limit. Requests beyond the rate get `429`. Behind a proxy it needs `TRUSTED_PROXIES`.
const ADDRESS_RATE: &str = "IP_EVENTS_PER_SECOND";
/// Events that one client address may send at once: `IP_EVENTS_BURST`, default 0. 0 means the value of
/// `IP_EVENTS_PER_SECOND`. It is also the most events that one request from the address may contain.
const ADDRESS_BURST: &str = "IP_EVENTS_BURST";

/// The rate of each address, from [`ADDRESS_RATE`] and [`ADDRESS_BURST`]; `None`: there is no limit.
pub fn of_addresses(vars: &Vars) -> Result<Option<RateConfig>, VarError> {
    let rate = NonZeroU32::new(vars.parsed_or(ADDRESS_RATE, 0)?);
    let burst = NonZeroU32::new(vars.parsed_or(ADDRESS_BURST, 0)?);
    match (rate, burst) {
        (Some(rate), burst) => Ok(Some(RateConfig { rate, burst: burst.unwrap_or(rate) })),
        (None, None) => Ok(None),
        (None, Some(burst)) => Err(VarError::Invalid {
            name: ADDRESS_BURST,
            value: burst.to_string(),
            reason: format!("it has no effect without a rate: set {ADDRESS_RATE}, too"),
        }),
    }
}

/// The events that a request is charged for, in two steps: one event before the body is read, and the rest once the
/// events in the body are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charge {
    /// One event, so that a sender that has used up its rate is refused before its body is read.
    First,
    /// All events except the first, which is already charged. The number counts all events of the request, including
    /// the first.
    Rest(usize),
}

/// Charges all events of `charge` to a rate, or none of them. A refusal says how many seconds the client must wait, or
/// that the request has more events than the rate ever allows.
pub fn charge(rate: &Rate, charge: Charge) -> Result<(), Refusal> {
    let burst = rate.config().burst.get();
    let events = match charge {
        Charge::First => 1,
        Charge::Rest(all) if all > burst as usize => return Err(Refusal::TooManyEvents(burst as usize)),
        Charge::Rest(all) => all.saturating_sub(1) as u32,
    };
    let Some(events) = NonZeroU32::new(events) else { return Ok(()) };
    match rate.charge(events) {
        Ok(_left) => Ok(()),
        Err(wait) => Err(Refusal::RateLimited(wait.as_secs() as u32 + 1)),
    }
}

/// The rate of each IPv4 address and of each IPv6 /64 network.
pub struct AddressRates {
    config: RateConfig,
    rates: Cache<IpAddr, Arc<Rate>>,
}

impl AddressRates {
    /// Starts with no addresses.
    pub fn new(config: RateConfig) -> Self {
        Self::with_capacity(config, MAX_ADDRESSES)
    }

    fn with_capacity(config: RateConfig, max_addresses: u64) -> Self {
        // Moka's default policy adds no new entry while the cache is full of frequently used entries. The rate of a new
        // address would then not be kept, and its requests would not be limited.
        let rates = Cache::builder()
            .max_capacity(max_addresses)
            .eviction_policy(EvictionPolicy::lru())
            .time_to_idle(IDLE_TIME)
            .build();
        Self { config, rates }
    }

    /// Charges events to the rate of an address.
    pub fn charge(&self, ip: IpAddr, charge: Charge) -> Result<(), Refusal> {
        let rate = self.rates.get_with(client_ip::network(ip, 32, 64), || Arc::new(Rate::new(self.config)));
        self::charge(&rate, charge)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_without_a_rate_is_refused_because_it_would_limit_nothing() {
        let error = of_addresses(&Vars::from_pairs([(ADDRESS_BURST, "10")])).unwrap_err();
        assert!(error.to_string().contains("set IP_EVENTS_PER_SECOND, too"), "{error}");
        assert!(of_addresses(&Vars::from_pairs([(ADDRESS_RATE, "5")])).unwrap().is_some());
    }

    #[test]
    fn an_address_is_limited_also_while_the_rates_of_many_others_are_kept() {
        let one = NonZeroU32::MIN;
        let rates = AddressRates::with_capacity(RateConfig { rate: one, burst: one }, 4);
        let charge = |last: u8| {
            let result = rates.charge(IpAddr::from([192, 0, 2, last]), Charge::First);
            rates.rates.run_pending_tasks();
            result
        };
        for _request in 0..8 {
            for others in 1..=4 {
                let _limited = charge(others);
            }
        }
        assert_eq!(charge(5), Ok(()));
        assert!(matches!(charge(5), Err(Refusal::RateLimited(_))));
    }
}
