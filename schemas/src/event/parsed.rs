//! A parsed line: its known fields (`field.rs` lists them), its reserved fields and all other fields. It also says
//! which *labels* (`client_time`, `country`, `device_os`) could not be read and were left out.

use std::borrow::Cow;

use uuid::Uuid;

use super::country::Country;
use super::fault::{Code, Fault};
use super::field::Event;

/// The fields of one line, and what the parser noticed about them.
#[derive(Debug, Default)]
pub struct Parsed<'a, P> {
    /// The known fields.
    pub event: Event<'a>,
    /// The reserved fields. If the line repeats a reserved field, its first value is kept.
    pub reserved: Reserved<'a>,
    /// All other fields.
    pub props: P,
    /// Labels that could not be read; the event is stored without them.
    pub left_out: LeftOut,
    /// Whether the line has a `sequence` that is neither `null` nor `""`.
    pub has_sequence: bool,
    /// Whether the line has the key `event_id`, even if its value is `null` or `""`.
    pub(crate) names_event_id: bool,
    /// Whether the `event_id` was derived, not sent.
    pub(crate) derived_id: bool,
    /// Whether the line has the key `country`, even if its value is `null`, `""` or unreadable.
    pub(crate) names_country: bool,
    /// Whether the `country` was derived, not sent.
    pub(crate) derived_country: bool,
}

impl<P> Parsed<'_, P> {
    /// Sets an `event_id` that the edge derived, because the client sent none. The enriched line contains this id.
    ///
    /// # Panics
    /// If the event has an `event_id`.
    pub fn set_derived_id(&mut self, id: Uuid) {
        assert!(self.event.event_id.replace(id).is_none(), "an id from the client is never replaced");
        self.derived_id = true;
    }

    /// Sets the `country` that the edge derived from the client's address, because the client sent no readable one. The
    /// enriched line contains this country.
    ///
    /// # Panics
    /// If the event has a `country`.
    pub fn set_derived_country(&mut self, country: Country) {
        let before = std::mem::replace(&mut self.event.country, country);
        assert_eq!(before, Country::default(), "a country from the client is never replaced");
        self.derived_country = true;
    }
}

/// The fields that only the edge may set. Each value is the JSON text from the line, not yet parsed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reserved<'a> {
    /// The tenant that owns the event.
    pub tenant: Option<&'a str>,
    /// The client's address.
    pub ip: Option<&'a str>,
    /// When the request's headers were complete.
    pub server_time: Option<&'a str>,
}

impl<'a> Reserved<'a> {
    /// The names of the reserved fields.
    pub(crate) const NAMES: [&'static str; 3] = ["tenant", "ip", "server_time"];

    /// Whether the line has any reserved field.
    pub fn any(&self) -> bool {
        self.tenant.is_some() || self.ip.is_some() || self.server_time.is_some()
    }

    /// The reserved field with this name.
    #[inline]
    pub(super) fn named(&mut self, name: &str) -> Option<&mut Option<&'a str>> {
        match name {
            "tenant" => Some(&mut self.tenant),
            "ip" => Some(&mut self.ip),
            "server_time" => Some(&mut self.server_time),
            _ => None,
        }
    }
}

/// Collects the fields that are neither known nor reserved.
pub trait Props<'a>: Default {
    /// Adds one field: its name, and its value as the JSON that the client wrote.
    fn push(&mut self, name: Cow<'a, str>, value: &'a str);
}

/// Drops the fields, for callers that do not need them.
impl<'a> Props<'a> for () {
    fn push(&mut self, _: Cow<'a, str>, _: &'a str) {}
}

/// Keeps the fields in the order of the line, as the aggregator needs them.
impl<'a> Props<'a> for Vec<(Cow<'a, str>, &'a str)> {
    fn push(&mut self, name: Cow<'a, str>, value: &'a str) {
        Vec::push(self, (name, value));
    }
}

/// Labels that could not be read, each with the code of its fault; the event is stored without these labels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeftOut {
    pub(super) client_time: Option<Code>,
    pub(super) device_os: Option<Code>,
    pub(super) country: Option<Code>,
}

impl LeftOut {
    /// Whether no label was left out.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// The fault of each label that was left out.
    pub fn faults(self) -> impl Iterator<Item = Fault> {
        let Self { client_time, device_os, country } = self;
        let labels = [("client_time", client_time), ("device_os", device_os), ("country", country)];
        labels.into_iter().filter_map(|(name, code)| Some(Fault::field(code?, name)))
    }
}
