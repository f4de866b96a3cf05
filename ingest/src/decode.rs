//! A body becomes events, each one JSON text of its own, borrowed from the body.
//!
//! A body is one object, an array, or one object a line, whatever its content type says: clients name `text/plain`
//! and send an array. It is told by its first byte and what follows. Invariant: what is wrong with one event costs no
//! other event. No I/O.

use std::iter;
use std::ops::Range;

use memchr::memchr_iter;
use schemas::event::{Code, Fault};
use serde::de::IgnoredAny;

use crate::outcome::Refusal;

mod values;

/// One event of a body, as it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// Counted from 1: its line in the decoded body, blank ones counted too, or its place in an array.
    pub number: usize,
    /// Its bytes.
    pub bytes: &'a [u8],
    /// Its text, or why it has none.
    pub text: Result<&'a str, Fault>,
}

/// The events of `body`; blank lines are none. Refused beyond `max_events`.
pub fn lines(body: &[u8], max_events: usize) -> Result<Vec<Line<'_>>, Refusal> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    // One more than allowed is enough to know; so a hostile body cannot make the list long.
    let most = max_events + 1;
    // Once for the whole body; only if that fails, event by event.
    let text = simdutf8::basic::from_utf8(body).ok();
    let line = |(number, span): (usize, Range<usize>)| {
        let bytes = &body[span.clone()];
        let text = text.map_or_else(|| utf8(bytes), |text| Ok(&text[span]));
        Line { number, bytes, text }
    };
    let found: Vec<_> = match shape(body) {
        Shape::Lines => spans(body).map(line).take(most).collect(),
        Shape::Values => (1..).zip(values::spans(body)).map(line).take(most).collect(),
    };
    if found.len() > max_events { Err(Refusal::TooManyEvents(max_events)) } else { Ok(found) }
}

fn utf8(bytes: &[u8]) -> Result<&str, Fault> {
    simdutf8::basic::from_utf8(bytes).map_err(|_| Fault::line(Code::BadUtf8))
}

/// How the events of a body are told apart.
enum Shape {
    /// One a line.
    Lines,
    /// By where JSON values end: arrays, and objects over several lines.
    Values,
}

fn shape(body: &[u8]) -> Shape {
    let whole = body.trim_ascii();
    match whole.first() {
        Some(b'[') => return Shape::Values,
        Some(b'{') => {}
        _ => return Shape::Lines,
    }
    let Some(end) = memchr::memchr(b'\n', whole) else { return Shape::Lines };
    let (first, rest) = (whole[..end].trim_ascii_end(), whole[end..].trim_ascii_start());
    // As lines nearly always are: the first is whole, and so begins the next.
    if (first.ends_with(b"}") && rest.starts_with(b"{")) || is_json(first) {
        return Shape::Lines;
    }
    // An object over several lines, or lines with a bad first one.
    let is_object = |line: &[u8]| line.trim_ascii_start().starts_with(b"{") && is_json(line);
    let are_lines = !is_json(whole) && rest.split(|byte| *byte == b'\n').any(is_object);
    if are_lines { Shape::Lines } else { Shape::Values }
}

fn is_json(text: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(text).is_ok()
}

/// Number and place of each line that is not blank, without its line break.
fn spans(body: &[u8]) -> impl Iterator<Item = (usize, Range<usize>)> {
    let mut start = 0;
    memchr_iter(b'\n', body)
        .chain(iter::once(body.len()))
        .map(move |end| {
            let line = start..if body[start..end].ends_with(b"\r") { end - 1 } else { end };
            start = end + 1;
            line
        })
        .zip(1..)
        .filter(|(line, _)| !body[line.clone()].trim_ascii().is_empty())
        .map(|(line, number)| (number, line))
}

#[cfg(test)]
mod tests;
