//! The spool: stores on disk the records that Kafka did not accept, until Kafka accepts them.
//!
//! One thread owns the file of the spool. Other threads send jobs to this thread, for example to store a record. The
//! changes that arrive during one fsync are written together, with the next fsync.
//!
//! The edge goes on serving if the file cannot be used. If the file is found to be corrupt when it is opened, the spool
//! renames the file and continues with a new, empty file. After any other error of the file, the spool is off and tries
//! to open the file again every ten seconds.
//!
//! Invariant: a record is reported as stored only after an fsync has written it to disk. A record is removed only by
//! [`Spool::remove`], which is called once Kafka has acknowledged the record. The queue of jobs has no limit, so the
//! callers must limit how many records wait. Nothing in this folder depends on Kafka.

mod config;

pub mod store;

use std::iter;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};
use std::{fmt, io};

use runtime::error::chain;
use schemas::record::MAX_BYTES;
use schemas::time::UnixMillis;
use uuid::Uuid;

pub use self::config::SpoolConfig;
use self::store::{Change, SpooledRecord, Store, StoreError};
use crate::metrics::Metrics;

/// How long to wait before reopening a file that could not be used.
const RETRY_AFTER: Duration = Duration::from_secs(10);
/// How often the free space on the disk and the age of the oldest record are checked when there is no job.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The spool of one edge; shared by all threads.
pub struct Spool {
    /// Sends jobs to the thread. `drop` takes the sender, because the thread ends when no sender is left.
    jobs: Option<Sender<Job>>,
    status: Arc<Status>,
    thread: Option<JoinHandle<()>>,
}

/// Whether the spool accepts records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpoolState {
    /// The spool accepts records, also a record of the maximum size.
    On,
    /// A record of the maximum size would not fit until other records are removed or the disk has more free space. A
    /// smaller record may still be stored. The text says which limit is reached.
    Full(String),
    /// The file is not open or cannot be used, or the free space on the disk is unknown. The text says why.
    Off(String),
}

impl fmt::Display for SpoolState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::On => f.write_str("the spool is on"),
            Self::Full(why) => write!(f, "the spool is full: {why}"),
            Self::Off(why) => write!(f, "the spool is off: {why}"),
        }
    }
}

/// Why a record was not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutError {
    /// The record does not fit within `SPOOL_MAX_BYTES`, or would leave less than `SPOOL_MIN_FREE` on the disk.
    Full,
    /// The spool is off, or a write to the file failed. After a failed write, the record may be in the file
    /// nevertheless.
    Off,
}

/// Called on the spool's thread when a record was stored, or could not be stored.
pub type PutCallback = Box<dyn FnOnce(Result<(), PutError>) + Send>;

/// The status of the spool, which other threads read.
struct Status {
    state: RwLock<SpoolState>,
    records: AtomicU64,
    partitions: AtomicU32,
}

enum Job {
    Put(SpooledRecord, PutCallback),
    Remove(Vec<Uuid>, SyncSender<()>),
    Oldest { after: Uuid, records: usize, bytes: usize, answer: SyncSender<Vec<SpooledRecord>> },
    SetPartitions(u32),
}

impl Spool {
    /// Starts the thread that opens and owns the spool file for the records of `topic`. Does not wait until the file is
    /// open.
    pub fn start(config: &SpoolConfig, topic: &str, metrics: &Arc<Metrics>) -> io::Result<Self> {
        Self::start_with(config, topic, metrics, RETRY_AFTER)
    }

    fn start_with(
        config: &SpoolConfig,
        topic: &str,
        metrics: &Arc<Metrics>,
        retry_after: Duration,
    ) -> io::Result<Self> {
        let status = Arc::new(Status {
            state: RwLock::new(SpoolState::Off("not open yet".to_owned())),
            records: AtomicU64::new(0),
            partitions: AtomicU32::new(0),
        });
        let (jobs, work) = mpsc::channel();
        let worker = Worker {
            path: store::path(&config.directory, topic),
            config: config.clone(),
            retry_after,
            store: None,
            retry_at: Instant::now(),
            status: Arc::clone(&status),
            metrics: Arc::clone(metrics),
        };
        let thread = thread::Builder::new().name("spool".to_owned()).spawn(move || worker.run(&work))?;
        Ok(Self { jobs: Some(jobs), status, thread: Some(thread) })
    }

    /// Whether the spool accepts records, and if not, why.
    pub fn state(&self) -> SpoolState {
        self.status.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the state is [`SpoolState::On`]. Does not copy the text of the state, unlike [`Spool::state`].
    pub fn accepts_records(&self) -> bool {
        *self.status.state.read().unwrap_or_else(PoisonError::into_inner) == SpoolState::On
    }

    /// Whether records can be read and removed: the spool is on or full, not off.
    pub fn is_readable(&self) -> bool {
        !matches!(*self.status.state.read().unwrap_or_else(PoisonError::into_inner), SpoolState::Off(_))
    }

    /// The number of records in the spool. While the file is closed: the last number; 0 before the file was opened.
    pub fn records(&self) -> u64 {
        self.status.records.load(Ordering::Acquire)
    }

    /// The number of partitions of the topic, as Kafka last reported it; 0 if the number is unknown.
    pub fn partitions(&self) -> u32 {
        self.status.partitions.load(Ordering::Acquire)
    }

    /// Stores the number of partitions of the topic, so that an edge that starts while Kafka is unreachable can assign
    /// partitions to its records. Does not wait.
    pub fn set_partitions(&self, partitions: u32) {
        self.submit(Job::SetPartitions(partitions));
    }

    /// Stores a record; calls `callback` once the record is on disk or could not be stored. Does not wait.
    pub fn put(&self, record: SpooledRecord, callback: PutCallback) {
        self.submit(Job::Put(record, callback));
    }

    /// Returns the oldest records whose ids are greater than `after`: at most `records` records, whose values have at
    /// most `bytes` bytes in total. If the first record is larger than `bytes`, only the first record is returned.
    /// Returns no records while the file cannot be used. Waits for the disk.
    pub fn oldest(&self, after: Uuid, records: usize, bytes: usize) -> Vec<SpooledRecord> {
        let (answer, answered) = mpsc::sync_channel(1);
        self.submit(Job::Oldest { after, records, bytes, answer });
        answered.recv().unwrap_or_default()
    }

    /// Removes records that Kafka has acknowledged. If the file cannot be used, the records may stay in the spool and
    /// be sent again later. Waits for the disk.
    pub fn remove(&self, ids: Vec<Uuid>) {
        let (answer, answered) = mpsc::sync_channel(1);
        self.submit(Job::Remove(ids, answer));
        // The spool's thread never sends a value here. When the job is done, the thread drops the sender, and `recv`
        // returns an error.
        let _ended = answered.recv();
    }

    fn submit(&self, job: Job) {
        let jobs = self.jobs.as_ref().expect("the sender is taken only when the spool is dropped");
        jobs.send(job).expect("the spool's thread lives as long as the spool");
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        drop(self.jobs.take());
        // The last reference to the spool may be in the callback of a record, so the spool may be dropped on its own
        // thread, where callbacks run. A thread cannot join itself.
        let thread = self.thread.take().filter(|thread| thread.thread().id() != thread::current().id());
        if let Some(thread) = thread {
            let _ended = thread.join();
        }
    }
}

/// The state of the spool's thread.
struct Worker {
    path: PathBuf,
    config: SpoolConfig,
    retry_after: Duration,
    store: Option<Store>,
    /// When to reopen a file that could not be used.
    retry_at: Instant,
    status: Arc<Status>,
    metrics: Arc<Metrics>,
}

impl Worker {
    fn run(mut self, jobs: &Receiver<Job>) {
        loop {
            if self.store.is_none() && Instant::now() >= self.retry_at {
                self.open();
            }
            self.update_status();
            match jobs.recv_timeout(CHECK_INTERVAL.min(self.retry_after)) {
                Ok(first) => self.do_jobs(iter::once(first).chain(jobs.try_iter())),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn open(&mut self) {
        let opened = Store::open_or_create(&self.path).or_else(|error| match error {
            StoreError::Corrupt { .. } => {
                let aside = store::set_aside(&self.path).map_err(|source| StoreError::Io {
                    path: self.path.clone(),
                    source: Box::new(redb::Error::Io(source)),
                })?;
                tracing::error!(
                    set_aside = %aside.display(),
                    "the spool file is corrupt: {error}; the file was renamed, and an empty file is used"
                );
                self.metrics.spool_set_aside.inc();
                Store::open_or_create(&self.path)
            }
            other => Err(other),
        });
        let opened = opened.and_then(|store| {
            self.status.partitions.store(store.partitions()?, Ordering::Release);
            Ok(store)
        });
        match opened {
            Ok(store) => {
                let totals = store.totals();
                tracing::info!(records = totals.records, bytes = totals.bytes, "the spool is open");
                self.store = Some(store);
            }
            Err(error) => self.switch_off(&error),
        }
    }

    /// Closes the file, which is opened again after `retry_after`.
    fn switch_off(&mut self, error: &StoreError) {
        let why = chain(error);
        tracing::error!("the spool is off: {why}; trying again in {:?}", self.retry_after);
        self.store = None;
        self.retry_at = Instant::now() + self.retry_after;
        self.set(SpoolState::Off(why));
    }

    fn set(&self, state: SpoolState) {
        self.metrics.spool_up.set(i64::from(state == SpoolState::On));
        *self.status.state.write().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// Does all waiting jobs: the changes with one fsync, then the reads.
    fn do_jobs(&mut self, jobs: impl Iterator<Item = Job>) {
        let (mut change, mut puts, mut removals, mut reads) = (Change::default(), vec![], vec![], vec![]);
        let mut space = self.free_space();
        for job in jobs {
            match job {
                Job::Put(record, callback) => match space.take(record.value.len() as u64) {
                    Ok(()) => {
                        change.put.push(record);
                        puts.push(callback);
                    }
                    Err(error) => callback(Err(error)),
                },
                Job::Remove(mut ids, answer) => {
                    change.remove.append(&mut ids);
                    removals.push(answer);
                }
                Job::SetPartitions(partitions) => change.partitions = Some(partitions),
                Job::Oldest { after, records, bytes, answer } => {
                    reads.push((after, records, bytes, answer));
                }
            }
        }
        let stored = self.apply(&change);
        // The status is updated before the callbacks are called, because a callback may read the status.
        self.update_status();
        puts.into_iter().for_each(|callback| callback(stored));
        drop(removals);
        for (after, records, bytes, answer) in reads {
            // Sending fails only if the thread that waits for the answer has panicked.
            let _gone = answer.send(self.oldest(after, records, bytes));
        }
    }

    fn apply(&mut self, change: &Change) -> Result<(), PutError> {
        let Some(store) = &mut self.store else { return Err(PutError::Off) };
        if change.put.is_empty() && change.remove.is_empty() && change.partitions.is_none() {
            return Ok(());
        }
        if let Err(error) = store.apply(change) {
            self.switch_off(&error);
            return Err(PutError::Off);
        }
        if let Some(partitions) = change.partitions {
            self.status.partitions.store(partitions, Ordering::Release);
        }
        Ok(())
    }

    fn oldest(&mut self, after: Uuid, records: usize, bytes: usize) -> Vec<SpooledRecord> {
        let Some(store) = &self.store else { return Vec::new() };
        store.oldest(after, records, bytes).unwrap_or_else(|error| {
            self.switch_off(&error);
            Vec::new()
        })
    }

    /// How much may still be stored.
    fn free_space(&self) -> FreeSpace {
        let Some(store) = &self.store else { return FreeSpace::Off };
        let within_limit = self.config.max_bytes.saturating_sub(store.totals().bytes);
        match free_bytes(&self.config.directory) {
            Ok(free) => FreeSpace::Left { within_limit, on_disk: free.saturating_sub(self.config.min_free) },
            Err(_) => FreeSpace::Off,
        }
    }

    /// Updates the status and the metrics from the open file. Does nothing while the file is closed.
    fn update_status(&mut self) {
        let Some(store) = &self.store else { return };
        let totals = store.totals();
        self.status.records.store(totals.records, Ordering::Release);
        self.metrics.spool_records.set(totals.records as i64);
        self.metrics.spool_bytes.set(totals.bytes as i64);
        match store.oldest_created_at() {
            Ok(created) => {
                let now = UnixMillis::from(SystemTime::now()).0;
                self.metrics
                    .spool_oldest_seconds
                    .set(created.map_or(0, |created| (now - created.0).max(0) / 1000));
            }
            Err(error) => return self.switch_off(&error),
        }
        // The spool counts as full when the largest record would not fit, so that other threads know the state before a
        // record is refused.
        let largest = MAX_BYTES as u64;
        self.set(match self.free_space() {
            FreeSpace::Off => SpoolState::Off("the free space on the disk cannot be read".to_owned()),
            FreeSpace::Left { within_limit, .. } if within_limit < largest => SpoolState::Full(format!(
                "{} bytes of SPOOL_MAX_BYTES={} are used",
                totals.bytes, self.config.max_bytes
            )),
            FreeSpace::Left { on_disk, .. } if on_disk < largest => SpoolState::Full(format!(
                "the next record could leave less free space on the disk than SPOOL_MIN_FREE={} bytes",
                self.config.min_free
            )),
            FreeSpace::Left { .. } => SpoolState::On,
        });
    }
}

/// How many more bytes of records may be stored: `within_limit` until `SPOOL_MAX_BYTES` is reached, and `on_disk` until
/// the free space on the disk falls to `SPOOL_MIN_FREE`. `Off` if the file is closed or the free space is unknown.
enum FreeSpace {
    Off,
    Left { within_limit: u64, on_disk: u64 },
}

impl FreeSpace {
    fn take(&mut self, bytes: u64) -> Result<(), PutError> {
        match self {
            Self::Off => Err(PutError::Off),
            Self::Left { within_limit, on_disk } if *within_limit < bytes || *on_disk < bytes => {
                Err(PutError::Full)
            }
            Self::Left { within_limit, on_disk } => {
                *within_limit -= bytes;
                *on_disk -= bytes;
                Ok(())
            }
        }
    }
}

fn free_bytes(directory: &std::path::Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(directory)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(test)]
mod tests;
