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
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _, Timestamp};
use schemas::record::{Head, HeadError};
use schemas::time::{SECOND, UnixMillis};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::batch::{Batch, Batcher};
use crate::cells::{self, Cells, Source};
use crate::clock::{self, off_clock};
use crate::consume::Membership;
use crate::declaration::Declaration;
use crate::decode::{Entry, Miscounted, Record, decode};
use crate::health::Concern;
use crate::idle::{At, Standstill};
use crate::insert::{Token, Work};
use crate::intent::{Intent, LogMark};
use crate::librdkafka;
use crate::partition::{Closed, Counts, Part, Shared, Stuck};
use crate::progress::{NextOffset, Offset};
use crate::recover::Finding;
use crate::restore::{Recovered, in_ledger};
use crate::room::{self, Place};
use crate::window::Window;

/// How often a pipeline without records looks whether it should stop.
const POLL: Duration = Duration::from_millis(50);
/// Between two questions to Kafka where the log ends, while a partition looks idle.
const ASK_PAUSE: Duration = Duration::from_secs(5);

/// Records that are looked at before their turn, at most, and their bytes.
const AHEAD_RECORDS: usize = 1000;
const AHEAD_BYTES: usize = 8 << 20;

/// A record that Kafka took so long ago, in milliseconds, is one of a backlog.
const OLD: i64 = 15 * SECOND;
/// A backlog is over when none came for so long: a queue may be empty until the next fetch.
const LULL: Duration = Duration::from_millis(500);

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

/// The records of the partition in their order; some were looked at before their turn.
struct Records<'q> {
    queue: &'q PartitionQueue<Membership>,
    ahead: VecDeque<KafkaResult<BorrowedMessage<'q>>>,
}

impl<'q> Records<'q> {
    fn next(&mut self, wait: Duration) -> Option<KafkaResult<BorrowedMessage<'q>>> {
        self.ahead.pop_front().or_else(|| self.queue.poll(wait))
    }

    /// Ids of the next records that came through a spool, as far as they are here: after an outage
    /// there are many, and a question for each would take hours.
    fn spooled_ahead(&mut self) -> HashSet<Uuid> {
        let bytes = |ahead: &VecDeque<KafkaResult<BorrowedMessage<'_>>>| -> usize {
            ahead.iter().flatten().map(BorrowedMessage::payload_len).sum()
        };
        let mut left = AHEAD_BYTES.saturating_sub(bytes(&self.ahead));
        while self.ahead.len() < AHEAD_RECORDS
            && left > 0
            && let Some(next) = self.queue.poll(Duration::ZERO)
        {
            left = left.saturating_sub(next.as_ref().map_or(0, BorrowedMessage::payload_len));
            self.ahead.push_back(next);
        }
        let heads = self.ahead.iter().flatten().map(|message| head(message));
        heads.flatten().filter(|head| head.spooled).map(|head| head.id).collect()
    }
}

/// What the other side is handed.
pub(crate) enum Handed {
    /// A batch to declare and insert.
    Batch(Box<Closed>),
    /// Nothing came for long: to commit once all before is applied.
    Quiet(Box<Intent>),
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
        if self.place.is_some() || self.batcher.bytes() < room::LARGE_BYTES {
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

    /// Makes of a closed batch what is committed and inserted.
    fn close(&mut self, batch: Batch) -> Handed {
        let Part { shared, kp, .. } = self.part;
        let mut counts = Counts::of(&batch.entries);
        if let Some((offset, line, reason)) = first_fault(&batch.entries) {
            let rejected = counts.rejected;
            tracing::warn!(
                "partition {kp}: {rejected} lines rejected, first line {line} of offset {offset}: {reason}"
            );
        }
        let Miscounted { records, first } = batch.decoded.miscounted;
        if let Some(first) = first {
            tracing::error!(
                "partition {kp}: {first}; {records} such records in its batch. The lines that are there are \
                 stored; look at the program that wrote the record, for others may be missing"
            );
            shared.metrics.miscounted(records);
        }
        let (lo, hwm, rebuilt) = (batch.lo, batch.hwm, self.batcher.rebuilds());
        let cfg = self.declaration.cfg();
        let last = Offset::new(hwm.to_i64() - 1);
        // The token of what is rebuilt is that of its first owner.
        let nonce = if rebuilt { self.nonce } else { fastrand::u64(1..) };
        let intent =
            Intent { last: Some(last), last_epoch: self.epoch, nonce, cfg, ..above(&self.before, lo) };
        let after = Intent {
            cfg,
            window: self.window.mark(hwm),
            newest: batch.entries.last().map(|entry| entry.kafka_time),
            log: LogMark { epoch: self.epoch, ..self.before.log },
            ..above(&self.before, hwm)
        };
        let source = Source { g: intent.g, kp: *kp, cfg };
        let Cells { all: cells, folded_rows, mistyped } = cells::cells(&batch, &self.declaration, source);
        (counts.folded_rows, counts.mistyped) = (folded_rows, mistyped);
        let skipped = self.before.skipped.iter().any(|offset| lo.is_at_or_below(*offset) && *offset <= last);
        let token = Token::new(source, &shared.topic, lo, last, nonce);
        let token = if skipped { token.skipping() } else { token };
        self.before = after.clone();
        // Of what was declared and split, only the end is the end of what was declared.
        let after = (!rebuilt || self.batcher.has_rebuilt()).then_some(after);
        if self.is_behind_what_was_declared(hwm) {
            self.collect_anew(hwm);
        }
        let work = Work { token, source, lo, hwm, cells, rebuilt };
        let (place, as_of) = (self.place.take(), self.as_of);
        Handed::Batch(Box::new(Closed { work, intent, after, counts, as_of, place }))
    }

    /// Forgets a window that no later record can meet, so that it need not be restored.
    fn idle(&mut self) -> Option<Handed> {
        let standstill = Standstill {
            at: match (self.batcher.rebuilds(), self.batcher.is_empty()) {
                (true, _) => At::Rebuild,
                (false, false) => At::OpenBatch,
                (false, true) => At::Nothing,
            },
            read: self.batcher.lo(),
            applied: self.part.track.applied().next?,
            newest: self.window.newest()?,
            window_age_ms: self.declaration.limits.window.age_ms,
        };
        let now = || UnixMillis::from(SystemTime::now());
        let asked_lately = self.asked_end.is_some_and(|at| at.elapsed() < ASK_PAUSE);
        if !standstill.may_be_idle(now()) || asked_lately {
            return None;
        }
        self.asked_end = Some(Instant::now());
        // Kafka is away: asked again later.
        let (_, end) = self.part.watermarks().ok()?;
        if !standstill.is_idle(now(), end) {
            return None;
        }
        self.window.clear();
        let window = self.window.mark(self.batcher.lo());
        self.before = Intent { window, ..self.before.clone() };
        Some(Handed::Quiet(Box::new(self.before.clone())))
    }
}

/// `intent` without what concerns only offsets below `lo`, and without a declared batch.
fn above(intent: &Intent, lo: NextOffset) -> Intent {
    Intent {
        last: None,
        last_epoch: None,
        nonce: 0,
        adopted: intent.adopted.filter(|adopted| *adopted > lo),
        split: Vec::new(),
        skipped: intent.skipped.iter().copied().filter(|offset| lo.is_at_or_below(*offset)).collect(),
        ..intent.clone()
    }
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

/// Whether more haste would make nothing fresh: then batches grow to their full size.
fn is_old(message: &BorrowedMessage<'_>, now: UnixMillis) -> bool {
    message.timestamp().to_millis().is_some_and(|millis| now.0 - millis > OLD)
}

/// What an error of Kafka's client means for the records that follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The next offset is not in the log, or the log was truncated below it.
    Gone,
    /// Records are there that the client cannot read; it goes on behind them, or fetches them for ever.
    Unreadable,
    /// The client fetches again from the same offset, and succeeds once the cause is gone.
    Passing,
}

/// As librdkafka 2.12 has it (`rdkafka_msgset_reader.c`, `rdkafka_fetcher.c`): a record set with a bad
/// checksum or an unknown format is passed over, one that cannot be decompressed is fetched again.
pub(crate) fn fault(error: &KafkaError) -> Fault {
    use RDKafkaErrorCode as C;
    match error {
        KafkaError::MessageConsumption(C::AutoOffsetReset | C::OffsetOutOfRange | C::LogTruncation) => {
            Fault::Gone
        }
        KafkaError::MessageConsumption(
            C::TopicAuthorizationFailed
            | C::UnknownTopic
            | C::UnknownPartition
            | C::UnknownTopicOrPartition
            | C::BrokerTransportFailure
            | C::OperationTimedOut
            | C::RequestTimedOut,
        ) => Fault::Passing,
        // Also what nobody knows today: passing over records must not be the default.
        _ => Fault::Unreadable,
    }
}

/// Whether the log was truncated below `next`, which Kafka's client cannot read, where the log begins at
/// `low`. Only a log that begins later lost the record to retention: no log ends before what was read of it,
/// wherever a truncated log ends now.
fn was_truncated(next: NextOffset, low: NextOffset) -> bool {
    low <= next
}

/// Whether the record at `offset`, of this leader `epoch`, was written after the log had been truncated inside
/// what was declared: that is known by its last record and the leader epoch of that. Epochs never descend in a
/// log, and whoever writes after a truncation has a later one.
fn was_written_later(declared: (Offset, i32), offset: Offset, epoch: Option<i32>) -> bool {
    let (last, of_last) = declared;
    offset <= last && epoch.is_some_and(|epoch| epoch > of_last)
}

fn first_fault(entries: &[Entry]) -> Option<(Offset, u32, String)> {
    entries.iter().find_map(|entry| {
        let (line, reason) = entry.first_fault.as_ref()?;
        Some((entry.offset, *line, reason.to_string()))
    })
}

#[cfg(test)]
mod tests {
    use std::thread;

    use schemas::record::Kind;
    use schemas::time::DAY;

    use super::*;
    use crate::recover::Resume;

    #[test]
    fn what_kafkas_client_cannot_read_is_never_passed_over() {
        use RDKafkaErrorCode as C;
        let of = |code| fault(&KafkaError::MessageConsumption(code));
        for code in [C::AutoOffsetReset, C::OffsetOutOfRange, C::LogTruncation] {
            assert_eq!(of(code), Fault::Gone, "{code:?}");
        }
        // A bad checksum, a record set that cannot be decompressed, a format of a later Kafka, and what
        // a broker cannot read itself.
        for code in [C::BadMessage, C::BadCompression, C::NotImplemented, C::InvalidMessage, C::Unknown] {
            assert_eq!(of(code), Fault::Unreadable, "{code:?}");
        }
        for code in [C::TopicAuthorizationFailed, C::UnknownTopicOrPartition, C::BrokerTransportFailure] {
            assert_eq!(of(code), Fault::Passing, "{code:?}");
        }
    }

    #[test]
    fn a_log_that_begins_before_what_is_gone_was_truncated_wherever_it_ends() {
        let (low, next) = (NextOffset::new(5), NextOffset::new);
        assert!(was_truncated(next(100), low) && was_truncated(next(5), low));
        assert!(!was_truncated(next(4), low), "retention took it");
    }

    #[test]
    fn a_record_of_what_was_declared_has_no_later_leader_epoch_than_its_last_record_had() {
        let declared = (Offset::new(14), 3);
        let check = |offset, epoch, expected| {
            assert_eq!(
                was_written_later(declared, Offset::new(offset), epoch),
                expected,
                "{offset} {epoch:?}"
            );
        };
        for epoch in [None, Some(2), Some(3)] {
            check(14, epoch, false);
        }
        check(12, Some(4), true);
        check(14, Some(4), true);
        check(15, Some(4), false);
    }

    #[test]
    fn what_is_declared_names_the_leader_epoch_of_its_last_record() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let part = Part::unanswered(runtime.handle().clone());
        let declared = Declaration::clone(&part.shared.declaration);
        let log = LogMark { topic: None, epoch: Some(3) };
        let intent = Intent::fresh(NextOffset::ZERO, declared.cfg(), 0, log);
        let mut collector = resumed(&part, intent, declared, &[5]);
        collector.epoch = Some(4);
        let batch = collector.batcher.push(entry(4), 1, Instant::now()).expect("it ends there");
        let Handed::Batch(closed) = collector.close(batch) else { unreachable!("a batch was closed") };
        assert_eq!((closed.intent.log.epoch, closed.intent.last_epoch), (Some(3), Some(4)));
        let after = closed.after.expect("all of it is closed");
        assert_eq!((after.log.epoch, after.last_epoch), (Some(4), None));
    }

    #[test]
    fn what_concerns_offsets_below_a_batch_is_in_no_later_intent() {
        let (next, offset) = (NextOffset::new, Offset::new);
        let intent = Intent {
            last: Some(offset(14)),
            last_epoch: Some(3),
            adopted: Some(next(20)),
            split: vec![next(12)],
            skipped: vec![offset(11), offset(15)],
            ..Intent::fresh(next(10), 7, 2, LogMark::default())
        };
        let open = above(&intent, next(10));
        assert_eq!((open.last, open.last_epoch, open.adopted), (None, None, Some(next(20))));
        assert_eq!((open.split, open.skipped), (vec![], vec![offset(11), offset(15)]));
        assert_eq!(above(&intent, next(15)).skipped, [offset(15)]);
        let later = above(&intent, next(20));
        assert_eq!((later.adopted, later.skipped), (None, vec![]));
    }

    /// A rebuild of offsets 0 to 9 in two parts, under another declaration than ours.
    fn rebuilding(part: &Part) -> Collector<'_> {
        let declared = Declaration::clone(&part.shared.declaration);
        let intent = Intent {
            last: Some(Offset::new(9)),
            split: vec![NextOffset::new(5)],
            ..Intent::fresh(NextOffset::ZERO, declared.cfg(), 0, LogMark::default())
        };
        resumed(part, intent, declared, &[])
    }

    fn resumed<'p>(part: &'p Part, intent: Intent, declared: Declaration, ends: &[i64]) -> Collector<'p> {
        let resume = Resume { from: NextOffset::ZERO, rebuild: intent.last, intent };
        let ends = ends.iter().copied().map(NextOffset::new).collect();
        Collector::new(part, Recovered { resume, declared: Arc::new(declared), window: Window::new(), ends })
    }

    /// A record without lines.
    fn entry(offset: i64) -> Entry {
        Entry {
            offset: Offset::new(offset),
            record_id: Uuid::nil(),
            kafka_time: UnixMillis(0),
            lines: 0,
            rejected: 0,
            duplicates: 0,
            stored: 0,
            time_replaced: 0,
            arrival_replaced: 0,
            ids: Vec::new(),
            first_fault: None,
        }
    }

    /// Takes a record without lines, and tells what is handed over of the batch that it completes: where the
    /// batch ends, whether it was declared before, and whether a commit may follow that says nothing is.
    fn push(collector: &mut Collector<'_>, offset: i64) -> Option<(NextOffset, bool, bool)> {
        let batch = collector.batcher.push(entry(offset), 1, Instant::now())?;
        match collector.close(batch) {
            Handed::Batch(closed) => Some((closed.work.hwm, closed.work.rebuilt, closed.after.is_some())),
            Handed::Quiet(_) => unreachable!("a batch was closed"),
        }
    }

    fn is_ours(collector: &Collector<'_>) -> bool {
        Arc::ptr_eq(&collector.declaration, &collector.part.shared.declaration)
    }

    #[test]
    fn a_split_batch_stays_declared_under_its_declaration_until_its_last_part() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let part = Part::unanswered(runtime.handle().clone());
        let mut collector = rebuilding(&part);
        assert_eq!(push(&mut collector, 4), Some((NextOffset::new(5), true, false)));
        assert!(collector.batcher.rebuilds() && !is_ours(&collector));
        assert_eq!(push(&mut collector, 9), Some((NextOffset::new(10), true, true)));
        assert!(!collector.batcher.rebuilds() && is_ours(&collector));
    }

    #[test]
    fn what_is_rebuilt_has_the_token_of_what_was_declared_and_what_is_declared_one_of_its_own() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let part = Part::unanswered(runtime.handle().clone());
        let declared = Declaration::clone(&part.shared.declaration);
        let fresh = Intent::fresh(NextOffset::ZERO, declared.cfg(), 0, LogMark::default());
        let close = |intent: Intent, ends: &[i64]| {
            let mut collector = resumed(&part, intent, declared.clone(), ends);
            let batch = collector.batcher.push(entry(4), 1, Instant::now()).expect("it ends there");
            let Handed::Batch(closed) = collector.close(batch) else { unreachable!("a batch was closed") };
            closed
        };
        let [first, other] = [(), ()].map(|()| close(fresh.clone(), &[5]));
        assert_ne!(first.work.token, other.work.token, "declared twice, after `adopt`");
        let again = close(Intent { split: Vec::new(), ..first.intent.clone() }, &[]);
        assert_eq!(again.work.token, first.work.token);
        assert_eq!(again.after.expect("all of it is closed").nonce, 0);
    }

    #[test]
    fn what_was_adopted_is_made_under_its_declaration_and_what_follows_under_ours() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let part = Part::unanswered(runtime.handle().clone());
        let declared = Declaration::clone(&part.shared.declaration);
        let fresh = Intent::fresh(NextOffset::ZERO, declared.cfg(), 0, LogMark::default());
        let intent = Intent { adopted: Some(NextOffset::new(8)), ..fresh };
        let mut collector = resumed(&part, intent, declared, &[5, 8]);
        assert_eq!(push(&mut collector, 4), Some((NextOffset::new(5), false, true)));
        assert!(!is_ours(&collector));
        assert_eq!(push(&mut collector, 7), Some((NextOffset::new(8), false, true)));
        assert!(is_ours(&collector));
        assert_eq!(push(&mut collector, 9), None, "nothing closes the batch");
    }

    #[test]
    fn each_record_whose_time_cannot_be_true_is_counted() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let part = Part::unanswered(runtime.handle().clone());
        let mut collector = rebuilding(&part);
        for (offset, time) in [(0, 0), (1, DAY), (2, DAY), (3, 0), (4, 0)] {
            collector.check_time(Offset::new(offset), UnixMillis(time), UnixMillis(0));
            collector.as_of = Some(UnixMillis(time));
        }
        assert_eq!(part.shared.metrics.records_off_clock.get(), 3, "two ahead, one that went back");
    }

    #[test]
    fn told_to_stop_before_the_ledger_answered_nobody_judges_a_spooled_record() {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let part = Part::unanswered(runtime.handle().clone());
        let head = Ok(Head { lines: 1, id: Uuid::now_v7(), spooled: true, kind: Kind::Events, trace: None });
        let known = thread::scope(|scope| {
            let asking = scope.spawn(|| {
                let queue = part.queue();
                let mut records = Records { queue: &queue, ahead: VecDeque::new() };
                rebuilding(&part).is_known(&head, &mut records)
            });
            part.stop.cancel();
            asking.join().unwrap()
        });
        assert_eq!(known, None);
    }
}
