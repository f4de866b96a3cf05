//! Derives ids for events without an `event_id`, so that an event that is sent again counts once.
//!
//! Invariant: an id depends only on the tenant and on what identifies the event: either the `Idempotency-Key` of the
//! request and the position of the event, or device, session and sequence. Events that differ in one of these get
//! different ids. The derivation must never change, because a repeated event may reach an edge of another version. No
//! I/O.

use ::http::{HeaderMap, HeaderName};
use schemas::event::Parsed;
use uuid::Uuid;

use crate::auth::keys::KeyIdentity;
use crate::outcome::Refusal;

/// The longest `Idempotency-Key`, in bytes.
const MAX_KEY_BYTES: usize = 128;
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The UUID namespace of ids that are derived from an `Idempotency-Key`.
const REQUEST_NAMESPACE: Uuid = Uuid::from_u128(0x6f1d_2f0e_7a51_5d43_9c1e_3b8a_54c0_e701);
/// The UUID namespace of ids that are derived from device, session and sequence.
const SEQUENCE_NAMESPACE: Uuid = Uuid::from_u128(0x6f1d_2f0e_7a51_5d43_9c1e_3b8a_54c0_e702);

/// What identifies those events of a request that have no `event_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity<'a> {
    /// Nothing: a repeated event counts again.
    None,
    /// The `Idempotency-Key` of the request and the position of the event among the events of the request, from 1.
    Request(&'a str),
    /// Device, session and sequence; an event that lacks any of the three gets no id.
    DeviceSequence,
}

impl<'a> Identity<'a> {
    /// The `Idempotency-Key` of the request, if it has one; otherwise the identity that its write key declares.
    pub fn of(headers: &'a HeaderMap, declared: KeyIdentity) -> Result<Self, Refusal> {
        let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
        let key = match (values.next(), values.next()) {
            (None, _) => return Ok(declared.into()),
            (Some(value), None) => value.to_str().map_err(|_| Refusal::BadIdempotencyKey(MAX_KEY_BYTES))?,
            (Some(_), Some(_)) => return Err(Refusal::BadIdempotencyKey(MAX_KEY_BYTES)),
        };
        // A request with an unusable `Idempotency-Key` is refused: its sender relies on the ids derived from the key.
        if (1..=MAX_KEY_BYTES).contains(&key.len()) {
            Ok(Self::Request(key))
        } else {
            Err(Refusal::BadIdempotencyKey(MAX_KEY_BYTES))
        }
    }

    /// The id of the event at `position`. `None` for [`Identity::None`], or if the event lacks a field that the
    /// id is derived from.
    ///
    /// [`Identity::Request`] derives the UUIDv5 of the tenant, the key and the decimal position.
    /// [`Identity::DeviceSequence`] derives the UUIDv5 of the tenant, the decimal sequence, the decimal length of the
    /// device in bytes, and the device followed directly by the session. A zero byte separates the parts. The length
    /// shows where the device ends; a zero byte cannot, because device and session may contain zero bytes themselves.
    pub fn id<P>(self, tenant: &str, position: usize, parsed: &Parsed<'_, P>) -> Option<Uuid> {
        let event = &parsed.event;
        match self {
            Self::None => None,
            Self::Request(key) => {
                Some(Uuid::new_v5(&REQUEST_NAMESPACE, format!("{tenant}\0{key}\0{position}").as_bytes()))
            }
            Self::DeviceSequence => {
                let whole = parsed.has_sequence && !event.device_id.is_empty() && !event.session.is_empty();
                let (device, session) = (&event.device_id, &event.session);
                let name = || format!("{tenant}\0{}\0{}\0{device}{session}", event.sequence, device.len());
                whole.then(|| Uuid::new_v5(&SEQUENCE_NAMESPACE, name().as_bytes()))
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
