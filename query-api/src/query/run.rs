//! Asks ClickHouse for a query, within a budget.
//!
//! At most [`AT_ONCE`] statements run at once; one more waits for its turn, but not for long. Queries that are
//! equal share one statement, and its rows count until the next tick: so however many readers look at a
//! dashboard, each of its queries runs once per tick. When the last reader of a statement leaves, its connection
//! is closed and ClickHouse ends it.

use std::sync::Arc;
use std::time::Duration;

use clickhouse::{Client, Row};
use moka::future::Cache;
use runtime::error::chain;
use schemas::time::UnixMillis;
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::time;

use super::problem::{Kind, Problem};
use super::shape::Shaped;
use super::sql::{Parameter, Statement};
use crate::config::Config;

/// Statements of queries that run at once.
const AT_ONCE: usize = 4;
/// Longest that a query waits for its turn.
const QUEUE_DEADLINE: Duration = Duration::from_secs(5);
/// Bytes of answers that are kept until the next tick, about.
const MAX_KEPT: u64 = 64 << 20;

/// Runs statements.
pub(super) struct Runner {
    client: Client,
    turns: Semaphore,
    answers: Cache<Key, Arc<Shaped>>,
    deadline: Duration,
}

/// Which answers are equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// The tick that computed it.
    pub(super) tick: u64,
    /// The start and the end of its window.
    pub(super) window: (i64, i64),
    /// What was asked.
    pub(super) query: String,
}

/// What a statement gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fetched {
    /// All that was in Kafka before this moment is counted; none while nothing is.
    pub(super) as_of: Option<UnixMillis>,
    /// Hash of the aggregator's rollups; none before one has started.
    pub(super) rollups: Option<u64>,
    /// Rows of all parts.
    pub(super) rows: Vec<FetchedRow>,
}

/// A row of a statement.
#[derive(Debug, Clone, PartialEq, Eq, Row, Deserialize)]
pub(super) struct FetchedRow {
    /// The part of the plan, from 1; 0 in the row that tells how far the tables reach.
    pub(super) part: u8,
    /// Start of the bucket in seconds; in the first row `as_of` in milliseconds.
    pub(super) start: i64,
    /// Dimensions; null for the values that `top` merges.
    pub(super) keys: Vec<Option<String>>,
    /// Measures.
    pub(super) figures: Vec<Option<i128>>,
}

impl Runner {
    pub(super) fn new(config: &Config) -> Self {
        let database = &config.clickhouse;
        let client = Client::default()
            .with_url(&database.url)
            .with_database(&database.database)
            .with_user(&database.user)
            .with_password(&database.password);
        let bytes = |_: &Key, shaped: &Arc<Shaped>| u32::try_from(shaped.bytes()).unwrap_or(u32::MAX);
        let answers = Cache::builder()
            .weigher(bytes)
            .max_capacity(MAX_KEPT)
            // Ticks end their time; without ClickHouse there are none.
            .time_to_live(2 * config.poll.interval)
            .build();
        Self { client, turns: Semaphore::new(AT_ONCE), answers, deadline: config.poll.deadline }
    }

    /// Seconds that a statement may take.
    pub(super) fn seconds(&self) -> u64 {
        self.deadline.as_secs().max(1)
    }

    /// The answer to a query: the one that is kept or under way, else what `shape` makes of the statement's rows.
    pub(super) async fn answer(
        &self,
        key: Key,
        statement: Statement,
        shape: impl FnOnce(Fetched) -> Result<Shaped, Problem>,
    ) -> Result<Arc<Shaped>, Problem> {
        let run = async {
            let turn = time::timeout(QUEUE_DEADLINE, self.turns.acquire()).await;
            let _turn = turn.map_err(|_| Problem::from(Kind::Busy))?.expect("it is never closed");
            let fetched = time::timeout(self.deadline, self.fetch(statement)).await;
            let fetched = fetched.map_err(|_| Problem::from(Kind::TooSlow))??;
            shape(fetched).map(Arc::new)
        };
        self.answers.try_get_with(key, run).await.map_err(|problem: Arc<Problem>| (*problem).clone())
    }

    async fn fetch(&self, statement: Statement) -> Result<Fetched, Problem> {
        // Raw: a question mark within a declared text is no placeholder.
        let mut query = self.client.query_raw(&statement.text);
        for (name, value) in statement.settings {
            query = query.with_setting(name, value);
        }
        for (name, value) in statement.parameters {
            query = match value {
                Parameter::Texts(texts) => query.param(&name, texts),
                Parameter::Moments(moments) => query.param(&name, moments),
            };
        }
        let rows = query.fetch_all::<FetchedRow>().await.map_err(|error| problem(&error))?;
        let (reach, rows): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.part == 0);
        let reach = reach.first();
        let rollups = reach.and_then(|row| u64::try_from((*row.figures.first()?)?).ok());
        Ok(Fetched {
            as_of: reach.map(|row| UnixMillis(row.start)).filter(|as_of| as_of.0 > 0),
            rollups: rollups.filter(|hash| *hash != 0),
            rows,
        })
    }
}

/// What a reader learns of an error; the operator learns all of it.
fn problem(error: &clickhouse::error::Error) -> Problem {
    let text = chain(error);
    let kind = kind(&text);
    if kind == Kind::Unavailable {
        tracing::warn!("a query has no answer: {text}");
    }
    kind.into()
}

/// By the code of ClickHouse's error.
fn kind(error: &str) -> Kind {
    let code = error.split_once("Code: ").map(|(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).next());
    match code.flatten() {
        // TOO_MANY_ROWS, TOO_MANY_BYTES, TOO_MANY_ROWS_OR_BYTES, MEMORY_LIMIT_EXCEEDED
        Some("158" | "307" | "396" | "241") => Kind::TooWide,
        // TIMEOUT_EXCEEDED, TOO_SLOW
        Some("159" | "160") => Kind::TooSlow,
        // TOO_MANY_SIMULTANEOUS_QUERIES
        Some("202") => Kind::Busy,
        _ => Kind::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_of_an_error_tells_what_became_of_the_query() {
        let error = "bad response: Code: 158. DB::Exception: Limit for rows exceeded. (TOO_MANY_ROWS)";
        assert_eq!(kind(error), Kind::TooWide);
        assert_eq!(kind("Code: 159. DB::Exception: Timeout exceeded"), Kind::TooSlow);
        assert_eq!(kind("Code: 1580. DB::Exception"), Kind::Unavailable);
        assert_eq!(kind("connection refused"), Kind::Unavailable);
    }
}
