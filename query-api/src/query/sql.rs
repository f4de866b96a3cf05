//! One statement for a query: how far the tables reach, then the rows of each rollup that is read.
//!
//! `as_of` stands in the first row and is a scalar subquery: ClickHouse evaluates it before it takes the parts of
//! the tables that follow, so the rows are never older than it says. Invariant: no text of a request is part of
//! the statement, only names that are declared, numbers, and parameters that the server binds. Aliases begin
//! with a capital letter and columns are qualified, because a declared name may be any in lower case.

use schemas::rollup::Measure;

use super::grain::Grain;
use super::params::{Direction, Fill, Partial, Query};
use super::plan::{Part, Plan};
use super::window::Window;

/// Rows that a rollup may give: more are refused.
pub(super) const MAX_ROWS: usize = 100_000;
/// Rows of tables that one query may read, by the estimate of the index.
pub(crate) const MAX_ROWS_TO_READ: u64 = 200_000_000;

/// What is sent to ClickHouse.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// Tells how far the tables reach and what the aggregator declares.
const REACH: &str = "\
SELECT toUInt8(0) AS part,
       toInt64(assumeNotNull((SELECT toUnixTimestamp64Milli(min(as_of)) FROM (SELECT argMax(as_of, (g, as_of)) AS as_of FROM progress GROUP BY kp)))) AS start,
       CAST([], 'Array(Nullable(String))') AS keys,
       CAST([assumeNotNull((SELECT argMax(rollups, since) FROM configs))], 'Array(Nullable(Int128))') AS figures";

/// The statement for a query of `tenant`, which may take `seconds`.
pub(super) fn statement(
    query: &Query,
    window: &Window,
    plan: &Plan,
    tenant: &str,
    seconds: u64,
) -> Statement {
    let mut parameters = vec![("tenant".to_owned(), Parameter::Texts(vec![tenant.to_owned()]))];
    parameters.extend(
        query
            .filters
            .iter()
            .enumerate()
            .map(|(at, filter)| (format!("filter{at}"), Parameter::Texts(filter.test.bound()))),
    );
    if window.even_length().is_none() {
        let starts = window.edges[..window.buckets()].to_vec();
        parameters.push(("starts".to_owned(), Parameter::Moments(starts)));
    }
    let mut selects = vec![REACH.to_owned()];
    for (number, part) in plan.parts.iter().enumerate() {
        selects.push(select(number + 1, part, query, window, plan));
    }
    let most = MAX_ROWS * plan.parts.len() + 1;
    let settings = vec![
        ("max_execution_time", seconds.to_string()),
        ("max_rows_to_read", MAX_ROWS_TO_READ.to_string()),
        ("read_overflow_mode", "throw".to_owned()),
        ("max_result_rows", most.to_string()),
        ("result_overflow_mode", "throw".to_owned()),
        ("cancel_http_readonly_queries_on_client_close", "1".to_owned()),
    ];
    Statement { text: selects.join("\nUNION ALL\n"), parameters, settings }
}

/// Whether ClickHouse orders the rows and leaves out those beyond the limit. Else rows are made or joined later, or
/// become null.
fn is_limited(query: &Query, window: &Window, plan: &Plan) -> bool {
    let [part] = &plan.parts[..] else { return false };
    let filled = query.fill != Fill::None && (window.buckets() > 1 || query.dimensions.is_empty());
    let nulled = part.kept_from.is_some_and(|kept| kept > window.from());
    !filled && !nulled && query.top.is_none() && query.cursor.is_none() && query.partial == Partial::Include
}

fn select(number: usize, part: &Part, query: &Query, window: &Window, plan: &Plan) -> String {
    let keys: Vec<_> = part
        .keys
        .iter()
        .enumerate()
        .map(|(at, column)| format!("{} AS Key{at}", key(at, column, query, window, plan)))
        .collect();
    let figures: Vec<_> = part
        .measures
        .iter()
        .enumerate()
        .map(|(at, (place, measure))| format!("{} AS Figure{at}", figure(measure, &query.measures[*place])))
        .collect();
    let grouped: String = (0..keys.len()).map(|at| format!(", Key{at}")).collect();
    let limit = if is_limited(query, window, plan) { limit(part, query) } else { String::new() };
    let select = format!(
        "SELECT toUInt8({number}) AS Part,\n       {} AS Start,\n       CAST([{}], 'Array(Nullable(String))') AS Keys,\n       \
         CAST([{}], 'Array(Nullable(Int128))') AS Figures\nFROM {} AS S\nWHERE {}\nGROUP BY Start{grouped}\n\
         HAVING count() > 0{limit}",
        start(window),
        keys.join(", "),
        figures.join(", "),
        part.rollup.source(),
        conditions(part, query, window).join(" AND "),
    );
    // An order of its own must not be taken for that of the whole union.
    if limit.is_empty() { select } else { format!("SELECT * FROM (\n{select}\n)") }
}

/// Start of the bucket of the query that holds a bucket of the rollup.
fn start(window: &Window) -> String {
    let from = window.from();
    match window.even_length() {
        _ if window.buckets() == 1 => format!("toInt64({from})"),
        Some(length) => {
            format!("toInt64({from} + intDiv(toUnixTimestamp(S.bucket) - {from}, {length}) * {length})")
        }
        None => "toInt64(roundDown(toUnixTimestamp(S.bucket), {starts:Array(UInt32)}))".to_owned(),
    }
}

/// A dimension; null for the values that `top` merges.
fn key(at: usize, column: &str, query: &Query, window: &Window, plan: &Plan) -> String {
    let (Some(top), true) = (&query.top, query.ranked() == Some(at)) else { return format!("S.`{column}`") };
    // The rank counts the whole window, whichever rollup this part reads. What is absent has no rank.
    let (ranking, place) = plan.part_of(0);
    let ranked = &ranking.keys[at];
    let by = figure(&ranking.measures[place].1, &query.measures[0]);
    format!(
        "if(S.`{column}` IN (SELECT S.`{ranked}` FROM {} AS S WHERE {} AND S.`{ranked}` != '' GROUP BY S.`{ranked}` \
         ORDER BY {by} DESC NULLS LAST, S.`{ranked}` LIMIT {}), toNullable(S.`{column}`), NULL)",
        ranking.rollup.source(),
        conditions(ranking, query, window).join(" AND "),
        top.count,
    )
}

/// A measure as an Int128; null where a least or greatest value is still the neutral element.
fn figure(measure: &Measure, name: &str) -> String {
    match measure {
        Measure::Count | Measure::CountOf(_) | Measure::Sum(_) => format!("sum(toInt128(S.`{name}`))"),
        Measure::UniqExact(_) => format!("toInt128(uniqExactMerge(S.`{name}`))"),
        Measure::Min(_) => format!("nullIf(min(S.`{name}`), toInt128('{}'))", i128::MAX),
        Measure::Max(_) => format!("nullIf(max(S.`{name}`), toInt128('{}'))", i128::MIN),
    }
}

/// Which rows count.
fn conditions(part: &Part, query: &Query, window: &Window) -> Vec<String> {
    let mut all = vec![
        "S.tenant IN {tenant:Array(String)}".to_owned(),
        format!("S.bucket >= toDateTime({}, 'UTC')", window.from()),
        format!("S.bucket < toDateTime({}, 'UTC')", window.to()),
    ];
    for (at, (filter, column)) in query.filters.iter().zip(&part.filtered).enumerate() {
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
