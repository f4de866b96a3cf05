//! Brings cells into ClickHouse: one insert, one block, one part for each.
//!
//! Invariant: a cell is reported applied when its marker was read and says so, or by the answer to the first
//! statement that anybody sent of its rows ([`crate::apply::verdict`]), and never else. Until then its rows are sent
//! again, the same under the same token, in a statement that inserts only what is not there and only until its
//! deadline, which is a moment of ClickHouse's clock. Nothing is sent while there is a doubt about the tables.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use runtime::backoff::Backoff;
use schemas::time::UnixMillis;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use crate::apply::markers::{self, Markers, ServerClock};
use crate::apply::store::{Failure, Store, StoreError};
use crate::apply::tables::InsertGate;
use crate::apply::verdict::{Attempts, InsertAnswer, Target, VALIDITY, Verdict, judge};
use crate::config::StoreConfig;
use crate::health::{Component, Health};
use crate::metrics::{InsertError, Metrics};
use crate::protocol::progress::{NextOffset, Offset};
use crate::rows::cells::{Cell, Source};
use refusal::{BatchDescription, FailedAttempt, REFUSED_WAIT};
use request::Sender;
use statement::{settings, statement};

mod refusal;

mod request;

mod statement;

pub use refusal::StoppedBatch;

/// Inserts at once, of all partitions together.
const AT_ONCE: usize = 8;
/// Shortest and longest wait after what passes by itself.
const WAITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// What names a batch for all time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The token of `[lo..=last]`, which was declared with this random number: the same offsets may be declared
    /// again, after `stream-agg adopt`, and the token of then may still be known.
    pub fn new(source: Source, topic: &str, start: NextOffset, last: Offset, nonce: u64) -> Self {
        Self(format!("{}/{topic}/{}/{start}-{last}/{nonce:x}", source.log_generation, source.partition))
    }

    /// The token of a chunk of rows that the backfill of `rollup` stores: several rollups share a table.
    pub fn of_backfill(source: Source, topic: &str, rollup: &str, start: NextOffset, last: Offset) -> Self {
        Self(format!("{}/{topic}/{}/{start}-{last}/{rollup}", source.log_generation, source.partition))
    }

    /// The same batch with a record that an operator skips: it has other rows.
    pub fn skipping(self) -> Self {
        Self(format!("{}:skip", self.0))
    }

    /// As ClickHouse is told; under another name once it knows the first and lost its part.
    pub fn text(&self, renamed: bool) -> String {
        if renamed { format!("{}:r1", self.0) } else { self.0.clone() }
    }
}

/// A declared batch on its way into ClickHouse.
#[derive(Debug)]
pub struct DeclaredBatch {
    /// What names it.
    pub token: Token,
    /// Where its records come from.
    pub source: Source,
    /// It begins here.
    pub start: NextOffset,
    /// It ends below.
    pub end: NextOffset,
    /// What every cell gets.
    pub cells: Vec<Cell>,
    /// Somebody may have inserted some of its cells already.
    pub rebuilt: bool,
}

/// Why not every cell has the batch.
#[derive(Debug, PartialEq, Eq)]
pub enum NotApplied {
    /// The pipeline was given up before.
    GivenUp,
    /// Nothing more of it is sent: an operator must look first.
    Stopped(StoppedBatch),
}

/// Inserts for all partitions of the process.
pub struct Inserter {
    store: Store,
    sender: Sender,
    clock: ServerClock,
    permits: Semaphore,
    /// Closed while there is a doubt about the tables; absent where nobody looks at them.
    gate: Option<Arc<InsertGate>>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
}

/// A cell that has not been seen to have its batch.
struct PendingCell {
    cell: Arc<Cell>,
    target: Target,
    attempts: Attempts,
    next: Verdict,
    /// Since when ClickHouse has had no memory for it.
    short_of_memory: Option<Instant>,
}

impl Inserter {
    /// Nothing is sent yet.
    pub fn new(config: &StoreConfig, metrics: Arc<Metrics>, health: Arc<Health>) -> Self {
        let (store, sender) = (Store::new(config), Sender::new(config));
        let (clock, permits) = (ServerClock::default(), Semaphore::new(AT_ONCE));
        Self { store, sender, clock, permits, gate: None, metrics, health }
    }

    /// Sends only while `gate` is pending, and raises a doubt whenever ClickHouse did not answer.
    pub fn behind(self, gate: Arc<InsertGate>) -> Self {
        Self { gate: Some(gate), ..self }
    }

    /// ClickHouse's clock showed `now` a moment ago.
    pub fn set_clock(&self, now: UnixMillis) {
        self.clock.set(now);
    }

    /// Brings every cell, and tells `applied` of each. Ends when all are there, or with `give_up`.
    ///
    /// # Errors
    /// It was given up, or an operator must look first.
    pub async fn apply(
        self: &Arc<Self>,
        declared: DeclaredBatch,
        give_up: &CancellationToken,
        applied: impl FnMut(),
    ) -> Result<(), NotApplied> {
        match give_up.run_until_cancelled(self.insert_all(declared, applied)).await {
            None => Err(NotApplied::GivenUp),
            Some(inserted_all) => inserted_all.map_err(NotApplied::Stopped),
        }
    }

    /// Rounds of inserts; after each the markers say what is left of what answers do not say.
    async fn insert_all(
        self: &Arc<Self>,
        declared: DeclaredBatch,
        mut applied: impl FnMut(),
    ) -> Result<(), StoppedBatch> {
        let rows = BatchDescription::of(&declared);
        let DeclaredBatch { token, source, start, end, cells, rebuilt } = declared;
        // Where somebody may have been before us, the markers are read first.
        let next = if rebuilt { Verdict::Wait(UnixMillis::default()) } else { Verdict::Send };
        let attempts = Attempts::of(rebuilt);
        let mut pending: Vec<PendingCell> = cells
            .into_iter()
            .map(|cell| {
                let target = Target { start, end, expires_at: cell.expires_at };
                PendingCell { cell: Arc::new(cell), target, attempts, next, short_of_memory: None }
            })
            .collect();
        let component = Component::Inserts(source.partition.into());
        let mut backoff = Backoff::new(WAITS.0, WAITS.1);
        let mut counted_as_stopped = None;
        loop {
            let failed = self.send_due(&mut pending, &token, source, &rows).await;
            let mut is_left = |pending: &mut PendingCell| {
                if pending.next == Verdict::Applied {
                    applied();
                }
                pending.next != Verdict::Applied
            };
            pending.retain_mut(&mut is_left);
            if pending.is_empty() {
                self.health.recovered(component);
                return Ok(());
            }
            let markers = self.markers(&pending, source).await;
            pending.iter_mut().for_each(|pending| self.judge_cell(pending, &markers));
            pending.retain_mut(&mut is_left);
            if pending.is_empty() {
                self.health.recovered(component);
                return Ok(());
            }
            if let Some(stopped) = pending.iter().find_map(|pending| pending.stopped(&rows)) {
                return Err(stopped);
            }
            if let Some(pending) = pending.iter().find(|pending| matches!(pending.next, Verdict::Wait(_))) {
                self.health.degraded(component, rows.awaited(&pending.cell));
            }
            counted_as_stopped = match failed {
                Some(FailedAttempt::Refused) => {
                    counted_as_stopped.or_else(|| Some(self.metrics.partition_stopped()))
                }
                Some(FailedAttempt::ConditionFailed | FailedAttempt::Transient) | None => None,
            };
            let pause = match failed {
                Some(FailedAttempt::Refused) => REFUSED_WAIT,
                Some(FailedAttempt::Transient) => backoff.wait(),
                Some(FailedAttempt::ConditionFailed) | None => until_due(&pending, markers.now),
            };
            time::sleep(pause).await;
        }
    }

    /// Judges a cell by its marker.
    fn judge_cell(&self, pending: &mut PendingCell, markers: &Markers) {
        let PendingCell { cell, target, attempts, next, .. } = pending;
        let lost_before = attempts.parts_lost();
        let target = target.by_our_clock(SystemTime::now().into());
        *next = judge(&target, attempts, markers.of(cell), markers.now);
        if attempts.parts_lost() > lost_before {
            self.metrics.parts_lost.inc();
            let Cell { table, partition_id, .. } = &**cell;
            tracing::error!(
                "`{table}` {partition_id}: clickhouse took a part and does not have it; its rows are sent again \
                 under another token"
            );
        }
        if *next == Verdict::Applied && attempts.never_sent() {
            self.metrics.cells_skipped.inc();
        }
    }

    /// Sends the cells that are due, side by side.
    async fn send_due(
        self: &Arc<Self>,
        pending: &mut [PendingCell],
        token: &Token,
        source: Source,
        rows: &BatchDescription,
    ) -> Option<FailedAttempt> {
        let mut inserts = JoinSet::new();
        for (at, pending) in pending.iter().enumerate().filter(|(_, pending)| pending.next == Verdict::Send) {
            let (inserter, cell, target) = (Arc::clone(self), Arc::clone(&pending.cell), pending.target);
            let token = token.text(pending.attempts.renamed());
            inserts.spawn(async move { (at, inserter.send(&cell, source, target, &token).await) });
        }
        let mut failed = None;
        while let Some(sent) = inserts.join_next().await {
            let (at, (deadline, answer)) = sent.expect("an insert does not panic");
            if pending[at].attempts.sent(deadline, *answer.as_ref().unwrap_or(&InsertAnswer::None)) {
                pending[at].next = Verdict::Applied;
            }
            match answer {
                Ok(answer) => {
                    pending[at].short_of_memory = None;
                    self.health.recovered(Component::ClickHouse);
                    if answer == InsertAnswer::Taken {
                        // Sent again at once if its marker is not there, it might be so for ever.
                        failed = failed.max(Some(FailedAttempt::Transient));
                    }
                }
                Err(error) => failed = failed.max(Some(self.failed(&mut pending[at], source, rows, &error))),
            }
        }
        failed
    }

    fn failed(
        &self,
        pending: &mut PendingCell,
        source: Source,
        rows: &BatchDescription,
        error: &StoreError,
    ) -> FailedAttempt {
        let failed = FailedAttempt::of(error.failure(), pending.short_of_memory(error.failure()));
        match failed {
            FailedAttempt::ConditionFailed => self.metrics.insert_failed(InsertError::ConditionFailed),
            FailedAttempt::Transient => {
                self.metrics.insert_failed(InsertError::Transient);
                self.health.degraded(Component::ClickHouse, error);
                if matches!(error, StoreError::Unreachable(_)) {
                    self.gate.iter().for_each(|gate| gate.doubt());
                }
            }
            FailedAttempt::Refused => {
                self.metrics.insert_failed(InsertError::Refused);
                let reason = rows.refused(&pending.cell, error);
                self.health.alarm(Component::Inserts(source.partition.into()), reason);
            }
        }
        failed
    }

    /// One try. Tells the deadline of its statement, too.
    async fn send(
        &self,
        cell: &Cell,
        source: Source,
        target: Target,
        token: &str,
    ) -> (UnixMillis, Result<InsertAnswer, StoreError>) {
        let _permit = self.permits.acquire().await.expect("the semaphore is never closed");
        if let Some(gate) = &self.gate {
            gate.open().await;
        }
        let deadline = UnixMillis(self.server_now().await.0 + VALIDITY);
        let start = Instant::now();
        let statement = statement(cell, source, target, deadline);
        let answer =
            self.sender.insert(&statement, &settings(cell, token, deadline), &cell.block.bytes).await;
        let answer = answer.map(|written| InsertAnswer::of(written, cell.rows, start.elapsed()));
        if answer.is_ok() {
            self.metrics.inserted(start.elapsed());
        }
        (deadline, answer)
    }

    /// ClickHouse's clock, which is asked if nobody has read it lately.
    async fn server_now(&self) -> UnixMillis {
        let mut backoff = Backoff::new(WAITS.0, WAITS.1);
        loop {
            if let Some(now) = self.clock.now() {
                return now;
            }
            match markers::clock(&self.store).await {
                Ok(now) => self.clock.set(now),
                Err(error) => {
                    self.health.degraded(Component::ClickHouse, &error);
                    time::sleep(backoff.wait()).await;
                }
            }
        }
    }

    /// The markers of the pending cells, as soon as ClickHouse tells them.
    async fn markers(&self, pending: &[PendingCell], source: Source) -> Markers {
        let mut backoff = Backoff::new(WAITS.0, WAITS.1);
        loop {
            match markers::of_cells(&self.store, pending.iter().map(|pending| &*pending.cell), source).await {
                Ok(markers) => {
                    self.clock.set(markers.now);
                    self.health.recovered(Component::ClickHouse);
                    return markers;
                }
                Err(error) => self.health.degraded(Component::ClickHouse, &error),
            }
            time::sleep(backoff.wait()).await;
        }
    }
}

impl PendingCell {
    /// For how long ClickHouse has had no memory for it, if that is the failure now.
    fn short_of_memory(&mut self, failure: Failure) -> Duration {
        let since = self.short_of_memory.take().filter(|_| failure == Failure::OutOfMemory);
        let since = since.unwrap_or_else(Instant::now);
        self.short_of_memory = (failure == Failure::OutOfMemory).then_some(since);
        since.elapsed()
    }

    /// Why nothing more of it is sent, if that is so.
    fn stopped(&self, rows: &BatchDescription) -> Option<StoppedBatch> {
        match self.next {
            Verdict::Stop(lost) => Some(rows.stopped(&self.cell, lost)),
            Verdict::Applied | Verdict::Send | Verdict::Wait(_) => None,
        }
    }
}

/// How long until one of these cells is to be sent or looked at again.
fn until_due(pending: &[PendingCell], now: UnixMillis) -> Duration {
    let wait = |pending: &PendingCell| match pending.next {
        Verdict::Wait(until) => Duration::from_millis((until.0 - now.0).max(0).unsigned_abs()),
        Verdict::Send | Verdict::Applied | Verdict::Stop(_) => Duration::ZERO,
    };
    pending.iter().map(wait).min().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: Source = Source { log_generation: 2, partition: 3, declaration_hash: 1 };

    #[test]
    fn a_token_names_generation_topic_partition_offsets_and_declaration() {
        let (start, last) = (NextOffset::new(7), Offset::new(9));
        let token = Token::new(SOURCE, "events", start, last, 0xab);
        assert_eq!(
            (token.text(false), token.text(true)),
            ("2/events/3/7-9/ab".into(), "2/events/3/7-9/ab:r1".into())
        );
        assert_ne!(token, Token::new(SOURCE, "events", start, last, 0xac), "declared again");
        let of_backfill = |rollup: &str| Token::of_backfill(SOURCE, "events", rollup, start, last);
        assert_ne!(of_backfill("a"), of_backfill("b"), "of one table");
        assert_ne!(token.clone().skipping(), token, "with a record that is skipped it has other rows");
    }
}
