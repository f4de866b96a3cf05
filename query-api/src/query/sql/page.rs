//! The clauses for the order of rows, the cursor and the limit, with which ClickHouse returns only one page of a query.

use std::fmt;

use super::super::cursor::Cursor;
use super::super::grain::Grain;
use super::super::params::{Direction, Query};
use super::super::plan::Part;

/// A field by which rows are ordered. `Display` writes the alias that the field has in the SELECT.
#[derive(Debug, Clone, Copy)]
enum Field {
    /// Start of the bucket.
    Start,
    /// A dimension, by its index in the query's dimensions.
    Key(usize),
    /// A measure, by its index in `Part::measures`.
    Figure(usize),
}

/// The clauses `ORDER BY` and `LIMIT`. A page after the first also has `QUALIFY`, which leaves out the rows of earlier
/// pages. ClickHouse evaluates `QUALIFY` after `count() OVER ()`, so the column `Total` still counts the rows of all
/// pages. `LIMIT` is one row more than the limit of the query: if this extra row is returned, there is a next page.
pub(super) fn page(query: &Query, part: &Part) -> String {
    let order = query.order();
    let first = Field::named(&order.field, query, part);
    let start = (query.grain != Grain::None).then_some(Field::Start);
    let then: Vec<_> = start.into_iter().chain((0..query.dimensions.len()).map(Field::Key)).collect();
    let after = query
        .cursor
        .as_ref()
        .map(|cursor| format!("\nQUALIFY {}", after(cursor, first, order.direction, &then)));
    let direction = match order.direction {
        Direction::Ascending => "ASC",
        Direction::Descending => "DESC",
    };
    let then: String = then.iter().map(|field| format!(", {field}")).collect();
    format!(
        "{}\nORDER BY {first} {direction} NULLS LAST{then}\nLIMIT {}",
        after.unwrap_or_default(),
        query.limit + 1
    )
}

/// The SQL condition that a row comes after the row of the cursor, if rows are ordered by `first` and then by the
/// fields `then`.
fn after(cursor: &Cursor, first: Field, direction: Direction, then: &[Field]) -> String {
    let list = |text: &dyn Fn(&Field) -> String| then.iter().map(text).collect::<Vec<_>>().join(", ");
    let values = list(&|field| field.value(cursor).unwrap_or_default());
    let follows = if then.is_empty() {
        "0".to_owned()
    } else {
        format!("({}) > ({values})", list(&ToString::to_string))
    };
    let Some(value) = first.value(cursor) else {
        return format!("{first} IS NULL AND {follows}");
    };
    let beyond = match direction {
        Direction::Ascending => '>',
        Direction::Descending => '<',
    };
    // Nulls come last, so rows with a null come after every row with a value.
    format!("{first} {beyond} {value} OR {first} IS NULL OR {first} = {value} AND {follows}")
}

impl Field {
    /// The dimension or the measure with this name, or else the start of the bucket.
    fn named(name: &str, query: &Query, part: &Part) -> Self {
        let key = query.dimensions.iter().position(|dimension| dimension == name).map(Self::Key);
        let is_named = |(place, _): &(usize, _)| query.measures[*place] == name;
        key.or_else(|| part.measures.iter().position(is_named).map(Self::Figure)).unwrap_or(Self::Start)
    }

    /// SQL for the value of the field in the row of the cursor; `None` if the field is a measure whose value is null.
    fn value(self, cursor: &Cursor) -> Option<String> {
        match self {
            Self::Start => Some(cursor.start.to_string()),
            Self::Key(at) => Some(format!("{{cursor:Array(String)}}[{}]", at + 1)),
            Self::Figure(_) => cursor.figure.map(|figure| format!("toInt128('{figure}')")),
        }
    }
}

/// The alias of the field.
impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start => f.write_str("Start"),
            Self::Key(at) => write!(f, "Key{at}"),
            Self::Figure(at) => write!(f, "Figure{at}"),
        }
    }
}
