//! What can be compared: which days, and which offsets of each log. Pure.
//!
//! Each table computes the expiry of a row from another day: the raw table from the day on which the line arrived at
//! the edge, the ledger from the day on which Kafka appended the record, and a rollup from the day of the event. By the
//! edge's clock, a line may arrive long before Kafka appends its record, because a spool may hold the record for days
//! or because this clock may be slow. The id of the record shows the time of arrival by the same clock: it is a UUIDv7,
//! which the edge creates within moments of the arrival of the lines.

use std::collections::BTreeMap;

use schemas::row::TimeLimits;
use schemas::tables::{LEDGER_DAYS, RAW_DAYS};
use schemas::time::{DAY, UnixMillis};

/// A log: its generation and Kafka partition.
pub type Log = (u16, u16);

/// Maximum number of days between the arrival of a line and the append of its record in Kafka, unless the id of the
/// record shows that the line arrived earlier. Kafka usually appends a record within minutes, but clocks differ.
pub const MAX_APPEND_DELAY_DAYS: i64 = 2;
/// Maximum number of days between the arrival of the first line of a record and the creation of the record's id. The id
/// is created within moments, but midnight may be in between.
pub const MAX_ID_DELAY_DAYS: i64 = 1;

/// From when on ClickHouse holds rows. Each day is a number of days since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// ClickHouse's clock.
    pub now: UnixMillis,
    /// The day on which the first declaration was stored.
    pub since: i64,
    /// The first day of arrival that has raw rows.
    pub raw: Option<i64>,
    /// The first day, by Kafka's time, of records with stored lines.
    pub stored: Option<i64>,
}

/// What can be compared, and below which offsets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// ClickHouse's clock.
    pub now: UnixMillis,
    /// Every record below these offsets is in every table.
    pub progress: BTreeMap<Log, u64>,
    /// For each log, the first offset that is compared.
    pub floors: BTreeMap<Log, u64>,
    /// The first day, by Kafka's time, that is compared (days since 1970); `None` if nothing seems to have expired.
    pub compared_from: Option<i64>,
    /// Raw rows that arrived before this day were dropped, although the ledger still has their records; `None` if there
    /// are no such rows.
    pub raw_dropped_before: Option<i64>,
    /// All raw rows that arrived from this day on still exist and are read. `None` means all days: no raw row can have
    /// expired.
    pub whole_from: Option<i64>,
    /// Limits on the client times that are trusted.
    pub time: TimeLimits,
}

impl Frame {
    /// The part of the last `days` days that can be compared. [`Self::set_floors`] sets the floors later.
    pub fn new(held: &Held, days: u16, progress: BTreeMap<Log, u64>, time: TimeLimits) -> Self {
        let today = day(held.now);
        let wanted = today - i64::from(days);
        // If the ledger has records of days before the first day that has raw rows, the raw rows of those days were
        // dropped.
        let raw_dropped_before = held.raw.filter(|raw| held.stored.is_some_and(|stored| stored < *raw));
        // In the ledger, rows of the day `LEDGER_DAYS` days ago expire at the next midnight, and rows of earlier days
        // may have expired already.
        let all_in_ledger = held.stored.is_none_or(|stored| stored > today - i64::from(LEDGER_DAYS));
        let compared_from = match raw_dropped_before {
            Some(raw) => Some(wanted.max(raw + MAX_APPEND_DELAY_DAYS)),
            None if held.since >= wanted && all_in_ledger => None,
            None => Some(wanted),
        };
        let mut frame = Self {
            now: held.now,
            progress,
            floors: BTreeMap::new(),
            compared_from,
            raw_dropped_before,
            whole_from: None,
            time,
        };
        frame.whole_from = frame.raw_from().map(|from| from.max(frame.kept_from()));
        frame
    }

    /// The first day of arrival that is read from the raw table; `None` if the whole table is read.
    pub fn raw_from(&self) -> Option<i64> {
        self.compared_from.map(|from| from - MAX_APPEND_DELAY_DAYS)
    }

    /// Sets the floors. `firsts` has, for each log, the first offset in the ledger on the days that are compared. If
    /// `compared_from` is set, each log is compared from this offset on. If `compared_from` is `None`, nothing seems to
    /// have expired, and each log is compared from offset 0. If in this case the ledger of a log does not begin with
    /// offset 0, rows of the log may have expired in the ledger and in the raw table, so this function also sets
    /// `whole_from`.
    pub fn set_floors(&mut self, firsts: &BTreeMap<Log, u64>) {
        if self.compared_from.is_some() {
            self.floors.clone_from(firsts);
            return;
        }
        self.floors = self.progress.keys().map(|log| (*log, 0)).collect();
        let begun = self.progress.iter().filter(|(_, next)| **next > 0);
        if begun.map(|(log, _)| firsts.get(log)).any(|first| first != Some(&0)) {
            self.may_have_lost_raw_rows();
        }
    }

    /// The first day of arrival whose raw rows ClickHouse keeps until the audit ends, even if midnight passes.
    pub fn kept_from(&self) -> i64 {
        let kept = day(self.now) - i64::from(RAW_DAYS) + 1;
        self.raw_dropped_before.map_or(kept, |dropped| dropped.max(kept))
    }

    /// Called if raw rows may have expired before the audit. Sets `whole_from` to [`Self::kept_from`], unless it is a
    /// later day already.
    pub fn may_have_lost_raw_rows(&mut self) {
        self.whole_from = self.whole_from.max(Some(self.kept_from()));
    }

    /// Whether all raw rows of events of this day must still exist. A raw row expires with the day on which the event
    /// arrived. The time of an event can be later than its arrival only if the client's clock was ahead, and the
    /// client's time is trusted only if it is ahead by at most `time.ahead`. So no event of this day arrived
    /// more than `time.ahead`, rounded up to whole days, before this day.
    pub fn is_whole(&self, day: i64) -> bool {
        let ahead = (self.time.ahead + DAY - 1) / DAY;
        self.whole_from.is_none_or(|from| day - ahead >= from)
    }
}

/// The day (UTC) of `time`, as a number of days since 1970.
pub fn day(time: UnixMillis) -> i64 {
    time.0.div_euclid(DAY)
}

#[cfg(test)]
mod tests;
