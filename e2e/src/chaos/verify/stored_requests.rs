//! Compares the rows that the raw table has of a request with the outcome that the client saw: all events once if the
//! request was acked, none if it was refused, and either of the two if it got no answer.
//!
//! [`must_count`] decides whether a request counts in the totals that all tables must have: an unanswered request
//! counts if the raw table has its rows. Pure.

use std::collections::HashMap;
use std::fmt;

use crate::chaos::load::{Outcome, Request};

/// The rows of one request in the raw table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoredRequest {
    /// Number of rows.
    pub rows: u64,
    /// Number of different lines in these rows.
    pub lines: u64,
}

/// The rows of all requests, by the number of the request.
pub type StoredRequests = HashMap<u32, StoredRequest>;

/// A request whose rows in the raw table are not the expected ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestMismatch {
    /// The number of the request.
    pub number: u32,
    /// The outcome of the request, as its client knows it.
    pub outcome: Outcome,
    /// Whether the request may be retried.
    pub repeatable: bool,
    /// Number of events of the request.
    pub events: u64,
    /// The rows that the raw table has of the request.
    pub stored: StoredRequest,
}

impl RequestMismatch {
    /// Number of events that are missing.
    pub fn missing(&self) -> u64 {
        if must_count(self.outcome, self.stored) { self.events.saturating_sub(self.stored.lines) } else { 0 }
    }

    /// Number of rows that must not exist.
    pub fn duplicated(&self) -> u64 {
        if self.outcome == Outcome::Refused { self.stored.rows } else { self.stored.rows - self.stored.lines }
    }
}

impl fmt::Display for RequestMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, outcome, events, stored, .. } = self;
        let kind = if self.repeatable { ", repeatable" } else { "" };
        write!(
            f,
            "request {number} ({}{kind}): {events} events, stored as {} rows of {} different lines",
            outcome.name(),
            stored.rows,
            stored.lines
        )
    }
}

/// Whether all tables must count this request. An unanswered request must count if the raw table has any of its rows.
pub fn must_count(outcome: Outcome, stored: StoredRequest) -> bool {
    match outcome {
        Outcome::Acked => true,
        Outcome::Refused => false,
        Outcome::Unanswered => stored.rows > 0,
    }
}

/// Compares the rows of a request with the expected rows. `None` if they are equal.
pub fn check_request(request: &Request, outcome: Outcome, all: &StoredRequests) -> Option<RequestMismatch> {
    let stored = all.get(&request.number).copied().unwrap_or_default();
    let events = request.events.len() as u64;
    let expected = if must_count(outcome, stored) { events } else { 0 };
    let expected_rows = StoredRequest { rows: expected, lines: expected };
    let repeatable = request.repeatable;
    (stored != expected_rows).then_some(RequestMismatch {
        number: request.number,
        outcome,
        repeatable,
        events,
        stored,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(outcome: Outcome, rows: u64, lines: u64, expected: Option<(u64, u64)>) {
        let request = Request {
            number: 7,
            path: String::new(),
            body: String::new(),
            events: vec![String::new(); 3],
            bad: 0,
            hostile: 0,
            repeatable: false,
        };
        let all = StoredRequests::from([(7, StoredRequest { rows, lines })]);
        let mismatch = check_request(&request, outcome, &all);
        assert_eq!(mismatch.map(|mismatch| (mismatch.missing(), mismatch.duplicated())), expected);
    }

    #[test]
    fn an_acked_request_must_be_stored_once() {
        check(Outcome::Acked, 3, 3, None);
        check(Outcome::Acked, 0, 0, Some((3, 0)));
        check(Outcome::Acked, 2, 2, Some((1, 0)));
        check(Outcome::Acked, 6, 3, Some((0, 3)));
        check(Outcome::Acked, 4, 2, Some((1, 2)));
    }

    #[test]
    fn an_unanswered_request_must_be_stored_once_or_not_at_all() {
        check(Outcome::Unanswered, 0, 0, None);
        check(Outcome::Unanswered, 3, 3, None);
        check(Outcome::Unanswered, 1, 1, Some((2, 0)));
        check(Outcome::Unanswered, 6, 3, Some((0, 3)));
    }

    #[test]
    fn a_refused_request_must_not_be_stored() {
        check(Outcome::Refused, 0, 0, None);
        check(Outcome::Refused, 3, 3, Some((0, 3)));
    }
}
