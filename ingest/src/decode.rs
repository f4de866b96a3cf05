//! A body becomes lines, each one JSON text of its own, borrowed from the body.
//!
//! Invariant: what is wrong with one line costs no other line. No I/O.

use std::fmt;
use std::iter;
use std::ops::Range;

use memchr::memchr_iter;
use schemas::event::{Code, Fault};
use serde::Deserializer as _;
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::outcome::Refusal;

/// How the events of a body are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One object a line.
    Ndjson,
    /// One object, an array of them, or one object a line.
    Json,
}

/// One line of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// Counted from 1 in the decoded body, blank lines too; in an array, the element.
    pub number: usize,
    /// Its text, or why it has none.
    pub text: Result<&'a str, Fault>,
}

/// The lines of `body` that are not blank; refused beyond `max_events`.
pub fn lines(body: &[u8], format: Format, max_events: usize) -> Result<Vec<Line<'_>>, Refusal> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    // One more than allowed is enough to know; so a hostile body cannot make the list long.
    let most = max_events + 1;
    // Once for the whole body; only if that fails, line by line.
    let found: Vec<_> = match (simdutf8::basic::from_utf8(body), format) {
        (Ok(text), Format::Json) => json(text, most),
        (Ok(text), Format::Ndjson) => ndjson(text, most),
        (Err(_), _) => {
            let line = |(number, span)| Line { number, text: utf8(&body[span]) };
            spans(body).map(line).take(most).collect()
        }
    };
    if found.len() > max_events { Err(Refusal::TooManyEvents(max_events)) } else { Ok(found) }
}

/// What was sent as line `number` of `lines`, which are those of `body`.
///
/// # Panics
/// If there is no such line.
pub fn sent<'a>(body: &'a [u8], lines: &[Line<'a>], number: usize) -> &'a [u8] {
    let at = lines.binary_search_by_key(&number, |line| line.number).expect("the line was read");
    match lines[at].text {
        Ok(text) => text.as_bytes(),
        Err(Fault { code: Code::BadUtf8, .. }) => {
            let (_, span) = spans(body).find(|(other, _)| *other == number).expect("the line was read");
            &body[span]
        }
        // An array that is none.
        Err(_) => body,
    }
}

fn ndjson(text: &str, most: usize) -> Vec<Line<'_>> {
    spans(text.as_bytes()).map(|(number, span)| Line { number, text: Ok(&text[span]) }).take(most).collect()
}

fn utf8(line: &[u8]) -> Result<&str, Fault> {
    simdutf8::basic::from_utf8(line).map_err(|_| Fault::line(Code::BadUtf8))
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

/// What `application/json` may hold, told apart by its first byte and what follows.
fn json(text: &str, most: usize) -> Vec<Line<'_>> {
    let whole = text.trim_ascii();
    if whole.starts_with('[') {
        return array(whole, most);
    }
    match whole.split_once('\n') {
        // The first line is no value by itself: one object over several lines, or lines with a bad first one.
        Some((first, rest)) if !is_json(first) && (is_json(whole) || !rest.lines().any(is_object)) => {
            vec![Line { number: 1, text: Ok(whole) }]
        }
        _ => ndjson(text, most),
    }
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

fn is_object(line: &str) -> bool {
    line.trim_ascii_start().starts_with('{') && is_json(line)
}

fn array(text: &str, most: usize) -> Vec<Line<'_>> {
    let mut elements = Vec::new();
    let mut json = serde_json::Deserializer::from_str(text);
    let read = json.deserialize_seq(Elements { found: &mut elements, most }).and_then(|()| json.end());
    // Beyond the limit the reading stops early, which is no fault of the array's.
    if read.is_err() && elements.len() < most {
        return vec![Line { number: 1, text: Err(Fault::line(Code::BadJson)) }];
    }
    elements.iter().zip(1..).map(|(element, number)| Line { number, text: Ok(element.get()) }).collect()
}

/// Collects the elements of an array as they are written, at most so many.
struct Elements<'v, 'a> {
    found: &'v mut Vec<&'a RawValue>,
    most: usize,
}

impl<'a> Visitor<'a> for Elements<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<(), A::Error> {
        while self.found.len() < self.most {
            match seq.next_element()? {
                Some(element) => self.found.push(element),
                None => break,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
