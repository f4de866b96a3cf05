//! Makes the rows of an answer from rows of the database: joins, fills, compares, orders and limits them.
//!
//! Pure: its input comes from [`super::fetch`], its output goes to [`super::render`].

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};

use schemas::rollup::Measure;
use schemas::time::UnixMillis;

use super::budget::CachedAnswer;
use super::compare::{Compared, Slice, Slices};
use super::cursor::Cursor;
use super::fetch::FetchedRow;
use super::params::{Accuracy, Direction, Fill, Order, Partial, Query};
use super::sql::{self, MAX_EXACT_VALUES};
use super::window::Window;
use crate::problem::{Kind, Problem};

/// Maximum number of rows of an answer before its limit is applied: the number of buckets times the number of
/// combinations of dimension values.
pub(super) const MAX_CELLS: usize = 100_000;

/// The values of a row's dimensions; `None` for the values that `top` merges.
type Keys = Vec<Option<String>>;

/// What ClickHouse returned for each measure: `None` if it returned no row, otherwise a value that may be null.
type Found = Vec<Option<Option<i128>>>;

/// The measures that ClickHouse returned for a slice, by the number of the bucket (from 0) and the values of the
/// dimensions.
type Joined = HashMap<(usize, Keys), Found>;

/// An answer before it is rendered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shaped {
    pub(super) rows: Vec<Row>,
    /// How many rows there are on all pages.
    pub(super) total: usize,
    /// Whether rows were left out because of the limit.
    pub(super) truncated: bool,
    /// The cursor of the next page; `None` if there is no next page, or if the request for the next page might be
    /// refused.
    pub(super) next: Option<Cursor>,
    /// The last edge of a bucket at or before `as_of`. Buckets that end by this edge change only if events arrive late.
    /// `None` if no edge of the window is at or before `as_of`, or if `as_of` is `None`.
    pub(super) complete_until: Option<i64>,
    /// Everything that was in Kafka before this moment is counted; `None` before the aggregator has reported progress
    /// of all partitions.
    pub(super) as_of: Option<UnixMillis>,
    /// Names of the rollups that were read.
    pub(super) rollups: Vec<String>,
    /// Start and end of the query's window.
    pub(super) window: (i64, i64),
    /// Whether no measure has all events of any bucket: the rollups that are read have every event only from the end of
    /// the window on, or from a later moment.
    pub(super) is_before_since: bool,
    /// What the window is compared with; `None` if the query asks for no comparison.
    pub(super) compared: Option<ComparedWindow>,
    /// The measures that were counted from a sample, by their place in the query.
    pub(super) sampled: Vec<usize>,
}

/// The window that the query's window is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ComparedWindow {
    /// Start and end of that window.
    pub(super) window: (i64, i64),
    /// If part of an unfinished bucket is compared: the end of this part, and the end of the equally long part of the
    /// bucket's counterpart. `None` if only whole buckets are compared.
    pub(super) cut: Option<(i64, i64)>,
}

/// A row of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// Start of the row's bucket.
    pub(super) start: i64,
    pub(super) keys: Keys,
    pub(super) figures: Vec<Option<i128>>,
    /// The comparison of each measure; empty if the query asks for no comparison.
    pub(super) compared: Vec<Comparison>,
}

/// The two values of a measure that are compared. A bucket of the query's window is compared with its counterpart, the
/// bucket with the same number in the other window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Comparison {
    /// The measure in the counterpart of the row's bucket. If the row's bucket is not over, only the first part of the
    /// counterpart is counted.
    pub(super) then: Option<i128>,
    /// The measure in the row's bucket. If this bucket is not over, only a first part is counted, which is as long
    /// as the counted part of the counterpart.
    pub(super) now: Option<i128>,
}

impl Comparison {
    /// The change as a ratio: 0.25 is a quarter more; `None` if one of the values is absent, or if `then` is 0.
    pub(super) fn change(self) -> Option<f64> {
        let (then, now) = (self.then.filter(|then| *then != 0)?, self.now?);
        #[expect(clippy::cast_precision_loss, reason = "a ratio needs no more than the digits of a double")]
        let ratio = (now as f64 - then as f64) / (then as f64).abs();
        Some((ratio * 10_000.0).round() / 10_000.0)
    }
}

impl Row {
    /// Whether this is the row into which `top` merges values.
    pub(super) fn is_others(&self) -> bool {
        self.keys.iter().any(Option::is_none)
    }
}

impl CachedAnswer for Shaped {
    fn bytes(&self) -> usize {
        let row = |row: &Row| {
            let texts: usize = row.keys.iter().flatten().map(String::len).sum();
            let numbers =
                row.figures.len() * size_of::<Option<i128>>() + row.compared.len() * size_of::<Comparison>();
            size_of::<Row>() + row.keys.len() * size_of::<Option<String>>() + numbers + texts
        };
        size_of::<Self>() + self.rows.iter().map(row).sum::<usize>()
    }
}

/// Refuses a query whose answer would have too many rows, as far as this is known before ClickHouse runs the query.
pub(super) fn check_size(query: &Query, window: &Window, now: i64) -> Result<(), Problem> {
    let keys = match &query.top {
        Some(top) if query.dimensions.len() == 1 => top.count + 1,
        _ => 1,
    };
    let cells = if query.fill == Fill::None { 0 } else { window.begun(now) * keys };
    if cells <= MAX_CELLS { Ok(()) } else { Err(too_wide()) }
}

/// The answer at the moment `now`. Everything that was in Kafka before `as_of` is counted.
///
/// # Errors
/// Filling the buckets would take more than [`MAX_CELLS`] rows.
pub(super) fn shape(
    query: &Query,
    slices: &Slices,
    rows: Vec<FetchedRow>,
    as_of: Option<UnixMillis>,
    now: i64,
) -> Result<Shaped, Problem> {
    let window = &slices.main.window;
    let is_limited = sql::is_limited(query, slices);
    let counted = if is_limited { rows.iter().map(|row| row.total).max() } else { None };
    let sampled = sampled(query, slices, &rows);
    let mut slices_found = joined(query, slices, rows).into_iter();
    let mut found = slices_found.next().expect("the first slice is the query's own window");
    let compared = slices.compared.as_ref().map(|compared| ComparedRows::new(compared, slices_found));
    // If ClickHouse limits the rows of a query that asks for filling, there is nothing to fill: the window has only one
    // bucket, and each combination of dimension values that ClickHouse found has a row in this bucket.
    if query.fill != Fill::None && !is_limited {
        let compared_keys = compared.as_ref().map(ComparedRows::keys).unwrap_or_default();
        fill(&mut found, compared_keys, query, window, now)?;
    }
    let complete_until = as_of.and_then(|as_of| window.last_edge(as_of.0.div_euclid(1000)));
    let is_kept = |bucket: usize| {
        query.partial == Partial::Include
            || complete_until.is_some_and(|until| window.edges[bucket + 1] <= until)
    };
    let mut rows: Vec<_> = found
        .into_iter()
        .filter(|((bucket, _), _)| is_kept(*bucket))
        .map(|((bucket, keys), found)| {
            let figures = figures(query, &slices.main, bucket, Some(&found));
            let compared = compared.as_ref().map(|rows| rows.comparisons(query, bucket, &keys, &figures));
            Row { start: window.edges[bucket], keys, figures, compared: compared.unwrap_or_default() }
        })
        .collect();
    let total = counted.map_or(rows.len(), |total| usize::try_from(total).unwrap_or(usize::MAX));
    let order = query.order();
    rows.sort_unstable_by(|a, b| compare(query, &order, a, b));
    if let Some(cursor) = &query.cursor {
        let last = cursor.row(query);
        let passed = rows.partition_point(|row| compare(query, &order, row, &last) != Ordering::Greater);
        rows.drain(..passed);
    }
    let truncated = rows.len() > query.limit;
    rows.truncate(query.limit);
    // If ClickHouse does not limit the rows, each page is cut from all rows, and a query of more than `MAX_CELLS` rows
    // may be refused. So the answer to such a query has no cursor.
    let has_next = truncated && (is_limited || total <= MAX_CELLS);
    let next = rows.last().filter(|_| has_next).map(|row| Cursor::after(row, query));
    let complete_from = slices.main.plan.parts.iter().map(|part| part.complete_from);
    Ok(Shaped {
        rows,
        total,
        truncated,
        next,
        complete_until,
        as_of,
        rollups: slices.rollups(),
        window: (window.from(), window.to()),
        is_before_since: complete_from
            .min()
            .flatten()
            .is_some_and(|complete_from| complete_from >= window.to()),
        compared: slices.compared.as_ref().map(compared_window),
        sampled,
    })
}

fn compared_window(compared: &Compared) -> ComparedWindow {
    let cut = compared.cut.as_ref().map(|cut| (cut.now.window.to(), cut.then.window.to()));
    ComparedWindow { window: compared.window, cut }
}

/// The measures that at least one part of the statement counted from a sample, by their place in the query.
fn sampled(query: &Query, slices: &Slices, rows: &[FetchedRow]) -> Vec<usize> {
    let parts = slices.all().into_iter().flat_map(|slice| &slice.plan.parts).enumerate();
    let is_sampled = |at: usize| match query.accuracy {
        Accuracy::Exact => false,
        Accuracy::Fast => true,
        Accuracy::Auto => {
            rows.iter().any(|row| usize::from(row.part) == at + 1 && row.size > MAX_EXACT_VALUES)
        }
    };
    let measures: BTreeSet<_> =
        parts.filter(|(at, _)| is_sampled(*at)).flat_map(|(_, part)| part.distinct()).collect();
    measures.into_iter().collect()
}

/// The fetched rows of each slice, in the order of the slices. The rows of a slice's parts are joined.
fn joined(query: &Query, slices: &Slices, rows: Vec<FetchedRow>) -> Vec<Joined> {
    let slices = slices.all();
    let parts: Vec<_> = slices
        .iter()
        .enumerate()
        .flat_map(|(at, slice)| slice.plan.parts.iter().map(move |part| (at, *slice, part)))
        .collect();
    let mut joined: Vec<Joined> = slices.iter().map(|_| Joined::new()).collect();
    for row in rows {
        // The statement selects no rows of other parts or buckets; if ClickHouse sent such rows, they would be ignored.
        let Some((at, slice, part)) = parts.get(usize::from(row.part).wrapping_sub(1)) else { continue };
        let Some(bucket) = slice.window.bucket_at(row.start) else { continue };
        let found = joined[*at].entry((bucket, row.keys)).or_insert_with(|| vec![None; query.measures.len()]);
        for ((place, _), figure) in part.measures.iter().zip(row.figures) {
            found[*place] = Some(figure);
        }
    }
    joined
}

/// The fetched rows of the comparison.
struct ComparedRows<'a> {
    compared: &'a Compared,
    /// The rows of the counterparts of buckets that are over.
    whole: Joined,
    /// The rows of the compared part of the bucket that is not over.
    now: Joined,
    /// The rows of the equally long part of the counterpart of the bucket that is not over.
    then: Joined,
}

impl<'a> ComparedRows<'a> {
    fn new(compared: &'a Compared, mut found: impl Iterator<Item = Joined>) -> Self {
        let whole = compared.whole.as_ref().and_then(|_| found.next()).unwrap_or_default();
        let mut cut = || compared.cut.as_ref().and_then(|_| found.next()).unwrap_or_default();
        Self { compared, whole, now: cut(), then: cut() }
    }

    /// The combinations of dimension values in the counterparts.
    fn keys(&self) -> BTreeSet<Keys> {
        self.whole.keys().chain(self.then.keys()).map(|(_, keys)| keys.clone()).collect()
    }

    /// The comparison of each measure of a row. `figures` has the values of the measures in the row itself.
    fn comparisons(
        &self,
        query: &Query,
        bucket: usize,
        keys: &Keys,
        figures: &[Option<i128>],
    ) -> Vec<Comparison> {
        let of = |slice: &Slice, joined: &Joined, bucket: usize| {
            self::figures(query, slice, bucket, joined.get(&(bucket, keys.clone())))
        };
        let whole = self.compared.whole.as_ref().filter(|whole| bucket < whole.window.buckets());
        let cut = self.compared.cut.as_ref().filter(|cut| cut.bucket == bucket);
        let (then, now) = match (whole, cut) {
            (Some(whole), _) => (of(whole, &self.whole, bucket), figures.to_vec()),
            (None, Some(cut)) => (of(&cut.then, &self.then, 0), of(&cut.now, &self.now, 0)),
            (None, None) => (vec![None; figures.len()], vec![None; figures.len()]),
        };
        then.into_iter().zip(now).map(|(then, now)| Comparison { then, now }).collect()
    }
}

/// Adds rows to `found`, so that each combination of dimension values in `found` or `compared_keys` has a row in each
/// bucket that has begun.
fn fill(
    found: &mut Joined,
    compared_keys: BTreeSet<Keys>,
    query: &Query,
    window: &Window,
    now: i64,
) -> Result<(), Problem> {
    let mut keys: BTreeSet<Keys> = found.keys().map(|(_, keys)| keys.clone()).chain(compared_keys).collect();
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

/// The measures of a bucket, in the order of the query; null for a measure that the slice does not have, or whose
/// rollup does not have every event of the bucket.
fn figures(query: &Query, slice: &Slice, bucket: usize, found: Option<&Found>) -> Vec<Option<i128>> {
    let start = slice.window.edges[bucket];
    let figure = |place: usize| {
        let (part, at) = slice.plan.part_of(place)?;
        if part.complete_from.is_some_and(|complete_from| start < complete_from) {
            // The rollup does not have every event of this bucket, so the measure would be wrong. For example, if the
            // retention deleted the bucket, the rollup has only the events that arrived after the deletion.
            return None;
        }
        found.and_then(|found| found[place]).unwrap_or_else(|| match (query.fill, &part.measures[at].1) {
            (Fill::Null, _) | (_, Measure::Min(_) | Measure::Max(_)) => None,
            (
                Fill::Zero | Fill::None,
                Measure::Count | Measure::CountOf(_) | Measure::Sum(_) | Measure::UniqExact(_),
            ) => Some(0),
        })
    };
    (0..query.measures.len()).map(figure).collect()
}

/// The order of rows. Unless rows are ordered by time, the row into which `top` merges values comes after all others,
/// because it is not one of the ranked values.
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
    let reason = format!(
        "filling all buckets would take more than {MAX_CELLS} rows; use `fill=none`, or fewer buckets or dimensions"
    );
    Problem::of(Kind::TooWide, "fill", reason)
}

#[cfg(test)]
mod tests;
