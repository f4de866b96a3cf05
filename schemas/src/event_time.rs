//! Which time an event has: the client's time if it is within the limits, else the time of the edge.

use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::str::FromStr;
use std::time::Duration;

use crate::time::{DAY, HOUR, UnixMillis};

/// Arrival times that can be stored: 1970 to 2058. ClickHouse's `DateTime`, the type of buckets, wraps around to 1970
/// on 2106-02-07. Even for the last of these times, the longest retention ends before that day. The rows of a rollup
/// may be dropped from a day that is up to a quarter of the retention later. This later day can be after 2106, but it
/// is stored as a `Date`, and the type `Date` ends only in 2149.
pub const STORABLE: Range<UnixMillis> = UnixMillis(0)..UnixMillis(32_507 * DAY);

/// Which times from client clocks are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLimits {
    /// The earliest event time, default 2000-01-01.
    pub earliest: UnixMillis,
    /// How far a client's clock may be ahead of the server's, in milliseconds, default a day.
    pub ahead: i64,
}

impl TimeLimits {
    /// The longest `ahead`, in milliseconds: a year of 365.25 days. A retention begins at the time of an event, which
    /// can be `ahead` later than its arrival. With this limit, every retention still ends before 2106, when
    /// ClickHouse's `DateTime` ends.
    pub const MAX_AHEAD: i64 = 8766 * HOUR;
}

/// The value of `EVENT_TIME_FROM`: the earliest event time. It must be within [`STORABLE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Earliest(pub UnixMillis);

impl FromStr for Earliest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let time = UnixMillis::parse(text).ok_or("write for example `2000-01-01T00:00:00Z`")?;
        let Range { start, end } = STORABLE;
        if !STORABLE.contains(&time) {
            return Err(format!(
                "rollups can hold times from {start} to before {end}; write a time in this range"
            ));
        }
        Ok(Self(time))
    }
}

impl fmt::Display for Earliest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The value of `EVENT_TIME_AHEAD`, in milliseconds: how far a client's clock may be ahead of the server's, at most
/// [`MAX_AHEAD`](TimeLimits::MAX_AHEAD).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ahead(pub i64);

impl FromStr for Ahead {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ahead = humantime::parse_duration(text).map_err(|e| format!("{e}; write for example `1day`"))?;
        match i64::try_from(ahead.as_millis()) {
            Ok(ahead) if ahead <= TimeLimits::MAX_AHEAD => Ok(Self(ahead)),
            _ => Err(format!(
                "too long: an event's retention must end before ClickHouse's DateTime does, in 2106; write 0s to {}",
                Self(TimeLimits::MAX_AHEAD)
            )),
        }
    }
}

impl fmt::Display for Ahead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(Duration::from_millis(self.0.unsigned_abs())).fmt(f)
    }
}

impl Default for TimeLimits {
    fn default() -> Self {
        Self { earliest: UnixMillis(10_957 * DAY), ahead: DAY }
    }
}

/// The event time: it decides in which bucket of a rollup an event is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventTime {
    /// `client_time`, or `server_time` if there is no accepted `client_time`.
    pub time: UnixMillis,
    /// Whether the event had a readable `client_time` that is outside the limits.
    pub replaced: bool,
}

impl TimeLimits {
    /// The `client_time`s that are accepted from a request that arrives at `server_time`.
    pub fn accepted(&self, server_time: UnixMillis) -> RangeInclusive<UnixMillis> {
        self.earliest..=UnixMillis(server_time.0 + self.ahead)
    }

    /// `client_time` if the event has one and it is within the limits, else `server_time`.
    pub fn event_time(&self, client_time: Option<UnixMillis>, server_time: UnixMillis) -> EventTime {
        match client_time {
            Some(time) if self.accepted(server_time).contains(&time) => EventTime { time, replaced: false },
            sent => EventTime { time: server_time, replaced: sent.is_some() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(client: Option<&str>, expected: &str, replaced: bool) {
        let server = UnixMillis::parse("2026-11-21 04:00:00").unwrap();
        let client = client.map(|text| UnixMillis::parse(text).unwrap());
        let expected = EventTime { time: UnixMillis::parse(expected).unwrap(), replaced };
        assert_eq!(TimeLimits::default().event_time(client, server), expected);
    }

    #[test]
    fn times_that_can_be_stored_begin_in_1970_and_end_with_2058() {
        assert_eq!(STORABLE.start.to_string(), "1970-01-01 00:00:00.000");
        assert_eq!(STORABLE.end.to_string(), "2059-01-01 00:00:00.000");
        assert!(STORABLE.contains(&TimeLimits::default().earliest));
    }

    #[test]
    fn a_client_may_be_ahead_by_a_year_at_most() {
        for (text, ahead) in [("0s", 0), ("250ms", 250), ("1day", DAY), ("1year", TimeLimits::MAX_AHEAD)] {
            assert_eq!(text.parse(), Ok(Ahead(ahead)));
            assert_eq!(Ahead(ahead).to_string(), text);
        }
        for text in ["1year 1ms", "80years", "300000000years"] {
            assert!(text.parse::<Ahead>().unwrap_err().ends_with("write 0s to 1year"), "{text}");
        }
        assert!("soon".parse::<Ahead>().unwrap_err().ends_with("write for example `1day`"));
    }

    #[test]
    fn a_historic_event_counts_when_it_happened() {
        check(Some("2020-12-01 23:59:00"), "2020-12-01 23:59:00", false);
        check(Some("2000-01-01 00:00:00"), "2000-01-01 00:00:00", false);
        check(Some("2026-11-22 04:00:00"), "2026-11-22 04:00:00", false);
    }

    #[test]
    fn a_time_outside_the_limits_is_replaced_and_an_absent_one_is_filled_in() {
        check(Some("1999-12-31 23:59:59.999"), "2026-11-21 04:00:00", true);
        check(Some("2026-11-22 04:00:00.001"), "2026-11-21 04:00:00", true);
        check(None, "2026-11-21 04:00:00", false);
    }
}
