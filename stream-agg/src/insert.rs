//! Brings cells into ClickHouse: one insert, one block, one part for each.
//!
//! Invariant: a cell that is reported applied was answered 200 under its token; what
//! failed or timed out is unknown and sent again, the same bytes under the same
//! token, until it works or the partition is given up. Nothing is ever skipped.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use runtime::backoff::Backoff;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use crate::cells::{Cell, Source};
use crate::health::{Concern, Health};
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
const SETTINGS: [(&str, &str); 22] = [
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
    // Below the client's deadline, so that the server gives up first.
    ("max_execution_time", "25"),
];

/// What names a batch for all time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    text: String,
    kp: i32,
}

impl Token {
    /// The token of `[lo..=last]`.
    pub fn new(source: Source, topic: &str, lo: NextOffset, last: Offset) -> Self {
        let text = format!("{}/{topic}/{}/{lo}-{last}", source.g, source.kp);
        Self { text, kp: source.kp.into() }
    }
}

/// The batch was given up before every cell had it.
#[derive(Debug, PartialEq, Eq)]
pub struct GivenUp;

/// Inserts for all partitions of the process.
pub struct Inserter {
    store: Store,
    places: Semaphore,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
}

impl Inserter {
    /// Nothing is sent yet.
    pub fn new(store: Store, metrics: Arc<Metrics>, health: Arc<Health>) -> Self {
        Self { store, places: Semaphore::new(AT_ONCE), metrics, health }
    }

    /// Brings every cell, side by side; tells `applied` of each. Ends when all are
    /// there, or with `give_up`.
    pub async fn apply(
        self: &Arc<Self>,
        cells: Vec<Cell>,
        token: &Token,
        give_up: &CancellationToken,
        applied: impl Fn(),
    ) -> Result<(), GivenUp> {
        let mut inserts = JoinSet::new();
        for cell in cells {
            let (inserter, token) = (Arc::clone(self), token.clone());
            inserts.spawn(async move { inserter.persist(&cell, &token).await });
        }
        loop {
            match give_up.run_until_cancelled(inserts.join_next()).await {
                Some(Some(done)) => {
                    done.expect("an insert does not panic");
                    applied();
                }
                Some(None) => return Ok(()),
                None => return Err(GivenUp),
            }
        }
    }

    /// Sends one cell until it is taken.
    async fn persist(&self, cell: &Cell, token: &Token) {
        let inserts = Concern::Inserts(token.kp);
        let mut refused = false;
        let mut backoff = Backoff::new(WAITS.0, WAITS.1);
        for attempt in 1.. {
            let error = match self.send(cell, token, attempt).await {
                Ok(()) => {
                    self.health.well(Concern::ClickHouse);
                    if refused {
                        self.health.well(inserts);
                    }
                    return;
                }
                Err(error) => error,
            };
            let wait = if error.passes() {
                self.metrics.insert_failed(InsertError::Passing);
                self.health.trouble(Concern::ClickHouse, &error);
                backoff.wait()
            } else {
                self.metrics.insert_failed(InsertError::Refused);
                let Cell { table, partition, rows, .. } = cell;
                tracing::error!("insert {rows} rows into `{table}` {partition} as {}: {error}", token.text);
                refused = true;
                self.health.trouble(inserts, format!("`{table}` {partition}: {error}"));
                REFUSED_WAIT
            };
            time::sleep(wait).await;
        }
    }

    async fn send(&self, cell: &Cell, token: &Token, attempt: u32) -> Result<(), StoreError> {
        let _place = self.places.acquire().await.expect("the semaphore is never closed");
        let start = Instant::now();
        let Cell { table, partition, block, .. } = cell;
        let mut insert = self
            .store
            .client
            .insert_formatted_with(statement(table, &block.structure))
            .with_timeouts(Some(SEND_TIMEOUT), Some(END_TIMEOUT))
            .with_setting("insert_deduplication_token", &token.text)
            .with_setting("query_id", format!("sa/{}/{table}/{partition}/{attempt}", token.text));
        for (name, value) in SETTINGS {
            insert = insert.with_setting(name, value);
        }
        for chunk in chunks(&block.bytes) {
            insert.send(chunk).await?;
        }
        insert.end().await?;
        self.metrics.inserted(start.elapsed());
        Ok(())
    }
}

/// Through `input`: only there are texts converted to JSON under our settings, not the server's.
fn statement(table: &str, structure: &[(String, String)]) -> String {
    let names: Vec<_> = structure.iter().map(|(name, _)| name.as_str()).collect();
    let columns: Vec<_> =
        structure.iter().map(|(name, kind)| format!("{name} {}", kind.replace('\'', "\\'"))).collect();
    let (names, columns) = (names.join(", "), columns.join(", "));
    format!("INSERT INTO {table} ({names}) SELECT {names} FROM input('{columns}') FORMAT Native")
}

fn chunks(block: &Bytes) -> impl Iterator<Item = Bytes> {
    (0..block.len()).step_by(CHUNK_BYTES).map(|at| block.slice(at..(at + CHUNK_BYTES).min(block.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_generation_topic_partition_and_offsets() {
        let source = Source { g: 0, kp: 3, cfg: 1 };
        let token = Token::new(source, "events", NextOffset::new(7), Offset::new(9));
        assert_eq!(token.text, "0/events/3/7-9");
    }

    #[test]
    fn a_statement_names_columns_and_types() {
        let structure = [("t", "DateTime('UTC')"), ("n", "UInt64")];
        let structure = structure.map(|(name, kind)| (name.to_owned(), kind.to_owned()));
        assert_eq!(
            statement("x", &structure),
            r"INSERT INTO x (t, n) SELECT t, n FROM input('t DateTime(\'UTC\'), n UInt64') FORMAT Native"
        );
    }

    #[test]
    fn a_block_is_sent_whole_in_chunks() {
        let block = Bytes::from(vec![7; CHUNK_BYTES + 5]);
        assert_eq!(chunks(&block).map(|chunk| chunk.len()).collect::<Vec<_>>(), [CHUNK_BYTES, 5]);
    }
}
