//! The state of parsing one line: what the fast path and the careful path do with each field.

use std::borrow::Cow;

use super::fault::{Code, Fault};
use super::field::Field;
use super::parsed::{Parsed, Props};
use super::shape::check_shape;
use super::value::Scalar;

/// One bit for each known field.
type FieldSet = u16;
const _: () = assert!(Field::COUNT <= FieldSet::BITS as usize);

/// The state of parsing one line.
#[derive(Default)]
pub(super) struct Visit<'a, P> {
    pub(super) parsed: Parsed<'a, P>,
    seen: FieldSet,
}

impl<'a, P: Props<'a>> Visit<'a, P> {
    /// Adds a known field to the parsed line. A label that cannot be read is left out, except a `device_os` that is
    /// too long, which is a fault of the line.
    #[inline(always)]
    pub(super) fn known(&mut self, field: Field, value: Scalar<'a>) -> Result<(), Fault> {
        let bit = 1 << field as FieldSet;
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

    /// Adds a field that is not a known field: a reserved field, or one of the other fields.
    #[inline]
    pub(super) fn unknown(&mut self, name: Cow<'a, str>, value: &'a str) -> Result<(), Fault> {
        if let Some(reserved) = self.parsed.reserved.named(&name) {
            reserved.get_or_insert(value);
        } else {
            check_shape(value)?;
            self.parsed.props.push(name, value);
        }
        Ok(())
    }
}
