//! Collects the records of a partition into batches: poll → decode → close → build cells.
//!
//! The channel to the applier holds one batch, so the collector runs ahead of the applier by at most two batches: the
//! batch in the channel and the open batch.
//!
//! Invariant: the rows of a batch, and the deduplication window after the batch, depend only on the records, the
//! declaration, the window before the batch, the earlier rows of the ledger (for records that came through a spool) and
//! the skipped offsets, never on a clock. Only the end of a batch that is not declared yet may depend on a clock.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message as _};
use schemas::record::{Head, HeadError};
use schemas::time::UnixMillis;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::clock::{self, implausible_time};
use crate::health::Component;
use crate::kafka::group_context::GroupContext;
use crate::kafka::librdkafka;
use crate::kafka::read_error::{ReadError, classify};
use crate::pipeline::batcher::Batcher;
use crate::pipeline::budget::{self, Permit};
use crate::pipeline::context::{PartitionContext, Services};
use crate::pipeline::message::PipelineMessage;
use crate::pipeline::records::{Records, append_time, head, is_backlog};
use crate::pipeline::restore::{RestoredPartition, known_in_ledger};
use crate::pipeline::stopped::StoppedPartition;
use crate::protocol::declaration::Declaration;
use crate::protocol::intent::Intent;
use crate::protocol::progress::{NextOffset, Offset};
use crate::protocol::recover::RecoverError;
use crate::protocol::truncation::{was_truncated, was_written_after_truncation};
use crate::protocol::window::Window;
use crate::rows::batch::Batch;
use crate::rows::decode::{Record, decode};

/// The collector treats a backlog as ended if no record of the backlog arrives for this long. A shorter pause proves
/// nothing: Kafka's client may just be waiting for its next fetch.
const BACKLOG_PAUSE: Duration = Duration::from_millis(500);
/// Interval at which a pipeline that gets no records checks whether it should stop.
const POLL_TIMEOUT: Duration = Duration::from_millis(50);

mod close;

/// Collects the records of one partition into batches.
pub(crate) struct Collector<'p> {
    context: &'p PartitionContext,
    declaration: Arc<Declaration>,
    batcher: Batcher,
    window: Window,
    /// The intent to commit after the previous batch if no other batch follows. The intent of the next batch is derived
    /// from it.
    intent_before: Intent,
    /// Offsets at which later batches must end, ascending: the offsets of the markers (progress rows in ClickHouse)
    /// that `stream-agg adopt` found.
    fixed_ends: Vec<NextOffset>,
    /// The permit of the open batch to use the memory of a large batch; `None` until the batch is large.
    permit: Option<Permit>,
    spooled: Spooled,
    /// The nonce with which an earlier owner declared the batch that is rebuilt. It is part of the deduplication tokens
    /// of the batch.
    declared_nonce: u64,
    /// Offset and leader epoch of the last record of the declared batch; `None` if no batch is declared or the epoch is
    /// not known.
    last_declared: Option<(Offset, i32)>,
    /// Every record below this offset was read.
    read_end: NextOffset,
    /// Leader epoch of the newest record that was read.
    newest_epoch: Option<i32>,
    /// When Kafka appended the newest record that was read; `None` before the first record, or if producers set the
    /// times.
    newest_time: Option<UnixMillis>,
    /// When this process last asked Kafka where the log ends.
    end_asked_at: Option<Instant>,
    /// Limits the warnings about records whose time is not plausible.
    clock_warnings: clock::Warnings,
    /// Whether Kafka's client last returned an error instead of a record.
    read_failed: bool,
}

/// Why the collector stops reading records.
enum CollectorEnd {
    /// The pipeline was stopped, or the applier has ended.
    Stopped,
    /// The partition is stopped until an operator acts.
    Blocked(StoppedPartition),
}

impl<E: Into<StoppedPartition>> From<E> for CollectorEnd {
    fn from(error: E) -> Self {
        Self::Blocked(error.into())
    }
}

/// The result of the latest query for records that came through a spool: which of them are in the ledger.
#[derive(Default)]
struct Spooled {
    /// The start of the batch that was open when the query was sent.
    start: Option<NextOffset>,
    /// The ids of the records that the query looked for.
    asked: HashSet<Uuid>,
    /// The ids among `asked` that the ledger contains below `start`.
    known: HashSet<Uuid>,
}

impl<'p> Collector<'p> {
    /// A collector that continues at the offset `resume.from` of `restored`. If a batch is declared, the collector
    /// begins by rebuilding that batch.
    pub(crate) fn new(context: &'p PartitionContext, restored: RestoredPartition) -> Self {
        let RestoredPartition { resume, declaration, window, fixed_ends } = restored;
        let from = resume.from;
        let batcher = match resume.rebuild {
            Some(_) => Batcher::rebuild(from, resume.intent.ends()),
            None => {
                let ends = fixed_ends.iter().copied();
                Batcher::new(context.services.batch.clone(), &declaration.rollups, from, ends)
            }
        };
        Self {
            context,
            declaration,
            batcher,
            window,
            last_declared: resume.intent.last.zip(resume.intent.last_epoch),
            declared_nonce: resume.intent.nonce,
            intent_before: Intent { last: None, last_epoch: None, nonce: 0, ..resume.intent },
            fixed_ends,
            permit: None,
            spooled: Spooled::default(),
            read_end: from,
            newest_epoch: None,
            newest_time: None,
            end_asked_at: None,
            clock_warnings: clock::Warnings::default(),
            read_failed: false,
        }
    }

    /// Whether [`Self::begin_new_batches`] must be called after the batch that ends at `end`: the batch is the last
    /// part of a declared batch, or the last batch under the declaration of an earlier owner. That declaration applies
    /// until every record that `stream-agg adopt` found in the tables is in a closed batch.
    fn must_begin_new_batches(&self, end: NextOffset) -> bool {
        if self.batcher.is_rebuilding() {
            return self.batcher.is_rebuilt();
        }
        let ours = Arc::ptr_eq(&self.context.services.declaration, &self.declaration);
        !ours && self.intent_before.adopted.is_none_or(|adopted| adopted <= end)
    }

    /// Begins to collect new batches from `start` on. They use the declaration of this process, unless
    /// `stream-agg adopt` found a marker above `start`: up to the highest such marker, batches keep the declaration
    /// that the collector has used so far.
    fn begin_new_batches(&mut self, start: NextOffset) {
        let Services { batch, declaration, .. } = &*self.context.services;
        if self.intent_before.adopted.is_none_or(|adopted| adopted <= start) {
            self.declaration = Arc::clone(declaration);
        }
        let ends = std::mem::take(&mut self.fixed_ends).into_iter().filter(|end| *end > start);
        self.batcher = Batcher::new(batch.clone(), &self.declaration.rollups, start, ends);
    }

    /// Reads records until the pipeline is stopped.
    ///
    /// # Errors
    /// The partition cannot continue until an operator acts.
    pub(crate) fn collect(
        mut self,
        queue: &PartitionQueue<GroupContext>,
        sender: &mpsc::Sender<PipelineMessage>,
    ) -> Result<(), StoppedPartition> {
        let mut records = Records { queue, ahead: VecDeque::new() };
        let mut backlog_until = None;
        while !self.context.stop.is_cancelled() {
            match self.step(&mut records, &mut backlog_until, sender) {
                Ok(()) => {}
                Err(CollectorEnd::Stopped) => break,
                Err(CollectorEnd::Blocked(stopped)) => return Err(stopped),
            }
        }
        Ok(())
    }

    /// Reads the next record, if there is one. Then closes the open batch if it is due, if it may not grow further, or
    /// if the partition cannot continue.
    fn step(
        &mut self,
        records: &mut Records<'_>,
        backlog_until: &mut Option<Instant>,
        sender: &mpsc::Sender<PipelineMessage>,
    ) -> Result<(), CollectorEnd> {
        self.check_topic()?;
        let wait = self
            .batcher
            .due_in(Instant::now(), *backlog_until)
            .map_or(POLL_TIMEOUT, |due| due.min(POLL_TIMEOUT));
        let outcome = match records.next(wait) {
            Some(Ok(message)) => {
                let now = UnixMillis::from(SystemTime::now());
                *backlog_until = is_backlog(&message, now).then(|| Instant::now() + BACKLOG_PAUSE);
                self.add_record(&message, now, records, sender)
            }
            Some(Err(error)) => self.handle_read_error(error),
            None => self.idle().map_or(Ok(()), |idle| self.send(idle, sender)),
        };
        if matches!(outcome, Err(CollectorEnd::Stopped)) {
            return outcome;
        }
        let due = self.batcher.due_in(Instant::now(), *backlog_until);
        let is_due = due.is_some_and(|due| due.is_zero());
        let must_close = outcome.is_err() || is_due || !self.acquire_room_to_grow();
        if must_close && let Some(open) = self.batcher.close() {
            self.close_and_send(open, sender)?;
        }
        outcome
    }

    /// Turns a closed batch into cells, and sends the batch with its cells to the applier.
    fn close_and_send(
        &mut self,
        batch: Batch,
        sender: &mpsc::Sender<PipelineMessage>,
    ) -> Result<(), CollectorEnd> {
        let ready = self.close(batch);
        self.send(ready, sender)
    }

    fn send(
        &self,
        message: PipelineMessage,
        sender: &mpsc::Sender<PipelineMessage>,
    ) -> Result<(), CollectorEnd> {
        if sender.blocking_send(message).is_err() {
            // The applier has ended. One possible reason is that the topic was deleted and created again.
            self.check_topic()?;
            return Err(CollectorEnd::Stopped);
        }
        Ok(())
    }

    fn check_topic(&self) -> Result<(), StoppedPartition> {
        let recreated = self.context.services.topic_watch.was_recreated();
        if recreated { Err(RecoverError::TopicReplaced.into()) } else { Ok(()) }
    }

    /// Adds a record to the open batch, and sends the batches that close before or after the record. `now` is the time
    /// at which the record was read.
    fn add_record(
        &mut self,
        message: &BorrowedMessage<'_>,
        now: UnixMillis,
        records: &mut Records<'_>,
        sender: &mpsc::Sender<PipelineMessage>,
    ) -> Result<(), CollectorEnd> {
        if std::mem::take(&mut self.read_failed) {
            self.context.services.health.recovered(Component::Partition(self.context.partition.into()));
        }
        let (offset, epoch) = (Offset::new(message.offset()), librdkafka::leader_epoch(message));
        if let Some((last, _)) =
            self.last_declared.filter(|declared| was_written_after_truncation(*declared, offset, epoch))
        {
            return Err(RecoverError::LogTruncated { from: last.next() }.into());
        }
        // If the open batch must end before this record, send that batch before decoding the record. Decoding may wait
        // until all earlier batches are applied, and would wait forever for a batch that was not sent.
        if let Some(before) = self.batcher.close_before(offset) {
            self.close_and_send(before, sender)?;
        }
        let closed = self.decode(message, records)?;
        (self.read_end, self.newest_epoch) = (offset.next(), epoch);
        let appended = append_time(message);
        if let Some(time) = appended {
            self.check_time(offset, time, now);
        }
        self.newest_time = appended;
        match closed {
            Some(batch) => self.close_and_send(batch, sender),
            None => Ok(()),
        }
    }

    /// If the `time` that Kafka gave the record at `offset` is not plausible while this machine's clock shows `now`,
    /// counts the record in a metric and logs a warning. The number of warnings is limited.
    fn check_time(&mut self, offset: Offset, time: UnixMillis, now: UnixMillis) {
        let Some(implausible) = implausible_time(time, self.newest_time, now) else { return };
        let PartitionContext { services, partition, .. } = self.context;
        services.metrics.records_off_clock.inc();
        if self.clock_warnings.is_due(Instant::now()) {
            tracing::warn!(
                "partition {partition}: kafka appended the record at offset {offset} at {time}, which is \
                 {implausible}; compare the clocks of the brokers and of this machine: until they agree, repeated \
                 events may count twice"
            );
        }
    }

    /// Handles an error that Kafka's client returned instead of a record.
    fn handle_read_error(&mut self, error: KafkaError) -> Result<(), CollectorEnd> {
        let PartitionContext { services, partition, .. } = self.context;
        let next = self.read_end.max(self.batcher.start());
        match classify(&error) {
            ReadError::OffsetGone => Err(self.why_gone(next, error).into()),
            ReadError::Unreadable => Err(StoppedPartition::Unreadable(next, error).into()),
            ReadError::Transient => {
                self.read_failed = true;
                services.health.degraded(
                    Component::Partition((*partition).into()),
                    format!("read offset {next}: {error}"),
                );
                Ok(())
            }
        }
    }

    /// Finds out why the record at `next` is not in the log. Kafka's client reports the same error for a truncated log
    /// and for a topic that was deleted and created again, so this function asks Kafka for the topic id again.
    fn why_gone(&self, next: NextOffset, error: KafkaError) -> StoppedPartition {
        let _noted = self.context.services.topic_watch.id();
        match (self.check_topic(), self.context.watermarks()) {
            (Err(recreated), _) => recreated,
            (Ok(()), Ok((low, _))) if was_truncated(next, low) => {
                RecoverError::LogTruncated { from: next }.into()
            }
            (Ok(()), _) => StoppedPartition::RecordsGone(next, error),
        }
    }

    /// If the open batch is large and has no permit, waits for a permit. Returns whether the batch may grow. A small
    /// batch and a rebuilt batch may always grow. Another batch may not grow if no permit became free in time or if the
    /// pipeline was stopped.
    fn acquire_room_to_grow(&mut self) -> bool {
        let PartitionContext { services, stop, .. } = self.context;
        if self.permit.is_some() || self.batcher.bytes() < budget::LARGE_BYTES {
            return true;
        }
        let asked = Instant::now();
        let acquiring = stop.run_until_cancelled(services.large_batches.acquire());
        let permit = services.runtime.block_on(acquiring).flatten();
        self.permit = permit.or_else(|| self.batcher.is_rebuilding().then(Permit::over_budget));
        self.batcher.exclude_from_age(asked.elapsed());
        self.permit.is_some()
    }

    /// Decodes a record into the open batch. Returns the batch that the record completes, if any.
    fn decode(
        &mut self,
        message: &BorrowedMessage<'_>,
        records: &mut Records<'_>,
    ) -> Result<Option<Batch>, CollectorEnd> {
        let offset = Offset::new(message.offset());
        let value = message.payload().unwrap_or_default();
        let head = head(message);
        let record = Record {
            offset,
            kafka_time: UnixMillis(message.timestamp().to_millis().unwrap_or(0)),
            known: self.is_known(&head, records)?,
            skipped: self.intent_before.skipped.contains(&offset),
            head: &head,
            value,
        };
        let limits = &self.declaration.limits;
        let entry = decode(&record, limits, &mut self.window, self.batcher.decoded_mut())
            .map_err(|error| StoppedPartition::Format(offset, error))?;
        Ok(self.batcher.push(entry, value.len(), Instant::now()))
    }

    /// For a record that came through a spool: whether a record with the same id is already in the open batch, or in
    /// the ledger below the start of the open batch. False for every other record.
    ///
    /// # Errors
    /// The pipeline was stopped before ClickHouse answered, so it is not known whether the record is a repeat.
    fn is_known(
        &mut self,
        head: &Result<Head, HeadError>,
        records: &mut Records<'_>,
    ) -> Result<bool, CollectorEnd> {
        let Ok(Head { id, spooled: true, .. }) = head else { return Ok(false) };
        if self.batcher.holds(*id) {
            return Ok(true);
        }
        let PartitionContext { services, applied_watch, stop, partition, .. } = self.context;
        let (start, log_generation) = (self.batcher.start(), self.intent_before.log_generation);
        if self.spooled.start != Some(start) || !self.spooled.asked.contains(id) {
            let mut asked = records.spooled_ahead();
            asked.insert(*id);
            let asking = async {
                applied_watch.wait_until_applied(start).await;
                known_in_ledger(services, log_generation, *partition, &asked, start).await
            };
            let answer = services.runtime.block_on(stop.run_until_cancelled(asking));
            let known = answer.ok_or(CollectorEnd::Stopped)?;
            self.spooled = Spooled { start: Some(start), asked, known };
        }
        Ok(self.spooled.known.contains(id))
    }
}

#[cfg(test)]
mod tests;
