//! The value of a known field as it was sent, and its conversion to the type of the field.

use std::borrow::Cow;

use serde::de::{Deserialize, Deserializer, Error as _};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::country::Country;
use super::fault::Code;
use crate::json_text::Text;
use crate::time::UnixMillis;

/// The value of a known field.
pub(super) enum Scalar<'a> {
    Null,
    Text(Cow<'a, str>),
    Unsigned(u64),
    Negative(i64),
    /// The JSON of a fraction, negative zero, a number that does not fit into 64 bits, a boolean, an array or an
    /// object.
    Other(&'a str),
}

impl<'a> Scalar<'a> {
    #[inline]
    pub(super) fn is_absent(&self) -> bool {
        match self {
            Self::Null => true,
            Self::Text(text) => text.is_empty(),
            Self::Unsigned(_) | Self::Negative(_) | Self::Other(_) => false,
        }
    }

    #[inline(always)]
    pub(super) fn text(self, limit: usize) -> Result<Cow<'a, str>, Code> {
        match self {
            Self::Text(text) if text.len() > limit => Err(Code::TooLong),
            Self::Text(text) => Ok(text),
            _ => Err(Code::BadType),
        }
    }

    #[inline]
    pub(super) fn unsigned(self) -> Result<u64, Code> {
        match self {
            Self::Unsigned(number) => Ok(number),
            _ => Err(Code::BadType),
        }
    }

    #[inline(always)]
    pub(super) fn signed(self) -> Result<i64, Code> {
        match self {
            Self::Unsigned(number) => i64::try_from(number).map_err(|_| Code::BadType),
            Self::Negative(number) => Ok(number),
            _ => Err(Code::BadType),
        }
    }

    #[inline(always)]
    pub(super) fn time(self) -> Result<UnixMillis, Code> {
        match &self {
            Self::Text(text) => UnixMillis::parse(text).ok_or(Code::BadTime),
            Self::Unsigned(_) | Self::Negative(_) => {
                self.signed().ok().and_then(UnixMillis::from_integer).ok_or(Code::BadTime)
            }
            // A time with a fraction of a millisecond is rounded down.
            Self::Other(json) => match json.parse::<f64>() {
                Ok(millis) => UnixMillis::from_integer(millis.floor() as i64).ok_or(Code::BadTime),
                Err(_) => Err(Code::BadType),
            },
            Self::Null => Err(Code::BadType),
        }
    }

    #[inline(always)]
    pub(super) fn country(self) -> Result<Country, Code> {
        let text = self.text(usize::MAX).map_err(|_| Code::BadCountry)?;
        Country::parse(&text).ok_or(Code::BadCountry)
    }

    #[inline(always)]
    pub(super) fn uuid(self) -> Result<Uuid, Code> {
        Uuid::try_parse(&self.text(usize::MAX)?).map_err(|_| Code::BadType)
    }

    /// Parses a JSON value; `None` for a string with an unpaired surrogate.
    ///
    /// The first byte decides the type. `deserialize_any` of serde_json is not used, because it rejects some numbers
    /// with long fractions although such numbers are JSON.
    fn read(json: &'a str) -> Option<Self> {
        Some(match json.as_bytes()[0] {
            b'"' => Self::Text(serde_json::from_str::<Text<'_>>(json).ok()?.0),
            b'n' => Self::Null,
            // No integer type has a negative zero, so `-0` is handled like a fraction.
            b'-' => json.parse().ok().filter(|number| *number != 0).map_or(Self::Other(json), Self::Negative),
            _ => json.parse().map_or(Self::Other(json), Self::Unsigned),
        })
    }
}

impl<'a> Deserialize<'a> for Scalar<'a> {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        let json = <&RawValue>::deserialize(deserializer)?.get();
        Self::read(json).ok_or_else(|| D::Error::custom("an unpaired surrogate"))
    }
}
