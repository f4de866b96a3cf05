//! The fast way to read a line: one pass over its bytes, for what clients usually send.
//!
//! Invariant: what it reads, serde reads the same. It takes no text with an escape, and
//! nothing that is at fault: the line is then read by serde, which also tells the fault.

use std::borrow::Cow;

use super::{Field, MAX_DEPTH, Parsed, Props, Scalar, Visit};

/// Most digits of a number that certainly fits into 64 bits.
const SAFE_DIGITS: usize = 18;

/// Reads a line, unless that takes more care.
pub(super) fn parse<'a, P: Props<'a>>(line: &'a str) -> Option<Parsed<'a, P>> {
    let mut visit = Visit { parsed: Parsed::default(), seen: 0, fault: None };
    let mut scan = Scan { text: line, at: 0 };
    scan.space();
    scan.take(b'{')?;
    loop {
        scan.space();
        let name = scan.text()?;
        scan.space();
        scan.take(b':')?;
        scan.space();
        match Field::named(name) {
            Some(field) => visit.known(field, scan.scalar()?).ok()?,
            None => visit.unknown(Cow::Borrowed(name), scan.value()?).ok()?,
        }
        scan.space();
        if !scan.goes_on(b'}')? {
            break;
        }
    }
    scan.space();
    let is_whole = scan.at == line.len() && !visit.parsed.event.event.is_empty();
    is_whole.then_some(visit.parsed)
}

/// A place in a text.
struct Scan<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scan<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn word(&mut self, word: &str) -> Option<()> {
        self.text.as_bytes()[self.at..].starts_with(word.as_bytes()).then(|| self.at += word.len())
    }

    /// After an element: whether another one follows, or `end`.
    fn goes_on(&mut self, end: u8) -> Option<bool> {
        let byte = self.peek()?;
        self.at += 1;
        (byte == b',' || byte == end).then_some(byte == b',')
    }

    /// A string without escapes.
    fn text(&mut self) -> Option<&'a str> {
        self.take(b'"')?;
        let start = self.at;
        self.at += plain_length(&self.text.as_bytes()[start..]);
        let text = &self.text[start..self.at];
        self.take(b'"')?;
        Some(text)
    }

    fn digits(&mut self) -> &'a str {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        &self.text[start..self.at]
    }

    /// The value of a known field: a text, an integer or `null`.
    fn scalar(&mut self) -> Option<Scalar<'a>> {
        match self.peek()? {
            b'"' => self.text().map(|text| Scalar::Text(Cow::Borrowed(text))),
            b'n' => self.word("null").map(|()| Scalar::Null),
            b'-' => {
                self.at += 1;
                // A zero below zero is a fraction to serde.
                let number = i64::try_from(self.integer()?).ok().filter(|number| *number != 0)?;
                Some(Scalar::Negative(-number))
            }
            _ => self.integer().map(Scalar::Unsigned),
        }
    }

    fn integer(&mut self) -> Option<u64> {
        let digits = self.digits();
        let is_plain = (1..=SAFE_DIGITS).contains(&digits.len())
            && (digits.len() == 1 || !digits.starts_with('0'))
            && !matches!(self.peek(), Some(b'.' | b'e' | b'E'));
        let value = |sum, digit: &u8| sum * 10 + u64::from(digit - b'0');
        is_plain.then(|| digits.as_bytes().iter().fold(0, value))
    }

    /// Any value, as it stands.
    fn value(&mut self) -> Option<&'a str> {
        let start = self.at;
        self.skip(MAX_DEPTH)?;
        Some(&self.text[start..self.at])
    }

    /// Moves behind a value that nests less deep than `depth`.
    fn skip(&mut self, depth: usize) -> Option<()> {
        match self.peek()? {
            b'"' => self.text().map(|_| ()),
            b'n' => self.word("null"),
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'{' => self.skip_all(b'}', depth.checked_sub(1)?, true),
            b'[' => self.skip_all(b']', depth.checked_sub(1)?, false),
            _ => self.skip_number(),
        }
    }

    /// Moves behind an object or array.
    fn skip_all(&mut self, end: u8, depth: usize, named: bool) -> Option<()> {
        self.at += 1;
        self.space();
        if self.take(end).is_some() {
            return Some(());
        }
        loop {
            self.space();
            if named {
                self.text()?;
                self.space();
                self.take(b':')?;
                self.space();
            }
            self.skip(depth)?;
            self.space();
            if !self.goes_on(end)? {
                return Some(());
            }
        }
    }

    fn skip_number(&mut self) -> Option<()> {
        self.take(b'-');
        let whole = self.digits();
        if whole.is_empty() || (whole.len() > 1 && whole.starts_with('0')) {
            return None;
        }
        if self.take(b'.').is_some() && self.digits().is_empty() {
            return None;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            if self.digits().is_empty() {
                return None;
            }
        }
        Some(())
    }
}

/// Bytes before the first that may not stand in a string as it is: a quote, a backslash,
/// or a control character.
fn plain_length(bytes: &[u8]) -> usize {
    let (words, rest) = bytes.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let found = special(u64::from_le_bytes(*word));
        if found != 0 {
            return at * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    let in_rest = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..b' '));
    words.len() * 8 + in_rest.unwrap_or(rest.len())
}

/// The highest bit of each special byte, right up to the first of them.
///
/// After Sean Anderson, "Bit Twiddling Hacks", `hasless` and `hasvalue`.
fn special(word: u64) -> u64 {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGH: u64 = u64::from_le_bytes([0x80; 8]);
    let less = |word: u64, than: u8| word.wrapping_sub(ONES * than as u64) & !word;
    let is = |byte: u8| less(word ^ (ONES * byte as u64), 1);
    (less(word, b' ') | is(b'"') | is(b'\\')) & HIGH
}
