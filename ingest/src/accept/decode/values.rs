//! Finds where the events of an array, or of a sequence of objects, begin and end.
//!
//! Within an event, only quotes and brackets are examined, so the end of an invalid event is found too, and the event
//! does not affect the next one. If the quotes or brackets of an event do not balance, its end cannot be found: the
//! text up to the end of a later event, or up to the end of the body, counts as one invalid event.

use std::ops::Range;

/// The ranges of all events in `body`, without the white space around them.
pub(super) fn spans(body: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut values = Values { body, at: 0, in_array: false };
    std::iter::from_fn(move || values.next())
}

/// The end of the object or array at the beginning of `body`. None if its quotes or brackets do not balance.
pub(super) fn end_of_first(body: &[u8]) -> Option<usize> {
    Values { body, at: 0, in_array: false }.end()
}

struct Values<'a> {
    body: &'a [u8],
    at: usize,
    /// Whether `at` is inside an array whose elements are events.
    in_array: bool,
}

impl Values<'_> {
    fn next(&mut self) -> Option<Range<usize>> {
        loop {
            self.skip_white_space();
            match (self.in_array, self.body.get(self.at)?) {
                (false, b'[') => self.in_array = true,
                (true, b']') => self.in_array = false,
                _ => break,
            }
            self.at += 1;
        }
        let start = self.at;
        match self.end() {
            Some(end) => {
                self.at = end;
                self.skip_separator();
                Some(trimmed(self.body, start..end))
            }
            None => {
                self.at = self.body.len();
                Some(trimmed(self.body, start..self.body.len()))
            }
        }
    }

    fn skip_white_space(&mut self) {
        while self.body.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
    }

    /// Skips the comma after a value, if there is one.
    fn skip_separator(&mut self) {
        let rest = &self.body[self.at..];
        let blank = rest.len() - rest.trim_ascii_start().len();
        if rest.get(blank) == Some(&b',') {
            self.at += blank + 1;
        }
    }

    /// Where the value at the current position ends. In an array, the end is the comma or closing bracket after the
    /// value. Otherwise, the end is just after the bracket that closes the value, or the end of the line if the value
    /// has no brackets. `None` if quotes or brackets do not balance.
    fn end(&self) -> Option<usize> {
        // Braces and square brackets are not distinguished: an event such as `{]` is invalid, but it still ends at its
        // closing bracket.
        let mut depth = 0_usize;
        let (mut in_string, mut escaped) = (false, false);
        for (at, byte) in self.body.iter().enumerate().skip(self.at) {
            if in_string {
                match byte {
                    _ if escaped => escaped = false,
                    b'\\' => escaped = true,
                    b'"' => in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => in_string = true,
                b'{' | b'[' => depth += 1,
                b',' | b']' if depth == 0 && self.in_array => return Some(at),
                b'}' | b']' => {
                    depth = depth.checked_sub(1)?;
                    if depth == 0 && !self.in_array {
                        return Some(at + 1);
                    }
                }
                b'\n' if depth == 0 && !self.in_array => return Some(at),
                _ => {}
            }
        }
        // If an array has no closing bracket, its last element may be truncated, so the element has no known end.
        (depth == 0 && !in_string && !self.in_array).then_some(self.body.len())
    }
}

fn trimmed(body: &[u8], span: Range<usize>) -> Range<usize> {
    let value = &body[span.clone()];
    let start = span.start + (value.len() - value.trim_ascii_start().len());
    start..start + value.trim_ascii().len()
}
