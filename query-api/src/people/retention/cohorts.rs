//! The rows of a retention table. Pure.

use schemas::time::UnixMillis;
use serde::Serialize;

use super::Periods;
use super::params::Retention;
use crate::people::lane::Counted;
use crate::people::render::Table;

/// The cohorts in chronological order.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::people) struct Cohorts {
    cohorts: Vec<Cohort>,
    /// Number of later periods for which each cohort has a cell, besides the cell for the cohort's own period.
    periods: usize,
}

/// The users who had the event `first` in one period.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Cohort {
    /// The start of the period, in the time zone of the request.
    cohort: String,
    /// The number of users; null if the rollup lacks events of the period, because they are older than the rollup's
    /// retention or arrived before the rollup began to count.
    size: Option<u64>,
    /// A number for the cohort's own period, then one for each later period: how many of these users had the event
    /// `again` in the period; null if the events of the period are not all counted yet. If `size` is null, all cells
    /// are null.
    cells: Vec<Option<u64>>,
}

impl Cohorts {
    /// The cohorts whose periods begin at or before `now`. The rollup may lack events that are older than
    /// `complete_from`. If `complete_from` is `None`, the rollup has every event.
    pub(super) fn new(
        request: &Retention,
        periods: &Periods,
        complete_from: Option<i64>,
        counted: &Counted,
        now: i64,
    ) -> Self {
        let complete_until = counted.reach.as_of.and_then(|as_of| complete_until(&periods.edges, as_of));
        let cohort = |at: usize| {
            let start = periods.edges[at];
            let found = counted.rows.iter().find(|row| usize::try_from(row.start) == Ok(at));
            let figure = |place: usize| found.map_or(0, |row| row.figures[place]);
            let is_complete = complete_from.is_none_or(|complete_from| complete_from <= start);
            let cell = |period: usize| {
                let end = periods.edges[at + period + 1];
                let is_finished = complete_until.is_some_and(|until| end <= until);
                (is_complete && is_finished).then(|| figure(period + 1))
            };
            Cohort {
                cohort: request.calendar.local(start),
                size: is_complete.then(|| figure(0)),
                cells: (0..=request.periods).map(cell).collect(),
            }
        };
        let cohorts = (0..periods.window.begun(now)).map(cohort).collect();
        Self { cohorts, periods: request.periods }
    }
}

/// The latest of `edges` that is at or before `as_of`. All events before this edge are counted. `None` if `as_of` is
/// before the first edge.
pub(super) fn complete_until(edges: &[i64], as_of: UnixMillis) -> Option<i64> {
    let passed = edges.partition_point(|edge| *edge <= as_of.0.div_euclid(1000));
    passed.checked_sub(1).map(|at| edges[at])
}

impl Table for Cohorts {
    fn rows(&self) -> usize {
        self.cohorts.len()
    }

    fn json(&self) -> Box<serde_json::value::RawValue> {
        serde_json::value::to_raw_value(&self.cohorts).expect("numbers and texts become JSON")
    }

    fn csv(&self) -> Vec<Vec<String>> {
        let text = |figure: &Option<u64>| figure.map(|figure| figure.to_string()).unwrap_or_default();
        let named = (0..=self.periods).map(|period| format!("period_{period}"));
        let mut rows = vec![["cohort", "size"].map(str::to_owned).into_iter().chain(named).collect()];
        rows.extend(self.cohorts.iter().map(|Cohort { cohort, size, cells }| {
            let cells = cells.iter().map(text);
            [cohort.clone(), text(size)].into_iter().chain(cells).collect::<Vec<_>>()
        }));
        rows
    }
}
