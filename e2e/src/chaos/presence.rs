//! Request by request: is it in the raw table, once, wholly, and only if it may be?
//!
//! Pure. What it finds of the unanswered ones decides which of them the sums must hold.

use std::collections::HashMap;
use std::fmt;

use crate::chaos::book::Fate;
use crate::chaos::load::Request;

/// What the raw table holds of one request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stored {
    /// Rows.
    pub rows: u64,
    /// Different lines among them.
    pub lines: u64,
}

/// By the number of the request.
pub type Presence = HashMap<u32, Stored>;

/// A request of which the raw table does not hold what it must.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// Its number.
    pub number: u32,
    /// Its fate.
    pub fate: Fate,
    /// Whether it may be sent again.
    pub repeatable: bool,
    /// How many events it brings.
    pub events: u64,
    /// What is there.
    pub stored: Stored,
}

impl Wrong {
    /// Events that are not there and must be.
    pub fn missing(&self) -> u64 {
        if counts(self.fate, self.stored) { self.events.saturating_sub(self.stored.lines) } else { 0 }
    }

    /// Rows too many.
    pub fn duplicated(&self) -> u64 {
        if self.fate == Fate::Refused { self.stored.rows } else { self.stored.rows - self.stored.lines }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, fate, events, stored, .. } = self;
        let kind = if self.repeatable { ", repeatable" } else { "" };
        write!(
            f,
            "request {number} ({}{kind}): {events} events, stored {} rows of {} events",
            fate.name(),
            stored.rows,
            stored.lines
        )
    }
}

/// Whether the sums must hold this request: an unanswered one if any of it is there.
pub fn counts(fate: Fate, stored: Stored) -> bool {
    match fate {
        Fate::Acked => true,
        Fate::Refused => false,
        Fate::Unanswered => stored.rows > 0,
    }
}

/// Looks whether a request is there as it must be.
pub fn judge(request: &Request, fate: Fate, presence: &Presence) -> Option<Wrong> {
    let stored = presence.get(&request.number).copied().unwrap_or_default();
    let events = request.events.len() as u64;
    let expected = if counts(fate, stored) { events } else { 0 };
    let right = Stored { rows: expected, lines: expected };
    let repeatable = request.repeatable;
    (stored != right).then_some(Wrong { number: request.number, fate, repeatable, events, stored })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(fate: Fate, rows: u64, lines: u64, expected: Option<(u64, u64)>) {
        let request = Request {
            number: 7,
            path: String::new(),
            body: String::new(),
            events: vec![String::new(); 3],
            bad: 0,
            hostile: 0,
            repeatable: false,
        };
        let presence = Presence::from([(7, Stored { rows, lines })]);
        let wrong = judge(&request, fate, &presence);
        assert_eq!(wrong.map(|wrong| (wrong.missing(), wrong.duplicated())), expected);
    }

    #[test]
    fn an_acked_request_is_there_once() {
        check(Fate::Acked, 3, 3, None);
        check(Fate::Acked, 0, 0, Some((3, 0)));
        check(Fate::Acked, 2, 2, Some((1, 0)));
        check(Fate::Acked, 6, 3, Some((0, 3)));
        check(Fate::Acked, 4, 2, Some((1, 2)));
    }

    #[test]
    fn an_unanswered_request_is_there_once_or_not_at_all() {
        check(Fate::Unanswered, 0, 0, None);
        check(Fate::Unanswered, 3, 3, None);
        check(Fate::Unanswered, 1, 1, Some((2, 0)));
        check(Fate::Unanswered, 6, 3, Some((0, 3)));
    }

    #[test]
    fn a_refused_request_is_not_there() {
        check(Fate::Refused, 0, 0, None);
        check(Fate::Refused, 3, 3, Some((0, 3)));
    }
}
