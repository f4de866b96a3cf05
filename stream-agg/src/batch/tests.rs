use schemas::time::DAY;
use uuid::Uuid;

use super::*;

fn batcher(max_rows: usize, max_bytes: usize) -> Batcher {
    let config = BatchConfig {
        max_rows: max_rows.try_into().unwrap(),
        max_bytes: max_bytes.try_into().unwrap(),
        max_age: Duration::from_secs(2),
    };
    Batcher::new(config, &Rollups::built_in(), NextOffset::new(10))
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
    assert_eq!((batch.lo, batch.last), (NextOffset::new(lo), Offset::new(last)));
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
