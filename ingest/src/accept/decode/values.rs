//! Where the events of arrays, and of objects that follow one another, begin and end.
//!
//! Only quotes and brackets are looked at, so that a bad event ends where it ends and costs no other one. Where they do
//! not balance, nobody can tell where an event ends: then all that is left of the body is one event, and a bad one.

use std::ops::Range;

/// The places of all events in `body`, without the white space around them.
pub(super) fn spans(body: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut values = Values { body, at: 0, in_array: false };
    std::iter::from_fn(move || values.next())
}

/// Where the value ends with which `body` begins, an object or an array. None if its quotes or brackets do not balance.
pub(super) fn end_of_first(body: &[u8]) -> Option<usize> {
    Values { body, at: 0, in_array: false }.end()
}

struct Values<'a> {
    body: &'a [u8],
    at: usize,
    /// Whether an array was begun and has not ended.
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

    /// Moves behind the comma after a value, if one stands there.
    fn skip_separator(&mut self) {
        let rest = &self.body[self.at..];
        let blank = rest.len() - rest.trim_ascii_start().len();
        if rest.get(blank) == Some(&b',') {
            self.at += blank + 1;
        }
    }

    /// Where the value that begins here ends: in an array before its comma or bracket, else behind its own last
    /// bracket, or where its line ends. None if quotes or brackets do not balance.
    fn end(&self) -> Option<usize> {
        // Of either kind: one that is closed by the other kind is a bad event, which still ends there.
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
        // In an array a bracket is missing, and the last element may be cut off.
        (depth == 0 && !in_string && !self.in_array).then_some(self.body.len())
    }
}

fn trimmed(body: &[u8], span: Range<usize>) -> Range<usize> {
    let value = &body[span.clone()];
    let start = span.start + (value.len() - value.trim_ascii_start().len());
    start..start + value.trim_ascii().len()
}
