//! The side of a pipeline that takes records: poll → decode → close → make cells.
//!
//! It runs ahead of the side that inserts by at most one waiting batch. Invariant: what
//! a batch holds, and the window it leaves, follow from the records, the declaration
//! and the window before it, never from a clock; a clock only says when a batch that
//! nobody declared yet closes.

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

use crate::clock;
use crate::clock::off_clock;
use crate::health::Concern;
use crate::kafka::librdkafka;
use crate::kafka::membership::Membership;
use crate::kafka::read_error::{Fault, fault};
use crate::pipeline::batcher::Batcher;
use crate::pipeline::budget;
use crate::pipeline::budget::Place;
use crate::pipeline::context::{Part, Shared};
use crate::pipeline::message::Handed;
use crate::pipeline::records::{Records, append_time, head, is_old};
use crate::pipeline::restore::{Recovered, in_ledger};
use crate::pipeline::stopped::Stuck;
use crate::protocol::declaration::Declaration;
use crate::protocol::intent::Intent;
use crate::protocol::progress::{NextOffset, Offset};
use crate::protocol::recover::Finding;
use crate::protocol::truncation::{was_truncated, was_written_later};
use crate::protocol::window::Window;
use crate::rows::batch::Batch;
use crate::rows::decode::{Record, decode};

/// A backlog is over when none came for so long: a queue may be empty until the next fetch.
const LULL: Duration = Duration::from_millis(500);
/// How often a pipeline without records looks whether it should stop.
const POLL: Duration = Duration::from_millis(50);

mod close;

/// Takes the records of one partition.
pub(crate) struct Collector<'p> {
    part: &'p Part,
    declaration: Arc<Declaration>,
    batcher: Batcher,
    window: Window,
    /// What is committed with the batch before the open one, if nothing follows it.
    before: Intent,
    ends: Vec<NextOffset>,
    /// That of the open batch, once it is large.
    place: Option<Place>,
    spooled: Spooled,
    /// Random number of what was declared, for the tokens of what is rebuilt.
    nonce: u64,
    /// Last record of what was declared, and its leader epoch.
    declared: Option<(Offset, i32)>,
    /// Every record below was taken.
    read: NextOffset,
    /// Leader epoch of the newest record that was taken.
    epoch: Option<i32>,
    /// When Kafka took the newest record, if it is Kafka that sets the time.
    as_of: Option<UnixMillis>,
    /// When Kafka was last asked where the log ends.
    asked_end: Option<Instant>,
    /// Of times that Kafka gave records.
    clock_warnings: clock::Warnings,
    /// Whether the client had an error instead of the last record.
    in_trouble: bool,
}

/// Why no more records are taken.
enum Stop {
    /// The pipeline was told to.
    Told,
    /// Somebody must help.
    Stuck(Stuck),
}

impl<E: Into<Stuck>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Stuck(error.into())
    }
}

/// Records that came through a spool: which of them the ledger had below `lo`.
#[derive(Default)]
struct Spooled {
    lo: Option<NextOffset>,
    asked: HashSet<Uuid>,
    known: HashSet<Uuid>,
}

impl<'p> Collector<'p> {
    /// Goes on where `recovered` says; what is declared comes first.
    pub(crate) fn new(part: &'p Part, recovered: Recovered) -> Self {
        let Recovered { resume, declared, window, ends } = recovered;
        let from = resume.from;
        let batcher = match resume.rebuild {
            Some(_) => Batcher::rebuild(from, resume.intent.ends()),
            None => Batcher::new(part.shared.batch.clone(), &declared.rollups, from, ends.iter().copied()),
        };
        Self {
            part,
            declaration: declared,
            batcher,
            window,
            declared: resume.intent.last.zip(resume.intent.last_epoch),
            nonce: resume.intent.nonce,
            before: Intent { last: None, last_epoch: None, nonce: 0, ..resume.intent },
            ends,
            place: None,
            spooled: Spooled::default(),
            read: from,
            epoch: None,
            as_of: None,
            asked_end: None,
            clock_warnings: clock::Warnings::default(),
            in_trouble: false,
        }
    }

    /// Whether what an earlier owner declared, or `stream-agg adopt` found in tables under another
    /// declaration, ends with the batch that ends at `hwm`.
    fn is_behind_what_was_declared(&self, hwm: NextOffset) -> bool {
        if self.batcher.rebuilds() {
            return self.batcher.has_rebuilt();
        }
        let ours = Arc::ptr_eq(&self.part.shared.declaration, &self.declaration);
        !ours && self.before.adopted.is_none_or(|adopted| adopted <= hwm)
    }

    /// Collects new batches from `lo` on, under the declaration of this process, or under that of
    /// adopted markers while they reach beyond `lo`.
    fn collect_anew(&mut self, lo: NextOffset) {
        let Shared { batch, declaration, .. } = &*self.part.shared;
        if self.before.adopted.is_none_or(|adopted| adopted <= lo) {
            self.declaration = Arc::clone(declaration);
        }
        let ends = std::mem::take(&mut self.ends).into_iter().filter(|end| *end > lo);
        self.batcher = Batcher::new(batch.clone(), &self.declaration.rollups, lo, ends);
    }

    /// Takes records until told to stop.
    pub(crate) fn collect(
        mut self,
        queue: &PartitionQueue<Membership>,
        hand_over: &mpsc::Sender<Handed>,
    ) -> Result<(), Stuck> {
        let mut records = Records { queue, ahead: VecDeque::new() };
        let mut backlog_until = None;
        while !self.part.stop.is_cancelled() {
            match self.step(&mut records, &mut backlog_until, hand_over) {
                Ok(()) => {}
                Err(Stop::Told) => break,
                Err(Stop::Stuck(stuck)) => return Err(stuck),
            }
        }
        Ok(())
    }

    /// Takes the next record, if one comes, and closes the open batch if it is due.
    fn step(
        &mut self,
        records: &mut Records<'_>,
        backlog_until: &mut Option<Instant>,
        hand_over: &mpsc::Sender<Handed>,
    ) -> Result<(), Stop> {
        self.check_topic()?;
        let wait = self.batcher.due_in(Instant::now(), *backlog_until).map_or(POLL, |due| due.min(POLL));
        let taken = match records.next(wait) {
            Some(Ok(message)) => {
                let now = UnixMillis::from(SystemTime::now());
                *backlog_until = is_old(&message, now).then(|| Instant::now() + LULL);
                self.take(&message, now, records, hand_over)
            }
            Some(Err(error)) => self.failed(error),
            None => self.idle().map_or(Ok(()), |quiet| self.hand_over(quiet, hand_over)),
        };
        if matches!(taken, Err(Stop::Told)) {
            return taken;
        }
        let due = self.batcher.due_in(Instant::now(), *backlog_until);
        if (taken.is_err() || due.is_some_and(|due| due.is_zero()) || !self.has_room())
            && let Some(open) = self.batcher.close()
        {
            self.close_and_hand_over(open, hand_over)?;
        }
        taken
    }

    /// Gives the other side a batch.
    fn close_and_hand_over(&mut self, batch: Batch, hand_over: &mpsc::Sender<Handed>) -> Result<(), Stop> {
        let handed = self.close(batch);
        self.hand_over(handed, hand_over)
    }

    fn hand_over(&self, handed: Handed, hand_over: &mpsc::Sender<Handed>) -> Result<(), Stop> {
        if hand_over.blocking_send(handed).is_err() {
            // The other side ends by itself if the topic is another one.
            self.check_topic()?;
            return Err(Stop::Told);
        }
        Ok(())
    }

    fn check_topic(&self) -> Result<(), Stuck> {
        let recreated = self.part.shared.topic_watch.was_recreated();
        if recreated { Err(Finding::TopicReplaced.into()) } else { Ok(()) }
    }

    /// Takes a record that was read `now` into the open batch, and hands over the batches that it completes.
    fn take(
        &mut self,
        message: &BorrowedMessage<'_>,
        now: UnixMillis,
        records: &mut Records<'_>,
        hand_over: &mpsc::Sender<Handed>,
    ) -> Result<(), Stop> {
        if std::mem::take(&mut self.in_trouble) {
            self.part.shared.health.well(Concern::Partition(self.part.kp.into()));
        }
        let (offset, epoch) = (Offset::new(message.offset()), librdkafka::leader_epoch(message));
        if let Some((last, _)) = self.declared.filter(|declared| was_written_later(*declared, offset, epoch))
        {
            return Err(Finding::LogTruncated { from: last.next() }.into());
        }
        // Before the record is decoded: it may have to wait until what is below it is applied.
        if let Some(before) = self.batcher.close_before(offset) {
            self.close_and_hand_over(before, hand_over)?;
        }
        let closed = self.decode(message, records)?;
        (self.read, self.epoch) = (offset.next(), epoch);
        let taken = append_time(message);
        if let Some(time) = taken {
            self.check_time(offset, time, now);
        }
        self.as_of = taken;
        match closed {
            Some(batch) => self.close_and_hand_over(batch, hand_over),
            None => Ok(()),
        }
    }

    /// Warns of the time that Kafka gave a record, if it cannot be true as our clock shows `now`.
    fn check_time(&mut self, offset: Offset, time: UnixMillis, now: UnixMillis) {
        let Some(off) = off_clock(time, self.as_of, now) else { return };
        let Part { shared, kp, .. } = self.part;
        shared.metrics.records_off_clock.inc();
        if self.clock_warnings.is_due(Instant::now()) {
            tracing::warn!(
                "partition {kp}: kafka took offset {offset} at {time}, which is {off}; compare the clocks of the \
                 brokers and of this machine: until they agree, repeats may count twice"
            );
        }
    }

    /// Kafka's client has no record to give but an error.
    fn failed(&mut self, error: KafkaError) -> Result<(), Stop> {
        let Part { shared, kp, .. } = self.part;
        let next = self.read.max(self.batcher.lo());
        match fault(&error) {
            Fault::Gone => Err(self.gone(next, error).into()),
            Fault::Unreadable => Err(Stuck::Unreadable(next, error).into()),
            Fault::Passing => {
                self.in_trouble = true;
                shared
                    .health
                    .trouble(Concern::Partition((*kp).into()), format!("read offset {next}: {error}"));
                Ok(())
            }
        }
    }

    /// Why the record at `next` is not in the log. Kafka is asked once more, for a topic that was deleted and
    /// created again looks as a truncated one.
    fn gone(&self, next: NextOffset, error: KafkaError) -> Stuck {
        let _noted = self.part.shared.topic_watch.id();
        match (self.check_topic(), self.part.watermarks()) {
            (Err(recreated), _) => recreated,
            (Ok(()), Ok((low, _))) if was_truncated(next, low) => Finding::LogTruncated { from: next }.into(),
            (Ok(()), _) => Stuck::Gone(next, error),
        }
    }

    /// Waits for a place if the open batch needs one. Whether it may grow.
    fn has_room(&mut self) -> bool {
        let Part { shared, stop, .. } = self.part;
        if self.place.is_some() || self.batcher.bytes() < budget::LARGE_BYTES {
            return true;
        }
        let asked = Instant::now();
        let placed = stop.run_until_cancelled(shared.room.place());
        let place = shared.runtime.block_on(placed).flatten();
        self.place = place.or_else(|| self.batcher.rebuilds().then(Place::beyond));
        self.batcher.waited(asked.elapsed());
        self.place.is_some()
    }

    /// Decodes a record into the open batch; hands back the batch that it completes, if any.
    fn decode(
        &mut self,
        message: &BorrowedMessage<'_>,
        records: &mut Records<'_>,
    ) -> Result<Option<Batch>, Stop> {
        let offset = Offset::new(message.offset());
        let value = message.payload().unwrap_or_default();
        let head = head(message);
        let record = Record {
            offset,
            kafka_time: UnixMillis(message.timestamp().to_millis().unwrap_or(0)),
            known: self.is_known(&head, records).ok_or(Stop::Told)?,
            skipped: self.before.skipped.contains(&offset),
            head: &head,
            value,
        };
        let limits = &self.declaration.limits;
        let entry = decode(&record, limits, &mut self.window, self.batcher.decoded())
            .map_err(|error| Stuck::Format(offset, error))?;
        Ok(self.batcher.push(entry, value.len(), Instant::now()))
    }

    /// Whether a record that came through a spool is in the open batch, or in the ledger below it.
    /// `None` if told to stop before ClickHouse answered: then nobody may judge the record.
    fn is_known(&mut self, head: &Result<Head, HeadError>, records: &mut Records<'_>) -> Option<bool> {
        let Ok(Head { id, spooled: true, .. }) = head else { return Some(false) };
        if self.batcher.holds(*id) {
            return Some(true);
        }
        let Part { shared, track, stop, kp, .. } = self.part;
        let (lo, g) = (self.batcher.lo(), self.before.g);
        if self.spooled.lo != Some(lo) || !self.spooled.asked.contains(id) {
            let mut asked = records.spooled_ahead();
            asked.insert(*id);
            let asking = async {
                track.reaches(lo).await;
                in_ledger(shared, g, *kp, &asked, lo).await
            };
            let known = shared.runtime.block_on(stop.run_until_cancelled(asking))?;
            self.spooled = Spooled { lo: Some(lo), asked, known };
        }
        Some(self.spooled.known.contains(id))
    }
}

#[cfg(test)]
mod tests;
