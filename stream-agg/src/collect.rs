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
use schemas::time::{HOUR, SECOND, UnixMillis};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::batch::{Batch, Batcher};
use crate::cells::{self, Cells, Source};
use crate::consume::Membership;
use crate::declaration::Declaration;
use crate::decode::{Entry, Miscounted, Record, decode};
use crate::insert::{Token, Work};
use crate::intent::{Intent, WindowMark};
use crate::partition::{Closed, Counts, Part, Shared, Stuck};
use crate::progress::{NextOffset, Offset};
use crate::restore::{Recovered, in_ledger};
use crate::room::{self, Place};
use crate::window::Window;

/// How often a pipeline without records looks whether it should stop.
const POLL: Duration = Duration::from_millis(50);

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
    Quiet(Intent),
}

impl<'p> Collector<'p> {
    /// Goes on where `recovered` says; what is declared comes first.
    pub(crate) fn new(part: &'p Part, recovered: Recovered) -> Self {
        let Recovered { resume, declared, window, ends } = recovered;
        let before = Intent { last: None, ..resume.intent };
        let mut collector = Self {
            part,
            declaration: declared,
            batcher: Batcher::rebuild(resume.from, Offset::new(0)),
            window,
            before,
            ends,
            place: None,
            spooled: Spooled::default(),
        };
        match resume.rebuild {
            Some(last) => collector.batcher = Batcher::rebuild(resume.from, last),
            None => collector.collect_anew(resume.from),
        }
        collector
    }

    /// Collects new batches from `lo` on, under the declaration of this process.
    fn collect_anew(&mut self, lo: NextOffset) {
        let Shared { batch, declaration, .. } = &*self.part.shared;
        self.declaration = Arc::clone(declaration);
        let ends = std::mem::take(&mut self.ends);
        self.batcher = Batcher::new(batch.clone(), &declaration.rollups, lo, ends);
    }

    /// Takes records until told to stop.
    pub(crate) fn collect(
        mut self,
        queue: &PartitionQueue<Membership>,
        hand_over: &mpsc::Sender<Handed>,
    ) -> Result<(), Stuck> {
        // `None` unless it is Kafka itself that sets the time.
        let mut as_of = None;
        let mut records = Records { queue, ahead: VecDeque::new() };
        let mut backlog_until: Option<Instant> = None;
        while !self.part.stop.is_cancelled() {
            let wait = self.batcher.due_in(Instant::now(), backlog_until).map_or(POLL, |due| due.min(POLL));
            let mut stuck = None;
            let mut handed = Vec::new();
            match records.next(wait) {
                Some(Ok(message)) => {
                    backlog_until = is_old(&message).then(|| Instant::now() + LULL);
                    let before = self.batcher.close_before(Offset::new(message.offset()));
                    handed.extend(before.map(|batch| self.close(batch, as_of)));
                    as_of = append_time(&message);
                    match self.take(&message, &mut records) {
                        Ok(closed) => handed.extend(closed.map(|batch| self.close(batch, as_of))),
                        Err(error) => {
                            let open = self.batcher.close();
                            handed.extend(open.map(|batch| self.close(batch, as_of)));
                            stuck = Some(error);
                        }
                    }
                }
                Some(Err(error)) if is_gone(&error) => return Err(Stuck::Gone(self.batcher.lo(), error)),
                Some(Err(error)) => tracing::warn!("partition {}: {error}", self.part.kp),
                None => handed.extend(self.quiet()),
            }
            let due = self.batcher.due_in(Instant::now(), backlog_until);
            if due.is_some_and(|due| due.is_zero()) || !self.has_room() {
                let open = self.batcher.close();
                handed.extend(open.map(|batch| self.close(batch, as_of)));
            }
            for handed in handed {
                if hand_over.blocking_send(handed).is_err() {
                    return Ok(());
                }
            }
            if let Some(stuck) = stuck {
                return Err(stuck);
            }
        }
        Ok(())
    }

    /// Waits for a place if the open batch needs one. Whether it may grow.
    fn has_room(&mut self) -> bool {
        let Part { shared, stop, .. } = self.part;
        if self.place.is_some() || self.batcher.bytes() < room::LARGE_BYTES {
            return true;
        }
        let placed = stop.run_until_cancelled(shared.room.place());
        let place = shared.runtime.block_on(placed).flatten();
        self.place = place.or_else(|| self.batcher.rebuilds().then(Place::beyond));
        self.batcher.restart(Instant::now());
        self.place.is_some()
    }

    /// Decodes a record into the open batch.
    fn take(
        &mut self,
        message: &BorrowedMessage<'_>,
        records: &mut Records<'_>,
    ) -> Result<Option<Batch>, Stuck> {
        let offset = Offset::new(message.offset());
        let value = message.payload().unwrap_or_default();
        let head = head(message);
        let record = Record {
            offset,
            kafka_time: UnixMillis(message.timestamp().to_millis().unwrap_or(0)),
            known: self.is_known(&head, records),
            head: &head,
            value,
        };
        let limits = &self.declaration.limits;
        let entry = decode(&record, limits, &mut self.window, self.batcher.decoded())
            .map_err(|error| Stuck::Format(offset, error))?;
        Ok(self.batcher.push(entry, value.len(), Instant::now()))
    }

    /// Whether a record that came through a spool is in the ledger below the open batch.
    fn is_known(&mut self, head: &Result<Head, HeadError>, records: &mut Records<'_>) -> bool {
        let Ok(Head { id, spooled: true, .. }) = head else { return false };
        let Part { shared, track, stop, kp, .. } = self.part;
        let (lo, g) = (self.batcher.lo(), self.before.g);
        if self.spooled.lo != Some(lo) || !self.spooled.asked.contains(id) {
            let mut asked = records.spooled_ahead();
            asked.insert(*id);
            let asking = async {
                track.reaches(lo).await;
                in_ledger(shared, g, *kp, &asked, lo).await
            };
            // Told to stop: what is open now is never closed.
            let Some(known) = shared.runtime.block_on(stop.run_until_cancelled(asking)) else { return false };
            self.spooled = Spooled { lo: Some(lo), asked, known };
        }
        self.spooled.known.contains(id)
    }

    /// Makes of a closed batch what is committed and inserted.
    fn close(&mut self, batch: Batch, as_of: Option<UnixMillis>) -> Handed {
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
        let (lo, hwm, rebuilt) = (batch.lo, batch.hwm, self.batcher.has_rebuilt());
        let cfg = self.declaration.cfg();
        let adopted_above = |offset| self.before.adopted.filter(|adopted| *adopted > offset);
        let last = Offset::new(hwm.to_i64() - 1);
        let intent = Intent { last: Some(last), cfg, adopted: adopted_above(lo), ..self.before.clone() };
        let floor = self.window.floor().map_or(hwm, Offset::as_next);
        let after = Intent {
            cfg,
            window: WindowMark { floor, digest: self.window.digest() },
            newest: batch.entries.last().map(|entry| entry.kafka_time),
            adopted: adopted_above(hwm),
            ..self.before.clone()
        };
        self.before = after.clone();
        let source = Source { g: intent.g, kp: *kp, cfg };
        let Cells { all: cells, folded_rows } = cells::cells(&batch, &self.declaration.rollups, source);
        counts.folded_rows = folded_rows;
        let token = Token::new(source, &shared.topic, lo, last);
        if rebuilt {
            self.collect_anew(hwm);
        }
        let work = Work { token, source, lo, hwm, cells, rebuilt };
        let place = self.place.take();
        Handed::Batch(Box::new(Closed { work, intent, after, counts, as_of, place }))
    }

    /// Forgets a window that no later record can meet, so that it need not be restored.
    fn quiet(&mut self) -> Option<Handed> {
        let newest = self.window.newest()?;
        let age = UnixMillis::from(SystemTime::now()).0 - newest.0;
        if self.batcher.deadline().is_some() || age < self.declaration.limits.window.age_ms + HOUR {
            return None;
        }
        self.window.clear();
        let window = WindowMark { floor: self.batcher.lo(), digest: self.window.digest() };
        self.before = Intent { window, ..self.before.clone() };
        Some(Handed::Quiet(self.before.clone()))
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
fn is_old(message: &BorrowedMessage<'_>) -> bool {
    let age = |millis: i64| UnixMillis::from(SystemTime::now()).0 - millis;
    message.timestamp().to_millis().is_some_and(|millis| age(millis) > OLD)
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
