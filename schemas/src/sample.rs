//! A sample of a line that the edge rejected, in a record of its own kind: the tenant, what is wrong with the line,
//! and the beginning of the line.
//!
//! `{"tenant":"default","server_time":"2026-11-21 04:00:00.123","code":"bad_type","field":"sequence","text":"…"}`
//!
//! Invariants: a release that does not know this kind of record cannot read a sample as an event, because a sample has
//! no `event`; the tenant is first, where `line::tenant_of` reads it.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::line::is_tenant;
use crate::time::UnixMillis;

/// A sample has at most this many bytes of its line.
pub const MAX_TEXT_BYTES: usize = 4096;
/// Longest code and longest name of a field, in bytes.
const MAX_WORD_BYTES: usize = 32;

/// One rejected line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample<'a> {
    /// The tenant that would have owned the event.
    #[serde(borrow)]
    pub tenant: Cow<'a, str>,
    /// When the headers of the request were complete, as in the lines of events.
    #[serde(borrow)]
    pub server_time: Cow<'a, str>,
    /// What is wrong: the code in the response.
    #[serde(borrow)]
    pub code: Cow<'a, str>,
    /// The known field that has the fault, if the fault is in one field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<Cow<'a, str>>,
    /// The beginning of the line, with U+FFFD for bytes that are not UTF-8.
    #[serde(borrow)]
    pub text: Cow<'a, str>,
}

impl<'a> Sample<'a> {
    /// The sample of `line`, the bytes that the client sent.
    pub fn new(
        tenant: &'a str,
        server_time: UnixMillis,
        code: &'a str,
        field: Option<&'a str>,
        line: &'a [u8],
    ) -> Self {
        let (tenant, code, field) = (tenant.into(), code.into(), field.map(Cow::from));
        Self { tenant, server_time: server_time.to_string().into(), code, field, text: beginning(line) }
    }

    /// The sample as a line of a record, without a line break.
    pub fn write(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a sample is written to memory")
    }

    /// Parses a line of a record; `None` if it is not a sample.
    pub fn read(line: &'a [u8]) -> Option<Self> {
        let sample: Self = serde_json::from_slice(line).ok()?;
        let is_good = is_tenant(&sample.tenant)
            && is_word(&sample.code)
            && sample.field.as_deref().is_none_or(is_word)
            && sample.text.len() <= MAX_TEXT_BYTES;
        is_good.then_some(sample)
    }
}

fn is_word(text: &str) -> bool {
    let good = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
    (1..=MAX_WORD_BYTES).contains(&text.len()) && text.bytes().all(good)
}

/// At most [`MAX_TEXT_BYTES`] of the line, cut between characters.
fn beginning(line: &[u8]) -> Cow<'_, str> {
    let start = &line[..line.len().min(MAX_TEXT_BYTES)];
    match str::from_utf8(start) {
        Ok(text) => text.into(),
        // The text is valid except for its last character, which the cut has split.
        Err(error) if error.error_len().is_none() && start.len() < line.len() => {
            str::from_utf8(&start[..error.valid_up_to()]).expect("the text is valid up to here").into()
        }
        Err(_) => {
            let mut text = String::from_utf8_lossy(start).into_owned();
            // U+FFFD is longer than the byte that it replaces, so the text may now be too long.
            text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
            text.into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_keeps_the_beginning_of_a_long_line_as_text() {
        let check = |line: &[u8], expected: &str| assert_eq!(beginning(line), expected);
        check(b"", "");
        check(b"a\xffb", "a\u{fffd}b");
        check("é".repeat(4096).as_bytes(), &"é".repeat(2048));
        check(format!("x{}", "😀".repeat(2000)).as_bytes(), &format!("x{}", "😀".repeat(1023)));
        check(&[0xff; 5000], &"\u{fffd}".repeat(4096 / 3));
        check(b"cut off in \xf0\x9f", "cut off in \u{fffd}");
    }

    #[test]
    fn a_line_that_is_not_a_sample_is_not_read_as_one() {
        let line = |tenant: &str, code: &str| {
            format!(r#"{{"tenant":"{tenant}","server_time":"","code":"{code}","text":"x"}}"#)
        };
        assert!(Sample::read(line("a", "bad_json").as_bytes()).is_some());
        for bad in
            [line("", "bad_json"), line("a", ""), line("a", "Bad:json"), "{}".to_owned(), "x".to_owned()]
        {
            assert_eq!(Sample::read(bad.as_bytes()), None, "{bad}");
        }
    }
}
