//! The fast path: one pass over the bytes of a line, for the lines that clients usually send.
//!
//! Invariant: the careful path (`read`) would parse every line that is parsed here, with the same result. The fast
//! path gives up on each line with a fault, and on unusual lines, for example with an escape in a string. The careful
//! path then parses the line or finds its fault.

use std::borrow::Cow;
use std::ops::Range;

use wide::u8x16;

use super::field::Field;
use super::parsed::{Parsed, Props};
use super::shape::MAX_DEPTH;
use super::value::Scalar;
use super::visit::Visit;

/// A number with this many digits certainly fits into 64 bits.
const SAFE_DIGITS: usize = 18;

/// Parses a line; `None` if the careful path must parse it.
pub(super) fn parse<'a, P: Props<'a>>(line: &'a str) -> Option<Parsed<'a, P>> {
    let mut visit = Visit::default();
    let mut scan = Scan { text: line, at: 0, quotes: Quotes::new(line.as_bytes()) };
    scan.take(b'{')?;
    loop {
        scan.skip_space()?;
        let name = scan.string()?;
        scan.take(b':')?;
        scan.skip_space()?;
        match Field::named(&line.as_bytes()[name.clone()]) {
            Some(field) => scan.known(field, &mut visit)?,
            None => visit.unknown(Cow::Borrowed(&line[name]), scan.value()?).ok()?,
        }
        if !scan.has_next_element(b'}')? {
            break;
        }
    }
    let is_whole = scan.skip_space().is_none() && scan.at == line.len();
    (is_whole && !visit.parsed.event.event.is_empty()).then_some(visit.parsed)
}

/// A position in a line.
struct Scan<'a> {
    text: &'a str,
    at: usize,
    quotes: Quotes<'a>,
}

impl<'a> Scan<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Moves to the next byte that is not white space, and returns it.
    fn skip_space(&mut self) -> Option<u8> {
        loop {
            match self.peek()? {
                b' ' | b'\t' | b'\n' | b'\r' => self.at += 1,
                byte => return Some(byte),
            }
        }
    }

    /// Skips white space, then moves past `byte`; `None` if the next byte is another, or the line ends.
    fn take(&mut self, byte: u8) -> Option<()> {
        (self.skip_space()? == byte).then(|| self.at += 1)
    }

    /// Moves past `word`, if it is next.
    fn word(&mut self, word: &str) -> Option<()> {
        self.text.as_bytes()[self.at..].starts_with(word.as_bytes()).then(|| self.at += word.len())
    }

    /// Moves past the byte after an element of an object or array: `true` for a comma, `false` for the closing bracket
    /// `end`, `None` for any other byte.
    fn has_next_element(&mut self, end: u8) -> Option<bool> {
        let byte = self.skip_space()?;
        self.at += 1;
        (byte == b',' || byte == end).then_some(byte == b',')
    }

    /// Moves past a string without escapes, and returns where its text is; `None` if no such string begins here.
    #[inline(always)]
    fn string(&mut self) -> Option<Range<usize>> {
        let (open, close) = (self.quotes.next()?, self.quotes.next()?);
        if open != self.at {
            return None;
        }
        self.at = close + 1;
        Some(open + 1..close)
    }

    /// Moves past digits, and returns them; there may be none.
    fn digits(&mut self) -> &'a str {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        &self.text[start..self.at]
    }

    /// Moves past the value of a known field, and adds the value to `visit`; `None` if the value is not a plain string,
    /// integer or `null`, or has a fault.
    #[inline]
    fn known<P: Props<'a>>(&mut self, field: Field, visit: &mut Visit<'a, P>) -> Option<()> {
        // Each arm calls `visit.known` itself, instead of one call after the match: in each call, the compiler knows
        // the variant of the value, and can inline only the code for that variant.
        let taken = match self.peek()? {
            b'"' => {
                let text = self.string()?;
                visit.known(field, Scalar::Text(Cow::Borrowed(&self.text[text])))
            }
            b'n' => {
                self.word("null")?;
                visit.known(field, Scalar::Null)
            }
            b'-' => {
                self.at += 1;
                // Negative zero is left to the careful path, which reads it as a fraction.
                let number = i64::try_from(self.integer()?).ok().filter(|number| *number != 0)?;
                visit.known(field, Scalar::Negative(-number))
            }
            _ => visit.known(field, Scalar::Unsigned(self.integer()?)),
        };
        taken.ok()
    }

    fn integer(&mut self) -> Option<u64> {
        let (start, mut value) = (self.at, 0_u64);
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            value = value.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
            self.at += 1;
        }
        let digits = self.at - start;
        let is_plain = (1..=SAFE_DIGITS).contains(&digits)
            && (digits == 1 || self.text.as_bytes()[start] != b'0')
            && !matches!(self.peek(), Some(b'.' | b'e' | b'E'));
        is_plain.then_some(value)
    }

    /// Moves past a value, and returns its JSON as the client wrote it; `None` if the fast path cannot read the value,
    /// or if it is nested deeper than [`MAX_DEPTH`].
    fn value(&mut self) -> Option<&'a str> {
        let start = self.at;
        self.skip(MAX_DEPTH)?;
        Some(&self.text[start..self.at])
    }

    /// Moves past a value; `None` if the fast path cannot read the value, or if it has more than `depth` levels of
    /// objects and arrays.
    fn skip(&mut self, depth: usize) -> Option<()> {
        match self.peek()? {
            b'"' => self.string().map(|_| ()),
            b'n' => self.word("null"),
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'{' => self.skip_all(b'}', depth.checked_sub(1)?, true),
            b'[' => self.skip_all(b']', depth.checked_sub(1)?, false),
            _ => self.skip_number(),
        }
    }

    /// Moves past an object or array, up to and including its closing bracket `end`; each element may have at most
    /// `depth` levels. `named` is true for an object, because its elements have names.
    fn skip_all(&mut self, end: u8, depth: usize, named: bool) -> Option<()> {
        self.at += 1;
        if self.skip_space()? == end {
            self.at += 1;
            return Some(());
        }
        loop {
            if named {
                self.skip_space()?;
                self.string()?;
                self.take(b':')?;
            }
            self.skip_space()?;
            self.skip(depth)?;
            if !self.has_next_element(end)? {
                return Some(());
            }
        }
    }

    fn skip_number(&mut self) -> Option<()> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let whole = self.digits();
        if whole.is_empty() || (whole.len() > 1 && whole.starts_with('0')) {
            return None;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            if self.digits().is_empty() {
                return None;
            }
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

/// The number of bytes that [`Quotes`] examines at a time: a `u64` has one bit for each of them.
const BLOCK: usize = 64;

/// The positions of the quotes (`"`) in a line, in order. If the line has no escapes, each quote opens or closes a
/// string.
struct Quotes<'a> {
    /// The bytes that were not examined yet.
    rest: &'a [u8],
    /// The position in the line at which the next block begins.
    start: usize,
    /// The quotes in the last examined block that were not returned yet: bit `n` is set if byte `n` is such a quote.
    pending: u64,
}

impl<'a> Quotes<'a> {
    fn new(text: &'a [u8]) -> Self {
        Self { rest: text, start: 0, pending: 0 }
    }

    /// The position of the next quote; `None` if the line has no more quotes, or if the search for it meets a block
    /// that has a backslash or a control character.
    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        while self.pending == 0 {
            self.examine()?;
        }
        let at = self.start - BLOCK + self.pending.trailing_zeros() as usize;
        self.pending &= self.pending - 1;
        Some(at)
    }

    /// Examines the next block; `None` if there is none, or if it has a backslash or a control character.
    #[inline(never)]
    fn examine(&mut self) -> Option<()> {
        self.pending = match self.rest.split_first_chunk() {
            Some((block, rest)) => {
                self.rest = rest;
                quotes(block)?
            }
            None if self.rest.is_empty() => return None,
            None => {
                let mut block = [b' '; BLOCK];
                block[..self.rest.len()].copy_from_slice(self.rest);
                self.rest = &[];
                quotes(&block)?
            }
        };
        self.start += BLOCK;
        Some(())
    }
}

/// The quotes in a block: bit `n` is set if byte `n` is a quote. `None` if the block has a backslash or a control
/// character.
fn quotes(block: &[u8; BLOCK]) -> Option<u64> {
    let (quote, backslash) = (u8x16::splat(b'"'), u8x16::splat(b'\\'));
    let last_control = u8x16::splat(b' ' - 1);
    let (mut quotes, mut special) = (0, u8x16::ZERO);
    for (at, part) in block.as_chunks().0.iter().enumerate() {
        let bytes = u8x16::new(*part);
        quotes |= u64::from(bytes.simd_eq(quote).to_bitmask()) << (16 * at);
        special |= bytes.simd_eq(backslash) | bytes.simd_eq(bytes.min(last_control));
    }
    (!special.any()).then_some(quotes)
}
