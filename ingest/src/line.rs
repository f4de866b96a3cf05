//! A line: one event of a body, as it was sent.
//!
//! An element of a JSON array is also called a line, because each event becomes one line of a record.

use schemas::event::Fault;

/// One event of a body, as it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// The number of the event, from 1. If the events of the body are separated by lines, this is the number of the
    /// line in the decompressed body, blank lines included; otherwise, it is the position of the event in the body.
    pub number: usize,
    /// The bytes of the event.
    pub bytes: &'a [u8],
    /// The text of the event, or the reason why the bytes are not text.
    pub text: Result<&'a str, Fault>,
}
