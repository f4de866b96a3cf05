//! Walks every state that the exactly-once protocol can reach, and looks for a wrong count.
//!
//! The aggregators of the model decide by the code's own functions ([`stream_agg::progress`],
//! [`stream_agg::applied`], [`stream_agg::recover`]); Kafka and ClickHouse are modelled as
//! badly as they may behave, within [`Bounds`]. Absent: what is in a row, and what is read
//! when. `e2e/mutants` holds broken rules that must fail here.

#![expect(clippy::unwrap_used, reason = "in a test a panic with its line is the best report")]

mod model {
    pub(crate) mod aggregator;
    pub(crate) mod clickhouse;
    pub(crate) mod kafka;
    pub(crate) mod system;
}

use model::system::Bounds;
use stateright::{Checker as _, Model as _};

const NOTHING_FAILS: Bounds =
    Bounds { records: 2, crashes: 0, moves: 0, losses: 0, kills: 0, ticks: 0, statements: 3 };

#[track_caller]
fn check(bounds: Bounds) {
    bounds.checker().threads(2).spawn_bfs().join().assert_properties();
}

/// What fails in pairs, for all at once is too much to wait for.
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
    // Long enough for a token to get its second name.
    check(Bounds { kills: 1, ticks: 4, ..NOTHING_FAILS });
    check(Bounds { records: 3, crashes: 1, moves: 1, ..NOTHING_FAILS });
    check(Bounds { records: 3, moves: 1, losses: 1, ..NOTHING_FAILS });
}
