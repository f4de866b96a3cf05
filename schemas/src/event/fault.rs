//! What can be wrong with a line.

use crate::named_enum::named_enum;

/// What is wrong with a line, and with which field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// The kind of fault.
    pub code: Code,
    /// The known field that has the fault; `None` if the fault is reported for the line as a whole.
    pub field: Option<&'static str>,
}

impl Fault {
    /// A fault of the line as a whole.
    #[inline]
    pub fn line(code: Code) -> Self {
        Self { code, field: None }
    }

    /// A fault of one known field.
    #[inline]
    pub fn field(code: Code, field: &'static str) -> Self {
        Self { code, field: Some(field) }
    }
}

named_enum! {
    /// The kinds of faults; their names are part of the HTTP contract and labels of metrics.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub enum Code {
        /// Not JSON, or JSON that some JSON parsers reject: a number that does not fit into a double, or an unpaired
        /// surrogate in the name of a field or in the text of a known field. If such a number is the value of a known
        /// field that is not a label, the code is `BadType` instead. Values of reserved fields are not checked.
        BadJson = "bad_json",
        /// Not UTF-8.
        BadUtf8 = "bad_utf8",
        /// JSON, but not an object.
        NotAnObject = "not_an_object",
        /// `event`, or another field that the endpoint requires, is absent.
        MissingField = "missing_field",
        /// A known field has the wrong type, or is out of its range.
        BadType = "bad_type",
        /// A known field is longer than its limit.
        TooLong = "too_long",
        /// A known field occurs twice.
        DuplicateKey = "duplicate_key",
        /// Nested deeper than [`MAX_DEPTH`](super::MAX_DEPTH).
        TooDeep = "too_deep",
        /// Longer than [`MAX_LINE_BYTES`](super::MAX_LINE_BYTES).
        LineTooLong = "line_too_long",
        /// `client_time` has none of the accepted forms, or is outside 1900–2299.
        BadTime = "bad_time",
        /// The endpoint that received the event does not accept events with this name.
        UnknownEvent = "unknown_event",
        /// The country is not two or three letters, or is absent although the endpoint requires one.
        BadCountry = "bad_country",
    }

    /// All codes. A metric with a code as its label starts at zero for each of them.
    pub const ALL;

    /// The name of the code in responses of the edge and in metrics.
    pub fn as_str;
}
