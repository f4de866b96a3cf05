//! Checks whether the time that Kafka gave a record is plausible.
//!
//! The deduplication window measures the age of records by these times. If a broker's clock jumps, the window may
//! become shorter than promised, and repeats may count twice. So operators are warned. The check has no effect on rows:
//! rows never depend on the clock of this machine.
//!
//! This machine's clock shows only whether a time is too far ahead. It cannot show that a time is too early, because a
//! record with an old time may belong to a backlog. So a time that went back is found by comparison with the time of
//! the previous record. Pure.

use std::fmt;
use std::time::{Duration, Instant};

use schemas::time::{HOUR, UnixMillis};

/// How far, in milliseconds, the time of a record may be ahead of this machine's clock, or before the time of the
/// previous record, without a warning.
const TOLERANCE_MS: i64 = HOUR;
/// Shortest time between two warnings about one partition.
const WARNING_PAUSE: Duration = Duration::from_secs(60);

/// Why the time of a record is not plausible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImplausibleTime {
    /// The time is more than an hour ahead of the clock of this machine.
    Ahead,
    /// The time is more than an hour before the time of the previous record, which Kafka appended earlier.
    WentBack,
}

impl fmt::Display for ImplausibleTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ahead => "more than an hour ahead of this process's clock",
            Self::WentBack => "more than an hour before the previous record",
        })
    }
}

/// Why the `time` of a record is not plausible; `None` if it is plausible. `before` is the time of the previous record,
/// and `now` is the time on the clock of this machine.
pub fn implausible_time(
    time: UnixMillis,
    before: Option<UnixMillis>,
    now: UnixMillis,
) -> Option<ImplausibleTime> {
    let is_later = |one: UnixMillis, other: UnixMillis| one.0.saturating_sub(other.0) > TOLERANCE_MS;
    if is_later(time, now) {
        Some(ImplausibleTime::Ahead)
    } else if before.is_some_and(|before| is_later(before, time)) {
        Some(ImplausibleTime::WentBack)
    } else {
        None
    }
}

/// Limits the warnings of one partition: after a jump of a clock, every record would cause a warning.
#[derive(Debug, Default)]
pub struct Warnings {
    last: Option<Instant>,
}

impl Warnings {
    /// Whether a warning is due at `now`. If so, none is due for the next minute.
    pub fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.last.is_none_or(|last| now.saturating_duration_since(last) >= WARNING_PAUSE);
        if is_due {
            self.last = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use schemas::time::DAY;

    use super::*;

    const NOW: UnixMillis = UnixMillis(100 * DAY);

    #[track_caller]
    fn check(time: i64, before: i64, expected: Option<ImplausibleTime>) {
        let at = |millis| UnixMillis(NOW.0 + millis);
        assert_eq!(implausible_time(at(time), Some(at(before)), NOW), expected);
    }

    #[test]
    fn a_time_more_than_an_hour_ahead_of_this_machines_clock_is_off() {
        check(HOUR, 0, None);
        check(HOUR + 1, 0, Some(ImplausibleTime::Ahead));
        check(DAY, DAY, Some(ImplausibleTime::Ahead));
        check(14 * DAY, 0, Some(ImplausibleTime::Ahead));
        assert_eq!(
            implausible_time(UnixMillis(DAY), None, UnixMillis(0)),
            Some(ImplausibleTime::Ahead),
            "this machine's clock was set back"
        );
        assert_eq!(
            implausible_time(UnixMillis(i64::MAX), None, UnixMillis(i64::MIN)),
            Some(ImplausibleTime::Ahead)
        );
    }

    #[test]
    fn a_time_more_than_an_hour_before_the_previous_record_is_off() {
        check(-HOUR, 0, None);
        check(-HOUR - 1, 0, Some(ImplausibleTime::WentBack));
        check(0, 14 * DAY, Some(ImplausibleTime::WentBack));
        check(0, 0, None);
    }

    #[test]
    fn the_records_of_a_backlog_are_not_off() {
        check(-3 * DAY, -3 * DAY, None);
        check(0, -3 * DAY, None);
        assert_eq!(
            implausible_time(UnixMillis(0), None, NOW),
            None,
            "there is no previous record to compare with"
        );
    }

    #[test]
    fn a_partition_warns_once_a_minute() {
        let mut warnings = Warnings::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(warnings.is_due(start));
        assert!(!warnings.is_due(start) && !warnings.is_due(at(59)));
        assert!(warnings.is_due(at(60)) && !warnings.is_due(at(119)) && warnings.is_due(at(120)));
    }
}
