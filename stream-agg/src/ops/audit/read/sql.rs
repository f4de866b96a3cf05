//! Conditions and expressions that several queries of an audit use, as SQL. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use schemas::time::DAY;

use super::{Key, SPAN};
use crate::ops::audit::frame::{Frame, Log, MAX_ID_DELAY_DAYS};
use crate::protocol::limits::MAX_DAYS_TO_KAFKA;

/// Maximum number of spans that are listed in a query. If there are more, all spans are read.
const MAX_LISTED_SPANS: usize = 1000;

/// SQL expression: the log of a row as a number ([`log_number`]).
pub(super) const LOG: &str = "(toUInt64(g) * 65536 + kp)";

pub(super) fn log_number((log_generation, partition): Log) -> u64 {
    u64::from(log_generation) << 16 | u64::from(partition)
}

pub(super) fn by_log_number(offsets: &BTreeMap<Log, u64>) -> impl Iterator<Item = (u64, u64)> {
    offsets.iter().map(|(log, offset)| (log_number(*log), *offset))
}

/// SQL expression: the value of `key` in `entries`, or `otherwise`.
pub(super) fn lookup(key: &str, entries: impl Iterator<Item = (u64, u64)>, otherwise: u64) -> String {
    // ClickHouse refuses an empty list, so both lists begin with an entry whose key never occurs.
    let (mut keys, mut values) = (u64::MAX.to_string(), otherwise.to_string());
    for (key, value) in entries {
        // Writing to a String cannot fail.
        let _ = write!(keys, ", {key}");
        let _ = write!(values, ", {value}");
    }
    let list = |of: &str| format!("CAST([{of}], 'Array(UInt64)')");
    format!("transform({key}, {}, {}, toUInt64({otherwise}))", list(&keys), list(&values))
}

/// SQL expression: midnight (UTC) at the start of `day`, which is a number of days since 1970.
pub(super) fn start_of(day: i64) -> String {
    format!("fromUnixTimestamp64Milli(toInt64({}), 'UTC')", day * DAY)
}

fn within(frame: &Frame) -> String {
    let floor = lookup(LOG, by_log_number(&frame.floors), u64::MAX);
    let bound = lookup(LOG, by_log_number(&frame.progress), 0);
    format!("ko >= {floor} AND ko < {bound}")
}

pub(super) fn of_ledger(frame: &Frame) -> String {
    // The condition on offsets would suffice, because every row of a day before `compared_from` is below the floor.
    // The condition on time only lets ClickHouse skip table partitions.
    format!(
        "tenant = '*' AND kafka_time >= {} AND {}",
        start_of(frame.compared_from.unwrap_or(0)),
        within(frame)
    )
}

pub(super) fn of_raw(frame: &Frame, from: Option<i64>) -> String {
    format!("tenant != '' AND server_time >= {} AND {}", start_of(from.unwrap_or(0)), within(frame))
}

/// SQL expression on the ledger, in milliseconds: the time in the record's UUIDv7, or Kafka's time if the time in the
/// UUIDv7 is implausible. The time in the UUIDv7 is implausible if it is later than Kafka's time, or earlier by more
/// than [`MAX_DAYS_TO_KAFKA`] days. The decoder has the same limit: it does not trust the `server_time` of a line that
/// is earlier than Kafka's time by more than this number of days.
pub(super) fn created_at() -> String {
    let (id, kafka) =
        ("toUnixTimestamp64Milli(UUIDv7ToDateTime(record_id))", "toUnixTimestamp64Milli(kafka_time)");
    format!(
        "if({id} < {kafka} - {longest}, {kafka}, least({id}, {kafka}))",
        longest = MAX_DAYS_TO_KAFKA * DAY
    )
}

/// SQL condition on the ledger: a line of the record may have arrived so early that ClickHouse may have dropped its raw
/// row, or may drop it before the audit ends.
pub(super) fn may_be_dropped(frame: &Frame) -> String {
    format!("{} < {}", created_at(), (frame.kept_from() + MAX_ID_DELAY_DAYS) * DAY)
}

/// SQL condition: whether the row is in one of these spans; always true if there are too many spans to list.
pub(super) fn in_spans(spans: &[Key]) -> String {
    if spans.len() > MAX_LISTED_SPANS {
        return "1".to_owned();
    }
    let list: Vec<_> = spans
        .iter()
        .map(|(log_generation, partition, span)| format!("({log_generation}, {partition}, {span})"))
        .collect();
    format!("(g, kp, intDiv(ko, {SPAN})) IN ({})", list.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_listed_only_while_the_query_stays_short() {
        assert_eq!(in_spans(&[(0, 3, 7), (1, 2, 0)]), "(g, kp, intDiv(ko, 10000)) IN ((0, 3, 7), (1, 2, 0))");
        // ClickHouse accepts queries of up to 256 KiB, and a query contains the list at most twice.
        assert!(in_spans(&vec![(u16::MAX, u16::MAX, u64::MAX / SPAN); MAX_LISTED_SPANS]).len() < 64 << 10);
        assert_eq!(in_spans(&vec![(0, 0, 0); MAX_LISTED_SPANS + 1]), "1");
    }
}
