//! Model check: visits every state that the exactly-once protocol can reach within [`Bounds`], and looks for a wrong
//! count.
//!
//! The aggregators of the model decide with the functions of the service itself ([`stream_agg::protocol::progress`],
//! [`stream_agg::apply::verdict`], [`stream_agg::protocol::recover`]). The modelled Kafka and ClickHouse fail in the
//! ways that [`Bounds`] lists, and as often as it permits. A second model, of the deduplication [`window`], covers the
//! contents of rows and the order of reads. Some patches in `e2e/mutants` break a rule of the protocol and name a test
//! of this file; that test must then fail.

#![expect(clippy::unwrap_used, reason = "in a test a panic with its line is the best report")]

mod model {
    pub(crate) mod aggregator;
    pub(crate) mod clickhouse;
    pub(crate) mod kafka;
    pub(crate) mod system;
    pub(crate) mod window;
}

use std::fmt::Debug;
use std::hash::Hash;

use model::system::Bounds;
use model::window;
use schemas::time::{HOUR, MINUTE};
use stateright::{Checker as _, Model};
use stream_agg::protocol::window::WindowLimits;

const NOTHING_FAILS: Bounds =
    Bounds { records: 2, crashes: 0, moves: 0, losses: 0, kills: 0, ticks: 0, statements: 3 };

/// Repeats are recognized for ten minutes. A silence, which is a time without records, is longer. So no record after a
/// silence is recognized as a repeat of a record before the silence.
const SHORT_WINDOW: window::Bounds = window::Bounds {
    records: 4,
    spooled: 0,
    window: WindowLimits { age_ms: 10 * MINUTE, max_ids: 100 },
    silence: 70 * MINUTE,
    silences: 1,
    crashes: 1,
    stops: 1,
};

/// A record after one silence may be recognized as a repeat of a record before the silence. After two silences in a row
/// the partition is idle.
const LONG_WINDOW: window::Bounds = window::Bounds {
    records: 3,
    window: WindowLimits { age_ms: 2 * HOUR, max_ids: 100 },
    silence: 90 * MINUTE,
    silences: 2,
    ..SHORT_WINDOW
};

/// The window holds at most three ids. Two records with one event each have four ids: two of records and two of events.
/// So the second record can make the window forget the first one, even if the first one is younger than ten minutes.
const NARROW_WINDOW: window::Bounds =
    window::Bounds { window: WindowLimits { age_ms: 10 * MINUTE, max_ids: 3 }, ..SHORT_WINDOW };

#[track_caller]
fn check<M>(bounds: M)
where
    M: Model<State: Clone + Debug + Hash + PartialEq + Send + Sync, Action: Clone + Debug + Hash + PartialEq>,
    M: Send + Sync + 'static,
{
    bounds.checker().threads(2).spawn_bfs().join().assert_properties();
}

/// Combines the kinds of failures in pairs, because a combination of all kinds would take too long.
#[test]
fn every_record_is_counted_once_whatever_fails() {
    check(Bounds { crashes: 1, moves: 1, ..NOTHING_FAILS });
    check(Bounds { moves: 1, losses: 1, ..NOTHING_FAILS });
    check(Bounds { moves: 1, kills: 1, ..NOTHING_FAILS });
    check(Bounds { crashes: 1, kills: 1, ticks: 2, ..NOTHING_FAILS });
    check(Bounds { losses: 1, kills: 1, ticks: 2, ..NOTHING_FAILS });
    check(Bounds { records: 3, crashes: 2, losses: 1, ..NOTHING_FAILS });
}

#[test]
#[ignore = "takes minutes: ./dev test --full"]
fn every_record_is_counted_once_however_much_fails() {
    check(Bounds { crashes: 1, moves: 1, losses: 1, ..NOTHING_FAILS });
    check(Bounds { crashes: 1, losses: 1, kills: 1, ticks: 2, ..NOTHING_FAILS });
    // If ClickHouse loses the part of an insert, four ticks are enough until the rows of the part are sent again under
    // another token (`Attempts::renamed`).
    check(Bounds { kills: 1, ticks: 4, ..NOTHING_FAILS });
    check(Bounds { records: 3, crashes: 1, moves: 1, ..NOTHING_FAILS });
    check(Bounds { records: 3, moves: 1, losses: 1, ..NOTHING_FAILS });
}

/// A process that finishes the batch of another process makes the same rows, however much time has passed.
#[test]
fn every_event_is_counted_once_while_its_repeats_are_known() {
    check(SHORT_WINDOW);
    check(LONG_WINDOW);
    check(NARROW_WINDOW);
    check(window::Bounds { records: 3, spooled: 2, ..NARROW_WINDOW });
    check(window::Bounds { spooled: 1, silences: 0, ..NARROW_WINDOW });
    check(window::Bounds { records: 5, silences: 0, crashes: 2, stops: 0, ..NARROW_WINDOW });
}

#[test]
#[ignore = "takes half a minute: ./dev test --full"]
fn every_event_is_counted_once_in_a_longer_log() {
    check(window::Bounds { crashes: 2, ..SHORT_WINDOW });
    check(window::Bounds { records: 4, crashes: 2, ..LONG_WINDOW });
    check(window::Bounds { records: 5, ..NARROW_WINDOW });
    check(window::Bounds { spooled: 2, crashes: 2, ..NARROW_WINDOW });
}
