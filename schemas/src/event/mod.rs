//! Parses what a client sends: one JSON object per line. The known fields of an event have types and limits.
//!
//! The edge and the aggregator parse lines with the same code, so the aggregator can parse every line that the edge
//! accepts. The fast path in `plain` parses most lines; `read` parses the others, and would give the same result for
//! every line that the fast path parses. The results of both borrow from the line: memory is allocated only for
//! strings with escapes, and for [`Props`] if the caller keeps them.
//!
//! An escape for an unpaired surrogate (half of a surrogate pair) is not text. If the name of a field or the text of a
//! known field has such an escape, the line is rejected with the code `bad_json`. A label (`client_time`, `country`,
//! `device_os`) with a wrong value is left out, and its event is kept. But the line is rejected if its `device_os` is
//! too long, or if a label is nested too deeply or has a number that does not fit into a double.

mod fault;

mod country;

mod value;

mod field;

mod parsed;

mod shape;

mod visit;

mod plain;

mod read;

pub use country::Country;
pub use fault::{Code, Fault};
pub use field::{Event, FIELD_NAMES, MAX_EVENT_BYTES, MAX_ID_BYTES, MAX_PARAM_STR_BYTES};
pub use parsed::{LeftOut, Parsed, Props, Reserved};
pub use shape::MAX_DEPTH;

/// Maximum length of a line from a client, in bytes. A line that the edge has enriched may be longer.
pub const MAX_LINE_BYTES: usize = 64 * 1024;

/// The names of the events that the country counters (`/v1/counters`) count, in the order in which answers list them.
pub const COUNTER_EVENTS: [&str; 3] = ["view", "play", "click"];

/// Parses one line from a client; white space at both ends does not matter.
pub fn parse<'a, P: Props<'a>>(line: &'a str) -> Result<Parsed<'a, P>, Fault> {
    if line.len() > MAX_LINE_BYTES {
        return Err(Fault::line(Code::LineTooLong));
    }
    parse_enriched(line)
}

/// Parses a line that may be longer than [`MAX_LINE_BYTES`] because the edge added fields.
pub(crate) fn parse_enriched<'a, P: Props<'a>>(line: &'a str) -> Result<Parsed<'a, P>, Fault> {
    plain::parse(line).map_or_else(|| read::parse(line), Ok)
}

#[cfg(test)]
pub(crate) mod tests;
