use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// A record that was created `millis` milliseconds after the epoch.
fn record(millis: u64, value: &str) -> SpooledRecord {
    let id = Uuid::from_u128((u128::from(millis) << 80) | (7 << 76) | u128::from(millis));
    SpooledRecord { id, partition: 3, lines: 2, value: value.as_bytes().to_vec() }
}

fn put(records: &[SpooledRecord]) -> Change {
    Change { put: records.to_vec(), ..Change::default() }
}

fn new() -> (TempDir, PathBuf) {
    let directory = TempDir::new().unwrap();
    let path = path(directory.path(), "events");
    (directory, path)
}

#[test]
fn stored_records_are_read_oldest_first_after_a_restart() {
    let (_directory, path) = new();
    let records = [record(30, "c\nd"), record(10, "a\nb"), record(20, "x\ny")];
    let mut store = Store::open_or_create(&path).unwrap();
    store.apply(&Change { partitions: Some(8), ..put(&records) }).unwrap();
    store.apply(&Change { remove: vec![records[2].id], ..Change::default() }).unwrap();
    drop(store);

    let store = Store::open(&path).unwrap();
    assert_eq!(store.totals(), SpoolTotals { records: 2, bytes: 6 });
    assert_eq!(store.partitions().unwrap(), 8);
    assert_eq!(store.oldest_created_at().unwrap(), Some(UnixMillis(10)));
    assert_eq!(store.oldest(Uuid::nil(), 9, 999).unwrap(), [records[1].clone(), records[0].clone()]);
    assert_eq!(store.oldest(Uuid::nil(), 1, 999).unwrap(), [records[1].clone()]);
    assert_eq!(
        store.oldest(Uuid::nil(), 9, 1).unwrap(),
        [records[1].clone()],
        "a first record longer than the limit must be returned, alone"
    );
    assert_eq!(store.oldest(records[1].id, 9, 999).unwrap(), [records[0].clone()]);
    assert_eq!(store.entries().unwrap().iter().map(|entry| entry.bytes).collect::<Vec<_>>(), [3, 3]);
}

#[test]
fn a_record_that_is_put_twice_is_stored_once() {
    let (_directory, path) = new();
    let mut store = Store::open_or_create(&path).unwrap();
    for _ in 0..2 {
        store.apply(&put(&[record(1, "a\nb")])).unwrap();
    }
    assert_eq!(store.totals(), SpoolTotals { records: 1, bytes: 3 });
}

#[test]
fn a_change_is_in_the_file_as_soon_as_apply_returns() {
    let (directory, path) = new();
    let mut store = Store::open_or_create(&path).unwrap();
    store.apply(&put(&[record(1, "a\nb")])).unwrap();
    // This copy has the bytes that a process would leave in the file if it were killed now.
    let left = directory.path().join("left.redb");
    fs::copy(&path, &left).unwrap();
    assert_eq!(Store::open(&left).unwrap().oldest(Uuid::nil(), 9, 999).unwrap(), [record(1, "a\nb")]);
}

#[test]
fn the_file_can_be_opened_only_once_at_a_time() {
    let (_directory, path) = new();
    let store = Store::open_or_create(&path).unwrap();
    assert!(matches!(Store::open(&path), Err(StoreError::InUse(_))));
    drop(store);
    assert!(Store::open(&path).is_ok());
}

#[test]
fn a_file_that_is_no_spool_is_corrupt_and_a_missing_file_is_an_io_error() {
    let (_directory, path) = new();
    assert!(matches!(Store::open(&path), Err(StoreError::Io { .. })));
    fs::write(&path, "something else".repeat(1000)).unwrap();
    assert!(matches!(Store::open(&path), Err(StoreError::Corrupt { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Either the damage to a file is found, or all records are unchanged.
    #[test]
    fn damage_to_a_file_is_found_or_has_changed_no_record(at in 0.0..1.0, garbage in any::<Option<[u8; 16]>>()) {
        let (_directory, path) = new();
        let records: Vec<_> = (1..40).map(|n| record(n, &n.to_string().repeat(2000))).collect();
        let mut store = Store::open_or_create(&path).unwrap();
        store.apply(&put(&records)).unwrap();
        drop(store);
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        let at = (at * (file.metadata().unwrap().len() - 16) as f64) as u64;
        match garbage {
            Some(garbage) => file.write_all_at(&garbage, at).unwrap(),
            None => file.set_len(at).unwrap(),
        }
        match Store::open(&path) {
            Ok(store) => prop_assert!(store.oldest(Uuid::nil(), 99, usize::MAX).unwrap() == records),
            Err(StoreError::Corrupt { .. }) => {}
            Err(other) => prop_assert!(false, "{other:?}"),
        }
    }
}
