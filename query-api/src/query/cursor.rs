//! The cursor, which describes the last row of a page: the next page begins after this row.
//!
//! A cursor contains the value of the measure by which rows are ordered, the bucket and the dimensions of the row. So
//! every replica can continue from the cursor, and a new row on an earlier page does not shift the rows of the next
//! page. For readers, a cursor is an opaque text.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::params::Query;
use super::shape::Row;

/// Why a cursor is refused.
pub(super) const NOT_OF_THIS_QUERY: &str = "it must be `next` of an answer to the same query";

/// The last row of a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cursor {
    /// The value of the measure by which rows are ordered; `None` if the value is null, or if rows are not ordered by a
    /// measure.
    pub(super) figure: Option<i128>,
    pub(super) start: i64,
    pub(super) keys: Vec<Option<String>>,
}

impl Cursor {
    /// The cursor of the page after this row.
    pub(super) fn after(row: &Row, query: &Query) -> Self {
        let figure = ordering(query).and_then(|at| row.figures[at]);
        Self { figure, start: row.start, keys: row.keys.clone() }
    }

    /// A row with the same place in the order as the row that the cursor describes.
    pub(super) fn row(&self, query: &Query) -> Row {
        let mut figures = vec![None; query.measures.len()];
        if let Some(at) = ordering(query) {
            figures[at] = self.figure;
        }
        Row { start: self.start, keys: self.keys.clone(), figures, compared: Vec::new() }
    }

    /// Parses the text that `Display` writes.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let byte = |pair: &[u8]| match *pair {
            [high, low] => u8::try_from(digit(high)? * 16 + digit(low)?).ok(),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(byte).collect();
        let parsed = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        parsed.ok_or_else(|| NOT_OF_THIS_QUERY.to_owned())
    }
}

/// Writes the cursor in hexadecimal digits, which need no escapes in a URL.
impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = serde_json::to_vec(self).expect("numbers and texts become JSON");
        bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The index in `query.measures` of the measure by which rows are ordered; `None` if rows are not ordered by a measure.
fn ordering(query: &Query) -> Option<usize> {
    let order = query.order();
    query.measures.iter().position(|name| *name == order.field)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_cursor_is_parsed_back_and_no_text_makes_the_parser_panic(
            figure in prop::option::of(any::<i128>()),
            start in any::<i64>(),
            keys in prop::collection::vec(prop::option::of(".*"), 0..3),
            text in ".*",
        ) {
            let cursor = Cursor { figure, start, keys };
            prop_assert_eq!(Cursor::parse(&cursor.to_string()), Ok(cursor));
            let _any = Cursor::parse(&text);
        }
    }
}
