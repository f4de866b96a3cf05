//! The parameters of a query: one table has the name, the parser and the documentation of each.
//!
//! `GET` and `POST` use the same table. A parameter that is not in the table is refused, and the error names it. A
//! parameter that is given twice is also refused, because the service would have to guess which value counts. Only
//! parameters of [`Shape::Many`] may be given more than once.

use std::collections::BTreeSet;
use std::fmt;

use jiff::tz::TimeZone;
use schemas::rollup::Rollups;
use serde::de::{Deserializer as _, Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::cursor::{Cursor, NOT_OF_THIS_QUERY};
use super::grain::{Calendar, Grain, Week};
use super::window::Bound;
use crate::access::Reader;
use crate::filter::Filter;
use crate::problem::{Kind, Problem};

/// The parsed parameters of a query.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    /// Names of measures, at least one.
    pub(super) measures: Vec<String>,
    /// The dimensions by which rows are broken down, as the request names them.
    pub(super) dimensions: Vec<String>,
    pub(super) grain: Grain,
    pub(super) from: Bound,
    pub(super) to: Bound,
    pub(super) calendar: Calendar,
    /// The conditions; an event must meet all of them.
    pub(super) filters: Vec<Filter>,
    pub(super) top: Option<Top>,
    pub(super) fill: Fill,
    pub(super) order: Option<Order>,
    pub(super) limit: usize,
    /// The row after which the answer begins; `None` if the answer begins with the first row.
    pub(super) cursor: Option<Cursor>,
    pub(super) partial: Partial,
    /// What each row is compared with; `None` if the query asks for no comparison.
    pub(super) compare: Option<Compare>,
    pub(super) accuracy: Accuracy,
    /// The only rollups that may be read; if empty, any rollup may be read.
    pub(super) rollups: Vec<String>,
    pub(super) format: Option<Format>,
    pub(super) csv: CsvStyle,
    pub(super) integers: Integers,
    given: Given,
}

/// The values of each parameter of a table, as text: those in the request, or else the default.
#[derive(Debug, Clone)]
pub(crate) struct Given<Q: 'static = Query>(Vec<(&'static Parameter<Q>, Vec<String>)>);

/// How many values of a dimension have rows of their own. All other values are merged as if they were one value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Top {
    /// The dimension; `None` means the first dimension of the query.
    pub(super) dimension: Option<String>,
    /// How many values have rows of their own.
    pub(super) count: usize,
}

/// What an answer has for a combination of dimension values in a bucket without events of this combination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fill {
    /// A row with 0; for a minimum or maximum, with null.
    Zero,
    /// A row with null.
    Null,
    /// No row.
    None,
}

/// The field by which rows are ordered first, and the direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Order {
    /// `time`, a dimension or a measure.
    pub(super) field: String,
    pub(super) direction: Direction,
}

/// The direction in which rows are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// The smallest value first.
    Ascending,
    /// The largest value first.
    Descending,
}

/// Whether buckets that are not complete yet have rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Partial {
    /// Incomplete buckets have rows.
    Include,
    /// Incomplete buckets have no rows.
    Omit,
}

/// The window that the window of the query is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compare {
    /// The window directly before, with the same number of buckets. Without a grain, the window directly before has the
    /// same number of units ([`Window::unit`](super::window::Window::unit)).
    Previous,
    /// The same window a week before.
    Week,
    /// The same window a year before; with the grain `week`, 52 weeks before.
    Year,
    /// The window between two bounds.
    Between(Bound, Bound),
}

/// How distinct values are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Accuracy {
    /// Exactly if at most [`MAX_EXACT_VALUES`](super::sql::MAX_EXACT_VALUES) values must be merged, otherwise
    /// estimated from a sample.
    Auto,
    /// Exactly, however many values must be merged.
    Exact,
    /// Estimated from a sample.
    Fast,
}

/// The format of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// One JSON object with the members `data`, `meta` and `query`.
    Json,
    /// One JSON object per line, for each row.
    Ndjson,
    /// CSV as in RFC 4180.
    Csv,
}

/// Who reads the CSV.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CsvStyle {
    /// Programs: texts are written as they are stored.
    Plain,
    /// Spreadsheets: the file begins with a byte order mark, times are local and have no offset, and `'` is put before
    /// texts that a spreadsheet would evaluate as formulas.
    Excel,
}

/// How measures are written in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Integers {
    /// As numbers with all of their digits.
    Number,
    /// As strings, for clients that parse every JSON number as a double, such as JavaScript.
    Text,
}

/// One parameter of a request. `Q` is the type of the parsed request.
pub(crate) struct Parameter<Q = Query> {
    /// The name of the parameter.
    pub(crate) name: &'static str,
    /// The value that is used if the parameter is absent, as a request would write it.
    pub(crate) default: Option<&'static str>,
    /// What the parameter is for, and how its values are written.
    pub(crate) doc: &'static str,
    /// How often the parameter may be given, and how it is written in JSON.
    pub(crate) shape: Shape,
    /// Which values `read` accepts, as far as a JSON schema can express it.
    pub(crate) values: Values,
    /// Parses a value from a request into `Q`. The error says which values are valid.
    pub(crate) read: fn(&mut Q, &str) -> Result<(), String>,
}

/// How often a parameter may be given, and how it is written in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Once, as one value.
    One,
    /// Once, as values separated by commas; in JSON also as an array.
    List,
    /// Any number of times; in JSON also as an array.
    Many,
}

/// The values of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Values {
    /// Texts that match this regular expression (ECMA 262); any text if the expression is empty.
    Text(&'static str),
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// A whole number within these limits.
    Number(usize, usize),
    /// At most this many distinct names without commas.
    Names(usize),
}

impl<Q> fmt::Debug for Parameter<Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// All parameters, in the order in which the member `query` of an answer lists them.
pub(crate) static PARAMETERS: [Parameter; 20] = [
    Parameter {
        name: "measures",
        default: Some("events"),
        doc: "Names of measures of declared rollups, separated by commas, at most 8.",
        shape: Shape::List,
        values: Values::Names(MAX_MEASURES),
        read: |query, text| names(text, MAX_MEASURES).map(|names| query.measures = names),
    },
    Parameter {
        name: "dimensions",
        default: None,
        doc: "The dimensions by which rows are broken down, separated by commas, at most 6; for example \
              `event,country,props.plan`.",
        shape: Shape::List,
        values: Values::Names(MAX_DIMENSIONS),
        read: |query, text| names(text, MAX_DIMENSIONS).map(|names| query.dimensions = names),
    },
    Parameter {
        name: "grain",
        default: Some("none"),
        doc: "Length of a bucket: `minute`, `15m`, `hour`, `day`, `week`, `month`, `quarter`, `year`, or `none` for \
              one bucket.",
        shape: Shape::One,
        values: Values::OneOf(&["minute", "15m", "hour", "day", "week", "month", "quarter", "year", "none"]),
        read: |query, text| Grain::parse(text).map(|grain| query.grain = grain),
    },
    Parameter {
        name: "from",
        default: Some("-24h"),
        doc: "The start: a date, a moment (RFC 3339), or `-7d` for the last 7 days, the current day included. The \
              units are `m` (minutes), `h`, `d`, `w`, `mo` (months) and `y`.",
        shape: Shape::One,
        values: Values::Text(BOUND),
        read: |query, text| Bound::parse(text).map(|bound| query.from = bound),
    },
    Parameter {
        name: "to",
        default: Some("now"),
        doc: "The end, which is not included: like `from`, or `now`.",
        shape: Shape::One,
        values: Values::Text(BOUND),
        read: |query, text| Bound::parse(text).map(|bound| query.to = bound),
    },
    Parameter {
        name: "tz",
        default: Some("UTC"),
        doc: "The time zone of buckets, by its IANA name.",
        shape: Shape::One,
        values: Values::Text(""),
        read: |query, text| zone(text).map(|zone| query.calendar.zone = zone),
    },
    Parameter {
        name: "week",
        default: Some("mon"),
        doc: "The first day of a week: `mon` or `sun`.",
        shape: Shape::One,
        values: Values::OneOf(&["mon", "sun"]),
        read: |query, text| week(text).map(|week| query.calendar.week = week),
    },
    Parameter {
        name: "filter",
        default: None,
        doc: "A condition `field:op:value`; may be given up to 16 times, and all must hold. `op` is `eq`, `ne`, `in`, \
              `nin`, `prefix` or `contains`. Lists are split at `|`; `\\|` and `\\\\` stand for `|` and `\\`. An empty \
              value means that the field is absent.",
        shape: Shape::Many,
        values: Values::Text(FILTER),
        read: |query, text| add_filter(&mut query.filters, text),
    },
    Parameter {
        name: "top",
        default: None,
        doc: "`5` or `country:5`: the values of the first (or the named) dimension are ranked by the first measure \
              over the window. The 5 highest have rows of their own; all other values are merged as if they were \
              one value, and the rows of this value have `others`.",
        shape: Shape::One,
        values: Values::Text("^(.*:)?[0-9]+$"),
        read: |query, text| top(text).map(|top| query.top = Some(top)),
    },
    Parameter {
        name: "fill",
        default: Some("zero"),
        doc: "How buckets without events are filled: `zero` (null for a minimum or maximum), `null`, or `none` for \
              no row. Only buckets that have begun are filled.",
        shape: Shape::One,
        values: Values::OneOf(&["zero", "null", "none"]),
        read: |query, text| {
            let choices = [("zero", Fill::Zero), ("null", Fill::Null), ("none", Fill::None)];
            choice(text, &choices).map(|fill| query.fill = fill)
        },
    },
    Parameter {
        name: "order",
        default: None,
        doc: "`<field>:asc` or `<field>:desc`, where the field is `time`, a dimension or a measure. By default by \
              time; without a grain by the first measure, the greatest first. Ties are ordered by time, then by \
              dimensions.",
        shape: Shape::One,
        values: Values::Text("^.*:(asc|desc)$"),
        read: |query, text| order(text).map(|order| query.order = Some(order)),
    },
    Parameter {
        name: "limit",
        default: Some("1000"),
        doc: "Maximum number of rows in the answer: up to 10000 in JSON, up to 100000 in NDJSON and CSV.",
        shape: Shape::One,
        values: Values::Number(1, MAX_LIMIT),
        read: |query, text| {
            let limit = text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
            limit
                .map(|limit| query.limit = limit)
                .ok_or_else(|| format!("it must be a number from 1 to {MAX_LIMIT}"))
        },
    },
    Parameter {
        name: "cursor",
        default: None,
        doc: "`meta.next` of an answer to the same query: asks for the rows that follow the last row of that answer.",
        shape: Shape::One,
        values: Values::Text("^([0-9a-f]{2})+$"),
        read: |query, text| Cursor::parse(text).map(|cursor| query.cursor = Some(cursor)),
    },
    Parameter {
        name: "partial",
        default: Some("include"),
        doc: "`omit` leaves out the buckets that are not complete yet; `include` keeps them.",
        shape: Shape::One,
        values: Values::OneOf(&["include", "omit"]),
        read: |query, text| {
            let choices = [("include", Partial::Include), ("omit", Partial::Omit)];
            choice(text, &choices).map(|partial| query.partial = partial)
        },
    },
    Parameter {
        name: "compare",
        default: None,
        doc: "`previous` for the window directly before, `week` or `year` for the same window a week or a year before \
              (52 weeks before if `grain` is `week`), or any other window as `from..to`: each row has `compare` and \
              `change` in addition to its measures.",
        shape: Shape::One,
        values: Values::Text("^(previous|week|year|.+\\.\\..+)$"),
        read: |query, text| compare(text).map(|compare| query.compare = Some(compare)),
    },
    Parameter {
        name: "accuracy",
        default: Some("auto"),
        doc: "How distinct values are counted: `exact` always exactly, `fast` from a sample of one in 16 values, \
              `auto` exactly if at most 5 million values must be merged, otherwise from the sample.",
        shape: Shape::One,
        values: Values::OneOf(&["auto", "exact", "fast"]),
        read: |query, text| {
            let choices = [("auto", Accuracy::Auto), ("exact", Accuracy::Exact), ("fast", Accuracy::Fast)];
            choice(text, &choices).map(|accuracy| query.accuracy = accuracy)
        },
    },
    Parameter {
        name: "rollup",
        default: None,
        doc: "The only rollups that may be read, separated by commas, at most 8; needed where rollups define a \
              measure differently.",
        shape: Shape::List,
        values: Values::Names(MAX_MEASURES),
        read: |query, text| names(text, MAX_MEASURES).map(|names| query.rollups = names),
    },
    Parameter {
        name: "format",
        default: None,
        doc: "`json`, `ndjson` or `csv`. If absent, the first of these that names a format decides: the suffix of the \
              path, `csv=excel`, the header `Accept`. If none does, the format is `json`.",
        shape: Shape::One,
        values: Values::OneOf(&["json", "ndjson", "csv"]),
        read: |query, text| {
            let choices = [("json", Format::Json), ("ndjson", Format::Ndjson), ("csv", Format::Csv)];
            choice(text, &choices).map(|format| query.format = Some(format))
        },
    },
    Parameter {
        name: "csv",
        default: Some("plain"),
        doc: "`excel` makes CSV for spreadsheets: a byte order mark, local times without offset, and `'` before a \
              text that a spreadsheet would evaluate as a formula.",
        shape: Shape::One,
        values: Values::OneOf(&["plain", "excel"]),
        read: |query, text| {
            choice(text, &[("plain", CsvStyle::Plain), ("excel", CsvStyle::Excel)])
                .map(|style| query.csv = style)
        },
    },
    Parameter {
        name: "int64",
        default: Some("number"),
        doc: "`string` writes measures as strings in JSON, for clients that parse every JSON number as a double, such \
              as JavaScript.",
        shape: Shape::One,
        values: Values::OneOf(&["number", "string"]),
        read: |query, text| {
            let choices = [("number", Integers::Number), ("string", Integers::Text)];
            choice(text, &choices).map(|integers| query.integers = integers)
        },
    },
];

/// The pattern of a bound: `now`, a date, a moment, or the last units with the current one (`-7d`).
pub(crate) const BOUND: &str = "^(now|-[0-9]+(m|h|d|w|mo|y)|[0-9]{4}-[0-9]{2}-[0-9]{2}([T ].*)?)$";

/// The pattern of a filter, without its value.
pub(crate) const FILTER: &str = "^[^:]+:(eq|ne|in|nin|prefix|contains):";

pub(super) const MAX_MEASURES: usize = 8;
pub(super) const MAX_DIMENSIONS: usize = 6;
pub(crate) const MAX_FILTERS: usize = 16;
/// Maximum number of rows of an answer in any format.
pub(super) const MAX_LIMIT: usize = 100_000;
/// Maximum number of rows of an answer that is one JSON document.
pub(super) const MAX_JSON_LIMIT: usize = 10_000;
pub(super) const MAX_TOP: usize = 1_000;

impl Query {
    /// Parses the parameters of `GET`, or those that [`of_json`] returns.
    pub(super) fn parse(pairs: &[(String, String)]) -> Result<Self, Problem> {
        let mut query = Self::empty();
        query.given = read(&PARAMETERS, &mut query, pairs)?;
        query.check()?;
        Ok(query)
    }

    fn empty() -> Self {
        Self {
            measures: Vec::new(),
            dimensions: Vec::new(),
            grain: Grain::None,
            from: Bound::Now,
            to: Bound::Now,
            calendar: Calendar { zone: TimeZone::UTC, week: Week::Monday },
            filters: Vec::new(),
            top: None,
            fill: Fill::Zero,
            order: None,
            limit: 0,
            cursor: None,
            partial: Partial::Include,
            compare: None,
            accuracy: Accuracy::Auto,
            rollups: Vec::new(),
            format: None,
            csv: CsvStyle::Plain,
            integers: Integers::Number,
            given: Given::default(),
        }
    }

    /// Checks that the parameters fit together.
    fn check(&self) -> Result<(), Problem> {
        if self.measures.is_empty() {
            return Err(Problem::bad("measures", "name at least one measure"));
        }
        let time = (self.grain != Grain::None).then(|| "time".to_owned());
        let fields: Vec<_> = time.iter().chain(&self.dimensions).chain(&self.measures).collect();
        let mut seen = BTreeSet::from(["others"]);
        if self.compare.is_some() {
            seen.extend(["compare", "change"]);
        }
        if self.compare == Some(Compare::Week)
            && matches!(self.grain, Grain::Month | Grain::Quarter | Grain::Year)
        {
            return Err(Problem::bad(
                "compare",
                "buckets of this grain do not begin a week apart; use year or previous",
            ));
        }
        if let Some(twice) = fields.iter().find(|field| !seen.insert(field)) {
            let param = if self.dimensions.contains(twice) { "dimensions" } else { "measures" };
            return Err(Problem::bad(param, format!("a row would have two fields `{twice}`")));
        }
        match &self.top {
            Some(_) if self.dimensions.is_empty() => {
                return Err(Problem::bad("top", "it needs a dimension to rank"));
            }
            Some(Top { dimension: Some(name), .. }) if !self.dimensions.contains(name) => {
                return Err(Problem::bad("top", format!("`{name}` is not among the dimensions")));
            }
            _ => {}
        }
        // The row of a cursor lacks the value of a dimension only if `top` merged values of this dimension.
        let is_row = |cursor: &Cursor| {
            cursor.keys.len() == self.dimensions.len()
                && (self.top.is_some() || cursor.keys.iter().all(Option::is_some))
        };
        if self.cursor.as_ref().is_some_and(|cursor| !is_row(cursor)) {
            return Err(Problem::bad("cursor", NOT_OF_THIS_QUERY));
        }
        match &self.order {
            Some(Order { field, .. }) if !fields.contains(&field) => {
                let fields: Vec<_> = fields.iter().map(|field| field.as_str()).collect();
                Err(Problem::bad(
                    "order",
                    format!("rows have no field `{field}`; they have {}", fields.join(", ")),
                ))
            }
            _ if self.csv == CsvStyle::Excel && self.format.is_some_and(|format| format != Format::Csv) => {
                Err(Problem::bad("csv", "`format` asks for another format than CSV"))
            }
            _ => Ok(()),
        }
    }

    /// Checks that the reader's key permits the query, and adds the filters of the key. The field `query` of an answer
    /// does not show the filters of the key.
    ///
    /// # Errors
    /// The key does not permit one of the query's measures, or permits no measure at all of a rollup that the query
    /// names.
    pub(super) fn of_reader(mut self, reader: &Reader, rollups: &Rollups) -> Result<Self, Problem> {
        self.measures.iter().try_for_each(|name| reader.check_measure("measures", name))?;
        let may_read = |name: &String| {
            let measures = rollups.get(name).map(|rollup| &rollup.measures);
            measures.is_some_and(|measures| measures.iter().any(|(name, _)| reader.may_read(name)))
        };
        if let Some(name) = self.rollups.iter().find(|name| reader.measures.is_some() && !may_read(name)) {
            let reason = format!("the key permits no measure of `{name}`");
            return Err(Problem::of(Kind::Forbidden, "rollup", reason));
        }
        self.filters.extend(reader.filters.iter().cloned());
        Ok(self)
    }

    /// The place in `dimensions` of the dimension whose values `top` ranks; `None` without `top`.
    pub(super) fn ranked(&self) -> Option<usize> {
        let top = self.top.as_ref()?;
        let named = top.dimension.as_ref();
        Some(
            named
                .and_then(|name| self.dimensions.iter().position(|dimension| dimension == name))
                .unwrap_or(0),
        )
    }

    /// The field by which rows are ordered first.
    pub(super) fn order(&self) -> Order {
        let default = || match self.grain {
            Grain::None => Order { field: self.measures[0].clone(), direction: Direction::Descending },
            _ => Order { field: "time".to_owned(), direction: Direction::Ascending },
        };
        self.order.clone().unwrap_or_else(default)
    }

    /// The canonical text of the query, by which equal queries are recognized.
    pub(super) fn canonical(&self) -> String {
        self.given.canonical()
    }
}

impl Serialize for Query {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.given.serialize(serializer)
    }
}

/// Reads the given parameters into `request`, with the parsers of `table`.
///
/// # Errors
/// A parameter is not in the table, is given more often than the table permits, or has an invalid value. The error
/// names the parameter.
pub(crate) fn read<Q>(
    table: &'static [Parameter<Q>],
    request: &mut Q,
    pairs: &[(String, String)],
) -> Result<Given<Q>, Problem> {
    let known = |name: &str| table.iter().any(|parameter| parameter.name == name);
    if let Some((name, _)) = pairs.iter().find(|(name, _)| !known(name)) {
        let names: Vec<_> = table.iter().map(|parameter| parameter.name).collect();
        let reason = format!("there is no such parameter; the parameters are {}", names.join(", "));
        return Err(Problem::bad(name, reason));
    }
    let mut all = Vec::with_capacity(table.len());
    for parameter in table {
        let given = pairs.iter().filter(|(name, _)| name == parameter.name);
        let mut texts: Vec<_> = given.map(|(_, text)| text.clone()).collect();
        if texts.len() > 1 && parameter.shape != Shape::Many {
            return Err(Problem::bad(parameter.name, "it is given more than once"));
        }
        if texts.is_empty() {
            texts.extend(parameter.default.map(str::to_owned));
        }
        for text in &texts {
            (parameter.read)(request, text).map_err(|reason| Problem::bad(parameter.name, reason))?;
        }
        all.push((parameter, texts));
    }
    Ok(Given(all))
}

impl<Q> Given<Q> {
    /// The text by which equal requests are recognized. It leaves out the parameters that affect only the format of the
    /// answer. So requests with equal texts can share one answer, which is then rendered in the format of each request.
    pub(crate) fn canonical(&self) -> String {
        let format_parameters = ["format", "csv", "int64"];
        let answer = self.0.iter().filter(|(parameter, _)| !format_parameters.contains(&parameter.name));
        let texts: Vec<_> = answer.map(|(parameter, texts)| (parameter.name, texts)).collect();
        serde_json::to_string(&texts).expect("texts become JSON")
    }
}

impl<Q> Default for Given<Q> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// The parameters that were given or have a default, in the form that `POST` accepts.
impl<Q> Serialize for Given<Q> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (parameter, texts) in self.0.iter().filter(|(_, texts)| !texts.is_empty()) {
            let name = parameter.name;
            match parameter.shape {
                Shape::One => map.serialize_entry(name, &texts[0]),
                Shape::List => map.serialize_entry(name, &texts[0].split(',').collect::<Vec<_>>()),
                Shape::Many => map.serialize_entry(name, texts),
            }?;
        }
        map.end()
    }
}

/// The parameters in a JSON object, in the form that they have in `GET`.
pub(crate) fn of_json<Q>(table: &[Parameter<Q>], body: &[u8]) -> Result<Vec<(String, String)>, Problem> {
    /// Collects the members of the object; fails if there are more than this number.
    struct Pairs(usize);
    impl<'de> Visitor<'de> for Pairs {
        type Value = Vec<(String, Value)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        /// Keeps every member, even if names are equal, so that [`read`] can refuse a parameter that is given twice.
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut pairs = Vec::new();
            while let Some(pair) = map.next_entry()? {
                if pairs.len() == self.0 {
                    return Err(A::Error::custom("too many parameters"));
                }
                pairs.push(pair);
            }
            Ok(pairs)
        }
    }
    let mut reader = serde_json::Deserializer::from_slice(body);
    let pairs = reader.deserialize_map(Pairs(table.len() * 2)).and_then(|pairs| reader.end().map(|()| pairs));
    let mut texts = Vec::new();
    for (name, value) in pairs.map_err(|_| Problem::from(Kind::BadBody))? {
        let shape = table.iter().find(|parameter| parameter.name == name).map(|parameter| parameter.shape);
        for text in json_texts(&value, shape).map_err(|reason| Problem::bad(&name, reason))? {
            texts.push((name.clone(), text));
        }
    }
    Ok(texts)
}

fn json_texts(value: &Value, shape: Option<Shape>) -> Result<Vec<String>, String> {
    let text = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err("it must be a string or a number".to_owned()),
    };
    match (value, shape) {
        (Value::Array(values), Some(Shape::Many)) => values.iter().map(text).collect(),
        (Value::Array(values), Some(Shape::List)) => {
            let texts: Vec<_> = values.iter().map(text).collect::<Result<_, _>>()?;
            // A comma within a name would split it into two names.
            let is_name = |text: &String| !text.is_empty() && !text.contains(',');
            if texts.iter().all(is_name) {
                Ok(vec![texts.join(",")])
            } else {
                Err("each name in the list must be non-empty and without a comma".to_owned())
            }
        }
        (Value::Null, _) => Ok(Vec::new()),
        (value, _) => Ok(vec![text(value)?]),
    }
}

fn names(text: &str, most: usize) -> Result<Vec<String>, String> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<_> = text.split(',').map(str::to_owned).collect();
    let distinct: BTreeSet<_> = names.iter().collect();
    if names.iter().any(String::is_empty) {
        Err("there is an empty name between commas".to_owned())
    } else if distinct.len() < names.len() {
        Err("a name is given twice".to_owned())
    } else if names.len() > most {
        Err(format!("it may have at most {most} names"))
    } else {
        Ok(names)
    }
}

pub(crate) fn choice<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, String> {
    let found = choices.iter().find(|(name, _)| *name == text).map(|(_, choice)| *choice);
    let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
    found.ok_or_else(|| format!("it must be {}", names.join(" or ")))
}

/// Parses a filter and adds it to `filters`; fails if there are already [`MAX_FILTERS`].
pub(crate) fn add_filter(filters: &mut Vec<Filter>, text: &str) -> Result<(), String> {
    if filters.len() == MAX_FILTERS {
        return Err(format!("it may be given at most {MAX_FILTERS} times"));
    }
    Filter::parse(text).map(|filter| filters.push(filter))
}

/// The first day of a week.
pub(crate) fn week(text: &str) -> Result<Week, String> {
    choice(text, &[("mon", Week::Monday), ("sun", Week::Sunday)])
}

pub(crate) fn zone(text: &str) -> Result<TimeZone, String> {
    let reason = || "it must be the IANA name of a time zone, for example Europe/Berlin".to_owned();
    // Other functions of jiff also accept `local` and offsets. This one accepts only names, and a name means the same
    // zone on every replica.
    TimeZone::get(text).map_err(|_| reason())
}

fn top(text: &str) -> Result<Top, String> {
    let (dimension, count) = match text.rsplit_once(':') {
        Some((dimension, count)) => (Some(dimension.to_owned()), count),
        None => (None, text),
    };
    let count = count.parse().ok().filter(|count| (1..=MAX_TOP).contains(count));
    let reason = || {
        format!("it must be a number from 1 to {MAX_TOP}, or a dimension and a number, for example country:5")
    };
    count.map(|count| Top { dimension, count }).ok_or_else(reason)
}

fn compare(text: &str) -> Result<Compare, String> {
    let between = |text: &str| {
        let (from, to) = text.split_once("..")?;
        Some(Compare::Between(Bound::parse(from).ok()?, Bound::parse(to).ok()?))
    };
    let named =
        choice(text, &[("previous", Compare::Previous), ("week", Compare::Week), ("year", Compare::Year)]);
    named
        .ok()
        .or_else(|| between(text))
        .ok_or_else(|| "it must be previous, week, year, or a window like 2026-10-01..2026-11-01".to_owned())
}

fn order(text: &str) -> Result<Order, String> {
    let syntax = "write <field>:asc or <field>:desc";
    let (field, direction) = text.rsplit_once(':').ok_or(syntax)?;
    let direction = match direction {
        "asc" => Direction::Ascending,
        "desc" => Direction::Descending,
        _ => return Err(syntax.to_owned()),
    };
    Ok(Order { field: field.to_owned(), direction })
}

#[cfg(test)]
mod tests;
