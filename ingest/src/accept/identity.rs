//! What identifies an event that carries no `event_id` of its own, so that a
//! repeated request counts once.
//!
//! Invariant: the same event sent again in the same way gets the same id; other
//! events get others. The derivation is fixed for ever, for repeats meet it across
//! releases. No I/O.

use ::http::{HeaderMap, HeaderName};
use schemas::event::Parsed;
use uuid::Uuid;

use crate::outcome::Refusal;

/// Longest `Idempotency-Key`, in bytes.
const MAX_KEY_BYTES: usize = 128;
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The namespace of ids by request.
const BY_REQUEST: Uuid = Uuid::from_u128(0x6f1d_2f0e_7a51_5d43_9c1e_3b8a_54c0_e701);
/// The namespace of ids by device and sequence.
const BY_SEQUENCE: Uuid = Uuid::from_u128(0x6f1d_2f0e_7a51_5d43_9c1e_3b8a_54c0_e702);

/// What identifies the events of a request that carry no `event_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity<'a> {
    /// Nothing: a repeat counts again.
    None,
    /// The request's `Idempotency-Key` and the line's number.
    Request(&'a str),
    /// Device, session and sequence; a line that lacks one of them has no identity.
    DeviceSequence,
}

impl<'a> Identity<'a> {
    /// What a request's headers say, else `otherwise`.
    pub fn of(headers: &'a HeaderMap, otherwise: Self) -> Result<Self, Refusal> {
        let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
        let key = match (values.next(), values.next()) {
            (None, _) => return Ok(otherwise),
            (Some(value), None) => value.to_str().map_err(|_| Refusal::BadIdempotencyKey)?,
            (Some(_), Some(_)) => return Err(Refusal::BadIdempotencyKey),
        };
        // Too long, or empty: taking the request without its identity would break what its sender relies on.
        if (1..=MAX_KEY_BYTES).contains(&key.len()) {
            Ok(Self::Request(key))
        } else {
            Err(Refusal::BadIdempotencyKey)
        }
    }

    /// The id of the event in line `number`, if it has one of this kind.
    ///
    /// By request, it is UUIDv5 of tenant, key and number in decimal; by sequence, of tenant, sequence
    /// and length of the device in decimal, then device and session together. A zero byte stands
    /// between the parts; only device and session may hold one themselves, hence the length.
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

#[cfg(test)]
mod tests;
