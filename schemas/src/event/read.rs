//! The careful path: parses any line with serde, and finds its fault if it has one.

use std::fmt;

use serde::de::{Deserializer as _, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::fault::{Code, Fault};
use super::field::Field;
use super::parsed::{Parsed, Props};
use super::shape::check_shape;
use super::value::Scalar;
use super::visit::Visit;
use crate::json_text::Text;

/// Parses any line, or finds its fault.
pub(super) fn parse<'a, P: Props<'a>>(line: &'a str) -> Result<Parsed<'a, P>, Fault> {
    if !line.trim_ascii_start().starts_with('{') {
        let is_json = serde_json::from_str::<&RawValue>(line).is_ok();
        return Err(Fault::line(if is_json { Code::NotAnObject } else { Code::BadJson }));
    }
    let mut reading = Reading { visit: Visit::default(), fault: None };
    let mut json = serde_json::Deserializer::from_str(line);
    let read = json.deserialize_map(&mut reading).and_then(|()| json.end());
    match (read, reading.fault) {
        (_, Some(fault)) => Err(fault),
        (Err(_), None) => Err(Fault::line(Code::BadJson)),
        (Ok(()), None) if reading.visit.parsed.event.event.is_empty() => {
            Err(Fault::field(Code::MissingField, "event"))
        }
        (Ok(()), None) => Ok(reading.visit.parsed),
    }
}

/// What serde has read of a line so far, and the line's fault. The fault is kept here, because serde's own error could
/// carry it only as text.
struct Reading<'a, P> {
    visit: Visit<'a, P>,
    fault: Option<Fault>,
}

impl<'a, P: Props<'a>> Visitor<'a> for &mut Reading<'a, P> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Text(name)) = map.next_key()? {
            let taken = match Field::named(name.as_bytes()) {
                Some(field) => {
                    let value = map.next_value()?;
                    check_label(field, &value).and_then(|()| self.visit.known(field, value))
                }
                None => self.visit.unknown(name, map.next_value::<&RawValue>()?.get()),
            };
            if let Err(fault) = taken {
                self.fault = Some(fault);
                return Err(A::Error::custom("the fault is kept in `Reading`"));
            }
        }
        Ok(())
    }
}

/// Checks the depth and the numbers of a label (`client_time`, `country`, `device_os`) whose value is not `null`, a
/// string or an integer of 64 bits. If such a label cannot be read, it is left out of the event, but its JSON stays in
/// the enriched line. So every later reader must be able to parse this JSON. The fast path reads no such lines.
fn check_label(field: Field, value: &Scalar<'_>) -> Result<(), Fault> {
    match (field, value) {
        (Field::ClientTime | Field::Country | Field::DeviceOs, Scalar::Other(json)) => check_shape(json),
        _ => Ok(()),
    }
}
