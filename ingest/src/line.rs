//! A line: one event of a body.
//!
//! An event is called a line even if it is an element of a JSON array, because it becomes one line of a Kafka record.

use schemas::event::Fault;

/// One event of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// The number of the event, from 1. If the body is read line by line, this is the number of the line in the
    /// decompressed body, blank lines included. Otherwise (the body is an array, or its objects span several lines),
    /// it is the position of the event among the events of the body.
    pub number: usize,
    /// The bytes of the event, as the client sent them.
    pub bytes: &'a [u8],
    /// The text of `bytes`, or the fault if `bytes` is not valid UTF-8. For a vote that was rewritten: the text of the
    /// ordinary event that the vote becomes, or the fault of the vote.
    pub text: Result<&'a str, Fault>,
}
