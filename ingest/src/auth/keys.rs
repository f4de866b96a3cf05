//! Keys: who may send events, for which tenant, from where and at which rate.
//!
//! Invariants: a key is compared by its hash, in constant time; a request is authenticated against one
//! complete set of keys, even if the file changes meanwhile. No I/O: [`super::key_file`] reads the file.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use ::http::header::{AUTHORIZATION, ORIGIN};
use ::http::request::Parts;
use ::http::{HeaderName, HeaderValue};
use arc_swap::ArcSwap;
use percent_encoding::percent_decode_str;
use schemas::line::is_tenant;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use uuid::Uuid;

use super::client_ip::Networks;
use super::rate::{Charge, Rate, RateConfig};
use crate::outcome::Refusal;

const X_WRITE_KEY: HeaderName = HeaderName::from_static("x-write-key");
/// The tenant of events that are sent without a key.
const DEFAULT_TENANT: &str = "default";

/// One key.
#[derive(Debug)]
pub struct Key {
    id: String,
    hash: [u8; 32],
    tenant: String,
    rate: Option<Arc<Rate>>,
    origins: Vec<String>,
    allow_ip: Networks,
    identity: KeyIdentity,
    enabled: bool,
}

/// All keys of a file.
#[derive(Debug, Default)]
pub struct KeySet(HashMap<[u8; 8], Arc<Key>>);

/// Why a file of keys is not valid; the message names the key.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file is not TOML of the expected form.
    #[error("line {line}: {message}")]
    Toml {
        /// The line of the error, from 1.
        line: usize,
        /// What is wrong, without the text of the file, which may contain a key.
        message: String,
    },
    /// A key is not valid.
    #[error("key `{id}`: {reason}")]
    Key {
        /// The id of the key.
        id: String,
        /// What is wrong.
        reason: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    key: Vec<DeclaredKey>,
}

/// A key as the file declares it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeclaredKey {
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

impl KeySet {
    /// Parses the text of a file. A key whose rate is the same as in `before` keeps how much of it is used.
    pub fn parse(text: &str, before: &Self) -> Result<Self, KeysError> {
        let mut keys = HashMap::new();
        let bad = |error: toml::de::Error| KeysError::Toml {
            line: 1 + text[..error.span().map_or(0, |span| span.start)].matches('\n').count(),
            message: error.message().to_owned(),
        };
        for declared in toml::from_str::<File>(text).map_err(bad)?.key {
            let key = declared.resolve(before)?;
            let id = key.id.clone();
            let same_id = keys.values().any(|other: &Arc<Key>| other.id == id);
            if keys.insert(prefix(&key.hash), Arc::new(key)).is_some() || same_id {
                return Err(KeysError::Key { id, reason: "its id or its sha256 occurs twice".to_owned() });
            }
        }
        Ok(Self(keys))
    }

    /// The number of keys.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn find(&self, presented: &[u8]) -> Option<&Arc<Key>> {
        let hash: [u8; 32] = Sha256::digest(presented).into();
        // The lookup by the first bytes is not in constant time, but nobody can choose the bytes of a hash.
        self.0.get(&prefix(&hash)).filter(|key| key.hash.ct_eq(&hash).into())
    }
}

fn prefix(hash: &[u8; 32]) -> [u8; 8] {
    hash[..8].try_into().expect("a hash is longer")
}

impl DeclaredKey {
    fn resolve(self, before: &KeySet) -> Result<Key, KeysError> {
        let wrong = |reason: &str| KeysError::Key { id: self.id.clone(), reason: reason.to_owned() };
        if !is_tenant(&self.tenant) {
            return Err(wrong("its tenant must be 1 to 64 of a-z, 0-9, _ and -"));
        }
        let hash =
            hash_of_hex(&self.sha256).ok_or_else(|| wrong("its sha256 must be 64 hexadecimal digits"))?;
        if self.events_per_second.is_none() && self.burst.is_some() {
            return Err(wrong("it has a burst but no events_per_second"));
        }
        let config =
            self.events_per_second.map(|rate| RateConfig { rate, burst: self.burst.unwrap_or(rate) });
        let used = |config: RateConfig| {
            let same = before.0.values().find(|key| key.id == self.id);
            same.and_then(|key| key.rate.clone()).filter(|rate| rate.config == config)
        };
        let rate = config.map(|config| used(config).unwrap_or_else(|| Arc::new(Rate::new(config))));
        if self.allow_ip.iter().chain(&self.origins).any(|entry| entry.trim().is_empty()) {
            return Err(wrong("an entry of its allow_ip or origins is empty"));
        }
        let allow_ip = self.allow_ip.join(",").parse().map_err(|reason: String| wrong(&reason))?;
        let identity = match self.identity {
            Some(DeclaredIdentity::DeviceSequence) => KeyIdentity::DeviceSequence,
            None => KeyIdentity::None,
        };
        let Self { id, tenant, origins, enabled, .. } = self;
        Ok(Key { id, hash, tenant, rate, origins, allow_ip, identity, enabled })
    }
}

fn hash_of_hex(text: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, at) in hash.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    Some(hash)
}

/// Whether a request needs a key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AuthMode {
    /// Keys are ignored; all events belong to one tenant.
    #[default]
    None,
    /// A request may have no key, but not a wrong one.
    Optional,
    /// Every request needs a key.
    Required,
}

/// What identifies the events of a key that carry no `event_id` and come without `Idempotency-Key`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KeyIdentity {
    /// Nothing: a repeated event counts again.
    #[default]
    None,
    /// Device, session and sequence.
    DeviceSequence,
}

/// The sender of a request who is allowed to send.
#[derive(Debug, Clone, Default)]
pub struct Caller(Option<Arc<Key>>);

impl Caller {
    /// The tenant to which the events belong.
    pub fn tenant(&self) -> &str {
        self.0.as_ref().map_or(DEFAULT_TENANT, |key| &key.tenant)
    }

    /// What identifies events that carry no identity of their own.
    pub fn identity(&self) -> KeyIdentity {
        self.0.as_ref().map_or(KeyIdentity::None, |key| key.identity)
    }

    /// Charges events to the rate of the key, if it has one.
    pub fn charge(&self, charge: Charge) -> Result<(), Refusal> {
        self.0.as_ref().and_then(|key| key.rate.as_ref()).map_or(Ok(()), |rate| rate.charge(charge))
    }
}

/// Returns the sender of a request, who must have a valid key unless `mode` says otherwise.
pub fn authenticate(
    mode: AuthMode,
    keys: &ArcSwap<KeySet>,
    head: &Parts,
    ip: IpAddr,
) -> Result<Caller, Refusal> {
    if mode == AuthMode::None {
        return Ok(Caller::default());
    }
    let Some(presented) = presented(head) else {
        return if mode == AuthMode::Required { Err(Refusal::NoKey) } else { Ok(Caller::default()) };
    };
    let keys = keys.load();
    let key = keys.find(&presented).ok_or(Refusal::UnknownKey)?;
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
    Ok(Caller(Some(Arc::clone(key))))
}

/// The key in a request: in `Authorization: Bearer`, `X-Write-Key` or `?key=`, in this order.
fn presented(head: &Parts) -> Option<Vec<u8>> {
    let bearer = || {
        let (scheme, key) = head.headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim().as_bytes().to_vec())
    };
    let header = || Some(head.headers.get(X_WRITE_KEY)?.as_bytes().to_vec());
    let parameter = || {
        let mut pairs = head.uri.query()?.split('&');
        let key = pairs.find_map(|pair| pair.strip_prefix("key="))?;
        Some(percent_decode_str(key).collect())
    };
    bearer().or_else(header).or_else(parameter)
}

/// A new key and the TOML that declares it; no file contains the key itself.
pub fn generate(id: &str, tenant: &str) -> (String, String) {
    // 244 random bits from the operating system.
    let key = format!("mr_{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    let hash = Sha256::digest(&key).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let toml =
        format!("[[key]]\nid = {}\ntenant = \"{tenant}\"\nsha256 = \"{hash}\"\n", toml::Value::from(id));
    (key, toml)
}

#[cfg(test)]
mod tests;
