//! Rows of an answer from rows of the database: joined, filled, ordered, limited.
//!
//! Pure: what [`super::fetch`] read goes in, what [`super::render`] writes comes out.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};

use schemas::rollup::Measure;
use schemas::time::UnixMillis;

use super::budget::Kept;
use super::cursor::Cursor;
use super::fetch::Fetched;
use super::params::{Direction, Fill, Order, Partial, Query};
use super::plan::Plan;
use super::window::Window;
use crate::problem::{Kind, Problem};

/// Most rows of an answer before its limit: keys times buckets.
pub(super) const MAX_CELLS: usize = 100_000;

/// Dimensions of a row; none for the values that `top` merges.
type Keys = Vec<Option<String>>;

/// What was found of each measure: nothing, or what may be null.
type Found = Vec<Option<Option<i128>>>;

/// An answer before it is rendered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shaped {
    pub(super) rows: Vec<Row>,
    /// Whether rows were left out for their number.
    pub(super) truncated: bool,
    /// Where the rows that were left out begin; none where there are none.
    pub(super) next: Option<Cursor>,
    /// The last edge of a bucket up to which everything is counted.
    pub(super) complete_until: Option<i64>,
    /// All that was in Kafka before this moment is counted; none while nothing is.
    pub(super) as_of: Option<UnixMillis>,
    /// Hash of the aggregator's rollups; none before one has started.
    pub(super) declared: Option<u64>,
    /// Names of the rollups that were read.
    pub(super) rollups: Vec<String>,
    /// Start and end.
    pub(super) window: (i64, i64),
}

/// A row of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// Start of its bucket.
    pub(super) start: i64,
    pub(super) keys: Keys,
    pub(super) figures: Vec<Option<i128>>,
}

impl Row {
    /// Whether it stands for the values that `top` merges.
    pub(super) fn is_others(&self) -> bool {
        self.keys.iter().any(Option::is_none)
    }
}

impl Kept for Shaped {
    fn bytes(&self) -> usize {
        let row = |row: &Row| {
            let texts: usize = row.keys.iter().flatten().map(String::len).sum();
            size_of::<Row>() + row.keys.len() * size_of::<Option<String>>() + row.figures.len() * 32 + texts
        };
        size_of::<Self>() + self.rows.iter().map(row).sum::<usize>()
    }
}

/// Refuses what would have too many rows, as far as that is known before the database is asked.
pub(super) fn check_size(query: &Query, window: &Window, now: i64) -> Result<(), Problem> {
    let keys = match &query.top {
        Some(top) if query.dimensions.len() == 1 => top.count + 1,
        _ => 1,
    };
    let cells = if query.fill == Fill::None { 0 } else { window.begun(now) * keys };
    if cells <= MAX_CELLS { Ok(()) } else { Err(too_wide()) }
}

/// The rows of the answer at the moment `now`.
pub(super) fn shape(
    query: &Query,
    window: &Window,
    plan: &Plan,
    fetched: Fetched,
    now: i64,
) -> Result<Shaped, Problem> {
    let Fetched { as_of, rollups: declared, .. } = fetched;
    let mut found = joined(query, window, plan, fetched);
    if query.fill != Fill::None {
        fill(&mut found, query, window, now)?;
    }
    let complete_until = as_of.and_then(|as_of| window.last_edge(as_of.0.div_euclid(1000)));
    let is_kept = |bucket: usize| {
        query.partial == Partial::Include
            || complete_until.is_some_and(|until| window.edges[bucket + 1] <= until)
    };
    let mut rows: Vec<_> = found
        .into_iter()
        .filter(|((bucket, _), _)| is_kept(*bucket))
        .map(|((bucket, keys), found)| Row {
            start: window.edges[bucket],
            figures: figures(query, plan, window.edges[bucket], &found),
            keys,
        })
        .collect();
    let order = query.order();
    rows.sort_unstable_by(|a, b| compare(query, &order, a, b));
    if let Some(cursor) = &query.cursor {
        let last = cursor.row(query)?;
        let passed = rows.partition_point(|row| compare(query, &order, row, &last) != Ordering::Greater);
        rows.drain(..passed);
    }
    let truncated = rows.len() > query.limit;
    rows.truncate(query.limit);
    let next = rows.last().filter(|_| truncated).map(|row| Cursor::after(row, query));
    let rollups = plan.parts.iter().map(|part| part.rollup.name.clone()).collect();
    let window = (window.from(), window.to());
    Ok(Shaped { rows, truncated, next, complete_until, as_of, declared, rollups, window })
}

/// What was found, by bucket and dimensions.
fn joined(query: &Query, window: &Window, plan: &Plan, fetched: Fetched) -> HashMap<(usize, Keys), Found> {
    let mut joined: HashMap<_, Found> = HashMap::new();
    for row in fetched.rows {
        let part = plan.parts.get(usize::from(row.part).wrapping_sub(1));
        // The statement gives no other rows; if the server did, they would be of no bucket or part of ours.
        let (Some(part), Some(bucket)) = (part, window.bucket_at(row.start)) else { continue };
        let found = joined.entry((bucket, row.keys)).or_insert_with(|| vec![None; query.measures.len()]);
        for ((place, _), figure) in part.measures.iter().zip(row.figures) {
            found[*place] = Some(figure);
        }
    }
    joined
}

/// Has each key stand in each bucket that has begun.
fn fill(
    found: &mut HashMap<(usize, Keys), Found>,
    query: &Query,
    window: &Window,
    now: i64,
) -> Result<(), Problem> {
    let mut keys: BTreeSet<Keys> = found.keys().map(|(_, keys)| keys.clone()).collect();
    if query.dimensions.is_empty() {
        keys.insert(Keys::new());
    }
    let begun = window.begun(now);
    if keys.len() * begun > MAX_CELLS {
        return Err(too_wide());
    }
    for keys in keys {
        for bucket in 0..begun {
            found.entry((bucket, keys.clone())).or_insert_with(|| vec![None; query.measures.len()]);
        }
    }
    Ok(())
}

/// The measures of a row, in the order of the query.
fn figures(query: &Query, plan: &Plan, start: i64, found: &Found) -> Vec<Option<i128>> {
    let figure = |(place, found): (usize, &Option<Option<i128>>)| {
        let (part, at) = plan.part_of(place);
        if part.kept_from.is_some_and(|kept| start < kept) {
            // What is there of an expired bucket are latecomers at most.
            return None;
        }
        found.unwrap_or_else(|| match (query.fill, &part.measures[at].1) {
            (Fill::Null, _) | (_, Measure::Min(_) | Measure::Max(_)) => None,
            (
                Fill::Zero | Fill::None,
                Measure::Count | Measure::CountOf(_) | Measure::Sum(_) | Measure::UniqExact(_),
            ) => Some(0),
        })
    };
    found.iter().enumerate().map(figure).collect()
}

/// The order of rows. Where it is not by time, what `top` merges stands after all others: it is no value to rank.
fn compare(query: &Query, order: &Order, a: &Row, b: &Row) -> Ordering {
    let directed = |ordering: Ordering| match order.direction {
        Direction::Ascending => ordering,
        Direction::Descending => ordering.reverse(),
    };
    let others = a.is_others().cmp(&b.is_others());
    let first = if let Some(at) = query.measures.iter().position(|name| *name == order.field) {
        others.then_with(|| nulls_last(a.figures[at].as_ref(), b.figures[at].as_ref(), directed))
    } else if let Some(at) = query.dimensions.iter().position(|name| *name == order.field) {
        others.then_with(|| nulls_last(a.keys[at].as_ref(), b.keys[at].as_ref(), directed))
    } else {
        directed(a.start.cmp(&b.start)).then(others)
    };
    let keys = || {
        let pairs = a.keys.iter().zip(&b.keys);
        let compared = pairs.map(|(a, b)| nulls_last(a.as_ref(), b.as_ref(), |ordering| ordering));
        compared.fold(Ordering::Equal, Ordering::then)
    };
    first.then_with(|| a.start.cmp(&b.start)).then_with(keys)
}

fn nulls_last<T: Ord>(a: Option<T>, b: Option<T>, directed: impl Fn(Ordering) -> Ordering) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => directed(a.cmp(&b)),
        (a, b) => a.is_none().cmp(&b.is_none()),
    }
}

fn too_wide() -> Problem {
    let reason =
        format!("every key in every bucket would be more than {MAX_CELLS} rows; `none` makes no rows");
    Problem::of(Kind::TooWide, "fill", reason)
}

#[cfg(test)]
mod tests;
