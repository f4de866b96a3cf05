//! Keys: who may send events, for which tenant, from where and at which rate.
//!
//! Invariants: the hash of a token is compared with the hash of a key in constant time; a request is authenticated
//! against one complete set of keys, even if the file changes in the meantime. No I/O: [`super::key_file`] follows the
//! file.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use ::http::header::ORIGIN;
use ::http::request::Parts;
use ::http::{HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;
use runtime::keys::{self, Rate, RateConfig};
use schemas::line::is_tenant;
use serde::Deserialize;

use super::client_ip::Networks;
use super::rate::{self, Charge};
use crate::outcome::Refusal;

const X_WRITE_KEY: HeaderName = HeaderName::from_static("x-write-key");
/// The tenant of events that are sent without a key.
const DEFAULT_TENANT: &str = "default";

/// A key of the key file, after its declaration was checked.
#[derive(Debug)]
pub struct Key {
    tenant: String,
    rate: Option<Arc<Rate>>,
    origins: Vec<String>,
    allow_ip: Networks,
    identity: KeyIdentity,
    enabled: bool,
}

/// A key as the file declares it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclaredKey {
    id: String,
    sha256: String,
    tenant: String,
    events_per_second: Option<NonZeroU32>,
    burst: Option<NonZeroU32>,
    #[serde(default)]
    origins: Vec<String>,
    #[serde(default)]
    allow_ip: Vec<String>,
    identity: Option<DeclaredIdentity>,
    #[serde(default = "enabled")]
    enabled: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum DeclaredIdentity {
    DeviceSequence,
}

fn enabled() -> bool {
    true
}

impl keys::DeclaredKey for DeclaredKey {
    type Key = Key;

    fn id(&self) -> &str {
        &self.id
    }

    fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Checks the declared key. `before` is the key that had the same id before the file was reloaded. If the rate is
    /// unchanged, the new key keeps the limiter of `before`, so that the reload does not reset how much of the rate is
    /// used.
    fn resolve(self, before: Option<&Key>) -> Result<Key, String> {
        if !is_tenant(&self.tenant) {
            return Err("its tenant must be 1 to 64 characters, each one of a-z, 0-9, _ and -".to_owned());
        }
        if self.events_per_second.is_none() && self.burst.is_some() {
            return Err("it has a burst but no events_per_second".to_owned());
        }
        let config =
            self.events_per_second.map(|rate| RateConfig { rate, burst: self.burst.unwrap_or(rate) });
        let used = |config: RateConfig| {
            before.and_then(|key| key.rate.clone()).filter(|rate| rate.config() == config)
        };
        let rate = config.map(|config| used(config).unwrap_or_else(|| Arc::new(Rate::new(config))));
        if self.allow_ip.iter().chain(&self.origins).any(|entry| entry.trim().is_empty()) {
            return Err("an entry of its allow_ip or origins is empty".to_owned());
        }
        let allow_ip = self.allow_ip.join(",").parse()?;
        let identity = match self.identity {
            Some(DeclaredIdentity::DeviceSequence) => KeyIdentity::DeviceSequence,
            None => KeyIdentity::None,
        };
        let Self { tenant, origins, enabled, .. } = self;
        Ok(Key { tenant, rate, origins, allow_ip, identity, enabled })
    }
}

/// Whether a request needs a key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AuthMode {
    /// Keys are ignored; all events belong to the tenant `default`.
    #[default]
    None,
    /// A request needs no key. A request with a wrong key is refused.
    Optional,
    /// Every request needs a key.
    Required,
}

/// What identifies the events without an `event_id` in requests with a key. If a request has an `Idempotency-Key`, that
/// header is used instead.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KeyIdentity {
    /// Nothing: a repeated event counts again.
    #[default]
    None,
    /// Device, session and sequence.
    DeviceSequence,
}

/// The sender of a request: the valid key in the request, or `None` if the request was accepted without a key.
#[derive(Debug, Clone, Default)]
pub struct Caller(Option<Arc<Key>>);

impl Caller {
    /// The tenant to which the events belong.
    pub fn tenant(&self) -> &str {
        self.0.as_ref().map_or(DEFAULT_TENANT, |key| &key.tenant)
    }

    /// What identifies events that have no `event_id`, if the request has no `Idempotency-Key`.
    pub fn identity(&self) -> KeyIdentity {
        self.0.as_ref().map_or(KeyIdentity::None, |key| key.identity)
    }

    /// Charges events to the rate of the key. Succeeds if there is no key, or if the key has no rate.
    pub fn charge(&self, charge: Charge) -> Result<(), Refusal> {
        self.0.as_ref().and_then(|key| key.rate.as_ref()).map_or(Ok(()), |rate| rate::charge(rate, charge))
    }
}

/// Authenticates a request: `mode` says whether the request needs a key, and `find` returns the key of a token. The key
/// must be enabled, and must allow the origin of the page and `ip`, the address of the client.
pub fn authenticate(
    mode: AuthMode,
    find: impl Fn(&[u8]) -> Option<Arc<Key>>,
    head: &Parts,
    ip: IpAddr,
) -> Result<Caller, Refusal> {
    if mode == AuthMode::None {
        return Ok(Caller::default());
    }
    let Some(presented) = presented(head) else {
        return if mode == AuthMode::Required { Err(Refusal::NoKey) } else { Ok(Caller::default()) };
    };
    let key = find(&presented).ok_or(Refusal::UnknownKey)?;
    if !key.enabled {
        return Err(Refusal::KeyDisabled);
    }
    if !key.allow_ip.is_empty() && !key.allow_ip.contain(ip) {
        return Err(Refusal::IpDenied);
    }
    let origin = head.headers.get(ORIGIN).map(HeaderValue::as_bytes);
    let listed = |origin: &[u8]| key.origins.iter().any(|listed| listed.as_bytes() == origin);
    if !key.origins.is_empty() && !origin.is_some_and(listed) {
        return Err(Refusal::OriginDenied);
    }
    Ok(Caller(Some(key)))
}

/// The token in a request: from `Authorization: Bearer`, `X-Write-Key` or `?key=`, in this order.
fn presented(head: &Parts) -> Option<Vec<u8>> {
    let bearer = || Some(keys::bearer(&head.headers)?.to_vec());
    let header = || Some(head.headers.get(X_WRITE_KEY)?.as_bytes().to_vec());
    let parameter = || {
        let mut pairs = head.uri.query()?.split('&');
        let key = pairs.find_map(|pair| pair.strip_prefix("key="))?;
        Some(percent_decode_str(key).collect())
    };
    bearer().or_else(header).or_else(parameter)
}

#[cfg(test)]
mod tests;
