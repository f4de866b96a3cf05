//! The id of a request, in its response and in logs.

use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Builder;

/// The header that has the id of a request, in the request and in its response.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Maximum number of bytes of an `X-Request-Id` that is accepted from a client.
const MAX_BYTES: usize = 64;

/// The id of a request.
#[derive(Debug, Clone)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// The client's `X-Request-Id` if it consists of 1 to 64 printable ASCII characters without spaces, else a new
    /// UUIDv7.
    pub fn of(headers: &HeaderMap) -> Self {
        let good = |value: &&HeaderValue| {
            (1..=MAX_BYTES).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic)
        };
        headers.get(REQUEST_ID).filter(good).cloned().map_or_else(Self::new, Self)
    }

    /// A new UUIDv7.
    #[expect(clippy::new_without_default, reason = "a default is one value, but each new id differs")]
    pub fn new() -> Self {
        // An id is not a secret, so it does not need randomness from the system, which costs a system call per id.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let noise = fastrand::u128(..).to_le_bytes();
        let noise = noise.first_chunk().expect("a UUIDv7 takes at most 10 of the 16 random bytes");
        let id = Builder::from_unix_timestamp_millis(since.as_millis() as u64, noise).into_uuid();
        Self(HeaderValue::try_from(id.to_string()).expect("a UUID is printable"))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        self.0.to_str().expect("a request id is printable ASCII")
    }

    /// The id as the value of a header.
    pub fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_request_keeps_its_own_id_if_the_id_is_short_and_printable() {
        let of = |id: &'static [u8]| {
            let headers = HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_bytes(id).unwrap())]);
            RequestId::of(&headers).as_str().to_owned()
        };
        assert_eq!(of(b"abc-1"), "abc-1");
        for bad in [&b""[..], b"a b", b"\xe4", &[b'x'; 65]] {
            assert_eq!(Uuid::parse_str(&of(bad)).unwrap().get_version_num(), 7);
        }
    }
}
