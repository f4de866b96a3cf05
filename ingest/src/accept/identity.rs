//! The identity of an event without an `event_id`, so that a repeated request counts once.
//!
//! Invariant: the same event sent again in the same way gets the same id; different events get different ids. The
//! derivation never changes, because a repeat may reach another release. No I/O.

use ::http::{HeaderMap, HeaderName};
use schemas::event::Parsed;
use uuid::Uuid;

use crate::auth::keys::KeyIdentity;
use crate::outcome::Refusal;

/// The longest `Idempotency-Key`, in bytes.
const MAX_KEY_BYTES: usize = 128;
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The namespace of ids by request.
const BY_REQUEST: Uuid = Uuid::from_u128(0x6f1d_2f0e_7a51_5d43_9c1e_3b8a_54c0_e701);
/// The namespace of ids by device and sequence.
const BY_SEQUENCE: Uuid = Uuid::from_u128(0x6f1d_2f0e_7a51_5d43_9c1e_3b8a_54c0_e702);

/// What identifies the events of a request that carry no `event_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity<'a> {
    /// Nothing: a repeated event counts again.
    None,
    /// The `Idempotency-Key` of the request and the position of the event.
    Request(&'a str),
    /// Device, session and sequence; an event without one of them has no identity.
    DeviceSequence,
}

impl<'a> Identity<'a> {
    /// The identity that the `Idempotency-Key` of a request gives, or else the one that its write key declares.
    pub fn of(headers: &'a HeaderMap, declared: KeyIdentity) -> Result<Self, Refusal> {
        let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
        let key = match (values.next(), values.next()) {
            (None, _) => return Ok(declared.into()),
            (Some(value), None) => value.to_str().map_err(|_| Refusal::BadIdempotencyKey(MAX_KEY_BYTES))?,
            (Some(_), Some(_)) => return Err(Refusal::BadIdempotencyKey(MAX_KEY_BYTES)),
        };
        // A request with an unusable key is not accepted without it: its sender relies on the identity.
        if (1..=MAX_KEY_BYTES).contains(&key.len()) {
            Ok(Self::Request(key))
        } else {
            Err(Refusal::BadIdempotencyKey(MAX_KEY_BYTES))
        }
    }

    /// The id of the event at position `number`, if it has one of this kind.
    ///
    /// By request, it is the UUIDv5 of tenant, key and number in decimal; by sequence, of tenant, sequence
    /// and length of the device in decimal, then device and session together. A zero byte separates
    /// the parts; only device and session may contain one themselves, hence the length.
    pub fn id<P>(self, tenant: &str, number: usize, parsed: &Parsed<'_, P>) -> Option<Uuid> {
        let event = &parsed.event;
        match self {
            Self::None => None,
            Self::Request(key) => {
                Some(Uuid::new_v5(&BY_REQUEST, format!("{tenant}\0{key}\0{number}").as_bytes()))
            }
            Self::DeviceSequence => {
                let whole = parsed.has_sequence && !event.device_id.is_empty() && !event.session.is_empty();
                let (device, session) = (&event.device_id, &event.session);
                let name = || format!("{tenant}\0{}\0{}\0{device}{session}", event.sequence, device.len());
                whole.then(|| Uuid::new_v5(&BY_SEQUENCE, name().as_bytes()))
            }
        }
    }
}

impl From<KeyIdentity> for Identity<'_> {
    fn from(declared: KeyIdentity) -> Self {
        match declared {
            KeyIdentity::None => Self::None,
            KeyIdentity::DeviceSequence => Self::DeviceSequence,
        }
    }
}

#[cfg(test)]
mod tests;
