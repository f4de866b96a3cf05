//! A line: one event of a body, as the client sent it.
//!
//! An event is called a line even if it is an element of a JSON array, because it becomes one line of a Kafka record.

use schemas::event::Fault;

/// One event of a body, as the client sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// The number of the event, from 1. If each event is on a line of its own, this is the number of that line in the
    /// decompressed body, blank lines included. Otherwise, it is the position of the event among the events.
    pub number: usize,
    /// The bytes of the event.
    pub bytes: &'a [u8],
    /// The text of the event, or the fault if the bytes are not valid UTF-8.
    pub text: Result<&'a str, Fault>,
}
