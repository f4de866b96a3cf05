//! One statement for a query: how far the tables reach, then the rows of each part that is read.
//!
//! `as_of` stands in the first row and is a scalar subquery: ClickHouse evaluates it before it takes the parts of
//! the tables that follow, so the rows are never older than it says. Invariant: no text of a request is part of
//! the statement, only names that are declared, numbers, and parameters that the server binds. Aliases begin
//! with a capital letter and columns are qualified, because a declared name may be any in lower case.

use schemas::rollup::Measure;

use super::compare::{Slice, Slices};
use super::grain::Grain;
use super::params::{Accuracy, Direction, Fill, MAX_LIMIT, Partial, Query};
use super::plan::{Part, Source, Span};
use super::window::Window;
use crate::answers::freshness::AS_OF;

/// Rows that a part may give: more are refused.
pub(super) const MAX_ROWS: usize = MAX_LIMIT + 1;

/// Distinct values that are merged, bucket by bucket, up to which `accuracy=auto` counts them exactly.
pub(super) const MAX_MERGED: u64 = 5_000_000;

/// A sample has the values whose hash is below 2^64 divided by this.
pub(super) const SAMPLED: u64 = 16;

/// What is sent to ClickHouse.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Statement {
    pub(crate) text: String,
    /// What stands for the names in braces. All are arrays: a text alone would be unescaped by the server.
    pub(crate) parameters: Vec<(String, Parameter)>,
    /// Settings that bound it.
    pub(crate) settings: Vec<(&'static str, String)>,
}

/// A value that the server binds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Parameter {
    /// Texts.
    Texts(Vec<String>),
    /// Seconds since 1970.
    Moments(Vec<i64>),
}

/// What one statement may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Longest run, in seconds.
    pub(super) seconds: u64,
    /// Most rows of tables, by the estimate of the index.
    pub(super) rows_to_read: u64,
}

/// Tells how far the tables reach, and what the aggregator declares if its hash is not `ours`.
fn reach(ours: u64) -> String {
    format!(
        "SELECT toUInt8(0) AS part,\n       toInt64({AS_OF}) AS start,\n       \
         CAST(arrayConcat([assumeNotNull((SELECT if(argMax(rollups, since) IN (0, {ours}), '', \
         JSONExtractString(argMax(declared, since), 'rollups')) FROM configs))], \
         arrayMap(at -> at.1, {SINCE})), 'Array(Nullable(String))') AS keys,\n       \
         CAST(arrayMap(at -> at.2, {SINCE}), 'Array(Nullable(Int128))') AS figures,\n       \
         toUInt64(0) AS size,\n       toUInt64(0) AS total"
    )
}

/// The moment from which on each rollup has every event, in milliseconds. Without a row it always had.
const SINCE: &str = "(SELECT groupArray((Name, Since)) FROM (SELECT toString(rollup) AS Name, toUnixTimestamp64Milli(max(since)) AS Since FROM rollup_since FINAL GROUP BY Name))";

/// The statement for a query of `tenant` of a service whose rollups have the hash `declared`.
pub(super) fn statement(
    query: &Query,
    slices: &Slices,
    tenant: &str,
    declared: u64,
    limits: Limits,
) -> Statement {
    let mut parameters = vec![("tenant".to_owned(), Parameter::Texts(vec![tenant.to_owned()]))];
    let filters = query.filters.iter().enumerate();
    parameters
        .extend(filters.map(|(at, filter)| (format!("filter{at}"), Parameter::Texts(filter.test.bound()))));
    let mut selects = vec![reach(declared)];
    let is_limited = is_limited(query, slices);
    for (number, slice) in slices.all().into_iter().enumerate() {
        let starts = format!("starts{number}");
        for part in &slice.plan.parts {
            let select = Select { query, main: &slices.main, window: &slice.window, part, starts: &starts };
            selects.push(select.text(selects.len(), is_limited));
        }
        if slice.window.even_length().is_none() {
            let edges = slice.window.edges[..slice.window.buckets()].to_vec();
            parameters.push((starts, Parameter::Moments(edges)));
        }
    }
    let most = MAX_ROWS * (selects.len() - 1) + 1;
    let settings = vec![
        ("max_execution_time", limits.seconds.to_string()),
        ("max_rows_to_read", limits.rows_to_read.to_string()),
        ("read_overflow_mode", "throw".to_owned()),
        ("max_result_rows", most.to_string()),
        ("result_overflow_mode", "throw".to_owned()),
        ("cancel_http_readonly_queries_on_client_close", "1".to_owned()),
    ];
    Statement { text: selects.join("\nUNION ALL\n"), parameters, settings }
}

/// Whether ClickHouse orders the rows and leaves out those beyond the limit. Else rows are made or joined later, or
/// become null.
pub(super) fn is_limited(query: &Query, slices: &Slices) -> bool {
    let Slice { window, plan } = &slices.main;
    let [part] = &plan.parts[..] else { return false };
    let filled = query.fill != Fill::None && (window.buckets() > 1 || query.dimensions.is_empty());
    !filled
        && part.kept_from.is_none()
        && query.top.is_none()
        && query.cursor.is_none()
        && query.partial == Partial::Include
        && slices.compared.is_none()
}

/// The rows of a part.
#[derive(Clone, Copy)]
struct Select<'a> {
    query: &'a Query,
    /// What the query asks for; it ranks the values for all parts.
    main: &'a Slice,
    window: &'a Window,
    part: &'a Part,
    /// The parameter that has the starts of the buckets, where they differ in length.
    starts: &'a str,
}

impl Select<'_> {
    /// Its text; `number` tells its rows from those of others.
    fn text(&self, number: usize, is_limited: bool) -> String {
        let Self { query, part, .. } = *self;
        let keys: Vec<_> = part
            .keys
            .iter()
            .enumerate()
            .map(|(at, column)| format!("{} AS Key{at}", self.key(at, column)))
            .collect();
        let figures: Vec<_> =
            (0..part.measures.len()).map(|at| format!("{} AS Figure{at}", self.figure(at))).collect();
        let grouped: String = (0..keys.len()).map(|at| format!(", Key{at}")).collect();
        let (total, limit) =
            if is_limited { ("count() OVER ()", limit(part, query)) } else { ("0", String::new()) };
        let select = format!(
            "SELECT toUInt8({number}) AS Part,\n       {} AS Start,\n       CAST([{}], 'Array(Nullable(String))') AS Keys,\n       \
             CAST([{}], 'Array(Nullable(Int128))') AS Figures,\n       toUInt64({}) AS Size,\n       \
             toUInt64({total}) AS Total\n{}\nGROUP BY Start{grouped}\nHAVING count() > 0{limit}",
            self.start(),
            keys.join(", "),
            figures.join(", "),
            self.size().unwrap_or_else(|| "0".to_owned()),
            self.rows(),
        );
        // An order of its own must not be taken for that of the whole union.
        if limit.is_empty() { select } else { format!("SELECT * FROM (\n{select}\n)") }
    }

    /// Start of the bucket of the query that holds a bucket of the rollup.
    fn start(&self) -> String {
        let from = self.window.from();
        match self.window.even_length() {
            _ if self.window.buckets() == 1 => format!("toInt64({from})"),
            Some(length) => {
                format!("toInt64({from} + intDiv(toUnixTimestamp(S.bucket) - {from}, {length}) * {length})")
            }
            None => {
                format!("toInt64(roundDown(toUnixTimestamp(S.bucket), {{{}:Array(UInt32)}}))", self.starts)
            }
        }
    }

    /// A dimension; null for the values that `top` merges.
    fn key(&self, at: usize, column: &str) -> String {
        let query = self.query;
        let (Some(top), true) = (&query.top, query.ranked() == Some(at)) else {
            return format!("S.`{column}`");
        };
        // The rank counts the whole window, whichever part this is. What is absent has no rank.
        let (part, place) = self.main.plan.part_of(0).expect("the query's window has all measures");
        let ranking = Self { window: &self.main.window, part, ..*self };
        let ranked = &part.keys[at];
        format!(
            "if(S.`{column}` IN (SELECT S.`{ranked}` {} AND S.`{ranked}` != '' GROUP BY S.`{ranked}` \
             ORDER BY {} DESC NULLS LAST, S.`{ranked}` LIMIT {}), toNullable(S.`{column}`), NULL)",
            ranking.rows().replace('\n', " "),
            ranking.figure(place),
            top.count,
        )
    }

    /// A measure as an Int128; null where a least or greatest value is still the neutral element.
    fn figure(&self, at: usize) -> String {
        let (place, measure) = &self.part.measures[at];
        let name = &self.query.measures[*place];
        let exact = format!("uniqExactMerge(S.`{name}`)");
        let sampled = format!("{SAMPLED} * uniqExactMerge(S.`Sample_{name}`)");
        match (measure, self.query.accuracy) {
            (Measure::Count | Measure::CountOf(_) | Measure::Sum(_), _) => {
                format!("sum(toInt128(S.`{name}`))")
            }
            (Measure::Min(_), _) => format!("nullIf(min(S.`{name}`), toInt128('{}'))", i128::MAX),
            (Measure::Max(_), _) => format!("nullIf(max(S.`{name}`), toInt128('{}'))", i128::MIN),
            (Measure::UniqExact(_), Accuracy::Exact) => format!("toInt128({exact})"),
            (Measure::UniqExact(_), Accuracy::Fast) => format!("toInt128({sampled})"),
            (Measure::UniqExact(_), Accuracy::Auto) => {
                // ClickHouse knows the size before it reads the rows, so it reads and merges only one of the two.
                let size = self.size().expect("the part has a distinct count");
                format!("toInt128(if({size} > {MAX_MERGED}, {sampled}, {exact}))")
            }
        }
    }

    /// About how many distinct values are merged, where that decides how they are counted.
    fn size(&self) -> Option<String> {
        let names: Vec<_> = self.part.distinct().map(|place| &self.query.measures[place]).collect();
        if names.is_empty() || self.query.accuracy != Accuracy::Auto {
            return None;
        }
        let sizes: Vec<_> =
            names.iter().map(|name| format!("sum(finalizeAggregation(S.`Sample_{name}`))")).collect();
        let rows = self.rows().replace('\n', " ");
        Some(format!("assumeNotNull((SELECT {SAMPLED} * ({}) {rows}))", sizes.join(" + ")))
    }

    /// `FROM` the rows of the rollups that count, as `S`, and `WHERE`.
    fn rows(&self) -> String {
        if let [source] = &self.part.sources[..] {
            return self.rows_of(source);
        }
        let keys = self.part.keys.iter().cloned();
        let measures = self.part.measures.iter().map(|(place, _)| self.query.measures[*place].clone());
        let samples = self.part.distinct().map(|place| format!("Sample_{}", self.query.measures[place]));
        let columns: Vec<_> =
            keys.chain(measures).chain(samples).map(|name| format!(", S.`{name}` AS `{name}`")).collect();
        let select = |source: &Source| {
            format!(
                "SELECT S.bucket AS bucket{} {}",
                columns.concat(),
                self.rows_of(source).replace('\n', " ")
            )
        };
        let selects: Vec<_> = self.part.sources.iter().map(select).collect();
        format!("FROM (\n{}\n) AS S\nWHERE 1", selects.join("\nUNION ALL\n"))
    }

    fn rows_of(&self, source: &Source) -> String {
        let conditions = conditions(source, self.query, self.window).join(" AND ");
        format!("FROM {} AS S\nWHERE {conditions}", source.rollup.source_with_samples())
    }
}

/// Which rows count.
fn conditions(source: &Source, query: &Query, window: &Window) -> Vec<String> {
    let since = |at: i64| format!("S.bucket >= toDateTime({at}, 'UTC')");
    let before = |at: i64| format!("S.bucket < toDateTime({at}, 'UTC')");
    let mut all =
        vec!["S.tenant IN {tenant:Array(String)}".to_owned(), since(window.from()), before(window.to())];
    match &source.span {
        Span::Whole => {}
        Span::Without(starts) => {
            let starts: Vec<_> = starts.iter().map(|at| format!("toDateTime({at}, 'UTC')")).collect();
            all.push(format!("S.bucket NOT IN ({})", starts.join(", ")));
        }
        Span::Within(ranges) => {
            let ranges: Vec<_> =
                ranges.iter().map(|(from, to)| format!("{} AND {}", since(*from), before(*to))).collect();
            all.push(format!("({})", ranges.join(" OR ")));
        }
    }
    for (at, (filter, column)) in query.filters.iter().zip(&source.filtered).enumerate() {
        let Some(column) = column else { continue };
        all.push(filter.test.condition(&format!("S.`{column}`"), &format!("filter{at}")));
    }
    all
}

/// The first rows, and one more, which tells that rows were left out.
fn limit(part: &Part, query: &Query) -> String {
    let order = query.order();
    let direction = match order.direction {
        Direction::Ascending => "ASC",
        Direction::Descending => "DESC",
    };
    let dimension =
        query.dimensions.iter().position(|name| *name == order.field).map(|at| format!("Key{at}"));
    let measure = |(place, _): &(usize, Measure)| query.measures[*place] == order.field;
    let measure = part.measures.iter().position(measure).map(|at| format!("Figure{at}"));
    let field = dimension.or(measure).unwrap_or_else(|| "Start".to_owned());
    let time = if query.grain == Grain::None { "" } else { ", Start" };
    let keys: String = (0..query.dimensions.len()).map(|at| format!(", Key{at}")).collect();
    format!("\nORDER BY {field} {direction} NULLS LAST{time}{keys}\nLIMIT {}", query.limit + 1)
}

#[cfg(test)]
mod tests;
