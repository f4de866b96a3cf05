//! Filters: conditions that an event must meet to be counted, for example `event:in:click|view`.
//!
//! An empty value means that the field is absent. The values come from clients and from the key file. They are only
//! compared or bound as parameters, and are never part of a statement's text.

use std::fmt;

/// One condition. An event must meet all conditions of a query.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Filter {
    /// The dimension, as the request or the key file names it.
    pub(crate) field: String,
    /// The test that the value of the dimension must pass.
    pub(crate) test: Test,
}

/// A test on a value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Test {
    /// The value is one of these.
    In(Vec<String>),
    /// The value is none of these.
    NotIn(Vec<String>),
    /// The value begins with this.
    Prefix(String),
    /// The value contains this.
    Contains(String),
}

/// Maximum number of values of one condition.
const MAX_VALUES: usize = 1_000;
/// Maximum number of bytes of one condition. The values of a condition are sent to ClickHouse as one query parameter,
/// which may have at most 128 KiB (`http_max_field_value_size`). Even after escaping, the values fit into this limit.
const MAX_BYTES: usize = 16 << 10;

impl Filter {
    /// Reads `field:op:value`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let syntax = "write field:op:value, for example event:in:click|view";
        if text.len() > MAX_BYTES {
            return Err(format!("it may have at most {MAX_BYTES} bytes"));
        }
        let (field, rest) = text.split_once(':').ok_or(syntax)?;
        let (op, value) = rest.split_once(':').ok_or(syntax)?;
        if field.is_empty() {
            return Err(syntax.to_owned());
        }
        let test = match op {
            "eq" => Test::In(vec![value.to_owned()]),
            "ne" => Test::NotIn(vec![value.to_owned()]),
            "in" => Test::In(split(value)),
            "nin" => Test::NotIn(split(value)),
            "prefix" => Test::Prefix(value.to_owned()),
            "contains" => Test::Contains(value.to_owned()),
            _ => return Err("the operator must be one of eq, ne, in, nin, prefix, contains".to_owned()),
        };
        match &test {
            Test::In(values) | Test::NotIn(values) if values.len() > MAX_VALUES => {
                Err(format!("a list may have at most {MAX_VALUES} values"))
            }
            _ => Ok(Self { field: field.to_owned(), test }),
        }
    }

    /// Whether a value meets the condition.
    pub(crate) fn is_met_by(&self, value: &str) -> bool {
        match &self.test {
            Test::In(values) => values.iter().any(|one| one == value),
            Test::NotIn(values) => values.iter().all(|one| one != value),
            Test::Prefix(prefix) => value.starts_with(prefix.as_str()),
            Test::Contains(part) => value.contains(part.as_str()),
        }
    }

    /// All values that meet the condition; `None` if the condition does not list them.
    pub(crate) fn values(&self) -> Option<&[String]> {
        match &self.test {
            Test::In(values) => Some(values),
            Test::NotIn(_) | Test::Prefix(_) | Test::Contains(_) => None,
        }
    }
}

impl Test {
    /// The values that ClickHouse binds for this test.
    pub(crate) fn bound(&self) -> Vec<String> {
        match self {
            Self::In(values) | Self::NotIn(values) => values.clone(),
            Self::Prefix(text) | Self::Contains(text) => vec![text.clone()],
        }
    }

    /// The SQL condition on a column. `parameter` is the name of the query parameter that holds the bound values.
    pub(crate) fn condition(&self, column: &str, parameter: &str) -> String {
        let bound = format!("{{{parameter}:Array(String)}}");
        match self {
            Self::In(_) => format!("{column} IN {bound}"),
            Self::NotIn(_) => format!("{column} NOT IN {bound}"),
            Self::Prefix(_) => format!("startsWith({column}, {bound}[1])"),
            Self::Contains(_) => format!("position({column}, {bound}[1]) > 0"),
        }
    }
}

/// Writes a filter in the form that requests use.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (op, value) = match &self.test {
            Test::In(values) => ("in", join(values)),
            Test::NotIn(values) => ("nin", join(values)),
            Test::Prefix(prefix) => ("prefix", prefix.clone()),
            Test::Contains(part) => ("contains", part.clone()),
        };
        write!(f, "{}:{op}:{value}", self.field)
    }
}

/// Joins values with `|`; [`split`] is the inverse.
fn join(values: &[String]) -> String {
    let escaped: Vec<_> = values.iter().map(|value| value.replace('\\', r"\\").replace('|', r"\|")).collect();
    escaped.join("|")
}

/// Splits at `|`. Within a value, `\|` means `|` and `\\` means `\`.
fn split(text: &str) -> Vec<String> {
    let mut values = vec![String::new()];
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let value = values.last_mut().expect("there is a first value");
        match character {
            '\\' => value.push(characters.next_if(|next| matches!(next, '|' | '\\')).unwrap_or('\\')),
            '|' => values.push(String::new()),
            other => value.push(other),
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, field: &str, test: Test) {
        assert_eq!(Filter::parse(text), Ok(Filter { field: field.to_owned(), test }));
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn a_filter_is_split_at_its_first_two_colons() {
        check("event:eq:a:b", "event", Test::In(texts(&["a:b"])));
        check("props.url:prefix:https://", "props.url", Test::Prefix("https://".to_owned()));
        check("country:ne:", "country", Test::NotIn(texts(&[""])));
        check("event:eq:a|b", "event", Test::In(texts(&["a|b"])));
    }

    #[test]
    fn a_list_is_split_at_unescaped_bars() {
        check("event:in:a|b", "event", Test::In(texts(&["a", "b"])));
        check(r"event:in:a\|b", "event", Test::In(texts(&["a|b"])));
        check(r"event:nin:a\\|b\c|", "event", Test::NotIn(texts(&[r"a\", r"b\c", ""])));
    }

    #[test]
    fn text_that_is_not_a_filter_is_refused() {
        for text in ["", "event", "event:eq", ":eq:a", "event:like:a"] {
            assert!(Filter::parse(text).is_err(), "{text}");
        }
        assert!(Filter::parse(&format!("event:in:{}", "|".repeat(MAX_VALUES))).is_err());
        assert!(Filter::parse(&format!("event:eq:{}", "a".repeat(MAX_BYTES))).is_err());
    }

    proptest! {
        #[test]
        fn every_list_can_be_written_and_read(values in prop::collection::vec(".*", 1..5)) {
            let filter = Filter { field: "event".to_owned(), test: Test::In(values) };
            prop_assert_eq!(Filter::parse(&filter.to_string()), Ok(filter));
        }
    }
}
