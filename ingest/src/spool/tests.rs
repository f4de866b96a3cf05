use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::*;

const DEADLINE: Duration = Duration::from_secs(20);
const RETRY: Duration = Duration::from_millis(20);

fn config(directory: &Path) -> SpoolConfig {
    SpoolConfig { directory: directory.into(), max_bytes: 1 << 30, min_free: 0 }
}

/// Starts a spool, and returns it with its metrics.
fn start(config: &SpoolConfig) -> (Spool, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::new());
    (Spool::start_with(config, "events", &metrics, RETRY).unwrap(), metrics)
}

fn record(bytes: usize) -> SpooledRecord {
    SpooledRecord { id: Uuid::now_v7(), partition: 1, lines: 1, value: vec![b'x'; bytes] }
}

fn put(spool: &Spool, record: SpooledRecord) -> Result<(), PutError> {
    let (sender, result) = mpsc::channel();
    spool.put(record, Box::new(move |result| sender.send(result).unwrap()));
    result.recv_timeout(DEADLINE).unwrap()
}

#[track_caller]
fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "waiting for {what} took longer than {DEADLINE:?}");
        thread::park_timeout(Duration::from_millis(2));
    }
}

#[test]
fn a_stored_record_is_found_by_the_next_process_until_it_is_removed() {
    let directory = TempDir::new().unwrap();
    let (spool, _) = start(&config(directory.path()));
    let records = [record(10), record(20)];
    assert_eq!(records.each_ref().map(|record| put(&spool, record.clone())), [Ok(()), Ok(())]);
    spool.set_partitions(8);
    drop(spool);
    let (spool, metrics) = start(&config(directory.path()));
    assert_eq!(spool.oldest(Uuid::nil(), 9, 999), records);
    assert_eq!((spool.records(), spool.partitions()), (2, 8));
    assert_eq!((metrics.spool_records.get(), metrics.spool_bytes.get()), (2, 30));
    spool.remove(vec![records[0].id]);
    assert_eq!(spool.oldest(Uuid::nil(), 9, 999), records[1..]);
    assert_eq!(metrics.spool_records.get(), 1);
}

#[test]
fn a_file_that_cannot_be_read_is_set_aside_and_counted() {
    let directory = TempDir::new().unwrap();
    let path = store::path(directory.path(), "events");
    fs::write(&path, "not a spool").unwrap();
    let (spool, metrics) = start(&config(directory.path()));
    wait_for("the spool to be on with a new file", || spool.accepts_records());
    assert_eq!(metrics.spool_set_aside.get(), 1);
    assert_eq!(put(&spool, record(10)), Ok(()));
    let names = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
    let aside = names.filter(|name| *name != path).collect::<Vec<_>>();
    assert_eq!(fs::read_to_string(&aside[0]).unwrap(), "not a spool");
}

#[test]
fn a_spool_that_cannot_be_opened_is_off_and_is_opened_again_later() {
    let directory = TempDir::new().unwrap();
    let blocked = directory.path().join("spool");
    fs::write(&blocked, "a file where the directory should be").unwrap();
    let (spool, metrics) = start(&config(&blocked));
    wait_for("the state to name the spool file", || spool.state().to_string().contains("events.redb"));
    assert_eq!(put(&spool, record(10)), Err(PutError::Off));
    assert_eq!((metrics.spool_up.get(), spool.oldest(Uuid::nil(), 9, 999)), (0, vec![]));
    fs::remove_file(&blocked).unwrap();
    wait_for("the spool to be on", || spool.accepts_records());
    assert_eq!((put(&spool, record(10)), metrics.spool_up.get()), (Ok(()), 1));
}

#[test]
fn a_full_spool_accepts_no_record_until_one_is_removed() {
    let directory = TempDir::new().unwrap();
    let config = SpoolConfig { max_bytes: 2 * MAX_BYTES as u64, ..config(directory.path()) };
    let (spool, _) = start(&config);
    let records = [record(MAX_BYTES), record(MAX_BYTES)];
    assert_eq!(records.each_ref().map(|record| put(&spool, record.clone())), [Ok(()), Ok(())]);
    assert_eq!(put(&spool, record(1)), Err(PutError::Full));
    assert!(matches!(spool.state(), SpoolState::Full(_)) && spool.is_readable());
    spool.remove(vec![records[0].id]);
    assert_eq!((spool.state(), put(&spool, record(1))), (SpoolState::On, Ok(())));
}

#[test]
fn the_spool_leaves_spool_min_free_on_the_disk() {
    let directory = TempDir::new().unwrap();
    let (spool, _) = start(&SpoolConfig { min_free: u64::MAX, ..config(directory.path()) });
    wait_for("the spool to be full", || matches!(spool.state(), SpoolState::Full(_)));
    assert_eq!(put(&spool, record(1)), Err(PutError::Full));
}
