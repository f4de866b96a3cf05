use schemas::time::DAY;
use uuid::Uuid;

use super::*;

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

/// Adds a record with a row for each time.
fn push(batcher: &mut Batcher, offset: i64, times: &[i64], now: Instant) -> Option<Batch> {
    let rows = &mut batcher.decoded().rows;
    for time in times {
        rows.ko.push(offset as u64);
        rows.event_time.push(UnixMillis(*time));
        rows.server_time.push(UnixMillis(0));
    }
    let entry = Entry {
        offset: Offset::new(offset),
        record_id: Uuid::nil(),
        kafka_time: UnixMillis(0),
        lines: times.len() as u32,
        rejected: 0,
        duplicates: 0,
        stored: times.len() as u32,
        time_replaced: 0,
        ids: Vec::new(),
        first_fault: None,
    };
    batcher.push(entry, 100, now)
}

#[track_caller]
fn check(batch: Option<Batch>, lo: i64, last: i64, rows: usize) {
    let batch = batch.expect("a batch closed");
    assert_eq!((batch.lo, batch.hwm), (NextOffset::new(lo), Offset::new(last).next()));
    assert_eq!(batch.decoded.rows.len(), rows);
}

#[test]
fn the_record_that_reaches_the_rows_is_the_last() {
    let (mut batcher, now) = (batcher(3, 1 << 20), Instant::now());
    assert!(push(&mut batcher, 12, &[0, 0], now).is_none());
    check(push(&mut batcher, 13, &[0, 0], now), 10, 13, 4);
    assert!(push(&mut batcher, 20, &[0], now).is_none());
    check(batcher.close(), 14, 20, 1);
}

#[test]
fn the_record_that_reaches_the_bytes_is_the_last() {
    let (mut batcher, now) = (batcher(1000, 200), Instant::now());
    assert!(push(&mut batcher, 10, &[0], now).is_none());
    check(push(&mut batcher, 11, &[], now), 10, 11, 1);
}

#[test]
fn age_counts_from_the_first_record_and_an_empty_batch_has_none() {
    let (mut batcher, now) = (batcher(1000, 1 << 20), Instant::now());
    assert_eq!(batcher.deadline(), None);
    push(&mut batcher, 10, &[0], now);
    push(&mut batcher, 11, &[0], now + Duration::from_secs(1));
    assert_eq!(batcher.deadline(), Some(now + Duration::from_secs(2)));
    assert_eq!(batcher.due_in(now + Duration::from_secs(3)), Some(Duration::ZERO));
    check(batcher.close(), 10, 11, 2);
    assert_eq!(batcher.deadline(), None);
    assert!(batcher.close().is_none());
}

#[test]
fn wild_event_times_close_it_by_table_partitions() {
    let (mut batcher, now) = (batcher(1000, 1 << 20), Instant::now());
    let month = |n: i64| n * 31 * DAY;
    for n in 0..63 {
        assert!(push(&mut batcher, 10 + n, &[month(n)], now).is_none(), "{n}");
    }
    assert!(push(&mut batcher, 80, &[month(5)], now).is_none(), "a month twice counts once");
    check(push(&mut batcher, 81, &[month(63)], now), 10, 81, 65);
}

#[test]
fn a_declared_batch_is_rebuilt_whatever_the_limits_are() {
    let now = Instant::now();
    let mut batcher = Batcher::rebuild(NextOffset::new(10), Offset::new(14));
    assert!(push(&mut batcher, 11, &[0; 9], now).is_none());
    assert_eq!(batcher.deadline(), None);
    assert!(batcher.close_before(Offset::new(14)).is_none() && !batcher.has_rebuilt());
    check(push(&mut batcher, 14, &[0], now), 10, 14, 10);
    assert!(batcher.has_rebuilt());
}

#[test]
fn a_declared_batch_ends_where_it_was_declared_even_if_its_last_record_is_gone() {
    let mut batcher = Batcher::rebuild(NextOffset::new(10), Offset::new(14));
    assert!(push(&mut batcher, 11, &[0], Instant::now()).is_none());
    check(batcher.close_before(Offset::new(15)), 10, 14, 1);
}

#[test]
fn a_batch_ends_where_a_marker_says_that_another_one_did() {
    let (mut batcher, now) = (batcher_with_ends(3, 1 << 20, &[12, 14, 20]), Instant::now());
    assert!(push(&mut batcher, 10, &[0], now).is_none());
    check(push(&mut batcher, 11, &[0], now), 10, 11, 2);
    assert!(batcher.close_before(Offset::new(15)).is_none(), "there is nothing to close");
    check(push(&mut batcher, 15, &[0, 0, 0], now), 14, 15, 3);
    assert!(push(&mut batcher, 16, &[0], now).is_none());
    check(batcher.close_before(Offset::new(22)), 16, 19, 1);
}
