//! What a query reads: its own window, and with `compare` the window that it is compared with.
//!
//! The window of the comparison is computed with the calendar of the query's time zone. The buckets of the two windows
//! are compared by their number: each bucket with its *counterpart*, the bucket of the same number in the other window.
//! If a bucket is not over yet, only its part before the *cut* is compared, with an equally long part of its
//! counterpart. The cut is the latest moment before which all events are counted and at which a bucket ends in every
//! rollup that is read for the comparison. Pure: no clock, no I/O.

use jiff::ToSpan;

use super::grain::Grain;
use super::params::{Compare, Query};
use super::plan::{Part, Plan, Planner};
use super::window::Window;
use crate::problem::Problem;

/// A window, and the rollups from which its buckets are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slice {
    pub(super) window: Window,
    pub(super) plan: Plan,
}

/// Everything that one statement reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slices {
    /// The window of the query.
    pub(super) main: Slice,
    /// What the window is compared with; `None` if the query asks for no comparison.
    pub(super) compared: Option<Compared>,
}

/// What a window is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Compared {
    /// Start and end of the window that the query's window is compared with.
    pub(super) window: (i64, i64),
    /// The counterparts of the buckets that are over, in their order; `None` if no bucket is over.
    pub(super) whole: Option<Slice>,
    /// The part of the unfinished bucket that is compared; `None` if no bucket is unfinished, or if no measure has
    /// rollups that allow a cut.
    pub(super) cut: Option<Cut>,
}

/// The part of an unfinished bucket that is compared (`now`), and the equally long part of its counterpart (`then`).
/// Both parts have only those measures of the query for which a cut is possible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cut {
    /// Index of the unfinished bucket in the window of the query.
    pub(super) bucket: usize,
    pub(super) now: Slice,
    pub(super) then: Slice,
}

impl Slices {
    /// What a query reads of `window` if everything before `moment` is counted.
    ///
    /// # Errors
    /// No rollup covers a measure, or the window to compare with is not valid: for example, it begins before 1970.
    pub(super) fn new(
        query: &Query,
        planner: &Planner<'_>,
        window: &Window,
        moment: i64,
    ) -> Result<Self, Problem> {
        let main = Slice { window: window.clone(), plan: planner.plan(window)? };
        let compared = query.compare.map(|compare| compared(query, compare, planner, window, moment));
        Ok(Self { main, compared: compared.transpose()? })
    }

    /// All slices, in the order in which the statement reads them.
    pub(super) fn all(&self) -> Vec<&Slice> {
        let compared = self.compared.as_ref();
        let whole = compared.and_then(|compared| compared.whole.as_ref());
        let cut = compared.and_then(|compared| compared.cut.as_ref());
        let cut = cut.into_iter().flat_map(|cut| [&cut.now, &cut.then]);
        [&self.main].into_iter().chain(whole).chain(cut).collect()
    }

    /// Names of the rollups that are read, each once.
    pub(super) fn rollups(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for name in self.all().into_iter().flat_map(|slice| &slice.plan.parts).flat_map(Part::rollups) {
            if !names.iter().any(|there| there == name) {
                names.push(name.to_owned());
            }
        }
        names
    }
}

fn compared(
    query: &Query,
    compare: Compare,
    planner: &Planner<'_>,
    window: &Window,
    moment: i64,
) -> Result<Compared, Problem> {
    let other = counterpart(compare, window, moment)?;
    let unfinished = window.bucket_of(moment);
    let over = if moment < window.from() { 0 } else { unfinished.unwrap_or(window.buckets()) };
    let whole = other.first(over.min(other.buckets()));
    let whole =
        whole.map(|window| Ok::<_, Problem>(Slice { plan: planner.plan(&window)?, window })).transpose()?;
    let cut = unfinished.and_then(|bucket| cut(query, planner, (window, &other), bucket, moment));
    Ok(Compared { window: (other.from(), other.to()), whole, cut })
}

/// The window that `window` is compared with.
fn counterpart(compare: Compare, window: &Window, now: i64) -> Result<Window, Problem> {
    let Window { grain, unit, ref calendar, .. } = *window;
    let (from, to) = (window.from(), window.to());
    let span = match (compare, grain) {
        (Compare::Between(from, to), _) => {
            return Window::new((from, to), grain, calendar.clone(), now).map_err(as_compare);
        }
        (Compare::Previous, _) => {
            let units = match unit {
                // A window of hours or smaller units is moved back by its length in seconds. A window of days or longer
                // units is moved back by the number of its units, because a local day may have 23 or 25 hours.
                Grain::Minute | Grain::QuarterHour | Grain::Hour => None,
                _ => Some(calendar.count(unit, from, to)),
            };
            let start = units.map_or(2 * from - to, |units| calendar.back(unit, from, units));
            return Window::between(start, from, grain, unit, calendar.clone()).map_err(as_compare);
        }
        (Compare::Week, _) => 1.week(),
        // A year is not a whole number of weeks, so each week is compared with the week that began 52 weeks earlier.
        (Compare::Year, Grain::Week) => 52.weeks(),
        (Compare::Year, _) => 1.year(),
    };
    let [start, end] = [from, to].map(|at| calendar.shifted_back(at, span));
    Window::between(start, end, grain, unit, calendar.clone()).map_err(as_compare)
}

/// Attributes a problem with the window to compare with to the parameter `compare`.
fn as_compare(mut problem: Problem) -> Problem {
    problem.errors.iter_mut().for_each(|error| "compare".clone_into(&mut error.param));
    problem
}

/// Cuts the unfinished bucket with the index `bucket` and its counterpart. Leaves out each measure for which no cut is
/// possible, for example because its rollups have no smaller buckets. The cut is the latest moment up to `moment` at
/// which a bucket ends in the rollups of all remaining measures. `None` if no measure remains.
fn cut(
    query: &Query,
    planner: &Planner<'_>,
    (window, other): (&Window, &Window),
    bucket: usize,
    moment: i64,
) -> Option<Cut> {
    let (start, start_then) = (window.edges[bucket], *other.edges.get(bucket)?);
    let end_then = *other.edges.get(bucket + 1)?;
    // Two slices for `measures`: the unfinished bucket from its start to `end`, and an equally long part of its
    // counterpart from the start of the counterpart. If the whole counterpart is shorter than this part, both slices
    // are as long as the counterpart. `None` if the slices would be empty. Also `None` if some measure has no rollup
    // that has every event of the slices and whose buckets begin and end at the bounds of the slices.
    let parts = |measures: &[usize], end: i64| {
        let slice = |start: i64, end: i64| {
            let window = window.part(start, end);
            let plan = planner.plan_of(measures.iter().copied(), &window).ok()?;
            let is_known = plan.parts.iter().all(|part| part.complete_from.is_none());
            is_known.then_some(Slice { window, plan })
        };
        let length = (end - start).min(end_then - start_then);
        let (now, then) = (slice(start, start + length)?, slice(start_then, start_then + length)?);
        (length > 0).then_some((now, then))
    };
    let finest = |measure: usize| {
        let ends = [60, 900, 3_600, 86_400].map(|length| moment - moment.rem_euclid(length));
        ends.into_iter().find(|end| *end > start && parts(&[measure], *end).is_some())
    };
    let ends: Vec<_> = (0..query.measures.len()).map(finest).collect();
    let end = ends.iter().flatten().min().copied()?;
    let measures: Vec<_> = (0..ends.len()).filter(|at| ends[*at].is_some()).collect();
    let (now, then) = parts(&measures, end)?;
    Some(Cut { bucket, now, then })
}

#[cfg(test)]
mod tests;
