//! The time column of a rollup's view.

use super::view::{Kind, ViewColumn, column};
use crate::rollup::Grain;

/// The length of the buckets of a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bucket {
    Minute,
    QuarterHour,
    Hour,
    Day,
    /// An ISO week, which begins on Monday.
    Week,
    Month,
}

impl Bucket {
    /// The bucket of a rollup's rows; `None` if one bucket holds all time.
    pub(super) fn of(grain: Grain) -> Option<Self> {
        match grain {
            Grain::Minute => Some(Self::Minute),
            Grain::QuarterHour => Some(Self::QuarterHour),
            Grain::Hour => Some(Self::Hour),
            Grain::Day => Some(Self::Day),
            Grain::None => None,
        }
    }

    /// The name of the view's time column.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::QuarterHour => "quarter_hour",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }

    /// The word for the bucket in a sentence.
    pub(super) fn noun(self) -> &'static str {
        match self {
            Self::QuarterHour => "quarter of an hour",
            Self::Week => "ISO week",
            Self::Minute | Self::Hour | Self::Day | Self::Month => self.name(),
        }
    }

    pub(super) fn column(self) -> ViewColumn {
        let (kind, comment) = match self {
            Self::Minute | Self::QuarterHour | Self::Hour => {
                (Kind::DateTime, format!("start of the {}, UTC", self.noun()))
            }
            Self::Day => (Kind::Date, "UTC day".to_owned()),
            Self::Week => (Kind::Date, "Monday of the ISO week, UTC".to_owned()),
            Self::Month => (Kind::Date, "first day of the month, UTC".to_owned()),
        };
        column(self.name(), kind, &comment, self.start())
    }

    /// The start of the bucket as SQL. Each function that is used here is monotonic, so a filter on the column can use
    /// the primary key.
    fn start(self) -> &'static str {
        match self {
            Self::Minute | Self::QuarterHour | Self::Hour => "T.`bucket`",
            Self::Day => "toDate(T.`bucket`)",
            Self::Week => "toMonday(T.`bucket`)",
            Self::Month => "toStartOfMonth(T.`bucket`)",
        }
    }

    /// The moment at which the bucket ends, as SQL.
    pub(super) fn end(self) -> String {
        let start = self.start();
        match self {
            Self::Minute => format!("addMinutes({start}, 1)"),
            Self::QuarterHour => format!("addMinutes({start}, 15)"),
            Self::Hour => format!("addHours({start}, 1)"),
            Self::Day => format!("toDateTime(addDays({start}, 1), 'UTC')"),
            Self::Week => format!("toDateTime(addDays({start}, 7), 'UTC')"),
            Self::Month => format!("toDateTime(addMonths({start}, 1), 'UTC')"),
        }
    }

    /// A condition that excludes a week or month if the retention has already dropped some of its days; `None` for
    /// shorter buckets.
    pub(super) fn whole_bucket_condition(self, retention_days: u32) -> Option<String> {
        let first = format!("toDate(now('UTC')) - {retention_days}");
        let start = self.start();
        match self {
            Self::Minute | Self::QuarterHour | Self::Hour | Self::Day => None,
            Self::Week | Self::Month => Some(format!("{start} >= {first}")),
        }
    }
}

/// The name of the time column of a rollup's view; `None` if one bucket holds all time.
pub fn time_column(grain: Grain) -> Option<&'static str> {
    Bucket::of(grain).map(Bucket::name)
}
