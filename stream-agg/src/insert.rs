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

/// What every insert says, whatever the server's defaults are: one block becomes one
/// part, all or nothing; the token counts; text in `props` stays text.
const SETTINGS: [(&str, &str); 21] = [
    ("async_insert", "0"),
    ("max_insert_threads", "1"),
    ("min_insert_block_size_rows", "1000000000"),
    ("min_insert_block_size_bytes", "0"),
    ("max_insert_block_size", "10000000"),
    ("use_strict_insert_block_limits", "0"),
    ("max_insert_block_size_bytes", "0"),
    ("deduplicate_insert", "enable"),
    ("type_json_skip_duplicated_paths", "1"),
    ("type_json_allow_duplicated_key_with_literal_and_nested_object", "1"),
    ("input_format_try_infer_dates", "0"),
    ("input_format_try_infer_datetimes", "0"),
    ("input_format_json_try_infer_numbers_from_strings", "0"),
    ("aggregate_functions_null_for_empty", "0"),
    ("empty_result_for_aggregation_by_empty_set", "0"),
    ("limit", "0"),
    ("offset", "0"),
    ("timeout_overflow_mode", "throw"),
    ("read_overflow_mode", "throw"),
    ("max_partitions_per_insert_block", "1"),
    ("wait_end_of_query", "1"),
];

/// What names a batch for all time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The token of `[lo..=last]`.
    pub fn new(source: Source, topic: &str, lo: NextOffset, last: Offset) -> Self {
        Self(format!("{}/{topic}/{}/{lo}-{last}", source.g, source.kp))
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

/// Through `input`: only there are texts converted to JSON under our settings, not the
/// server's, and only there can a condition stand. The condition is [`Target::admits`].
fn statement(cell: &Cell, source: Source, target: Target, deadline: UnixMillis) -> String {
    let Cell { table, partition, block, .. } = cell;
    let names: Vec<_> = block.structure.iter().map(|(name, _)| name.as_str()).collect();
    let columns: Vec<_> =
        block.structure.iter().map(|(name, kind)| format!("{name} {}", kind.replace('\'', "\\'"))).collect();
    let (names, columns) = (names.join(", "), columns.join(", "));
    let Source { g, kp, .. } = source;
    format!(
        "INSERT INTO {table} ({names}) SELECT {names} FROM input('{columns}') WHERE (SELECT max(hwm) FROM {table} \
         WHERE _partition_id = '{partition}' AND tenant = '' AND g = {g} AND kp = {kp}) <= {lo} \
         AND now64(3) < fromUnixTimestamp64Milli({deadline}) FORMAT Native",
        lo = target.lo,
        deadline = deadline.0,
    )
}

fn chunks(block: &Bytes) -> impl Iterator<Item = Bytes> {
    (0..block.len()).step_by(CHUNK_BYTES).map(|at| block.slice(at..(at + CHUNK_BYTES).min(block.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: Source = Source { g: 2, kp: 3, cfg: 1 };

    fn cell() -> Cell {
        let mut block = crate::native::Block::new(1, 1);
        block.fixed("t", "DateTime('UTC')", [[0; 4]]);
        Cell {
            table: "x".to_owned(),
            partition: "202611".to_owned(),
            ends: None,
            rows: 1,
            block: block.finish(),
        }
    }

    #[test]
    fn a_token_names_generation_topic_partition_and_offsets() {
        let token = Token::new(SOURCE, "events", NextOffset::new(7), Offset::new(9));
        assert_eq!(
            (token.text(false), token.text(true)),
            ("2/events/3/7-9".into(), "2/events/3/7-9:r1".into())
        );
    }

    #[test]
    fn every_statement_inserts_only_what_is_not_there_and_only_until_its_deadline() {
        let target = Target { lo: NextOffset::new(7), hwm: NextOffset::new(10), ends: None };
        assert_eq!(
            statement(&cell(), SOURCE, target, UnixMillis(123)),
            r"INSERT INTO x (t) SELECT t FROM input('t DateTime(\'UTC\')') WHERE (SELECT max(hwm) FROM x WHERE _partition_id = '202611' AND tenant = '' AND g = 2 AND kp = 3) <= 7 AND now64(3) < fromUnixTimestamp64Milli(123) FORMAT Native"
        );
    }

    #[test]
    fn one_block_stays_one_part_whatever_the_servers_defaults_are() {
        // A batch has at most 1 M rows by its limits, and one record more.
        for (name, least) in [("min_insert_block_size_rows", 2_000_000), ("max_insert_block_size", 2_000_000)]
        {
            let pinned = SETTINGS.iter().find(|(other, _)| *other == name).expect("is pinned").1;
            assert!(pinned.parse::<u64>().unwrap() > least, "{name} = {pinned}");
        }
        for name in
            ["min_insert_block_size_bytes", "max_insert_block_size_bytes", "use_strict_insert_block_limits"]
        {
            assert!(SETTINGS.contains(&(name, "0")), "{name}");
        }
        assert!(SETTINGS.contains(&("async_insert", "0")) && SETTINGS.contains(&("max_insert_threads", "1")));
    }

    #[test]
    fn a_block_is_sent_whole_in_chunks() {
        let block = Bytes::from(vec![7; CHUNK_BYTES + 5]);
        assert_eq!(chunks(&block).map(|chunk| chunk.len()).collect::<Vec<_>>(), [CHUNK_BYTES, 5]);
    }
}
