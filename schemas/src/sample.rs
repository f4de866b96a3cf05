//! A sample of a line that the edge rejected: the tenant, what is wrong with the line, and the beginning of the line.
//! Samples are written to Kafka in their own records, with the header `kind: rejected`.
//!
//! `{"tenant":"default","server_time":"2026-11-21 04:00:00.123","code":"bad_type","field":"sequence","text":"…"}`
//!
//! Invariants:
//! - A sample has no field `event`. So an old release, which ignores the header `kind`, cannot store a sample as an
//!   event.
//! - The tenant is the first field. So `line::tenant_of` finds it even if the rest of the line cannot be read.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::line::is_tenant;
use crate::time::UnixMillis;

/// Maximum length of [`Sample::text`] in bytes.
pub const MAX_TEXT_BYTES: usize = 4096;
/// Maximum length of [`Sample::code`] and [`Sample::field`] in bytes.
const MAX_WORD_BYTES: usize = 32;

/// A sample of one rejected line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample<'a> {
    /// The tenant that would have owned the event.
    #[serde(borrow)]
    pub tenant: Cow<'a, str>,
    /// When the headers of the request were complete, in the same format as `server_time` of an enriched line.
    #[serde(borrow)]
    pub server_time: Cow<'a, str>,
    /// The error code that the response listed for the line.
    #[serde(borrow)]
    pub code: Cow<'a, str>,
    /// The field that is wrong; `None` if the whole line is wrong or Millrace does not know the field.
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
        serde_json::to_vec(self).expect("strings can always be written to memory as JSON")
    }

    /// Parses a line of a record; `None` if it is not a valid sample.
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

/// The beginning of the line as text with at most [`MAX_TEXT_BYTES`] bytes. A character that does not fit completely
/// is left out; if other bytes of the beginning are not UTF-8, U+FFFD may stand for this character.
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
            // U+FFFD has three bytes and may replace a single byte, so the text may now be too long.
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
