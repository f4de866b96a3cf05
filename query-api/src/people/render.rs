//! Answers as bytes: JSON and CSV. Pure.

use schemas::time::UnixMillis;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::query::params::{Format, choice};
use crate::rendered::{Rendered, etag, rfc3339};

/// The format that the parameter `format` asks for.
pub(super) fn format(text: &str) -> Result<Format, String> {
    choice(text, &[("json", Format::Json), ("csv", Format::Csv)])
}

/// The rows of an answer, which can be rendered as JSON or CSV.
pub(super) trait Table {
    /// The number of rows.
    fn rows(&self) -> usize;

    /// The rows as a JSON array of objects.
    fn json(&self) -> Box<RawValue>;

    /// The rows as CSV records, with a header.
    fn csv(&self) -> Vec<Vec<String>>;
}

/// An answer before it is rendered.
#[derive(Debug)]
pub(super) struct Answer<T> {
    pub(super) data: T,
    pub(super) meta: Meta,
}

/// What `meta` says about an answer.
#[derive(Debug, Clone)]
pub(super) struct Meta {
    /// Everything that was in Kafka before this moment is counted; `None` before the aggregator has reported progress
    /// of all partitions.
    pub(super) as_of: Option<UnixMillis>,
    /// Whether the aggregator declares other rollups than this process.
    pub(super) rollups_differ: bool,
    /// All events before this moment are counted. The text is in the time zone of the request. For retention, the
    /// moment is the latest start or end of a period at or before `as_of`. For a funnel, it is `as_of`, limited to the
    /// window. `None` if `as_of` is not known or, for retention, is before the first period.
    pub(super) complete_until: Option<String>,
    /// Names of the rollups that were read; empty if raw events were read.
    pub(super) rollups: Vec<String>,
    /// Start of the window, in the time zone of the request.
    pub(super) from: String,
    /// End of the window (exclusive), in the time zone of the request.
    pub(super) to: String,
    pub(super) tz: String,
}

/// The fields in the order in which they are sent.
#[derive(Serialize)]
struct Body<'a, Q> {
    data: &'a RawValue,
    meta: MetaBody<'a>,
    query: &'a Q,
}

#[derive(Serialize)]
struct MetaBody<'a> {
    as_of: Option<String>,
    stale: bool,
    complete_until: Option<&'a str>,
    exact: bool,
    rollups: &'a [String],
    window: Window<'a>,
    rows: usize,
}

#[derive(Serialize)]
struct Window<'a> {
    from: &'a str,
    to: &'a str,
    tz: &'a str,
}

/// The answer as JSON, which repeats the request in `query`. `stale` is true if a later answer should have replaced
/// this one, or if the aggregator declares other rollups than this process.
pub(super) fn json<T: Table>(answer: &Answer<T>, query: &impl Serialize, stale: bool) -> Rendered {
    let Answer { data, meta } = answer;
    let rows = data.rows();
    let data = data.json();
    let complete_until = meta.complete_until.as_deref();
    let body = Body {
        data: &data,
        meta: MetaBody {
            as_of: meta.as_of.map(rfc3339),
            stale,
            complete_until,
            exact: true,
            rollups: &meta.rollups,
            window: Window { from: &meta.from, to: &meta.to, tz: &meta.tz },
            rows,
        },
        query,
    };
    let until = complete_until.unwrap_or_default();
    let etag = etag(&[data.get().as_bytes(), until.as_bytes(), stale.to_string().as_bytes()]);
    let body = serde_json::to_vec(&body).expect("numbers and texts become JSON");
    Rendered::new("application/json", body, &etag)
}

/// CSV (RFC 4180) with a header.
pub(super) fn csv(table: &impl Table) -> Rendered {
    const TO_MEMORY: &str = "a write to memory cannot fail";
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    for record in table.csv() {
        writer.write_record(record).expect(TO_MEMORY);
    }
    let bytes = writer.into_inner().expect(TO_MEMORY);
    Rendered::csv(String::from_utf8(bytes).expect("all fields are text"))
}
