//! The calendar: where the buckets of a grain begin, in a time zone.
//!
//! Invariant: every instant lies in exactly one bucket, and buckets follow each other without a gap, even where
//! daylight saving time puts clocks forward or back. All instants are seconds since 1970. Nothing in this file reads
//! the current time.

use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ToSpan};
use schemas::rollup;

// In seconds.
const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;

/// Length of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Grain {
    /// A minute of the local clock.
    Minute,
    /// A quarter of an hour of the local clock.
    QuarterHour,
    /// An hour of the local clock.
    Hour,
    /// A local day.
    Day,
    /// Seven local days.
    Week,
    /// A local month.
    Month,
    /// Three local months.
    Quarter,
    /// A local year.
    Year,
    /// The whole window is one bucket.
    None,
}

impl Grain {
    /// All grains, the finest first.
    pub(crate) const ALL: [Self; 9] = [
        Self::Minute,
        Self::QuarterHour,
        Self::Hour,
        Self::Day,
        Self::Week,
        Self::Month,
        Self::Quarter,
        Self::Year,
        Self::None,
    ];

    /// The name of the grain in a request.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::QuarterHour => "15m",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Quarter => "quarter",
            Self::Year => "year",
            Self::None => "none",
        }
    }

    /// The grain of this name.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|grain| grain.name() == text);
        found.ok_or_else(|| format!("it must be one of {}", Self::ALL.map(Self::name).join(", ")))
    }
}

/// The day on which a week begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Week {
    /// As in ISO 8601.
    Monday,
    /// As in the United States.
    Sunday,
}

/// Determines where buckets begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Calendar {
    /// The time zone by whose clock and calendar buckets begin.
    pub(crate) zone: TimeZone,
    /// On which day a week begins.
    pub(crate) week: Week,
}

impl Calendar {
    /// Start of the bucket that holds the instant `at`.
    ///
    /// # Panics
    /// If the grain is `None`: its only bucket is the window, and a calendar does not know the window.
    pub(crate) fn start(&self, grain: Grain, at: i64) -> i64 {
        if let Some(length) = clock_length(grain) {
            return self.clock_start(length, at);
        }
        let mut start = self.day_start(self.first_day(grain, self.date(at)));
        // If the clock is put back over midnight, the local date is the previous day again for a while, although the
        // new day has already begun. For an `at` in this time, `start` is the start of an earlier bucket, so the loop
        // moves it forward.
        loop {
            let next = self.next(grain, start);
            if next > at {
                return start;
            }
            start = next;
        }
    }

    /// Start of the bucket after the one that starts at `start`.
    ///
    /// # Panics
    /// If the grain is `None`.
    pub(crate) fn next(&self, grain: Grain, start: i64) -> i64 {
        if let Some(length) = clock_length(grain) {
            return self.clock_next(length, start);
        }
        let mut day = self.first_day(grain, self.date(start));
        loop {
            day = moved(grain, day, 1);
            let next = self.day_start(day);
            // A day that the time zone skipped has no length and is no bucket.
            if next > start {
                return next;
            }
            if day == Date::MAX {
                return i64::MAX;
            }
        }
    }

    /// Start of the bucket that lies `count` buckets before the bucket that holds `at`. Two simplifications: a day that
    /// the time zone skipped counts as a bucket; and each bucket of an hour or less counts with its full length, even
    /// if a change of the clock made the bucket shorter.
    pub(crate) fn back(&self, grain: Grain, at: i64, count: i64) -> i64 {
        let start = self.start(grain, at);
        if let Some(length) = clock_length(grain) {
            return self.clock_start(length, start - count * length);
        }
        let day = moved(grain, self.first_day(grain, self.date(start)), -count);
        self.start(grain, self.day_start(day))
    }

    /// How many buckets there are between `from` and `to`. Both moments must be starts of buckets.
    pub(crate) fn count(&self, grain: Grain, from: i64, to: i64) -> i64 {
        let (mut at, mut count) = (from, 0);
        while at < to {
            at = self.next(grain, at);
            count += 1;
        }
        count
    }

    /// Subtracts `span` from the local time of `at`, and returns the first moment at which the local clock showed the
    /// result. If the clock never showed the result, because the clock was put forward over it, the local time of the
    /// returned moment is later than the result by as much as the clock was put forward.
    pub(crate) fn shifted_back(&self, at: i64, span: Span) -> i64 {
        let local = self.zone.to_datetime(timestamp(at)).saturating_sub(span);
        let limit = Timestamp::MIN.as_second();
        self.zone.to_zoned(local).map_or(limit, |zoned| zoned.timestamp().as_second())
    }

    /// Start of the local day `day`.
    pub(crate) fn day_start(&self, day: Date) -> i64 {
        let zoned = self.zone.to_zoned(day.at(0, 0, 0, 0)).and_then(|zoned| zoned.start_of_day());
        let limit = if day.year() < 0 { Timestamp::MIN } else { Timestamp::MAX };
        zoned.map_or(limit, |zoned| zoned.timestamp()).as_second()
    }

    /// The moment by the local clock, with the UTC offset: `2026-10-25T02:00:00+02:00`.
    pub(crate) fn local(&self, at: i64) -> String {
        let zoned = timestamp(at).to_zoned(self.zone.clone());
        zoned.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
    }

    /// The moment by the local clock without the UTC offset, as spreadsheets read it: `2026-10-25 02:00:00`.
    pub(crate) fn local_without_offset(&self, at: i64) -> String {
        timestamp(at).to_zoned(self.zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string()
    }

    fn date(&self, at: i64) -> Date {
        self.zone.to_datetime(timestamp(at)).date()
    }

    fn offset(&self, at: i64) -> i64 {
        i64::from(self.zone.to_offset(timestamp(at)).seconds())
    }

    /// Start of the bucket that holds `at`. A bucket ends where the local clock passes a multiple of `length`, and
    /// where the clock is put forward or back.
    fn clock_start(&self, length: i64, at: i64) -> i64 {
        let offset = self.offset(at);
        let start = at - (at + offset).rem_euclid(length);
        if self.offset(start) == offset { start } else { self.first_with_offset(start, at, offset) }
    }

    fn clock_next(&self, length: i64, start: i64) -> i64 {
        let offset = self.offset(start);
        let next = start + length - (start + offset).rem_euclid(length);
        let last = next - 1;
        if self.offset(last) == offset {
            next
        } else {
            self.first_with_offset(start, last, self.offset(last))
        }
    }

    /// The first instant after `before` at which the UTC offset is `offset`. Between `before` and `after`, the UTC
    /// offset must change exactly once, to `offset`.
    fn first_with_offset(&self, mut before: i64, mut after: i64, offset: i64) -> i64 {
        while after - before > 1 {
            let middle = before + (after - before) / 2;
            if self.offset(middle) == offset { after = middle } else { before = middle }
        }
        after
    }

    /// The first day of the bucket that holds `day`.
    fn first_day(&self, grain: Grain, day: Date) -> Date {
        let since_week_began = match self.week {
            Week::Monday => day.weekday().since(Weekday::Monday),
            Week::Sunday => day.weekday().since(Weekday::Sunday),
        };
        match grain {
            Grain::Week => day.saturating_sub(i64::from(since_week_began).days()),
            Grain::Month => day.first_of_month(),
            Grain::Quarter => {
                let months = (day.month() - 1) % 3;
                day.first_of_month().saturating_sub(i64::from(months).months())
            }
            Grain::Year => day.first_of_year(),
            Grain::Minute | Grain::QuarterHour | Grain::Hour | Grain::Day | Grain::None => day,
        }
    }
}

fn timestamp(at: i64) -> Timestamp {
    let (least, most) = (Timestamp::MIN.as_second(), Timestamp::MAX.as_second());
    Timestamp::from_second(at.clamp(least, most)).expect("clamped seconds are in the range")
}

/// The length in seconds of a bucket that follows the clock; `None` for days and longer grains, which follow the
/// calendar. Panics for [`Grain::None`].
fn clock_length(grain: Grain) -> Option<i64> {
    match grain {
        Grain::Minute => Some(MINUTE),
        Grain::QuarterHour => Some(15 * MINUTE),
        Grain::Hour => Some(HOUR),
        Grain::Day | Grain::Week | Grain::Month | Grain::Quarter | Grain::Year => None,
        Grain::None => panic!("grain `none` has no bucket length: the whole window is one bucket"),
    }
}

/// The first day of the bucket that lies `count` buckets after the bucket that begins with `day`, or before it if
/// `count` is negative.
fn moved(grain: Grain, day: Date, count: i64) -> Date {
    let span = match grain {
        Grain::Week => count.weeks(),
        Grain::Month => count.months(),
        Grain::Quarter => (3 * count).months(),
        // `years` panics beyond 19,998 years. A span of 9,999 years is longer than any window, so the clamp changes no
        // answer.
        Grain::Year => count.clamp(-9_999, 9_999).years(),
        Grain::Minute | Grain::QuarterHour | Grain::Hour | Grain::Day | Grain::None => count.days(),
    };
    day.saturating_add(span)
}

/// The coarsest grain for which a bucket of a rollup begins at each of these instants; `None` if one of the instants
/// is not a full minute.
pub(crate) fn needed(edges: &[i64]) -> Option<rollup::Grain> {
    use rollup::Grain::{Day, Hour, Minute, QuarterHour};
    [Day, Hour, QuarterHour, Minute].into_iter().find(|grain| has_edges(*grain, edges))
}

/// Whether a bucket of a rollup with this grain begins at each of these instants. Buckets of rollups follow UTC.
pub(crate) fn has_edges(grain: rollup::Grain, edges: &[i64]) -> bool {
    let length = grain.length().map(|millis| millis / 1000);
    length.is_some_and(|length| edges.iter().all(|edge| edge.rem_euclid(length) == 0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn calendar(zone: &str) -> Calendar {
        Calendar { zone: TimeZone::get(zone).unwrap(), week: Week::Monday }
    }

    fn at(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_second()
    }

    #[track_caller]
    fn check(calendar: &Calendar, grain: Grain, moment: &str, start: &str, next: &str) {
        let found = calendar.start(grain, at(moment));
        assert_eq!(calendar.local(found), start);
        assert_eq!(calendar.local(calendar.next(grain, found)), next);
    }

    #[test]
    fn a_week_begins_on_the_day_that_is_asked_for() {
        let (from, to) = ("2026-11-16T00:00:00+00:00", "2026-11-23T00:00:00+00:00");
        check(&calendar("UTC"), Grain::Week, "2026-11-22T12:00:00Z", from, to);
        let sunday = Calendar { week: Week::Sunday, ..calendar("UTC") };
        let (from, to) = ("2026-11-22T00:00:00+00:00", "2026-11-29T00:00:00+00:00");
        check(&sunday, Grain::Week, "2026-11-22T12:00:00Z", from, to);
    }

    #[test]
    fn days_and_months_are_those_of_the_zone() {
        let (from, to) = ("2025-11-16T00:00:00+08:00", "2025-11-17T00:00:00+08:00");
        check(&calendar("Asia/Singapore"), Grain::Day, "2025-11-15T17:00:00Z", from, to);
        let (from, to) = ("2026-03-01T00:00:00+01:00", "2026-04-01T00:00:00+02:00");
        check(&calendar("Europe/Berlin"), Grain::Month, "2026-03-31T21:59:59Z", from, to);
        let (from, to) = ("2026-10-01T00:00:00+02:00", "2027-01-01T00:00:00+01:00");
        check(&calendar("Europe/Berlin"), Grain::Quarter, "2026-12-24T12:00:00Z", from, to);
        let (from, to) = ("2026-01-01T00:00:00+01:00", "2027-01-01T00:00:00+01:00");
        check(&calendar("Europe/Berlin"), Grain::Year, "2026-12-24T12:00:00Z", from, to);
    }

    #[test]
    fn an_hour_that_the_clock_shows_twice_is_two_buckets() {
        let berlin = calendar("Europe/Berlin");
        let (first, second) = ("2026-10-25T02:00:00+02:00", "2026-10-25T02:00:00+01:00");
        check(&berlin, Grain::Hour, "2026-10-25T00:30:00Z", first, second);
        check(&berlin, Grain::Hour, "2026-10-25T01:30:00Z", second, "2026-10-25T03:00:00+01:00");
    }

    #[test]
    fn a_new_bucket_begins_where_the_clock_is_put_back_by_half_an_hour() {
        let island = calendar("Australia/Lord_Howe");
        let (first, second) = ("2026-04-05T01:00:00+11:00", "2026-04-05T01:30:00+10:30");
        check(&island, Grain::Hour, "2026-04-04T14:59:59Z", first, second);
        check(&island, Grain::Hour, "2026-04-04T15:00:00Z", second, "2026-04-05T02:00:00+10:30");
    }

    #[test]
    fn a_day_that_a_time_zone_skipped_has_no_bucket() {
        let (from, to) = ("2011-12-29T00:00:00-10:00", "2011-12-31T00:00:00+14:00");
        check(&calendar("Pacific/Apia"), Grain::Day, "2011-12-29T12:00:00Z", from, to);
    }

    #[test]
    fn counting_buckets_back_respects_changes_of_the_clock() {
        let berlin = calendar("Europe/Berlin");
        let back = |grain, count| berlin.local(berlin.back(grain, at("2026-10-26T12:30:00Z"), count));
        assert_eq!(back(Grain::Hour, 0), "2026-10-26T13:00:00+01:00");
        assert_eq!(back(Grain::Hour, 36), "2026-10-25T02:00:00+02:00");
        assert_eq!(back(Grain::Day, 1), "2026-10-25T00:00:00+02:00");
        assert_eq!(back(Grain::Week, 52), "2025-10-27T00:00:00+01:00");
        assert_eq!(back(Grain::Month, 7), "2026-03-01T00:00:00+01:00");
        for grain in [Grain::Hour, Grain::Day, Grain::Week, Grain::Month, Grain::Year] {
            assert!(berlin.back(grain, 0, 100_000) < 0, "{grain:?}");
        }
    }

    #[test]
    fn the_coarsest_grain_that_has_all_edges_is_found() {
        let needs = |text: &str| needed(&[at(text), 0]);
        assert_eq!(needs("2026-11-15T00:00:00Z"), Some(rollup::Grain::Day));
        assert_eq!(needs("2026-11-15T16:00:00Z"), Some(rollup::Grain::Hour));
        assert_eq!(needs("2026-11-15T20:30:00Z"), Some(rollup::Grain::QuarterHour));
        assert_eq!(needs("2026-11-15T20:31:00Z"), Some(rollup::Grain::Minute));
        assert_eq!(needs("2026-11-15T20:31:01Z"), None);
    }

    const ZONES: [&str; 8] = [
        "UTC",
        "Europe/Berlin",
        "Asia/Tehran",
        "America/St_Johns",
        "America/Sao_Paulo",
        "Australia/Lord_Howe",
        "Pacific/Apia",
        "Asia/Kathmandu",
    ];

    proptest! {
        #[test]
        fn every_instant_lies_in_the_bucket_that_is_computed_for_it(
            zone in prop::sample::select(&ZONES[..]),
            grain in prop::sample::select(&Grain::ALL[..8]),
            sunday in any::<bool>(),
            at in 86_400 * 366..4_000_000_000_i64,
        ) {
            let week = if sunday { Week::Sunday } else { Week::Monday };
            let calendar = Calendar { week, ..calendar(zone) };
            let start = calendar.start(grain, at);
            let next = calendar.next(grain, start);
            prop_assert!(start <= at && at < next, "{} {start} {next}", calendar.local(at));
            prop_assert_eq!(calendar.start(grain, start), start);
            prop_assert_eq!(calendar.start(grain, next - 1), start);
            prop_assert_eq!(calendar.start(grain, next), next);
        }
    }
}
