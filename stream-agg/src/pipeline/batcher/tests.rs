use schemas::event;
use schemas::line::{self, Prefix};
use schemas::record::{Head, Kind};
use schemas::time::DAY;
use uuid::Uuid;

use super::*;
use crate::protocol::declaration::Declaration;
use crate::protocol::limits::DecodeLimits;
use crate::protocol::window::Window;
use crate::rows::cells::{Source, cells};
use crate::rows::decode::{Record, decode};

fn batcher(max_rows: usize, max_bytes: usize) -> Batcher {
    batcher_with_ends(max_rows, max_bytes, &[])
}

fn batcher_with_ends(max_rows: usize, max_bytes: usize, ends: &[i64]) -> Batcher {
    let config = BatchConfig {
        max_rows: max_rows.try_into().unwrap(),
        max_bytes: max_bytes.try_into().unwrap(),
        max_total_bytes: max_bytes.try_into().unwrap(),
        max_age: Duration::from_secs(2),
    };
    Batcher::new(config, &Rollups::built_in(), NextOffset::new(10), ends.iter().copied().map(NextOffset::new))
}

/// Adds a record with this id and without rows.
fn push_as(batcher: &mut Batcher, offset: i64, record_id: Uuid, now: Instant) {
    assert!(batcher.push(entry(offset, record_id, 0), 100, now).is_none());
}

/// Adds a record with a row for each time.
fn push(batcher: &mut Batcher, offset: i64, times: &[i64], now: Instant) -> Option<Batch> {
    let rows = &mut batcher.decoded_mut().rows;
    for time in times {
        rows.ko.push(offset as u64);
        rows.event_time.push(UnixMillis(*time));
        rows.server_time.push(UnixMillis(0));
        rows.received.push(UnixMillis(0));
    }
    batcher.push(entry(offset, Uuid::nil(), times.len() as u32), 100, now)
}

fn entry(offset: i64, record_id: Uuid, lines: u32) -> LedgerEntry {
    LedgerEntry {
        offset: Offset::new(offset),
        record_id,
        kafka_time: UnixMillis(0),
        lines,
        rejected: 0,
        duplicates: 0,
        stored: lines,
        time_replaced: 0,
        arrival_replaced: 0,
        ids: Vec::new(),
        first_rejected: None,
    }
}

#[track_caller]
fn check(batch: Option<Batch>, start: i64, last: i64, rows: usize) {
    let batch = batch.expect("a batch closed");
    assert_eq!((batch.start, batch.end), (NextOffset::new(start), Offset::new(last).next()));
    assert_eq!(batch.decoded.rows.len(), rows);
}

#[test]
fn the_record_that_reaches_the_limit_of_rows_closes_the_batch() {
    let (mut batcher, now) = (batcher(3, 1 << 20), Instant::now());
    assert!(push(&mut batcher, 12, &[0, 0], now).is_none());
    check(push(&mut batcher, 13, &[0, 0], now), 10, 13, 4);
    assert!(push(&mut batcher, 20, &[0], now).is_none());
    check(batcher.close(), 14, 20, 1);
}

#[test]
fn the_record_that_reaches_the_limit_of_bytes_closes_the_batch() {
    let (mut batcher, now) = (batcher(1000, 200), Instant::now());
    assert!(push(&mut batcher, 10, &[0], now).is_none());
    check(push(&mut batcher, 11, &[], now), 10, 11, 1);
}

#[test]
fn records_without_lines_and_bytes_close_a_batch_by_their_number() {
    let (mut batcher, now) = (batcher(1000, 1 << 20), Instant::now());
    let batches: Vec<_> = (10..1_000_010)
        .filter_map(|offset| batcher.push(entry(offset, Uuid::nil(), 0), 0, now))
        .map(|batch| batch.entries.len())
        .collect();
    assert_eq!(batches, [1000; 1000]);
}

#[test]
fn a_batch_ages_from_its_first_record_and_an_empty_batch_has_no_deadline() {
    let (mut batcher, now) = (batcher(1000, 1 << 20), Instant::now());
    assert_eq!(batcher.deadline(), None);
    push(&mut batcher, 10, &[0], now);
    push(&mut batcher, 11, &[0], now + Duration::from_secs(1));
    assert_eq!(batcher.deadline(), Some(now + Duration::from_secs(2)));
    assert_eq!(batcher.due_in(now + Duration::from_secs(3), None), Some(Duration::ZERO));
    check(batcher.close(), 10, 11, 2);
    assert_eq!(batcher.deadline(), None);
    assert!(batcher.close().is_none());
}

#[test]
fn time_spent_waiting_for_this_process_does_not_age_a_batch() {
    let (mut batcher, now) = (batcher(1000, 1 << 20), Instant::now());
    batcher.exclude_from_age(Duration::from_secs(9));
    assert_eq!(batcher.deadline(), None, "nothing is open");
    push(&mut batcher, 10, &[0], now);
    batcher.exclude_from_age(Duration::ZERO);
    assert_eq!(batcher.deadline(), Some(now + Duration::from_secs(2)));
    batcher.exclude_from_age(Duration::from_secs(3));
    assert_eq!(batcher.deadline(), Some(now + Duration::from_secs(5)));
}

#[test]
fn a_backlog_keeps_a_batch_open_for_a_limited_time() {
    let (mut batcher, now) = (batcher(1000, 1 << 20), Instant::now());
    let at = |seconds| now + Duration::from_secs(seconds);
    assert_eq!(batcher.due_in(at(3), Some(at(5))), None, "nothing is open");
    push(&mut batcher, 10, &[0], now);
    assert_eq!(batcher.due_in(at(1), Some(at(1))), Some(Duration::from_secs(1)), "not before its deadline");
    assert_eq!(batcher.due_in(at(3), Some(at(5))), Some(Duration::from_secs(2)));
    assert_eq!(batcher.due_in(at(6), Some(at(5))), Some(Duration::ZERO));
    assert_eq!(batcher.due_in(at(22), Some(at(99))), Some(Duration::ZERO), "at most 20 s after its deadline");
}

#[test]
fn a_large_batch_closes_when_the_backlog_ends() {
    let (mut batcher, now) = (batcher(1000, 2 * LARGE_BYTES), Instant::now());
    let at = |millis| now + Duration::from_millis(millis);
    batcher.push(entry(10, Uuid::nil(), 0), LARGE_BYTES - 1, now);
    assert_eq!(
        batcher.due_in(at(100), Some(at(500))),
        Some(Duration::from_millis(1900)),
        "a small batch waits for its deadline"
    );
    batcher.push(entry(11, Uuid::nil(), 0), 1, now);
    assert_eq!(batcher.due_in(at(100), Some(at(500))), Some(Duration::from_millis(400)));
    assert_eq!(batcher.due_in(at(600), Some(at(500))), Some(Duration::ZERO));
    assert_eq!(batcher.due_in(at(100), None), Some(Duration::from_millis(1900)), "there is no backlog");
}

#[test]
fn implausible_event_times_do_not_close_a_batch() {
    let (mut batcher, now) = (batcher(10_000, 1 << 20), Instant::now());
    for n in 0..2000 {
        assert!(push(&mut batcher, 10 + n, &[-n * DAY], now).is_none(), "{n}");
    }
}

#[test]
fn days_of_arrival_close_a_batch_at_the_limit_on_cells() {
    let (mut batcher, now) = (batcher(10_000, 1 << 20), Instant::now());
    let arrive = |batcher: &mut Batcher, offset: i64, day: i64| {
        let rows = &mut batcher.decoded_mut().rows;
        rows.ko.push(offset as u64);
        rows.event_time.push(UnixMillis(0));
        rows.server_time.push(UnixMillis(day * DAY));
        rows.received.push(UnixMillis(day * DAY));
        batcher.push(entry(offset, Uuid::nil(), 1), 100, now)
    };
    // Besides one cell of `events` for each day of arrival, the batch has four cells: one of the ledger, two of rollup
    // rows that never expire, and one of rollup rows that are kept for a week.
    let days = (MAX_CELLS + MAX_CELLS_OF_RETENTION - 4) as i64;
    for n in 1..days {
        assert!(arrive(&mut batcher, 10 + 2 * n, n).is_none(), "{n}");
        assert!(arrive(&mut batcher, 11 + 2 * n, 1).is_none(), "a repeated day counts once");
    }
    check(arrive(&mut batcher, 100, days), 10, 100, 2 * days as usize - 1);
}

/// If some cells were not counted, a batch could exceed the limit on cells, and so need too many inserts.
#[test]
fn every_cell_of_a_batch_counts_towards_the_limit() {
    let (mut batcher, now) = (batcher(1000, 1 << 20), Instant::now());
    let mut value = Vec::new();
    for day in 0..2 {
        let prefix = Prefix::new("default", "203.0.113.7".parse().unwrap(), UnixMillis(day * DAY));
        let client = r#"{"event":"view","user_id":"ann","country":"DE"}"#;
        line::write(&prefix, client, &event::parse::<()>(client).unwrap(), &mut value);
        value.push(b'\n');
    }
    value.extend_from_slice(b"a dead letter");
    let head = Head { lines: 3, id: Uuid::nil(), spooled: false, kind: Kind::Events, trace: None };
    let record = Record {
        offset: Offset::new(10),
        kafka_time: UnixMillis(DAY),
        head: &Ok(head),
        known: false,
        skipped: false,
        value: &value,
    };
    let limits = DecodeLimits::default();
    let entry = decode(&record, &limits, &mut Window::new(), batcher.decoded_mut()).unwrap();
    assert_eq!((entry.stored, entry.rejected), (2, 1));
    batcher.push(entry, value.len(), now);
    let counted = batcher.open.cells.len();
    let batch = batcher.close().expect("the open batch has a record");
    let source = Source { log_generation: 0, partition: 0, declaration_hash: 1 };
    let made = cells(&batch, &Declaration::built_in(), source).all;
    let made: Vec<_> = made.iter().map(|cell| (cell.table, &cell.partition_id)).collect();
    assert_eq!(counted, made.len(), "{made:?}");
}

#[test]
fn a_declared_batch_is_rebuilt_regardless_of_the_limits() {
    let now = Instant::now();
    let mut batcher = Batcher::rebuild(NextOffset::new(10), [NextOffset::new(15)]);
    assert!(push(&mut batcher, 11, &[0; 9], now).is_none());
    assert_eq!(batcher.deadline(), None);
    assert!(batcher.close().is_none(), "a declared batch closes only at its declared end");
    assert!(batcher.close_before(Offset::new(14)).is_none() && !batcher.is_rebuilt());
    check(push(&mut batcher, 14, &[0], now), 10, 14, 10);
    assert!(batcher.is_rebuilt());
}

#[test]
fn a_declared_batch_ends_at_its_declared_end_even_without_its_last_record() {
    let mut batcher = Batcher::rebuild(NextOffset::new(10), [NextOffset::new(15)]);
    assert!(push(&mut batcher, 11, &[0], Instant::now()).is_none());
    check(batcher.close_before(Offset::new(15)), 10, 14, 1);
}

#[test]
fn a_batch_ends_at_each_offset_of_an_adopted_marker() {
    let (mut batcher, now) = (batcher_with_ends(3, 1 << 20, &[12, 14, 20]), Instant::now());
    assert!(push(&mut batcher, 10, &[0], now).is_none());
    check(push(&mut batcher, 11, &[0], now), 10, 11, 2);
    assert!(batcher.close_before(Offset::new(15)).is_none(), "there is nothing to close");
    check(push(&mut batcher, 15, &[0, 0, 0], now), 14, 15, 3);
    assert!(push(&mut batcher, 16, &[0], now).is_none());
    check(batcher.close_before(Offset::new(22)), 16, 19, 1);
}

#[test]
fn a_declared_and_split_batch_is_rebuilt_part_by_part() {
    let now = Instant::now();
    let ends = [12, 14, 15].map(NextOffset::new);
    let mut batcher = Batcher::rebuild(NextOffset::new(10), ends);
    assert!(push(&mut batcher, 10, &[0], now).is_none());
    check(push(&mut batcher, 11, &[0], now), 10, 11, 2);
    assert!(batcher.is_rebuilding() && !batcher.is_rebuilt());
    // The offset 13 is not in the log.
    assert!(push(&mut batcher, 12, &[0], now).is_none());
    check(batcher.close_before(Offset::new(14)), 12, 13, 1);
    assert!(!batcher.is_rebuilt());
    check(push(&mut batcher, 14, &[0], now), 14, 14, 1);
    assert!(batcher.is_rebuilt());
}

#[test]
fn a_batcher_holds_the_record_ids_of_the_open_batch_only() {
    let (mut batcher, now) = (batcher(1000, 1 << 20), Instant::now());
    let id = Uuid::from_u128;
    push_as(&mut batcher, 10, id(1), now);
    assert!(batcher.holds(id(1)) && !batcher.holds(id(2)));
    push_as(&mut batcher, 11, id(2), now);
    assert!(batcher.holds(id(1)) && batcher.holds(id(2)));
    batcher.close().expect("the open batch has two records");
    assert!(!batcher.holds(id(1)) && !batcher.holds(id(2)));
}
