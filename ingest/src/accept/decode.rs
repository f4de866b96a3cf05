//! Splits a body into lines, one for each event. The lines borrow the bytes of the body.
//!
//! A body has one of three forms: an array, one object per line, or a sequence of objects that may span several lines.
//! The form is detected from the bytes of the body. The content type is ignored, because some clients declare
//! `text/plain` and send an array.
//!
//! Invariant: an invalid event does not affect any other event. There is one exception: in a body that is not read line
//! by line, if the quotes or brackets of an event do not balance, some or all of the events after it count as a part of
//! this invalid event (see `values`). No I/O.

use std::iter;
use std::ops::Range;

use memchr::memchr_iter;
use schemas::event::{Code, Fault, MAX_LINE_BYTES};
use serde::de::IgnoredAny;

use crate::line::Line;
use crate::outcome::Refusal;

mod values;

/// The events of `body`, without blank lines. A body with more than `max_events` events is refused.
pub fn lines(body: &[u8], max_events: usize) -> Result<Vec<Line<'_>>, Refusal> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    // The list ends one event above the limit: that is enough to refuse the body, and a hostile body cannot make the
    // list long.
    let most = max_events.saturating_add(1);
    // Check the whole body for valid UTF-8 at once, and each event only if the whole body is not valid.
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

/// How the events of a body are separated.
enum Shape {
    /// Each line is one event.
    Lines,
    /// Each event ends where its JSON value ends: the body is an array, or its first object spans several lines, or its
    /// first line ends with a comma after the first object.
    Values,
}

fn shape(body: &[u8]) -> Shape {
    let whole = body.trim_ascii();
    let Some(opening @ (b'{' | b'[')) = whole.first() else { return Shape::Lines };
    let Some(first_line) = memchr::memchr(b'\n', whole) else {
        return if *opening == b'[' { Shape::Values } else { Shape::Lines };
    };
    let (first, rest) = (whole[..first_line].trim_ascii_end(), whole[first_line..].trim_ascii_start());
    // The common case: the first line looks like a whole object, and the next line begins like an object.
    if *opening == b'{' && first.ends_with(b"}") && rest.starts_with(b"{") {
        return Shape::Lines;
    }
    let lines = || whole.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    match (opening, values::end_of_first(whole)) {
        (b'[', Some(_)) => Shape::Values,
        // A bracket or a quote is not closed. In an array, an object on its own line comes after a line that is `[` or
        // ends with a comma. If an object comes after any other line, the body is not an array: each line is an event.
        (b'[', None) => {
            let is_line =
                |(before, line): (&[u8], &[u8])| !before.ends_with(b",") && before != b"[" && is_object(line);
            if lines().zip(lines().skip(1)).any(is_line) { Shape::Lines } else { Shape::Values }
        }
        // The first object spans several lines, or the first line ends with a comma after the object.
        (_, Some(end)) if end > first_line || whole[end..first_line].trim_ascii() == b"," => Shape::Values,
        (_, Some(_)) => Shape::Lines,
        // The end of the first object cannot be found: either the body consists of lines and the first one is invalid,
        // or the body is one truncated object.
        (_, None) => {
            if lines().skip(1).any(is_object) {
                Shape::Lines
            } else {
                Shape::Values
            }
        }
    }
}

/// Whether a line is a whole JSON object, short enough for an event.
fn is_object(line: &[u8]) -> bool {
    line.len() <= MAX_LINE_BYTES
        && line.starts_with(b"{")
        && serde_json::from_slice::<IgnoredAny>(line).is_ok()
}

/// The number and the range of each line that is not blank, without its line break.
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
