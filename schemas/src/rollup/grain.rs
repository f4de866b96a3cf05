//! The length of a bucket.

use crate::named_enum::named_enum;
use crate::time::{DAY, HOUR, MINUTE, UnixMillis};

named_enum! {
    /// Length of a bucket of the event time.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Grain {
        /// A minute.
        Minute = "minute",
        /// A quarter of an hour.
        QuarterHour = "15m",
        /// An hour.
        Hour = "hour",
        /// A UTC day.
        Day = "day",
        /// One bucket for all time.
        None = "none",
    }

    /// All grains.
    pub(super) const ALL;

    /// The name in a declaration.
    pub fn name;
}

impl Grain {
    /// The length of a bucket in milliseconds; `None` if one bucket holds all time.
    pub fn length(self) -> Option<i64> {
        match self {
            Self::Minute => Some(MINUTE),
            Self::QuarterHour => Some(15 * MINUTE),
            Self::Hour => Some(HOUR),
            Self::Day => Some(DAY),
            Self::None => None,
        }
    }

    /// Start of the bucket that contains `time`; the epoch if one bucket holds all time.
    pub fn bucket(self, time: UnixMillis) -> UnixMillis {
        self.length().map_or(UnixMillis(0), |length| time.floor(length))
    }
}
