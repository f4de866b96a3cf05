//! Renders an answer as JSON, NDJSON or CSV. Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::grain::{Calendar, Grain};
use super::params::{CsvStyle, Format, Integers, Query};
use super::shape::{Comparison, Row, Shaped};
use super::sql::SAMPLE_FACTOR;
use crate::rendered::{etag, rfc3339};

/// Clients that parse JSON numbers as doubles represent every integer up to this one exactly. JavaScript calls it
/// `Number.MAX_SAFE_INTEGER`.
const MAX_SAFE_INTEGER: u128 = (1 << 53) - 1;

/// The body of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Body {
    /// The media type of the body.
    pub(super) kind: &'static str,
    pub(super) bytes: Vec<u8>,
    /// Weak ETag, quotes included.
    pub(super) etag: String,
}

/// Renders the answer in this format. `stale` says whether a newer answer should have replaced this answer by now.
pub(super) fn render(query: &Query, shaped: &Shaped, format: Format, stale: bool) -> Body {
    let flat = |kind, bytes: Vec<u8>| Body { kind, etag: etag(&[&bytes]), bytes };
    match format {
        Format::Json => json(query, shaped, stale),
        Format::Ndjson => flat("application/x-ndjson", ndjson(query, shaped)),
        Format::Csv => flat("text/csv; charset=utf-8; header=present", csv(query, shaped)),
    }
}

/// A JSON answer. Its members are sent in the order of these fields.
#[derive(Serialize)]
struct Answer<'a> {
    data: &'a RawValue,
    meta: Meta<'a>,
    query: &'a Query,
}

#[derive(Serialize)]
struct Meta<'a> {
    as_of: Option<String>,
    stale: bool,
    complete_until: Option<String>,
    exact: bool,
    /// For each sampled measure, a bound of the relative error in the row with the lowest count. With a probability of
    /// about 5 %, the error of this row is larger than the bound.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    error: BTreeMap<&'a str, Option<f64>>,
    rollups: &'a [String],
    window: Window<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    compare: Option<Compare>,
    rows: usize,
    total_rows: usize,
    truncated: bool,
    /// The cursor of the next page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    /// Whether the absolute value of a measure exceeds [`MAX_SAFE_INTEGER`], so that clients that parse JSON numbers as
    /// doubles may round the measure.
    unsafe_integers: bool,
    /// Why the answer has no rows; `None` if it has rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    empty: Option<&'static str>,
}

#[derive(Serialize)]
struct Window<'a> {
    from: String,
    to: String,
    tz: &'a str,
}

#[derive(Serialize)]
struct Compare {
    from: String,
    to: String,
    /// The ends of the compared parts of a bucket that is not over; `None` if only whole buckets are compared. The
    /// bucket is compared only up to `now`, with the equally long part, up to `then`, of its counterpart: the bucket
    /// with the same number in the other window.
    #[serde(skip_serializing_if = "Option::is_none")]
    cut: Option<Cut>,
}

#[derive(Serialize)]
struct Cut {
    now: String,
    then: String,
}

/// A JSON object with one value for each measure of a row. The function computes the value from the measure's
/// comparison.
struct Measures<'a, T>(&'a Query, &'a [Comparison], T);

impl<V: Serialize, T: Fn(Comparison) -> V> Serialize for Measures<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(query, compared, value) = self;
        serializer.collect_map(query.measures.iter().zip(compared.iter().map(|compared| value(*compared))))
    }
}

/// The value of a measure, as the number or the string that the query asks for.
#[derive(Serialize)]
#[serde(untagged)]
enum Figure {
    Number(Option<i128>),
    Text(Option<String>),
}

impl Figure {
    fn new(query: &Query, figure: Option<i128>) -> Self {
        match query.integers {
            Integers::Number => Self::Number(figure),
            Integers::Text => Self::Text(figure.map(|figure| figure.to_string())),
        }
    }
}

/// A row as a JSON object: `time`, dimensions, `others`, measures, and for a comparison `compare` and `change`.
struct Object<'a> {
    query: &'a Query,
    row: &'a Row,
}

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { query, row } = self;
        let mut map = serializer.serialize_map(None)?;
        if query.grain != Grain::None {
            map.serialize_entry("time", &query.calendar.local(row.start))?;
        }
        for (name, key) in query.dimensions.iter().zip(&row.keys) {
            map.serialize_entry(name, key)?;
        }
        if row.is_others() {
            map.serialize_entry("others", &true)?;
        }
        for (name, figure) in query.measures.iter().zip(&row.figures) {
            map.serialize_entry(name, &Figure::new(query, *figure))?;
        }
        if query.compare.is_some() {
            let then = |compared: Comparison| Figure::new(query, compared.then);
            map.serialize_entry("compare", &Measures(query, &row.compared, then))?;
            map.serialize_entry("change", &Measures(query, &row.compared, Comparison::change))?;
        }
        map.end()
    }
}

fn json(query: &Query, shaped: &Shaped, stale: bool) -> Body {
    let calendar = &query.calendar;
    let compared = |row: &Row| row.compared.iter().map(|compared| compared.then).collect::<Vec<_>>();
    let mut figures =
        shaped.rows.iter().flat_map(|row| [row.figures.clone(), compared(row)].concat()).flatten();
    let meta = Meta {
        as_of: shaped.as_of.map(rfc3339),
        stale,
        complete_until: shaped.complete_until.map(|until| calendar.local(until)),
        exact: shaped.sampled.is_empty(),
        error: shaped.sampled.iter().map(|at| (query.measures[*at].as_str(), error(*at, shaped))).collect(),
        rollups: &shaped.rollups,
        window: Window {
            from: calendar.local(shaped.window.0),
            to: calendar.local(shaped.window.1),
            tz: calendar.zone.iana_name().unwrap_or("UTC"),
        },
        compare: shaped.compared.map(|compared| Compare {
            from: calendar.local(compared.window.0),
            to: calendar.local(compared.window.1),
            cut: compared.cut.map(|(now, then)| Cut { now: calendar.local(now), then: calendar.local(then) }),
        }),
        rows: shaped.rows.len(),
        total_rows: shaped.total,
        truncated: shaped.truncated,
        next: shaped.next.as_ref().map(ToString::to_string),
        unsafe_integers: figures.any(|figure| figure.unsigned_abs() > MAX_SAFE_INTEGER),
        empty: empty(query, shaped),
    };
    let data: Vec<_> = shaped.rows.iter().map(|row| Object { query, row }).collect();
    let data = serde_json::value::to_raw_value(&data).expect("numbers and texts become JSON");
    let until = meta.complete_until.clone().unwrap_or_default();
    let etag = etag(&[data.get().as_bytes(), until.as_bytes(), stale.to_string().as_bytes()]);
    let answer = serde_json::to_vec(&Answer { data: &data, meta, query });
    Body { kind: "application/json", bytes: answer.expect("numbers and texts become JSON"), etag }
}

/// Why the answer has no rows; `None` if it has rows.
fn empty(query: &Query, shaped: &Shaped) -> Option<&'static str> {
    match (shaped.rows.is_empty(), shaped.is_before_since, query.filters.is_empty()) {
        (false, ..) => None,
        (true, true, _) => Some("before_since"),
        (true, false, false) => Some("filtered"),
        (true, false, true) => Some("no_rows"),
    }
}

/// A bound of the relative error of a sampled measure: twice the standard deviation of the count, divided by the count.
/// The number of values in the sample has a binomial distribution. So with one in 16 values in the sample, the bound
/// for a count of n values is `2·√(15/n)`. The result is the bound for the lowest count above 0 in the rows of the
/// answer, compared counts included; `None` if no count is above 0.
fn error(measure: usize, shaped: &Shaped) -> Option<f64> {
    let then = shaped.rows.iter().filter_map(|row| row.compared.get(measure)?.then);
    let counts = shaped.rows.iter().filter_map(|row| row.figures[measure]).chain(then);
    let least = counts.filter(|count| *count > 0).min()?;
    #[expect(clippy::cast_precision_loss, reason = "an error needs few digits")]
    let error = 2.0 * ((SAMPLE_FACTOR - 1) as f64 / least as f64).sqrt();
    Some((error * 10_000.0).ceil() / 10_000.0)
}

fn ndjson(query: &Query, shaped: &Shaped) -> Vec<u8> {
    let mut bytes = Vec::new();
    for row in &shaped.rows {
        serde_json::to_writer(&mut bytes, &Object { query, row }).expect("numbers and texts become JSON");
        bytes.push(b'\n');
    }
    bytes
}

fn csv(query: &Query, shaped: &Shaped) -> Vec<u8> {
    let mut bytes = Vec::new();
    if query.csv == CsvStyle::Excel {
        bytes.extend_from_slice("\u{feff}".as_bytes());
    }
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(bytes);
    let time = (query.grain != Grain::None).then_some("time");
    let others = query.top.is_some().then_some("others");
    let header = time.into_iter().chain(query.dimensions.iter().map(String::as_str));
    let header = header.chain(others).chain(query.measures.iter().map(String::as_str));
    let compared = |prefix| {
        let measures = query.measures.iter().filter(|_| query.compare.is_some());
        measures.map(move |name| Cow::from(format!("{prefix}_{name}")))
    };
    let header = header.map(Cow::from).chain(compared("compare")).chain(compared("change")).collect();
    let rows = shaped.rows.iter().map(|row| fields(query, row));
    for row in [header].into_iter().chain(rows) {
        writer.write_record(row.iter().map(|field| field.as_bytes())).expect("a write to memory succeeds");
    }
    writer.into_inner().expect("a write to memory succeeds")
}

fn fields<'a>(query: &Query, row: &'a Row) -> Vec<Cow<'a, str>> {
    let mut fields = Vec::new();
    if query.grain != Grain::None {
        fields.push(time(&query.calendar, row.start, query.csv).into());
    }
    for key in &row.keys {
        let key = key.as_deref().unwrap_or_default();
        fields.push(match query.csv {
            CsvStyle::Plain => key.into(),
            CsvStyle::Excel => no_formula(key),
        });
    }
    if query.top.is_some() {
        fields.push(row.is_others().to_string().into());
    }
    let number = |figure: Option<i128>| Cow::from(figure.map(|n| n.to_string()).unwrap_or_default());
    fields.extend(row.figures.iter().map(|figure| number(*figure)));
    fields.extend(row.compared.iter().map(|compared| number(compared.then)));
    let change = |change: Option<f64>| Cow::from(change.map(|change| change.to_string()).unwrap_or_default());
    fields.extend(row.compared.iter().map(|compared| change(compared.change())));
    fields
}

fn time(calendar: &Calendar, start: i64, style: CsvStyle) -> String {
    match style {
        CsvStyle::Plain => calendar.local(start),
        CsvStyle::Excel => calendar.local_without_offset(start),
    }
}

/// Puts `'` before a text that a spreadsheet would evaluate as a formula: a text that begins, after blanks, with `=`,
/// `+`, `-` or `@`.
fn no_formula(text: &str) -> Cow<'_, str> {
    if text.trim_start().starts_with(['=', '+', '-', '@']) { format!("'{text}").into() } else { text.into() }
}

#[cfg(test)]
mod tests;
