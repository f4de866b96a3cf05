//! Brings cells into ClickHouse: one insert, one block, one part for each.
//!
//! Invariant: a cell is reported applied when its marker was read and says so, and
//! never else. Until then its rows are sent again, the same under the same token, in
//! a statement that inserts only what is not there and only until its deadline.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use runtime::backoff::Backoff;
use schemas::time::{SECOND, UnixMillis};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use crate::applied::{EXECUTION, Target, Tries, VALIDITY, Verdict, judge};
use crate::cells::{Cell, Source};
use crate::health::{Concern, Health};
use crate::markers::{self, Markers, ServerClock};
use crate::metrics::{InsertError, Metrics};
use crate::progress::{NextOffset, Offset};
use crate::store::{Store, StoreError};

/// Inserts at once, of all partitions together.
const AT_ONCE: usize = 8;
/// Longest that ClickHouse may take no bytes.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest from the last byte to the answer.
const END_TIMEOUT: Duration = Duration::from_secs(30);
/// Shortest and longest wait after what passes by itself.
const WAITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Wait after a refusal, which needs somebody's help.
const REFUSED_WAIT: Duration = Duration::from_secs(15);
/// Bytes that are compressed and sent at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// What names a batch for all time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The token of `[lo..=last]`.
    pub fn new(source: Source, topic: &str, lo: NextOffset, last: Offset) -> Self {
        Self(format!("{}/{topic}/{}/{lo}-{last}", source.g, source.kp))
    }

    /// As ClickHouse is told; under another name once it knows the first and lost its part.
    pub fn text(&self, renamed: bool) -> String {
        if renamed { format!("{}:r1", self.0) } else { self.0.clone() }
    }
}

/// A declared batch on its way into ClickHouse.
#[derive(Debug)]
pub struct Work {
    /// What names it.
    pub token: Token,
    /// Where its records come from.
    pub source: Source,
    /// It begins here.
    pub lo: NextOffset,
    /// It ends below.
    pub hwm: NextOffset,
    /// What every cell gets.
    pub cells: Vec<Cell>,
    /// Somebody may have inserted some of its cells already.
    pub rebuilt: bool,
}

/// The batch was given up before every cell had it.
#[derive(Debug, PartialEq, Eq)]
pub struct GivenUp;

/// Inserts for all partitions of the process.
pub struct Inserter {
    store: Store,
    clock: ServerClock,
    places: Semaphore,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
}

/// A cell that has not been seen to have its batch.
struct Open {
    cell: Arc<Cell>,
    target: Target,
    tries: Tries,
    next: Verdict,
}

impl Inserter {
    /// Nothing is sent yet.
    pub fn new(store: Store, metrics: Arc<Metrics>, health: Arc<Health>) -> Self {
        Self { store, clock: ServerClock::default(), places: Semaphore::new(AT_ONCE), metrics, health }
    }

    /// ClickHouse's clock showed `now` a moment ago.
    pub fn set_clock(&self, now: UnixMillis) {
        self.clock.set(now);
    }

    /// Brings every cell, and tells `applied` of each. Ends when all are there, or with `give_up`.
    pub async fn apply(
        self: &Arc<Self>,
        work: Work,
        give_up: &CancellationToken,
        applied: impl FnMut(),
    ) -> Result<(), GivenUp> {
        give_up.run_until_cancelled(self.bring(work, applied)).await.ok_or(GivenUp)
    }

    /// Rounds of inserts; after each the markers say what is left.
    async fn bring(self: &Arc<Self>, work: Work, mut applied: impl FnMut()) {
        let Work { token, source, lo, hwm, cells, rebuilt } = work;
        // Where somebody may have been before us, the markers are read first.
        let next = if rebuilt { Verdict::Wait(UnixMillis::default()) } else { Verdict::Send };
        let mut open: Vec<Open> = cells
            .into_iter()
            .map(|cell| {
                let target = Target { lo, hwm, ends: cell.ends };
                Open { cell: Arc::new(cell), target, tries: Tries::default(), next }
            })
            .collect();
        let concern = Concern::Inserts(source.kp.into());
        let mut backoff = Backoff::new(WAITS.0, WAITS.1);
        loop {
            let failed = self.send_due(&mut open, &token, source).await;
            let markers = self.markers(&open, source).await;
            open.retain_mut(|cell| {
                cell.next = judge(&cell.target, &mut cell.tries, markers.of(&cell.cell), markers.now);
                if cell.next == Verdict::Applied {
                    if cell.tries.never_sent() {
                        self.metrics.cells_skipped.inc();
                    }
                    applied();
                }
                cell.next != Verdict::Applied
            });
            if open.is_empty() {
                self.health.well(concern);
                return;
            }
            let pause = match failed {
                Some(Failed::Refused) => REFUSED_WAIT,
                Some(Failed::Passing) => backoff.wait(),
                None => self.pause(&open, concern),
            };
            time::sleep(pause).await;
        }
    }

    /// How long until there is something to do, if nothing failed.
    fn pause(&self, open: &[Open], concern: Concern) -> Duration {
        for Open { cell, next, .. } in open {
            if let Verdict::Stop(lost) = next {
                let Cell { table, partition, .. } = &**cell;
                self.health.trouble(concern, format!("`{table}` {partition}: {lost}"));
            }
        }
        let now = self.clock.now();
        let wait = |open: &Open| match open.next {
            Verdict::Wait(until) => Duration::from_millis((until.0 - now.0).max(0).unsigned_abs()),
            Verdict::Stop(_) => REFUSED_WAIT,
            Verdict::Send | Verdict::Applied => Duration::ZERO,
        };
        open.iter().map(wait).min().unwrap_or_default()
    }

    /// Sends the cells that are due, side by side.
    async fn send_due(self: &Arc<Self>, open: &mut [Open], token: &Token, source: Source) -> Option<Failed> {
        let mut inserts = JoinSet::new();
        for (at, open) in open.iter().enumerate().filter(|(_, open)| open.next == Verdict::Send) {
            let (inserter, cell, target) = (Arc::clone(self), Arc::clone(&open.cell), open.target);
            let token = token.text(open.tries.renamed());
            inserts.spawn(async move { (at, inserter.send(&cell, source, target, &token).await) });
        }
        let mut failed = None;
        while let Some(sent) = inserts.join_next().await {
            let (at, (deadline, answer)) = sent.expect("an insert does not panic");
            open[at].tries.sent(deadline, answer.is_ok());
            if let Err(error) = answer {
                failed = failed.max(Some(self.failed(&open[at].cell, source, &error)));
            } else {
                self.health.well(Concern::ClickHouse);
            }
        }
        failed
    }

    fn failed(&self, cell: &Cell, source: Source, error: &StoreError) -> Failed {
        if error.passes() {
            self.metrics.insert_failed(InsertError::Passing);
            self.health.trouble(Concern::ClickHouse, error);
            return Failed::Passing;
        }
        let Cell { table, partition, rows, .. } = cell;
        self.metrics.insert_failed(InsertError::Refused);
        tracing::error!("insert {rows} rows into `{table}` {partition}: {error}");
        self.health.trouble(Concern::Inserts(source.kp.into()), format!("`{table}` {partition}: {error}"));
        Failed::Refused
    }

    /// One try. Tells the deadline of its statement, too.
    async fn send(
        &self,
        cell: &Cell,
        source: Source,
        target: Target,
        token: &str,
    ) -> (UnixMillis, Result<(), StoreError>) {
        let _place = self.places.acquire().await.expect("the semaphore is never closed");
        let deadline = UnixMillis(self.clock.now().0 + VALIDITY);
        let start = Instant::now();
        let sent = self.send_block(cell, statement(cell, source, target, deadline), token, deadline).await;
        if sent.is_ok() {
            self.metrics.inserted(start.elapsed());
        }
        (deadline, sent)
    }

    async fn send_block(
        &self,
        cell: &Cell,
        statement: String,
        token: &str,
        deadline: UnixMillis,
    ) -> Result<(), StoreError> {
        let Cell { table, partition, block, .. } = cell;
        let mut insert = self
            .store
            .client
            .insert_formatted_with(statement)
            .with_timeouts(Some(SEND_TIMEOUT), Some(END_TIMEOUT))
            .with_setting("insert_deduplication_token", token)
            // The deadline tells one try from another.
            .with_setting("query_id", format!("sa/{token}/{table}/{partition}/{}", deadline.0))
            .with_setting("max_execution_time", (EXECUTION / SECOND).to_string());
        for (name, value) in SETTINGS {
            insert = insert.with_setting(name, value);
        }
        for chunk in chunks(&block.bytes) {
            insert.send(chunk).await?;
        }
        insert.end().await?;
        Ok(())
    }

    /// The markers of the open cells, as soon as ClickHouse tells them.
    async fn markers(&self, open: &[Open], source: Source) -> Markers {
        let mut backoff = Backoff::new(WAITS.0, WAITS.1);
        loop {
            match markers::of_cells(&self.store, open.iter().map(|open| &*open.cell), source).await {
                Ok(markers) => {
                    self.clock.set(markers.now);
                    self.health.well(Concern::ClickHouse);
                    return markers;
                }
                Err(error) => self.health.trouble(Concern::ClickHouse, &error),
            }
            time::sleep(backoff.wait()).await;
        }
    }
}

/// How a try failed; what is worse is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Failed {
    Passing,
    Refused,
}

