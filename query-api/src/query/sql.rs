//! Writes the one statement of a query: a SELECT for each part, joined by UNION ALL.
//!
//! Invariant: no text of a request is part of the statement. The statement has only declared names, numbers, and query
//! parameters, whose values are sent separately. A declared name may be any lower-case name. So each alias begins with
//! a capital letter, except the columns of the subquery `S`, and each column is qualified (`T.` or `S.`). Otherwise, a
//! declared name could be taken for an alias.

mod page;

use schemas::rollup::{Measure, Rollup};
use schemas::time::UnixMillis;

use super::compare::{Slice, Slices};
use super::params::{Accuracy, Fill, MAX_LIMIT, Partial, Query};
use super::plan::{Part, Source, Span};
use super::window::Window;

/// The result of a statement may have this number of rows for each part of the statement. If it has more rows in all,
/// ClickHouse fails the statement.
pub(crate) const MAX_ROWS: usize = MAX_LIMIT + 1;

/// `accuracy=auto` counts exactly if a part merges at most about this many distinct values, summed over the table rows
/// and the distinct counts of the part.
pub(super) const MAX_EXACT_VALUES: u64 = 5_000_000;

/// A sample contains the values whose hash is below 2^64 divided by this number.
pub(super) const SAMPLE_FACTOR: u64 = 16;

/// A statement, its parameters and its settings, as they are sent to ClickHouse.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Statement {
    pub(crate) text: String,
    /// The names and values of the query parameters, which `text` has in braces. All values are arrays, because
    /// ClickHouse would interpret backslashes in a parameter of type `String` as escape sequences.
    pub(crate) parameters: Vec<(String, Parameter)>,
    /// Settings that limit the statement.
    pub(crate) settings: Vec<(&'static str, String)>,
}

/// The value of a query parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Parameter {
    /// An `Array(String)`.
    Texts(Vec<String>),
    /// An `Array(UInt32)` of seconds since 1970.
    Moments(Vec<i64>),
}

/// The limits of one statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Longest time that ClickHouse may execute the statement, in seconds.
    pub(super) seconds: u64,
    /// Maximum number of table rows that the statement reads, as ClickHouse estimates it from the primary index.
    pub(super) rows_to_read: u64,
}

/// The statement for a query of `tenant`.
pub(super) fn statement(query: &Query, slices: &Slices, tenant: &str, limits: Limits) -> Statement {
    let mut parameters = vec![("tenant".to_owned(), Parameter::Texts(vec![tenant.to_owned()]))];
    let filters = query.filters.iter().enumerate();
    parameters
        .extend(filters.map(|(at, filter)| (format!("filter{at}"), Parameter::Texts(filter.test.bound()))));
    let is_limited = is_limited(query, slices);
    if let Some(cursor) = query.cursor.as_ref().filter(|_| is_limited) {
        parameters
            .push(("cursor".to_owned(), Parameter::Texts(cursor.keys.iter().flatten().cloned().collect())));
    }
    let mut selects = Vec::new();
    for (number, slice) in slices.all().into_iter().enumerate() {
        let starts = format!("starts{number}");
        for part in &slice.plan.parts {
            let select = Select { query, main: &slices.main, window: &slice.window, part, starts: &starts };
            selects.push(select.text(selects.len() + 1, is_limited));
        }
        if slice.window.even_length().is_none() {
            let edges = slice.window.edges[..slice.window.buckets()].to_vec();
            parameters.push((starts, Parameter::Moments(edges)));
        }
    }
    let most = MAX_ROWS * selects.len();
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

/// Whether ClickHouse can order the rows and apply the limit of the query. This is not possible if this service adds,
/// joins, drops or reorders rows, or sets values to null, after ClickHouse has returned them.
pub(super) fn is_limited(query: &Query, slices: &Slices) -> bool {
    let Slice { window, plan } = &slices.main;
    let [part] = &plan.parts[..] else { return false };
    let filled = query.fill != Fill::None && (window.buckets() > 1 || query.dimensions.is_empty());
    !filled
        && part.complete_from.is_none()
        && query.top.is_none()
        && query.partial == Partial::Include
        && slices.compared.is_none()
}

/// The SELECT of one part.
#[derive(Clone, Copy)]
struct Select<'a> {
    query: &'a Query,
    /// The slice of the query's own window. The values of `top` are ranked by this slice in every part, so that all
    /// parts merge the same values.
    main: &'a Slice,
    window: &'a Window,
    part: &'a Part,
    /// The name of the query parameter with the starts of the buckets. It is used only if buckets differ in length.
    starts: &'a str,
}

impl Select<'_> {
    /// The text of the SELECT; `number` distinguishes its rows from those of other parts.
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
            if is_limited { ("count() OVER ()", page::page(query, part)) } else { ("0", String::new()) };
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
        // The subquery shows a reader of the SQL that the clauses of the page belong to this SELECT. It does not change
        // the result: a statement whose rows ClickHouse limits has only one SELECT (see `is_limited`).
        if limit.is_empty() { select } else { format!("SELECT * FROM (\n{select}\n)") }
    }

    /// The column of a dimension, a measure or a sample. A single rollup is read without a subquery that renames its
    /// columns, because ClickHouse then plans the statement faster.
    fn column(&self, name: &str) -> String {
        match &self.part.sources[..] {
            [source] => source.column(name),
            _ => format!("S.`{name}`"),
        }
    }

    /// The expression for the start of the query's bucket that contains the rollup's bucket.
    fn start(&self) -> String {
        let from = self.window.from();
        let bucket = if self.part.sources.len() == 1 { "T.bucket" } else { "S.bucket" };
        match self.window.even_length() {
            _ if self.window.buckets() == 1 => format!("toInt64({from})"),
            Some(length) => {
                format!("toInt64({from} + intDiv(toUnixTimestamp({bucket}) - {from}, {length}) * {length})")
            }
            None => {
                format!("toInt64(roundDown(toUnixTimestamp({bucket}), {{{}:Array(UInt32)}}))", self.starts)
            }
        }
    }

    /// The expression for a dimension; null for the values that `top` merges.
    fn key(&self, at: usize, column: &str) -> String {
        let query = self.query;
        let (Some(top), true) = (&query.top, query.ranked() == Some(at)) else {
            return self.column(column);
        };
        // In every part, values are ranked by the first measure over the query's whole window. The empty text, which
        // means that the field is absent, is not ranked.
        let (part, place) = self.main.plan.part_of(0).expect("the query's window has all measures");
        let ranking = Self { window: &self.main.window, part, ..*self };
        let (column, ranked) = (self.column(column), ranking.column(&part.keys[at]));
        format!(
            "if({column} IN (SELECT {ranked} {} AND {ranked} != '' GROUP BY {ranked} \
             ORDER BY {} DESC NULLS LAST, {ranked} LIMIT {}), toNullable({column}), NULL)",
            ranking.rows().replace('\n', " "),
            ranking.figure(place),
            top.count,
        )
    }

    /// The expression for a measure, an Int128. A minimum or maximum is null if no event had a value: then the table
    /// contains the largest Int128 as the minimum, or the smallest as the maximum.
    fn figure(&self, at: usize) -> String {
        let (place, measure) = &self.part.measures[at];
        let name = &self.query.measures[*place];
        let column = self.column(name);
        let exact = format!("uniqExactMerge({column})");
        let sampled =
            || format!("{SAMPLE_FACTOR} * uniqExactMerge({})", self.column(&Rollup::sample_of(name)));
        match (measure, self.query.accuracy) {
            (Measure::Count | Measure::CountOf(_) | Measure::Sum(_), _) => {
                format!("sum(toInt128({column}))")
            }
            (Measure::Min(_), _) => format!("nullIf(min({column}), toInt128('{}'))", i128::MAX),
            (Measure::Max(_), _) => format!("nullIf(max({column}), toInt128('{}'))", i128::MIN),
            (Measure::UniqExact(_), Accuracy::Exact) => format!("toInt128({exact})"),
            (Measure::UniqExact(_), Accuracy::Fast) => format!("toInt128({})", sampled()),
            (Measure::UniqExact(_), Accuracy::Auto) => {
                // `size` is a scalar subquery. ClickHouse evaluates it before it reads the rows of the statement, so
                // only one of the two columns is read and merged.
                let size = self.size().expect("the part has a distinct count");
                format!("toInt128(if({size} > {MAX_EXACT_VALUES}, {}, {exact}))", sampled())
            }
        }
    }

    /// A subquery that estimates how many distinct values are merged; `None` if the part needs no estimate, because it
    /// has no distinct count or the query's accuracy is not `auto`.
    fn size(&self) -> Option<String> {
        let names: Vec<_> = self.part.distinct().map(|place| &self.query.measures[place]).collect();
        if names.is_empty() || self.query.accuracy != Accuracy::Auto {
            return None;
        }
        let samples = names.iter().map(|name| self.column(&Rollup::sample_of(name)));
        let sizes: Vec<_> = samples.map(|sample| format!("sum(finalizeAggregation({sample}))")).collect();
        let rows = self.rows().replace('\n', " ");
        Some(format!("assumeNotNull((SELECT {SAMPLE_FACTOR} * ({}) {rows}))", sizes.join(" + ")))
    }

    /// `FROM` and `WHERE` for the rows of this part. A single rollup is read as `T`. Several rollups are read as the
    /// subquery `S`, which gives their columns the same names.
    fn rows(&self) -> String {
        if let [source] = &self.part.sources[..] {
            return self.rows_of(source);
        }
        let keys = self.part.keys.iter().cloned();
        let measures = self.part.measures.iter().map(|(place, _)| self.query.measures[*place].clone());
        let samples = self.part.distinct().map(|place| Rollup::sample_of(&self.query.measures[place]));
        let names: Vec<_> = keys.chain(measures).chain(samples).collect();
        let select = |source: &Source| {
            let columns = names.iter().map(|name| format!(", {} AS `{name}`", source.column(name)));
            let rows = self.rows_of(source).replace('\n', " ");
            format!("SELECT T.bucket AS bucket{} {rows}", columns.collect::<String>())
        };
        let selects: Vec<_> = self.part.sources.iter().map(select).collect();
        format!("FROM (\n{}\n) AS S\nWHERE 1", selects.join("\nUNION ALL\n"))
    }

    fn rows_of(&self, source: &Source) -> String {
        let conditions = conditions(source, self.query, self.window).join(" AND ");
        format!("FROM {} AS T\nWHERE {conditions}", source.rollup.table().name())
    }
}

impl Source {
    /// The column of a dimension, a measure or a sample, in the table with the alias `T`.
    fn column(&self, name: &str) -> String {
        let column = self.rollup.table_column(name).expect("the rollup was chosen by its columns");
        format!("T.{column}")
    }
}

/// The conditions on the rows of a rollup's table, with the alias `T`.
fn conditions(source: &Source, query: &Query, window: &Window) -> Vec<String> {
    let [from, to] = [window.from(), window.to()].map(|edge| UnixMillis(edge * 1000));
    let mut all =
        vec!["T.tenant IN {tenant:Array(String)}".to_owned(), source.rollup.condition_between(from, to)];
    match &source.span {
        Span::Whole => {}
        Span::Without(starts) => {
            let starts: Vec<_> = starts.iter().map(|at| format!("toDateTime({at}, 'UTC')")).collect();
            all.push(format!("T.bucket NOT IN ({})", starts.join(", ")));
        }
        Span::Within(ranges) => {
            let within = |(from, to): &(i64, i64)| {
                format!("T.bucket >= toDateTime({from}, 'UTC') AND T.bucket < toDateTime({to}, 'UTC')")
            };
            let ranges: Vec<_> = ranges.iter().map(within).collect();
            all.push(format!("({})", ranges.join(" OR ")));
        }
    }
    for (at, (filter, column)) in query.filters.iter().zip(&source.filtered).enumerate() {
        let Some(column) = column else { continue };
        all.push(filter.test.condition(&source.column(column), &format!("filter{at}")));
    }
    all
}

#[cfg(test)]
mod tests;
