//! The pipeline of one partition: collect → hand over → apply → commit.
//!
//! A thread polls the partition's queue, decodes, closes batches and makes cells of
//! them; a task inserts them and commits, strictly one batch after another. Between
//! them at most one batch waits. What may be committed is decided by [`Progress`].
//! Invariant: what was not committed is simply read again by the next owner.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _, Timestamp};
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};
use runtime::backoff::Backoff;
use schemas::record::{Head, HeadError};
use schemas::rollup::Rollups;
use schemas::time::UnixMillis;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time;
use tokio_util::sync::CancellationToken;

use crate::batch::{Batch, Batcher};
use crate::cells::{self, Cell, Cells, Source};
use crate::config::BatchConfig;
use crate::consume::{Consumer, Membership};
use crate::decode::{Entry, Limits, Record, decode};
use crate::health::{Concern, Health};
use crate::insert::{GivenUp, Inserter, Token};
use crate::metrics::Metrics;
use crate::progress::{Event, NextOffset, Offset, Progress};
use crate::window::Window;

/// How often a pipeline without records looks whether it should stop.
const POLL: Duration = Duration::from_millis(50);
/// Shortest and longest wait between tries of a commit.
const WAITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// What all pipelines of the process share.
pub struct Shared {
    /// Topic of the records.
    pub topic: String,
    /// When a batch closes.
    pub batch: BatchConfig,
    /// What is aggregated.
    pub rollups: Rollups,
    /// What decides about rows besides the records.
    pub limits: Limits,
    /// The way into ClickHouse.
    pub inserter: Arc<Inserter>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What is in trouble.
    pub health: Arc<Health>,
    /// Runs the tasks that insert.
    pub runtime: Handle,
}

/// What a batch counts for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records.
    pub records: u64,
    /// Lines in them.
    pub lines: u64,
    /// Lines that became rows.
    pub rows: u64,
    /// Lines that could not be read.
    pub rejected: u64,
    /// Lines that were stored before.
    pub duplicates: u64,
    /// Rows whose `client_time` was not believed.
    pub time_replaced: u64,
    /// Rows of rollups whose groups were folded.
    pub folded_rows: u64,
}

/// How far a partition is, for those who only look.
pub struct Track {
    state: Mutex<(Progress, Option<UnixMillis>)>,
}

impl Track {
    fn new(committed: NextOffset) -> Self {
        Self { state: Mutex::new((Progress::new(committed), None)) }
    }

    /// Everything below is in every cell; and the time of its last record, if Kafka set
    /// it: everything that Kafka took before that moment is in every cell too.
    pub fn applied(&self) -> (NextOffset, Option<UnixMillis>) {
        let state = self.state();
        (state.0.applied(), state.1)
    }

    fn on(&self, event: Event) {
        self.state().0.on(event);
    }

    fn committable(&self) -> Option<NextOffset> {
        self.state().0.committable()
    }

    fn applied_until(&self, as_of: Option<UnixMillis>) {
        let newest = &mut self.state().1;
        *newest = as_of.max(*newest);
    }

    fn state(&self) -> MutexGuard<'_, (Progress, Option<UnixMillis>)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running pipeline.
pub struct Pipeline {
    /// How far it is.
    pub track: Arc<Track>,
    stop: CancellationToken,
    give_up: CancellationToken,
    thread: thread::JoinHandle<()>,
}

impl Pipeline {
    /// Starts to take the records of `kp` from `from` on.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start(
        shared: &Arc<Shared>,
        consumer: &Arc<Consumer>,
        queue: PartitionQueue<Membership>,
        kp: u16,
        from: NextOffset,
    ) -> std::io::Result<Self> {
        let track = Arc::new(Track::new(from));
        let (stop, give_up) = (CancellationToken::new(), CancellationToken::new());
        let part = Part {
            shared: Arc::clone(shared),
            source: Source { g: 0, kp, cfg: shared.rollups.hash() },
            track: Arc::clone(&track),
            stop: stop.clone(),
            give_up: give_up.clone(),
        };
        let consumer = Arc::clone(consumer);
        let thread = thread::Builder::new()
            .name(format!("partition {kp}"))
            .spawn(move || part.run(&queue, consumer, from))?;
        Ok(Self { track, stop, give_up, thread })
    }

    /// Takes no more records; the batch that is being inserted is finished and committed.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Ends at once and commits nothing more.
    pub fn give_up(&self) {
        self.stop.cancel();
        self.track.on(Event::Revoked);
        self.give_up.cancel();
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }
}

/// One side of a pipeline.
#[derive(Clone)]
struct Part {
    shared: Arc<Shared>,
    source: Source,
    track: Arc<Track>,
    stop: CancellationToken,
    give_up: CancellationToken,
}

/// A closed batch on its way to ClickHouse.
struct Closed {
    token: Token,
    cells: Vec<Cell>,
    counts: Counts,
    as_of: Option<UnixMillis>,
}

/// Why a partition cannot go on before somebody helps.
#[derive(Debug, thiserror::Error)]
enum Stuck {
    #[error("stopped at offset {0}")]
    Format(Offset, #[source] HeadError),
    #[error("stopped: records from the committed offset on are no longer in the log")]
    Gone(#[source] KafkaError),
}

impl Part {
    fn run(self, queue: &PartitionQueue<Membership>, consumer: Arc<Consumer>, from: NextOffset) {
        let (hand_over, closed) = mpsc::channel(1);
        let applying = self.shared.runtime.spawn(self.clone().apply_all(consumer, closed));
        let concern = Concern::Partition(self.source.kp.into());
        if let Err(stuck) = self.collect(queue, &hand_over, from) {
            let stuck = anyhow::Error::from(stuck);
            tracing::error!("{concern}: {stuck:#}");
            self.shared.health.trouble(concern, format!("{stuck:#}"));
            self.shared.metrics.partitions_stopped.inc();
            self.shared.runtime.block_on(self.stop.cancelled());
            self.shared.metrics.partitions_stopped.dec();
            self.shared.health.well(concern);
        }
        drop(hand_over);
        self.shared.runtime.block_on(applying).expect("the task that inserts does not panic");
        self.shared.health.well(Concern::Inserts(self.source.kp.into()));
    }

    /// Takes records until told to stop.
    fn collect(
        &self,
        queue: &PartitionQueue<Membership>,
        hand_over: &mpsc::Sender<Closed>,
        from: NextOffset,
    ) -> Result<(), Stuck> {
        let Shared { batch, rollups, .. } = &*self.shared;
        let mut batcher = Batcher::new(batch.clone(), rollups, from);
        let mut window = Window::new();
        // `None` unless it is Kafka itself that sets the time.
        let mut as_of = None;
        while !self.stop.is_cancelled() {
            let wait = batcher.due_in(Instant::now()).map_or(POLL, |due| due.min(POLL));
            let mut stuck = None;
            let mut closed = match queue.poll(wait) {
                Some(Ok(message)) => {
                    as_of = append_time(&message);
                    match self.take(&message, &mut window, &mut batcher) {
                        Ok(closed) => closed,
                        Err(error) => {
                            stuck = Some(error);
                            batcher.close()
                        }
                    }
                }
                Some(Err(error)) if is_gone(&error) => return Err(Stuck::Gone(error)),
                Some(Err(error)) => {
                    tracing::warn!("partition {}: {error}", self.source.kp);
                    None
                }
                None => None,
            };
            if batcher.due_in(Instant::now()).is_some_and(|due| due.is_zero()) {
                closed = batcher.close();
            }
            if let Some(batch) = closed
                && hand_over.blocking_send(self.close(&batch, as_of)).is_err()
            {
                return Ok(());
            }
            if let Some(stuck) = stuck {
                return Err(stuck);
            }
        }
        Ok(())
    }

    /// Decodes a record into the open batch.
    fn take(
        &self,
        message: &BorrowedMessage<'_>,
        window: &mut Window,
        batcher: &mut Batcher,
    ) -> Result<Option<Batch>, Stuck> {
        let offset = Offset::new(message.offset());
        let value = message.payload().unwrap_or_default();
        let record = Record {
            offset,
            kafka_time: UnixMillis(message.timestamp().to_millis().unwrap_or(0)),
            head: &head(message),
            known: false,
            value,
        };
        let entry = decode(&record, &self.shared.limits, window, batcher.decoded())
            .map_err(|error| Stuck::Format(offset, error))?;
        self.track.on(Event::Delivered(offset));
        Ok(batcher.push(entry, value.len(), Instant::now()))
    }

    fn close(&self, batch: &Batch, as_of: Option<UnixMillis>) -> Closed {
        let mut counts = Counts::of(&batch.entries);
        if let Some((offset, line, reason)) = first_fault(&batch.entries) {
            let (kp, rejected) = (self.source.kp, counts.rejected);
            tracing::warn!(
                "partition {kp}: {rejected} lines rejected, first line {line} of offset {offset}: {reason}"
            );
        }
        let Cells { all: cells, folded_rows } = cells::cells(batch, &self.shared.rollups, self.source);
        counts.folded_rows = folded_rows;
        self.track.on(Event::Closed { cells: cells.len() });
        let token = Token::new(self.source, &self.shared.topic, batch.lo, batch.last);
        Closed { token, cells, counts, as_of }
    }

    /// Inserts and commits batches one after another until there are no more, or told to stop.
    async fn apply_all(self, consumer: Arc<Consumer>, mut batches: mpsc::Receiver<Closed>) {
        while let Some(closed) = batches.recv().await {
            if self.stop.is_cancelled() || self.apply(&consumer, closed).await == Err(GivenUp) {
                return;
            }
        }
    }

    async fn apply(&self, consumer: &Arc<Consumer>, closed: Closed) -> Result<(), GivenUp> {
        let Closed { token, cells, counts, as_of } = closed;
        let applied = || self.track.on(Event::CellApplied);
        self.shared.inserter.apply(cells, &token, &self.give_up, applied).await?;
        self.track.applied_until(as_of);
        self.commit(consumer).await?;
        self.shared.metrics.committed(&counts, UnixMillis::from(SystemTime::now()).0 / 1000);
        Ok(())
    }

    /// Commits what may be committed until Kafka takes it.
    async fn commit(&self, consumer: &Arc<Consumer>) -> Result<(), GivenUp> {
        let mut backoff = Backoff::new(WAITS.0, WAITS.1);
        while let Some(next) = self.track.committable() {
            let (consumer, topic, kp) = (Arc::clone(consumer), self.shared.topic.clone(), self.source.kp);
            // It may block for as long as Kafka is away.
            let call = tokio::task::spawn_blocking(move || commit(&consumer, &topic, kp.into(), next));
            match self.give_up.run_until_cancelled(call).await.ok_or(GivenUp)? {
                Ok(Ok(())) => self.track.on(Event::Committed(next)),
                Ok(Err(error)) => {
                    self.shared.metrics.commit_failed();
                    tracing::warn!("partition {kp}: commit offset {next}: {error}");
                    self.give_up.run_until_cancelled(time::sleep(backoff.wait())).await.ok_or(GivenUp)?;
                }
                // The runtime ends: no more blocking calls.
                Err(_) => return Err(GivenUp),
            }
        }
        Ok(())
    }
}

/// One partition a call: a commit of several is neither atomic nor told apart when it fails.
fn commit(consumer: &Consumer, topic: &str, kp: i32, next: NextOffset) -> KafkaResult<()> {
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(topic, kp, KafkaOffset::Offset(next.to_i64()))?;
    consumer.commit(&offsets, CommitMode::Sync)
}

fn head(message: &BorrowedMessage<'_>) -> Result<Head, HeadError> {
    let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
    Head::read(headers.map(|header| (header.key, header.value.unwrap_or_default())))
}

/// When Kafka appended the record, if it is Kafka who says so: only then do times not go backwards.
fn append_time(message: &BorrowedMessage<'_>) -> Option<UnixMillis> {
    match message.timestamp() {
        Timestamp::LogAppendTime(millis) => Some(UnixMillis(millis)),
        Timestamp::CreateTime(_) | Timestamp::NotAvailable => None,
    }
}

/// Whether the offset to read from is not in the log.
fn is_gone(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{AutoOffsetReset, OffsetOutOfRange};
    matches!(error, KafkaError::MessageConsumption(AutoOffsetReset | OffsetOutOfRange))
}

fn first_fault(entries: &[Entry]) -> Option<(Offset, u32, String)> {
    entries.iter().find_map(|entry| {
        let (line, reason) = entry.first_fault.as_ref()?;
        Some((entry.offset, *line, reason.to_string()))
    })
}

impl Counts {
    fn of(entries: &[Entry]) -> Self {
        entries.iter().fold(Self::default(), |sum, entry| Self {
            records: sum.records + 1,
            lines: sum.lines + u64::from(entry.lines),
            rows: sum.rows + u64::from(entry.stored),
            rejected: sum.rejected + u64::from(entry.rejected),
            duplicates: sum.duplicates + u64::from(entry.duplicates),
            time_replaced: sum.time_replaced + u64::from(entry.time_replaced),
            folded_rows: 0,
        })
    }
}
