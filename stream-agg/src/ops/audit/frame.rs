//! What can be compared: which days, and of each log from which offset to which. Pure.
//!
//! Three times decide when a row leaves ClickHouse: a raw row goes with the day on which its line
//! arrived at the edge, a ledger row with the day on which Kafka took the record, a row of a rollup
//! with the day of the event. A spool may hold a record for days, and an edge's clock may be wrong,
//! so the first of these may be long before the second. How long is told by the record's id, a
//! UUIDv7, which the edge makes within moments of the last line's arrival.

use std::collections::BTreeMap;

use schemas::row::TimeLimits;
use schemas::tables::{LEDGER_DAYS, RAW_DAYS};
use schemas::time::{DAY, UnixMillis};

/// A log: its generation and Kafka partition.
pub type Log = (u16, u16);

/// Days by which lines are taken to have arrived before Kafka took their record, unless its id tells
/// otherwise: they are on their way for minutes, and clocks differ.
pub const ON_THE_WAY: i64 = 2;
/// Days by which the first line of a record arrived before the record got its id, at most: moments,
/// but midnight may lie between.
pub const GATHERED: i64 = 1;

/// What ClickHouse holds at all; days are since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// ClickHouse's clock.
    pub now: UnixMillis,
    /// The day of the first declaration.
    pub since: i64,
    /// The first day of arrival that has raw rows.
    pub raw: Option<i64>,
    /// The first of Kafka's days that has records with stored lines.
    pub stored: Option<i64>,
}

/// What can be compared, and below which offsets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// ClickHouse's clock.
    pub now: UnixMillis,
    /// Everything below these offsets is in every table.
    pub progress: BTreeMap<Log, u64>,
    /// The ledger is compared from these offsets on.
    pub floors: BTreeMap<Log, u64>,
    /// The first of Kafka's days that are compared, since 1970; none if nothing has expired.
    pub from: Option<i64>,
    /// The day before which raw rows are gone that the ledger still knows.
    pub gone: Option<i64>,
    /// Raw rows that arrived from this day on are all there and read; none if no raw row ever left.
    pub whole_from: Option<i64>,
    /// Which client clocks are believed.
    pub time: TimeLimits,
}

impl Frame {
    /// What can be compared of the last `days` days, without its floors.
    pub fn new(held: &Held, days: u16, progress: BTreeMap<Log, u64>, time: TimeLimits) -> Self {
        let today = day(held.now);
        let wanted = today - i64::from(days);
        // Somebody dropped raw days that the ledger still has.
        let gone = held.raw.filter(|raw| held.stored.is_some_and(|stored| stored < *raw));
        // The ledger's day 30 days ago leaves at midnight, and may have had others before it.
        let all_in_ledger = held.stored.is_none_or(|stored| stored > today - i64::from(LEDGER_DAYS));
        let from = match gone {
            Some(raw) => Some(wanted.max(raw + ON_THE_WAY)),
            None if held.since >= wanted && all_in_ledger => None,
            None => Some(wanted),
        };
        let mut frame =
            Self { now: held.now, progress, floors: BTreeMap::new(), from, gone, whole_from: None, time };
        frame.whole_from = frame.raw_from().map(|from| from.max(frame.kept_from()));
        frame
    }

    /// The first day of arrival that is read of the raw table; all of it if nothing has expired.
    pub fn raw_from(&self) -> Option<i64> {
        self.from.map(|from| from - ON_THE_WAY)
    }

    /// Sets the floors from the first offset of each log. A ledger that does not begin with its log may
    /// have lost what came before, and raw rows with it.
    pub fn begin_at(&mut self, firsts: &BTreeMap<Log, u64>) {
        if self.from.is_some() {
            self.floors.clone_from(firsts);
            return;
        }
        self.floors = self.progress.keys().map(|log| (*log, 0)).collect();
        let begun = self.progress.iter().filter(|(_, next)| **next > 0);
        if begun.map(|(log, _)| firsts.get(log)).any(|first| first != Some(&0)) {
            self.may_have_lost_raw_rows();
        }
    }

    /// The first day of arrival that ClickHouse keeps while the audit runs, midnight included.
    pub fn kept_from(&self) -> i64 {
        let kept = day(self.now) - i64::from(RAW_DAYS) + 1;
        self.gone.map_or(kept, |gone| gone.max(kept))
    }

    /// Raw rows may have left of which nobody knows, and leave while the audit runs.
    pub fn may_have_lost_raw_rows(&mut self) {
        self.whole_from = self.whole_from.max(Some(self.kept_from()));
    }

    /// Whether all raw rows of an event's day must still be there: none of them arrived earlier than a
    /// client may be ahead.
    pub fn is_whole(&self, day: i64) -> bool {
        let ahead = (self.time.ahead + DAY - 1) / DAY;
        self.whole_from.is_none_or(|from| day - ahead >= from)
    }
}

/// The day of a moment, since 1970.
pub fn day(time: UnixMillis) -> i64 {
    time.0.div_euclid(DAY)
}

#[cfg(test)]
mod tests;
