//! Inserts cells into ClickHouse. Each cell is inserted by one statement with one block, which becomes one part.
//!
//! Invariant: a cell counts as applied only in one of three cases ([`crate::apply::verdict`]):
//!
//! - its marker was read and shows that the rows are stored;
//! - the answer to the very first statement that any process sent for its rows came in time, and reported all rows as
//!   written;
//! - ClickHouse accepted a statement with its rows, and the table partition has expired since then, so ClickHouse may
//!   have dropped it.
//!
//! Until a cell is applied or stopped ([`Verdict::Stop`]), its rows are sent again, unchanged. The deduplication token
//! also stays the same, unless ClickHouse acknowledged the part of the cell and then lost it. Each statement inserts
//! only if the rows are not stored yet, and only before its deadline on ClickHouse's clock. An inserter with an
//! [`InsertGate`] starts no insert while a check of the tables is pending, or after a check has found a problem, until
//! a later check finds none.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use runtime::backoff::RetryPolicy;
use schemas::time::UnixMillis;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use crate::apply::markers::{self, Markers, ServerClock};
use crate::apply::store::{Failure, Store, StoreError};
use crate::apply::tables::InsertGate;
use crate::apply::verdict::{Attempts, InsertAnswer, STATEMENT_VALIDITY_MS, Target, Verdict, judge};
use crate::config::StoreConfig;
use crate::health::{Component, Health};
use crate::metrics::{InsertError, Metrics};
use crate::protocol::progress::{NextOffset, Offset};
use crate::rows::cells::{Cell, Source};
use refusal::{BatchDescription, FailedAttempt, REFUSED_RETRY_INTERVAL};
use request::Sender;
use statement::{settings, statement};

mod refusal;

mod request;

mod statement;

pub use refusal::StoppedBatch;

/// Maximum number of concurrent inserts, for all partitions together.
const MAX_CONCURRENT_INSERTS: usize = 8;
/// The backoff after a transient failure.
const INSERT_RETRIES: RetryPolicy = RetryPolicy::new(Duration::from_millis(100), Duration::from_secs(5));

/// The deduplication token of a batch, or of a chunk of a backfill. No other batch ever has the token of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The token of the batch `[start..=last]`. `nonce` is the random number in the intent of the batch. The token
    /// needs it because the same offsets may be declared again after `stream-agg adopt`, while ClickHouse may still
    /// remember the earlier token.
    pub fn new(source: Source, topic: &str, start: NextOffset, last: Offset, nonce: u64) -> Self {
        Self(format!("{}/{topic}/{}/{start}-{last}/{nonce:x}", source.log_generation, source.partition))
    }

    /// The token of a chunk of rows that the backfill of `rollup` stores. The token contains the name of the rollup,
    /// because several rollups share a table.
    pub fn of_backfill(source: Source, topic: &str, rollup: &str, start: NextOffset, last: Offset) -> Self {
        Self(format!("{}/{topic}/{}/{start}-{last}/{rollup}", source.log_generation, source.partition))
    }

    /// Turns the token of a batch into the token that is used after an operator has skipped one of the batch's records.
    /// The two tokens differ, because the batch then has other rows.
    pub fn skipping(self) -> Self {
        Self(format!("{}:skip", self.0))
    }

    /// The text that is sent as the token. Pass `renamed` if ClickHouse has lost the part that was inserted under the
    /// original token. ClickHouse still remembers that token and would skip the rows as repeats, so another text is
    /// sent.
    pub fn text(&self, renamed: bool) -> String {
        if renamed { format!("{}:r1", self.0) } else { self.0.clone() }
    }
}

/// A declared batch, or a chunk of a backfill, that is to be inserted.
#[derive(Debug)]
pub struct DeclaredBatch {
    /// The deduplication token.
    pub token: Token,
    /// The Kafka partition and log generation of the records, and the hash of the declaration.
    pub source: Source,
    /// The batch holds records at this offset and above.
    pub start: NextOffset,
    /// The batch holds records below this offset.
    pub end: NextOffset,
    /// The rows, by cell.
    pub cells: Vec<Cell>,
    /// Whether another process, or an earlier run of this process, may have inserted some of the cells.
    pub rebuilt: bool,
}

/// Why [`Inserter::apply`] returned before every cell of the batch was applied.
#[derive(Debug, PartialEq, Eq)]
pub enum NotApplied {
    /// The caller cancelled `give_up`.
    GivenUp,
    /// Nothing more of the batch is sent until an operator acts.
    Stopped(StoppedBatch),
}

/// Inserts batches, for all partitions of the process.
pub struct Inserter {
    store: Store,
    sender: Sender,
    clock: ServerClock,
    permits: Semaphore,
    /// Closed while a check of the tables is pending or has found a problem; `None` if no task checks the tables.
    gate: Option<Arc<InsertGate>>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
}

/// A cell whose rows are not yet proved to be in ClickHouse.
struct PendingCell {
    cell: Arc<Cell>,
    target: Target,
    attempts: Attempts,
    next: Verdict,
    /// Since when each attempt to insert this cell has failed because ClickHouse lacked memory. `None` if the last
    /// attempt did not fail for lack of memory.
    short_of_memory: Option<Instant>,
}

impl Inserter {
    /// An inserter without an [`InsertGate`]. `config` and `store` must be for the same server.
    pub fn new(config: &StoreConfig, store: Store, metrics: Arc<Metrics>, health: Arc<Health>) -> Self {
        let sender = Sender::new(config);
        let (clock, permits) = (ServerClock::default(), Semaphore::new(MAX_CONCURRENT_INSERTS));
        Self { store, sender, clock, permits, gate: None, metrics, health }
    }

    /// Sends inserts only while `gate` is open. Whenever ClickHouse does not answer an insert, the inserter closes the
    /// gate, which opens again once a check of the tables finds no problem.
    pub fn with_gate(self, gate: Arc<InsertGate>) -> Self {
        Self { gate: Some(gate), ..self }
    }

    /// Stores a new reading of ClickHouse's clock, which showed `now` when ClickHouse answered.
    pub fn set_clock(&self, now: UnixMillis) {
        self.clock.set(now);
    }

    /// Inserts every cell, and calls `applied` once for each cell that is applied. Returns once all cells are applied,
    /// when `give_up` is cancelled, or when a cell is stopped ([`Verdict::Stop`]). Until then, inserts that ClickHouse
    /// refuses are repeated.
    ///
    /// # Errors
    /// `give_up` was cancelled, or a cell is stopped until an operator acts.
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

    /// Sends inserts in rounds. After each round, reads the markers of the cells that no answer has proved to be
    /// applied.
    async fn insert_all(
        self: &Arc<Self>,
        declared: DeclaredBatch,
        mut applied: impl FnMut(),
    ) -> Result<(), StoppedBatch> {
        let description = BatchDescription::of(&declared);
        let DeclaredBatch { token, source, start, end, cells, rebuilt } = declared;
        // A round sends no cell with `Verdict::Wait`. So if some cells may have been inserted before, the first round
        // sends nothing, and the markers are read before the second round.
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
        let mut backoff = INSERT_RETRIES.backoff();
        let mut counted_as_stopped = None;
        loop {
            let failed = self.send_due(&mut pending, &token, source, &description).await;
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
            if let Some(stopped) = pending.iter().find_map(|pending| pending.stopped(&description)) {
                return Err(stopped);
            }
            if let Some(pending) = pending.iter().find(|pending| matches!(pending.next, Verdict::Wait(_))) {
                self.health.degraded(component, description.awaited(&pending.cell));
            }
            counted_as_stopped = match failed {
                Some(FailedAttempt::Refused) => {
                    counted_as_stopped.or_else(|| Some(self.metrics.partition_stopped()))
                }
                Some(FailedAttempt::ConditionFailed | FailedAttempt::Transient) | None => None,
            };
            let pause = match failed {
                Some(FailedAttempt::Refused) => REFUSED_RETRY_INTERVAL,
                Some(FailedAttempt::Transient) => backoff.wait(),
                Some(FailedAttempt::ConditionFailed) | None => until_due(&pending, markers.now),
            };
            time::sleep(pause).await;
        }
    }

    /// Decides what to do about a cell, from its marker.
    fn judge_cell(&self, pending: &mut PendingCell, markers: &Markers) {
        let PendingCell { cell, target, attempts, next, .. } = pending;
        let lost_before = attempts.parts_lost();
        let target = target.by_our_clock(SystemTime::now().into());
        *next = judge(&target, attempts, markers.of(cell), markers.now);
        if attempts.parts_lost() > lost_before {
            self.metrics.parts_lost.inc();
            let Cell { table, partition_id, .. } = &**cell;
            tracing::error!(
                "`{table}` {partition_id}: clickhouse acknowledged a part and does not have it; after the first loss, \
                 its rows are sent again under another token; after the second, nothing more of the batch is sent"
            );
        }
        if *next == Verdict::Applied && attempts.never_sent() {
            self.metrics.cells_skipped.inc();
        }
    }

    /// Sends all cells with [`Verdict::Send`], concurrently. Returns the most severe failure, if there is one.
    async fn send_due(
        self: &Arc<Self>,
        pending: &mut [PendingCell],
        token: &Token,
        source: Source,
        description: &BatchDescription,
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
                    if answer == InsertAnswer::Accepted {
                        // The answer does not prove that the rows are stored. It counts as a transient failure, so
                        // the next attempt comes after a pause. Otherwise the cell would be sent again and again
                        // without a pause while its marker is missing.
                        failed = failed.max(Some(FailedAttempt::Transient));
                    }
                }
                Err(error) => {
                    failed = failed.max(Some(self.failed(&mut pending[at], source, description, &error)));
                }
            }
        }
        failed
    }

    fn failed(
        &self,
        pending: &mut PendingCell,
        source: Source,
        description: &BatchDescription,
        error: &StoreError,
    ) -> FailedAttempt {
        let failed = FailedAttempt::of(error.failure(), pending.short_of_memory(error.failure()));
        match failed {
            FailedAttempt::ConditionFailed => self.metrics.insert_failed(InsertError::ConditionFailed),
            FailedAttempt::Transient => {
                self.metrics.insert_failed(InsertError::Transient);
                self.health.degraded(Component::ClickHouse, error);
                if matches!(error, StoreError::Unreachable(_)) {
                    self.gate.iter().for_each(|gate| gate.close_until_checked());
                }
            }
            FailedAttempt::Refused => {
                self.metrics.insert_failed(InsertError::Refused);
                let reason = description.refused(&pending.cell, error);
                self.health.alarm(Component::Inserts(source.partition.into()), reason);
            }
        }
        failed
    }

    /// Sends a cell once. Returns the deadline of the statement, and the answer.
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
        let deadline = UnixMillis(self.server_now().await.0 + STATEMENT_VALIDITY_MS);
        let server = self.store.servers.first().expect("reading the clock records the server's id");
        let start = Instant::now();
        let statement = statement(cell, source, target, deadline, server);
        let answer =
            self.sender.insert(&statement, &settings(cell, token, deadline), &cell.block.bytes).await;
        let answer = answer.map(|written| InsertAnswer::of(written, cell.rows, start.elapsed()));
        if answer.is_ok() {
            self.metrics.inserted(start.elapsed());
        }
        (deadline, answer)
    }

    /// The current time of ClickHouse's clock. Queries ClickHouse if the last reading is missing or too old.
    async fn server_now(&self) -> UnixMillis {
        loop {
            if let Some(now) = self.clock.now() {
                return now;
            }
            self.clock.set(self.health.retry_clickhouse(|| markers::clock(&self.store)).await);
        }
    }

    /// Reads the markers of the pending cells. Retries until ClickHouse answers.
    async fn markers(&self, pending: &[PendingCell], source: Source) -> Markers {
        let read = || markers::of_cells(&self.store, pending.iter().map(|pending| &*pending.cell), source);
        let markers = self.health.retry_clickhouse(read).await;
        self.clock.set(markers.now);
        markers
    }
}

impl PendingCell {
    /// Records the `failure` of an attempt. Returns for how long all attempts have failed for lack of memory; zero if
    /// `failure` has another cause.
    fn short_of_memory(&mut self, failure: Failure) -> Duration {
        let since = self.short_of_memory.take().filter(|_| failure == Failure::OutOfMemory);
        let since = since.unwrap_or_else(Instant::now);
        self.short_of_memory = (failure == Failure::OutOfMemory).then_some(since);
        since.elapsed()
    }

    /// Why the cell is not sent again until an operator acts; `None` unless the verdict is [`Verdict::Stop`].
    fn stopped(&self, description: &BatchDescription) -> Option<StoppedBatch> {
        match self.next {
            Verdict::Stop(cause) => Some(description.stopped(&self.cell, cause)),
            Verdict::Applied | Verdict::Send | Verdict::Wait(_) => None,
        }
    }
}

/// How long until the first of these cells must be sent or checked again.
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
    fn a_token_contains_generation_topic_partition_offsets_and_nonce() {
        let (start, last) = (NextOffset::new(7), Offset::new(9));
        let token = Token::new(SOURCE, "events", start, last, 0xab);
        assert_eq!(
            (token.text(false), token.text(true)),
            ("2/events/3/7-9/ab".into(), "2/events/3/7-9/ab:r1".into())
        );
        assert_ne!(token, Token::new(SOURCE, "events", start, last, 0xac), "with another nonce");
        let of_backfill = |rollup: &str| Token::of_backfill(SOURCE, "events", rollup, start, last);
        assert_ne!(of_backfill("a"), of_backfill("b"), "two rollups share a table");
        assert_ne!(token.clone().skipping(), token, "a batch with a skipped record has other rows");
    }
}
