//! The overflow on disk: records that Kafka does not take now, until it does.
//!
//! One thread owns the file and works off what it is told in turns: all that came while
//! the last fsync ran shares the next one. A file that cannot be used never keeps the
//! edge from running: a corrupt one is set aside by renaming it, any other trouble
//! switches the spool off, and it is tried again every ten seconds.
//!
//! Invariant: a record is told to be safe after its fsync, and not otherwise; it leaves
//! only by [`Spool::remove`], which is called once Kafka has acknowledged it. What waits
//! here for the disk is bounded by the callers. Nothing in here knows Kafka.

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
use self::store::{Change, Store, StoreError, Stored};
use crate::metrics::Metrics;

/// How long a spool that cannot be used is left alone.
const RETRY_AFTER: Duration = Duration::from_secs(10);
/// How often the room on the disk and the age of the oldest record are looked at when
/// nothing else happens.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The spool of one edge; shared.
pub struct Spool {
    /// Taken when it is dropped, so that the thread ends.
    jobs: Option<Sender<Job>>,
    seen: Arc<Seen>,
    thread: Option<JoinHandle<()>>,
}

/// Whether records can be put in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// They can.
    On,
    /// Not until some have left, or the disk has more room; says which.
    Full(String),
    /// The file cannot be used; says why.
    Off(String),
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::On => f.write_str("the spool is on"),
            Self::Full(why) => write!(f, "the spool is full: {why}"),
            Self::Off(why) => write!(f, "the spool is off: {why}"),
        }
    }
}

/// Why a record was not put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// There is no room.
    Full,
    /// The disk did not take it.
    Off,
}

/// Told, on the spool's thread, how putting a record in went.
pub type Told = Box<dyn FnOnce(Result<(), Refused>) + Send>;

/// What others see of the spool.
struct Seen {
    state: RwLock<State>,
    records: AtomicU64,
    partitions: AtomicU32,
}

enum Job {
    Put(Stored, Told),
    Remove(Vec<Uuid>, SyncSender<()>),
    Oldest { after: Uuid, records: usize, bytes: usize, answer: SyncSender<Vec<Stored>> },
    Remember(u32),
}

impl Spool {
    /// Starts the thread that opens and keeps the file of `topic`; does not wait for it.
    pub fn start(config: &SpoolConfig, topic: &str, metrics: &Arc<Metrics>) -> io::Result<Self> {
        Self::start_with(config, topic, metrics, RETRY_AFTER)
    }

    fn start_with(
        config: &SpoolConfig,
        topic: &str,
        metrics: &Arc<Metrics>,
        retry_after: Duration,
    ) -> io::Result<Self> {
        let seen = Arc::new(Seen {
            state: RwLock::new(State::Off("not open yet".to_owned())),
            records: AtomicU64::new(0),
            partitions: AtomicU32::new(0),
        });
        let (jobs, work) = mpsc::channel();
        let keeper = Keeper {
            path: store::path(&config.directory, topic),
            config: config.clone(),
            retry_after,
            store: None,
            try_at: Instant::now(),
            seen: Arc::clone(&seen),
            metrics: Arc::clone(metrics),
        };
        let thread = thread::Builder::new().name("spool".to_owned()).spawn(move || keeper.run(&work))?;
        Ok(Self { jobs: Some(jobs), seen, thread: Some(thread) })
    }

    /// Whether records can be put in.
    pub fn state(&self) -> State {
        self.seen.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether records can be put in, without the reason.
    pub fn is_on(&self) -> bool {
        *self.seen.state.read().unwrap_or_else(PoisonError::into_inner) == State::On
    }

    /// Whether records can leave.
    pub fn is_open(&self) -> bool {
        !matches!(*self.seen.state.read().unwrap_or_else(PoisonError::into_inner), State::Off(_))
    }

    /// Records in it.
    pub fn records(&self) -> u64 {
        self.seen.records.load(Ordering::Acquire)
    }

    /// How many partitions the topic had when Kafka was last reached; 0 if that is not known.
    pub fn partitions(&self) -> u32 {
        self.seen.partitions.load(Ordering::Acquire)
    }

    /// Keeps in mind how many partitions the topic has.
    pub fn remember(&self, partitions: u32) {
        self.tell(Job::Remember(partitions));
    }

    /// Puts a record in; `told` hears when it is safe. Does not wait.
    pub fn put(&self, record: Stored, told: Told) {
        self.tell(Job::Put(record, told));
    }

    /// The oldest records after the one of id `after`, up to so many records and bytes; none
    /// while the file cannot be used. Waits for the disk.
    pub fn oldest(&self, after: Uuid, records: usize, bytes: usize) -> Vec<Stored> {
        let (answer, answered) = mpsc::sync_channel(1);
        self.tell(Job::Oldest { after, records, bytes, answer });
        answered.recv().unwrap_or_default()
    }

    /// Removes records that Kafka has; those that the disk does not let go stay. Waits for the disk.
    pub fn remove(&self, ids: Vec<Uuid>) {
        let (answer, answered) = mpsc::sync_channel(1);
        self.tell(Job::Remove(ids, answer));
        // An error says that the thread has ended, and the records stay.
        let _ended = answered.recv();
    }

    fn tell(&self, job: Job) {
        let jobs = self.jobs.as_ref().expect("it is taken when the spool is dropped");
        jobs.send(job).expect("the spool's thread lives as long as the spool");
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        drop(self.jobs.take());
        // The last to let go may be a record's end, told on that very thread.
        let thread = self.thread.take().filter(|thread| thread.thread().id() != thread::current().id());
        if let Some(thread) = thread {
            let _ended = thread.join();
        }
    }
}

/// What the thread owns.
struct Keeper {
    path: PathBuf,
    config: SpoolConfig,
    retry_after: Duration,
    store: Option<Store>,
    /// When a file that could not be used is tried again.
    try_at: Instant,
    seen: Arc<Seen>,
    metrics: Arc<Metrics>,
}

impl Keeper {
    fn run(mut self, jobs: &Receiver<Job>) {
        loop {
            if self.store.is_none() && Instant::now() >= self.try_at {
                self.open();
            }
            self.show();
            match jobs.recv_timeout(LOOK_EVERY.min(self.retry_after)) {
                Ok(first) => self.work(iter::once(first).chain(jobs.try_iter())),
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
                tracing::error!(set_aside = %aside.display(), "{error}; renamed, an empty spool is used");
                self.metrics.spool_set_aside.inc();
                Store::open_or_create(&self.path)
            }
            other => Err(other),
        });
        let opened = opened.and_then(|store| {
            self.seen.partitions.store(store.partitions()?, Ordering::Release);
            Ok(store)
        });
        match opened {
            Ok(store) => {
                let totals = store.totals();
                tracing::info!(records = totals.records, bytes = totals.bytes, "the spool is open");
                self.store = Some(store);
            }
            Err(error) => self.give_up(&error),
        }
    }

    /// Closes the file, to try it again later.
    fn give_up(&mut self, error: &StoreError) {
        let why = chain(error);
        tracing::error!("the spool is off, trying again in {:?}: {why}", self.retry_after);
        self.store = None;
        self.try_at = Instant::now() + self.retry_after;
        self.set(State::Off(why));
    }

    fn set(&self, state: State) {
        self.metrics.spool_up.set(i64::from(state == State::On));
        *self.seen.state.write().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// Does all that waits: changes under one fsync, then questions.
    fn work(&mut self, jobs: impl Iterator<Item = Job>) {
        let (mut change, mut puts, mut removals, mut questions) = (Change::default(), vec![], vec![], vec![]);
        let mut room = self.room();
        for job in jobs {
            match job {
                Job::Put(record, told) => match room.take(record.value.len() as u64) {
                    Ok(()) => {
                        change.put.push(record);
                        puts.push(told);
                    }
                    Err(refused) => told(Err(refused)),
                },
                Job::Remove(mut ids, answer) => {
                    change.remove.append(&mut ids);
                    removals.push(answer);
                }
                Job::Remember(partitions) => change.partitions = Some(partitions),
                Job::Oldest { after, records, bytes, answer } => {
                    questions.push((after, records, bytes, answer));
                }
            }
        }
        let safe = self.apply(&change);
        // Before anybody is told: who was told may look.
        self.show();
        puts.into_iter().for_each(|told| told(safe));
        drop(removals);
        for (after, records, bytes, answer) in questions {
            // Who asked may be gone.
            let _gone = answer.send(self.oldest(after, records, bytes));
        }
    }

    fn apply(&mut self, change: &Change) -> Result<(), Refused> {
        let Some(store) = &mut self.store else { return Err(Refused::Off) };
        if change.put.is_empty() && change.remove.is_empty() && change.partitions.is_none() {
            return Ok(());
        }
        if let Err(error) = store.apply(change) {
            self.give_up(&error);
            return Err(Refused::Off);
        }
        if let Some(partitions) = change.partitions {
            self.seen.partitions.store(partitions, Ordering::Release);
        }
        Ok(())
    }

    fn oldest(&mut self, after: Uuid, records: usize, bytes: usize) -> Vec<Stored> {
        let Some(store) = &self.store else { return Vec::new() };
        store.oldest(after, records, bytes).unwrap_or_else(|error| {
            self.give_up(&error);
            Vec::new()
        })
    }

    /// What may still come in.
    fn room(&self) -> Room {
        let Some(store) = &self.store else { return Room::Off };
        let left = self.config.max_bytes.saturating_sub(store.totals().bytes);
        match free_bytes(&self.config.directory) {
            Ok(free) => Room::Left { left, free: free.saturating_sub(self.config.min_free) },
            Err(_) => Room::Off,
        }
    }

    /// Lets others see how things are.
    fn show(&mut self) {
        let Some(store) = &self.store else { return };
        let totals = store.totals();
        self.seen.records.store(totals.records, Ordering::Release);
        self.metrics.spool_records.set(totals.records as i64);
        self.metrics.spool_bytes.set(totals.bytes as i64);
        match store.oldest_made() {
            Ok(made) => {
                let now = UnixMillis::from(SystemTime::now()).0;
                self.metrics.spool_oldest_seconds.set(made.map_or(0, |made| (now - made.0).max(0) / 1000));
            }
            Err(error) => return self.give_up(&error),
        }
        // Full while the largest record would find no room, so that it is known before.
        let largest = MAX_BYTES as u64;
        self.set(match self.room() {
            Room::Off => State::Off("the room on the disk is not known".to_owned()),
            Room::Left { left, .. } if left < largest => {
                State::Full(format!("{} of SPOOL_MAX_BYTES={}", totals.bytes, self.config.max_bytes))
            }
            Room::Left { free, .. } if free < largest => {
                State::Full(format!("the disk has less than SPOOL_MIN_FREE={}", self.config.min_free))
            }
            Room::Left { .. } => State::On,
        });
    }
}

/// What may still come in, within both bounds.
enum Room {
    Off,
    Left { left: u64, free: u64 },
}

impl Room {
    fn take(&mut self, bytes: u64) -> Result<(), Refused> {
        match self {
            Self::Off => Err(Refused::Off),
            Self::Left { left, free } if *left < bytes || *free < bytes => Err(Refused::Full),
            Self::Left { left, free } => {
                *left -= bytes;
                *free -= bytes;
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
