//! What a client prefers about its response (`Prefer`, RFC 7240).

use ::http::{HeaderMap, HeaderName, HeaderValue};

use crate::publish::Ack;

const PREFER: HeaderName = HeaderName::from_static("prefer");

/// The preferences of a request, as far as the edge supports them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Preferences {
    /// Whether the client prefers a successful response without a body (`return=minimal`).
    pub minimal: bool,
    /// Whether the client prefers a response before the events are durable (`respond-async`).
    pub respond_async: bool,
}

impl Preferences {
    /// The preferences in the headers of a request.
    pub fn of(headers: &HeaderMap) -> Self {
        let values = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
        let mut preferences = Self::default();
        for preference in values.flat_map(|value| value.split([',', ';'])).map(str::trim) {
            preferences.minimal |= preference.eq_ignore_ascii_case("return=minimal");
            preferences.respond_async |= preference.eq_ignore_ascii_case("respond-async");
        }
        preferences
    }

    /// When the request is answered; `default` applies if the client has no preference.
    pub fn ack(self, default: Ack) -> Ack {
        if self.respond_async { Ack::Accepted } else { default }
    }

    /// The value of `Preference-Applied`.
    pub fn applied(self) -> Option<HeaderValue> {
        let value = match (self.minimal, self.respond_async) {
            (false, false) => return None,
            (true, false) => "return=minimal",
            (false, true) => "respond-async",
            (true, true) => "return=minimal, respond-async",
        };
        Some(HeaderValue::from_static(value))
    }
}
