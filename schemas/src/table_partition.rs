//! Table partitions by day: how ClickHouse names them, and when it may drop them.

use crate::time::{DAY, UnixMillis};

/// The `_partition_id` of the table partition of the day that begins at `start`.
pub fn partition_id(start: UnixMillis) -> String {
    let (year, month, day) = start.civil();
    format!("{year:04}{month:02}{day:02}")
}

/// The time from which ClickHouse may drop the table partition of the day that begins at `start`: `kept_days` days
/// after the end of that day.
pub fn partition_droppable_from(start: UnixMillis, kept_days: u32) -> UnixMillis {
    UnixMillis(start.0 + (1 + i64::from(kept_days)) * DAY)
}
