//! Computes the buckets that a query covers from its bounds (`from` and `to`), its grain and its time zone.
//!
//! Bounds such as `-7d` are relative to the moment `now`. Bounds are moved outward to whole buckets. Invariant: a
//! [`Window`] has at least one bucket and at most [`MAX_BUCKETS`], and all of its edges fit into a `DateTime` of
//! ClickHouse. All instants are seconds since 1970.

use jiff::Timestamp;
use jiff::civil::Date;

use super::grain::{Calendar, Grain};
use crate::problem::{Kind, Problem};

/// Maximum number of buckets of a window.
pub(super) const MAX_BUCKETS: usize = 100_000;

/// Maximum number of buckets of a window whose buckets differ in length. The edges of such a window are sent as one
/// parameter of the statement, and ClickHouse accepts at most 128 KiB for a parameter (`http_max_field_value_size`).
const MAX_UNEVEN_BUCKETS: usize = 10_000;

/// The start or the end of a window, in the form in which the request gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound {
    /// The moment at which the query is answered.
    Now,
    /// The start of the last N units of this grain, the current unit included.
    Last(i64, Grain),
    /// The start of this day in the time zone of the query.
    Day(Date),
    /// A moment that does not depend on the time zone of the query.
    Instant(Timestamp),
}

/// The units of bounds such as `-7d`.
const UNITS: [(&str, Grain); 6] = [
    ("m", Grain::Minute),
    ("h", Grain::Hour),
    ("d", Grain::Day),
    ("w", Grain::Week),
    ("mo", Grain::Month),
    ("y", Grain::Year),
];

impl Bound {
    /// Reads `now`, `-7d`, `2026-11-01` or `2026-11-01T12:00:00+01:00`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text == "now" {
            return Ok(Self::Now);
        }
        let relative = text.strip_prefix('-').and_then(relative);
        let parsed = relative.or_else(|| date(text)).or_else(|| Some(Self::Instant(text.parse().ok()?)));
        parsed.ok_or_else(|| {
            "it must be now, -7d (also m, h, w, mo, y), a date, or a moment like 2026-11-01T12:00:00Z; in a URL, a + is \
             written %2B"
                .to_owned()
        })
    }

    /// The second that the bound means at the moment `now`. An instant between two seconds is rounded outward: up if it
    /// is the end of a window, down if it is the start.
    fn resolve(self, calendar: &Calendar, now: i64, is_end: bool) -> i64 {
        match self {
            Self::Now => now,
            Self::Last(count, grain) => calendar.back(grain, now, count - 1),
            Self::Day(day) => calendar.day_start(day),
            Self::Instant(instant) => {
                let floor = instant.as_millisecond().div_euclid(1000);
                floor + i64::from(is_end && instant.as_nanosecond().rem_euclid(1_000_000_000) > 0)
            }
        }
    }

    /// The unit of the bound, for a query without a grain. A relative bound and a date have the unit in which they are
    /// written. An instant has the coarsest of day, hour and quarter of an hour that begins at this instant, or else a
    /// minute. The bound `now` has no unit ([`Grain::None`]).
    fn grain(self, calendar: &Calendar) -> Grain {
        match self {
            Self::Now => Grain::None,
            Self::Last(_, grain) => grain,
            Self::Day(_) => Grain::Day,
            Self::Instant(instant) => {
                let at = instant.as_second();
                let coarse = [Grain::Day, Grain::Hour, Grain::QuarterHour];
                let found = coarse.into_iter().find(|grain| calendar.start(*grain, at) == at);
                found.unwrap_or(Grain::Minute)
            }
        }
    }
}

fn relative(text: &str) -> Option<Bound> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (count, unit) = text.split_at(digits);
    let (_, grain) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
    let count = count.parse().ok().filter(|count| (1..=MAX_BUCKETS as i64).contains(count))?;
    Some(Bound::Last(count, grain))
}

fn date(text: &str) -> Option<Bound> {
    // An instant also begins with a date. jiff would parse that date and ignore the rest.
    if text.len() == 10 { text.parse().ok().map(Bound::Day) } else { None }
}

/// The consecutive buckets of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Window {
    /// Starts of the buckets, and the end of the last.
    pub(crate) edges: Vec<i64>,
    pub(crate) grain: Grain,
    /// The bounds were moved to starts of this unit. It is the grain, or for a query without a grain the finer of the
    /// units of both bounds (a minute if both are `now`).
    pub(crate) unit: Grain,
    pub(crate) calendar: Calendar,
}

impl Window {
    /// The buckets from `from` to `to`, at the moment `now`.
    pub(crate) fn new(
        (from, to): (Bound, Bound),
        grain: Grain,
        calendar: Calendar,
        now: i64,
    ) -> Result<Self, Problem> {
        let [start, end] =
            [(from, false), (to, true)].map(|(bound, is_end)| bound.resolve(&calendar, now, is_end));
        // If the end is `now`, the window includes the current second.
        let end = if to == Bound::Now { end + 1 } else { end };
        for (param, at) in [("from", start), ("to", end)] {
            if !(0..=i64::from(u32::MAX)).contains(&at) {
                return Err(Problem::bad(param, "it must be from 1970 to 2106"));
            }
        }
        if start >= end {
            return Err(Problem::bad("from", "it must be before `to`"));
        }
        let unit = match grain {
            Grain::None => match from.grain(&calendar).min(to.grain(&calendar)) {
                Grain::None => Grain::Minute,
                unit => unit,
            },
            grain => grain,
        };
        Self::between(calendar.start(unit, start), ceil(&calendar, unit, end), grain, unit, calendar)
    }

    /// The buckets from `start` to `end`. A `unit` must start at each of these moments.
    pub(super) fn between(
        start: i64,
        end: i64,
        grain: Grain,
        unit: Grain,
        calendar: Calendar,
    ) -> Result<Self, Problem> {
        let edges = match grain {
            Grain::None => vec![start, end],
            grain => edges(&calendar, grain, start, end)?,
        };
        let window = Self { edges, grain, unit, calendar };
        if !(0..=i64::from(u32::MAX)).contains(&window.from()) || window.to() > i64::from(u32::MAX) {
            return Err(Problem::bad(
                "from",
                "the whole buckets of the window must lie between 1970 and 2106",
            ));
        }
        if window.even_length().is_none() && window.buckets() > MAX_UNEVEN_BUCKETS {
            return Err(too_many(MAX_UNEVEN_BUCKETS));
        }
        Ok(window)
    }

    /// The first `count` buckets of the window; `None` if `count` is 0 or larger than the number of buckets.
    pub(super) fn first(&self, count: usize) -> Option<Self> {
        let edges = self.edges.get(..=count).filter(|_| count > 0)?;
        Some(Self { edges: edges.to_vec(), calendar: self.calendar.clone(), ..*self })
    }

    /// A window of one bucket from `start` to `end`, with the grain, unit and calendar of this window.
    pub(super) fn part(&self, start: i64, end: i64) -> Self {
        Self { edges: vec![start, end], calendar: self.calendar.clone(), ..*self }
    }

    /// The index of the bucket that contains `moment`; `None` if `moment` is outside the window.
    pub(super) fn bucket_of(&self, moment: i64) -> Option<usize> {
        let bucket = self.edges.partition_point(|edge| *edge <= moment).checked_sub(1)?;
        (bucket < self.buckets()).then_some(bucket)
    }

    /// The start of the window.
    pub(crate) fn from(&self) -> i64 {
        self.edges[0]
    }

    /// The end of the window (exclusive).
    pub(crate) fn to(&self) -> i64 {
        self.edges[self.edges.len() - 1]
    }

    /// The number of buckets in the window.
    pub(crate) fn buckets(&self) -> usize {
        self.edges.len() - 1
    }

    /// The index of the bucket that starts at `start`; `None` if no bucket does.
    pub(super) fn bucket_at(&self, start: i64) -> Option<usize> {
        self.edges[..self.buckets()].binary_search(&start).ok()
    }

    /// Seconds of a bucket, if all buckets have the same length.
    pub(super) fn even_length(&self) -> Option<i64> {
        let length = self.edges[1] - self.edges[0];
        self.edges.windows(2).all(|pair| pair[1] - pair[0] == length).then_some(length)
    }

    /// How many buckets of the window begin at or before `now`.
    pub(crate) fn begun(&self, now: i64) -> usize {
        self.edges[..self.buckets()].partition_point(|start| *start <= now)
    }

    /// The last edge at or before `moment`; `None` if `moment` is before the window.
    pub(super) fn last_edge(&self, moment: i64) -> Option<i64> {
        let passed = self.edges.partition_point(|edge| *edge <= moment);
        passed.checked_sub(1).map(|at| self.edges[at])
    }
}

fn ceil(calendar: &Calendar, grain: Grain, at: i64) -> i64 {
    let start = calendar.start(grain, at);
    if start == at { at } else { calendar.next(grain, start) }
}

fn edges(calendar: &Calendar, grain: Grain, from: i64, to: i64) -> Result<Vec<i64>, Problem> {
    let mut last = calendar.start(grain, from);
    let mut edges = vec![last];
    while last < to {
        last = calendar.next(grain, last);
        edges.push(last);
        if edges.len() > MAX_BUCKETS + 1 {
            return Err(too_many(MAX_BUCKETS));
        }
    }
    Ok(edges)
}

fn too_many(most: usize) -> Problem {
    Problem::of(Kind::TooWide, "grain", format!("the window has more than {most} buckets of this grain"))
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::super::grain::Week;
    use super::*;

    fn window(from: &str, to: &str, grain: Grain, zone: &str) -> Result<Window, Problem> {
        let now = "2026-11-28T14:20:30Z".parse::<Timestamp>().unwrap().as_second();
        let calendar = Calendar { zone: TimeZone::get(zone).unwrap(), week: Week::Monday };
        Window::new((Bound::parse(from).unwrap(), Bound::parse(to).unwrap()), grain, calendar, now)
    }

    #[track_caller]
    fn check(from: &str, to: &str, grain: Grain, zone: &str, expected: (&str, &str, usize)) {
        let window = window(from, to, grain, zone).unwrap();
        let local = |at| window.calendar.local(at);
        let found = (local(window.from()), local(window.to()), window.buckets());
        assert_eq!((&*found.0, &*found.1, found.2), expected);
    }

    #[test]
    fn relative_bounds_are_the_last_buckets_with_the_current_one() {
        let to = "2026-11-29T00:00:00+00:00";
        check("-7d", "now", Grain::Day, "UTC", ("2026-11-22T00:00:00+00:00", to, 7));
        check("-2d", "-1d", Grain::Day, "UTC", ("2026-11-27T00:00:00+00:00", "2026-11-28T00:00:00+00:00", 1));
        let to = "2026-11-28T15:00:00+00:00";
        check("-3h", "now", Grain::Hour, "UTC", ("2026-11-28T12:00:00+00:00", to, 3));
        check("-24h", "now", Grain::None, "UTC", ("2026-11-27T15:00:00+00:00", to, 1));
        let (from, to) = ("2026-10-01T00:00:00+02:00", "2026-12-01T00:00:00+01:00");
        check("-2mo", "now", Grain::Month, "Europe/Berlin", (from, to, 2));
    }

    #[test]
    fn the_end_is_not_included_and_bounds_move_outward() {
        let (from, to) = ("2026-11-01T00:00:00+01:00", "2026-11-08T00:00:00+01:00");
        check("2026-11-01", "2026-11-08", Grain::Day, "Europe/Berlin", (from, to, 7));
        let (from, to) = ("2026-10-26T00:00:00+01:00", "2026-11-09T00:00:00+01:00");
        check("2026-11-01", "2026-11-08", Grain::Week, "Europe/Berlin", (from, to, 2));
        let (from, to) = ("2026-11-01T10:00:00+00:00", "2026-11-01T12:00:00+00:00");
        check("2026-11-01T10:59:59.5Z", "2026-11-01T11:00:00.001Z", Grain::Hour, "UTC", (from, to, 2));
    }

    #[test]
    fn without_a_grain_bounds_move_to_the_finest_unit_in_which_they_are_written() {
        let (from, to) = ("2026-11-01T00:00:00+00:00", "2026-11-29T00:00:00+00:00");
        check("2026-11-01", "now", Grain::None, "UTC", (from, to, 1));
        let (from, to) = ("2026-11-01T00:00:00+00:00", "2026-11-02T10:15:00+00:00");
        check("2026-11-01", "2026-11-02T10:15:00Z", Grain::None, "UTC", (from, to, 1));
        let (from, to) = ("2026-11-01T10:30:00+00:00", "2026-11-01T10:32:00+00:00");
        check("2026-11-01T10:30:09Z", "2026-11-01T10:31:02Z", Grain::None, "UTC", (from, to, 1));
    }

    #[test]
    fn the_day_on_which_clocks_are_put_back_has_25_hours() {
        let window = window("2026-10-25", "2026-10-26", Grain::Hour, "Europe/Berlin").unwrap();
        let starts: Vec<_> = window.edges.iter().map(|edge| window.calendar.local(*edge)).collect();
        assert_eq!(window.buckets(), 25);
        assert_eq!(starts[2..4], ["2026-10-25T02:00:00+02:00", "2026-10-25T02:00:00+01:00"]);
    }

    #[test]
    fn an_impossible_window_is_refused() {
        for text in ["", "-7", "-0d", "-7x", "yesterday", "2026-13-01", "2026-11-01 12:00", "20261101T00"] {
            assert!(Bound::parse(text).is_err(), "{text}");
        }
        let refused = |from, to, grain| window(from, to, grain, "UTC").unwrap_err();
        assert_eq!(refused("now", "-1h", Grain::Hour).errors[0].param, "from");
        assert_eq!(refused("1969-12-31", "now", Grain::Day).errors[0].param, "from");
        assert_eq!(refused("now", "2300-01-01", Grain::Year).errors[0].param, "to");
        assert_eq!(refused("2020-01-01", "now", Grain::Minute).kind, Kind::TooWide);
        let uneven = window("1990-01-01", "now", Grain::Day, "Europe/Berlin");
        assert_eq!(uneven.unwrap_err().kind, Kind::TooWide);
    }

    #[test]
    fn the_last_edge_before_a_moment_is_found() {
        let window = window("-3h", "now", Grain::Hour, "UTC").unwrap();
        let from = window.from();
        assert_eq!(window.last_edge(from - 1), None);
        assert_eq!(window.last_edge(from + 7200 + 1200), Some(from + 7200));
        assert_eq!(window.last_edge(from + 99_999), Some(window.to()));
        assert_eq!((window.begun(from - 1), window.begun(from), window.begun(from + 7200)), (0, 1, 3));
    }
}
