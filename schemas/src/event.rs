//! What a client sends: one JSON object a line, its known fields typed and bounded.
//!
//! One visitor serves both ends: the edge asks whether a line is good, the
//! aggregator reads the same fields again; so what the one accepts, the other
//! understands. Most lines are read the short way of [`plain`], which means the same.
//! It borrows from the line and allocates only for text with
//! escapes and for [`Props`], where asked for. Known strings with an escape that
//! is half a surrogate pair are not text, and so bad JSON. A label that cannot be read (`client_time`, `country`,
//! `device_os`) costs itself and not the event.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::time::UnixMillis;

mod plain;

/// Longest line, in bytes.
pub const MAX_LINE_BYTES: usize = 64 * 1024;
/// Longest name of an event, in bytes.
pub const MAX_EVENT_BYTES: usize = 200;
/// Longest `device_id`, `session`, `device_os` and `user_id`, in bytes.
pub const MAX_ID_BYTES: usize = 200;
/// Longest `param_str`, in bytes.
pub const MAX_PARAM_STR_BYTES: usize = 8192;
/// How deep objects and arrays may nest, the event's own object counted.
pub const MAX_DEPTH: usize = 16;

/// One event, its text borrowed from the line. An absent string is empty, as in
/// the raw table, where `null`, `""` and absence are one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Event<'a> {
    /// Its name, 1–200 bytes.
    pub event: Cow<'a, str>,
    /// When it happened, by the client's clock.
    pub client_time: Option<UnixMillis>,
    /// The device it happened on.
    pub device_id: Cow<'a, str>,
    /// The session it belongs to.
    pub session: Cow<'a, str>,
    /// The device's operating system.
    pub device_os: Cow<'a, str>,
    /// Who did it.
    pub user_id: Cow<'a, str>,
    /// Position in the session.
    pub sequence: u64,
    /// A number of the client's.
    pub param_int: i64,
    /// A text of the client's.
    pub param_str: Cow<'a, str>,
    /// Two or three letters, upper case.
    pub country: Country,
    /// Identity for deduplication.
    pub event_id: Option<Uuid>,
}

impl Event<'_> {
    /// Who did it: `user_id`, else `device_id`; `None` if the client told neither.
    pub fn user(&self) -> Option<&str> {
        [&self.user_id, &self.device_id].into_iter().find(|id| !id.is_empty()).map(|id| &**id)
    }
}

/// A country code of two or three ASCII letters in upper case, or nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Country([u8; 3]);

impl Country {
    /// Reads a code in either case; `None` unless it is two or three ASCII letters.
    #[inline]
    pub fn parse(text: &str) -> Option<Self> {
        let (code, third) = match *text.as_bytes() {
            [first, second] => ([first, second, 0], None),
            [first, second, third] => ([first, second, third], Some(third)),
            _ => return None,
        };
        let are_letters = code[..2].iter().chain(&third).all(u8::is_ascii_alphabetic);
        are_letters.then(|| Self(code.map(|byte| byte.to_ascii_uppercase())))
    }

    /// The code; empty if there is none.
    pub fn as_str(&self) -> &str {
        let length = self.0.iter().take_while(|b| **b != 0).count();
        str::from_utf8(&self.0[..length]).expect("a code is made of ASCII letters")
    }
}

impl fmt::Debug for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

/// The fields that only the edge may set, as the JSON that stands in a line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reserved<'a> {
    /// Whose data it is.
    pub tenant: Option<&'a str>,
    /// The client's address.
    pub ip: Option<&'a str>,
    /// When the request arrived.
    pub server_time: Option<&'a str>,
}

impl Reserved<'_> {
    /// Whether the line carries any of them.
    pub fn any(&self) -> bool {
        self.tenant.is_some() || self.ip.is_some() || self.server_time.is_some()
    }
}

/// What is wrong with a line, and with which field of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// The kind of fault.
    pub code: Code,
    /// The known field it concerns, if it concerns one.
    pub field: Option<&'static str>,
}

/// The kinds of faults; their names are part of the HTTP contract and metric labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Code {
    /// Not JSON.
    BadJson,
    /// Not UTF-8.
    BadUtf8,
    /// JSON, but not an object.
    NotAnObject,
    /// `event`, or what this endpoint needs besides, is absent.
    MissingField,
    /// A known field of another type, or out of its range.
    BadType,
    /// A known field longer than its limit.
    TooLong,
    /// A known field twice.
    DuplicateKey,
    /// Nested deeper than [`MAX_DEPTH`].
    TooDeep,
    /// Longer than [`MAX_LINE_BYTES`].
    LineTooLong,
    /// A `client_time` of none of the accepted forms, or outside 1900–2299.
    BadTime,
    /// An event that this endpoint does not take.
    UnknownEvent,
    /// A country that is not two or three letters, or none where the endpoint needs one.
    BadCountry,
}

impl Code {
    /// All codes, for metrics that start at zero.
    pub const ALL: [Self; 12] = [
        Self::BadJson,
        Self::BadUtf8,
        Self::NotAnObject,
        Self::MissingField,
        Self::BadType,
        Self::TooLong,
        Self::DuplicateKey,
        Self::TooDeep,
        Self::LineTooLong,
        Self::BadTime,
        Self::UnknownEvent,
        Self::BadCountry,
    ];

    /// The name in reports and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadJson => "bad_json",
            Self::BadUtf8 => "bad_utf8",
            Self::NotAnObject => "not_an_object",
            Self::MissingField => "missing_field",
            Self::BadType => "bad_type",
            Self::TooLong => "too_long",
            Self::DuplicateKey => "duplicate_key",
            Self::TooDeep => "too_deep",
            Self::LineTooLong => "line_too_long",
            Self::BadTime => "bad_time",
            Self::UnknownEvent => "unknown_event",
            Self::BadCountry => "bad_country",
        }
    }
}

impl Fault {
    /// A fault of the line as a whole.
    pub fn line(code: Code) -> Self {
        Self { code, field: None }
    }

    /// A fault of one known field.
    pub fn field(code: Code, field: &'static str) -> Self {
        Self { code, field: Some(field) }
    }
}

/// Labels of an event that cannot be read, so that it is stored without them; each with what is wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeftOut {
    client_time: Option<Code>,
    device_os: Option<Code>,
    country: Option<Code>,
}

impl LeftOut {
    /// Whether the event has all labels that it was sent with.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// Each label with what is wrong.
    pub fn faults(self) -> impl Iterator<Item = Fault> {
        let Self { client_time, device_os, country } = self;
        let labels = [("client_time", client_time), ("device_os", device_os), ("country", country)];
        labels.into_iter().filter_map(|(name, code)| Some(Fault::field(code?, name)))
    }
}

/// The events that the country counters count, in the order in which they are answered.
pub const COUNTED: [&str; 3] = ["view", "play", "click"];

/// Where the fields that are not known go.
pub trait Props<'a>: Default {
    /// One field: its name, and its value as the JSON that the client wrote.
    fn push(&mut self, name: Cow<'a, str>, value: &'a str);
}

/// The edge only checks them.
impl<'a> Props<'a> for () {
    fn push(&mut self, _: Cow<'a, str>, _: &'a str) {}
}

/// The aggregator keeps them, in the order of the line.
impl<'a> Props<'a> for Vec<(Cow<'a, str>, &'a str)> {
    fn push(&mut self, name: Cow<'a, str>, value: &'a str) {
        Vec::push(self, (name, value));
    }
}

/// All that stands in one line.
#[derive(Debug, Default)]
pub struct Parsed<'a, P> {
    /// The known fields.
    pub event: Event<'a>,
    /// The reserved fields; the first of each, if a client repeats one.
    pub reserved: Reserved<'a>,
    /// All other fields.
    pub props: P,
    /// Labels that the event is stored without.
    pub left_out: LeftOut,
    /// Whether `sequence` has a value.
    pub has_sequence: bool,
    /// Whether the line has the key `event_id`, be it without a value.
    pub(crate) names_event_id: bool,
    /// Whether the event's `event_id` is not the line's.
    pub(crate) derived_id: bool,
    /// Whether the line has the key `country`, be it without a value.
    pub(crate) names_country: bool,
    /// Whether the event's `country` is not the line's.
    pub(crate) derived_country: bool,
}

impl<P> Parsed<'_, P> {
    /// Gives an event that has no `event_id` one that is derived; it is written with the line.
    ///
    /// # Panics
    /// If it has one.
    pub fn identify(&mut self, id: Uuid) {
        assert!(self.event.event_id.replace(id).is_none(), "an id of the client's is never replaced");
        self.derived_id = true;
    }

    /// Gives an event that has no `country` the one of its client's address; it is written with the line.
    ///
    /// # Panics
    /// If it has one.
    pub fn locate(&mut self, country: Country) {
        let before = std::mem::replace(&mut self.event.country, country);
        assert_eq!(before, Country::default(), "a country of the client's is never replaced");
        self.derived_country = true;
    }
}

/// Reads one line of a client's; white space at both ends does not matter.
pub fn parse<'a, P: Props<'a>>(line: &'a str) -> Result<Parsed<'a, P>, Fault> {
    if line.len() > MAX_LINE_BYTES {
        return Err(Fault::line(Code::LineTooLong));
    }
    parse_enriched(line)
}

/// Reads a line that may have grown beyond [`MAX_LINE_BYTES`] by what the edge added.
pub(crate) fn parse_enriched<'a, P: Props<'a>>(line: &'a str) -> Result<Parsed<'a, P>, Fault> {
    plain::parse(line).map_or_else(|| parse_with_care(line), Ok)
}

/// Reads any line, and tells what is wrong with it.
fn parse_with_care<'a, P: Props<'a>>(line: &'a str) -> Result<Parsed<'a, P>, Fault> {
    if !line.trim_ascii_start().starts_with('{') {
        let is_json = serde_json::from_str::<&RawValue>(line).is_ok();
        return Err(Fault::line(if is_json { Code::NotAnObject } else { Code::BadJson }));
    }
    let mut visit = Visit { parsed: Parsed::default(), seen: 0, fault: None };
    let mut json = serde_json::Deserializer::from_str(line);
    let read = json.deserialize_map(&mut visit).and_then(|()| json.end());
    match (read, visit.fault) {
        (_, Some(fault)) => Err(fault),
        (Err(_), None) => Err(Fault::line(Code::BadJson)),
        (Ok(()), None) if visit.parsed.event.event.is_empty() => {
            Err(Fault::field(Code::MissingField, "event"))
        }
        (Ok(()), None) => Ok(visit.parsed),
    }
}

/// The state of one reading. A fault is kept beside serde's error, which could
/// carry it only as text.
struct Visit<'a, P> {
    parsed: Parsed<'a, P>,
    /// One bit for each known field that was met.
    seen: u16,
    fault: Option<Fault>,
}

impl<'a, P: Props<'a>> Visitor<'a> for &mut Visit<'a, P> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Text(name)) = map.next_key()? {
            let taken = match Field::named(name.as_bytes()) {
                Some(field) => {
                    let value = map.next_value()?;
                    check_label(field, &value).and_then(|()| self.known(field, value))
                }
                None => self.unknown(name, map.next_value::<&RawValue>()?.get()),
            };
            if let Err(fault) = taken {
                self.fault = Some(fault);
                return Err(A::Error::custom("a fault, kept beside"));
            }
        }
        Ok(())
    }
}

impl<'a, P: Props<'a>> Visit<'a, P> {
    #[inline(always)]
    fn known(&mut self, field: Field, value: Scalar<'a>) -> Result<(), Fault> {
        let bit = 1 << field as u16;
        if self.seen & bit != 0 {
            return Err(Fault::field(Code::DuplicateKey, field.name()));
        }
        self.seen |= bit;
        match field {
            Field::EventId => self.parsed.names_event_id = true,
            Field::Country => self.parsed.names_country = true,
            Field::Sequence => self.parsed.has_sequence = !value.is_absent(),
            _ => {}
        }
        let Err(code) = self.parsed.event.set(field, value) else { return Ok(()) };
        let left_out = &mut self.parsed.left_out;
        match (field, code) {
            (Field::ClientTime, _) => left_out.client_time = Some(code),
            (Field::Country, _) => left_out.country = Some(code),
            (Field::DeviceOs, Code::BadType) => left_out.device_os = Some(code),
            _ => return Err(Fault::field(code, field.name())),
        }
        Ok(())
    }

    fn unknown(&mut self, name: Cow<'a, str>, value: &'a str) -> Result<(), Fault> {
        let reserved = &mut self.parsed.reserved;
        match &*name {
            "tenant" => _ = reserved.tenant.get_or_insert(value),
            "ip" => _ = reserved.ip.get_or_insert(value),
            "server_time" => _ = reserved.server_time.get_or_insert(value),
            _ => {
                check_shape(value)?;
                self.parsed.props.push(name, value);
            }
        }
        Ok(())
    }
}

/// The known fields.
#[derive(Clone, Copy)]
enum Field {
    Event,
    ClientTime,
    DeviceId,
    Session,
    DeviceOs,
    UserId,
    Sequence,
    ParamInt,
    ParamStr,
    Country,
    EventId,
}

impl Field {
    /// The field of this name. By its length first, after which one comparison or two are left.
    #[inline]
    fn named(name: &[u8]) -> Option<Self> {
        Some(match name.len() {
            5 if name == b"event" => Self::Event,
            7 if name == b"session" => Self::Session,
            7 if name == b"country" => Self::Country,
            7 if name == b"user_id" => Self::UserId,
            8 if name == b"sequence" => Self::Sequence,
            8 if name == b"event_id" => Self::EventId,
            9 if name == b"device_id" => Self::DeviceId,
            9 if name == b"device_os" => Self::DeviceOs,
            9 if name == b"param_int" => Self::ParamInt,
            9 if name == b"param_str" => Self::ParamStr,
            11 if name == b"client_time" => Self::ClientTime,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::ClientTime => "client_time",
            Self::DeviceId => "device_id",
            Self::Session => "session",
            Self::DeviceOs => "device_os",
            Self::UserId => "user_id",
            Self::Sequence => "sequence",
            Self::ParamInt => "param_int",
            Self::ParamStr => "param_str",
            Self::Country => "country",
            Self::EventId => "event_id",
        }
    }
}

impl<'a> Event<'a> {
    #[inline(always)]
    fn set(&mut self, field: Field, value: Scalar<'a>) -> Result<(), Code> {
        if value.is_absent() {
            return Ok(());
        }
        match field {
            Field::Event => self.event = value.text(MAX_EVENT_BYTES)?,
            Field::ClientTime => self.client_time = Some(value.time()?),
            Field::DeviceId => self.device_id = value.text(MAX_ID_BYTES)?,
            Field::Session => self.session = value.text(MAX_ID_BYTES)?,
            Field::DeviceOs => self.device_os = value.text(MAX_ID_BYTES)?,
            Field::UserId => self.user_id = value.text(MAX_ID_BYTES)?,
            Field::Sequence => self.sequence = value.unsigned()?,
            Field::ParamInt => self.param_int = value.signed()?,
            Field::ParamStr => self.param_str = value.text(MAX_PARAM_STR_BYTES)?,
            Field::Country => {
                let text = value.text(usize::MAX).map_err(|_| Code::BadCountry)?;
                self.country = Country::parse(&text).ok_or(Code::BadCountry)?;
            }
            Field::EventId => {
                self.event_id = Some(Uuid::try_parse(&value.text(usize::MAX)?).map_err(|_| Code::BadType)?);
            }
        }
        Ok(())
    }
}

/// The value of a known field, before its field has judged it.
enum Scalar<'a> {
    Null,
    Text(Cow<'a, str>),
    Unsigned(u64),
    Negative(i64),
    /// The JSON of a fraction, a number outside 64 bits, a truth value, an array or an object.
    Other(&'a str),
}

impl<'a> Scalar<'a> {
    fn is_absent(&self) -> bool {
        match self {
            Self::Null => true,
            Self::Text(text) => text.is_empty(),
            _ => false,
        }
    }

    #[inline(always)]
    fn text(self, limit: usize) -> Result<Cow<'a, str>, Code> {
        match self {
            Self::Text(text) if text.len() > limit => Err(Code::TooLong),
            Self::Text(text) => Ok(text),
            _ => Err(Code::BadType),
        }
    }

    fn unsigned(self) -> Result<u64, Code> {
        match self {
            Self::Unsigned(number) => Ok(number),
            _ => Err(Code::BadType),
        }
    }

    #[inline(always)]
    fn signed(self) -> Result<i64, Code> {
        match self {
            Self::Unsigned(number) => i64::try_from(number).map_err(|_| Code::BadType),
            Self::Negative(number) => Ok(number),
            _ => Err(Code::BadType),
        }
    }

    #[inline(always)]
    fn time(self) -> Result<UnixMillis, Code> {
        match &self {
            Self::Text(text) => UnixMillis::parse(text).ok_or(Code::BadTime),
            Self::Unsigned(_) | Self::Negative(_) => {
                self.signed().ok().and_then(UnixMillis::from_integer).ok_or(Code::BadTime)
            }
            // Fractions of milliseconds are cut.
            Self::Other(json) => match json.parse::<f64>() {
                Ok(millis) => UnixMillis::from_integer(millis.floor() as i64).ok_or(Code::BadTime),
                Err(_) => Err(Code::BadType),
            },
            Self::Null => Err(Code::BadType),
        }
    }
}

impl<'a> Scalar<'a> {
    /// Reads a value that is JSON; `None` for a text with half a surrogate pair.
    ///
    /// By its first byte, and not by serde's own visit: to that a number beyond 64 bits of
    /// fraction is no JSON, though it is.
    fn read(json: &'a str) -> Option<Self> {
        Some(match json.as_bytes()[0] {
            b'"' => Self::Text(serde_json::from_str::<Text<'_>>(json).ok()?.0),
            b'n' => Self::Null,
            // A zero below zero is a fraction.
            b'-' => json.parse().ok().filter(|number| *number != 0).map_or(Self::Other(json), Self::Negative),
            _ => json.parse().map_or(Self::Other(json), Self::Unsigned),
        })
    }
}

impl<'a> Deserialize<'a> for Scalar<'a> {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        let json = <&RawValue>::deserialize(deserializer)?.get();
        Self::read(json).ok_or_else(|| D::Error::custom("half a surrogate pair"))
    }
}

/// Text borrowed from the line where it has no escapes (serde's `Cow` always copies).
pub(crate) struct Text<'a>(pub(crate) Cow<'a, str>);

impl<'a> Deserialize<'a> for Text<'a> {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor)
    }
}

struct TextVisitor;

impl<'a> Visitor<'a> for TextVisitor {
    type Value = Text<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E>(self, text: &'a str) -> Result<Text<'a>, E> {
        Ok(Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Text<'a>, E> {
        Ok(Text(Cow::Owned(text.to_owned())))
    }
}

/// Whether a value of the event's object may be kept as it stands.
fn check_shape(json: &str) -> Result<(), Fault> {
    let Shape { depth, fits_double } = Shape::of(json);
    if 1 + depth > MAX_DEPTH {
        return Err(Fault::line(Code::TooDeep));
    }
    if fits_double { Ok(()) } else { Err(Fault::line(Code::BadJson)) }
}

/// Whether the value of a label may stay in the line though it cannot be read. The fast way to read a line meets none.
fn check_label(field: Field, value: &Scalar<'_>) -> Result<(), Fault> {
    match (field, value) {
        (Field::ClientTime | Field::Country | Field::DeviceOs, Scalar::Other(json)) => check_shape(json),
        _ => Ok(()),
    }
}

/// What is asked of a JSON value that is kept as it stands.
struct Shape {
    /// How deep it nests; 0 for a number, a string, `true`, `false`, `null`.
    depth: usize,
    /// Whether a double holds each of its numbers: where one is larger, JSON's readers agree on nothing.
    fits_double: bool,
}

impl Shape {
    fn of(json: &str) -> Self {
        match json.as_bytes()[0] {
            b'{' | b'[' => Self::nested(json),
            b'-' | b'0'..=b'9' => Self { depth: 0, fits_double: fits_double(json) },
            _ => Self { depth: 0, fits_double: true },
        }
    }

    fn nested(json: &str) -> Self {
        let bytes = json.as_bytes();
        let (mut open, mut shape) = (0_usize, Self { depth: 0, fits_double: true });
        let (mut in_string, mut escaped) = (false, false);
        // Where the number began that is being passed.
        let mut number = None;
        for (at, byte) in bytes.iter().enumerate() {
            if let (Some(start), false) = (number, is_of_number(*byte)) {
                shape.fits_double &= fits_double(&json[start..at]);
                number = None;
            }
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = !in_string,
                _ if in_string => {}
                b'-' | b'0'..=b'9' => _ = number.get_or_insert(at),
                b'{' | b'[' => {
                    open += 1;
                    shape.depth = shape.depth.max(open);
                }
                b'}' | b']' => open -= 1,
                _ => {}
            }
        }
        shape
    }
}

fn is_of_number(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')
}

/// Whether a double holds a number of JSON.
fn fits_double(number: &str) -> bool {
    // As long as the largest double has digits, and no exponent: it fits.
    let is_small = number.len() <= 300 && !number.contains(['e', 'E']);
    is_small || number.parse().is_ok_and(f64::is_finite)
}

#[cfg(test)]
pub(crate) mod tests;
