//! The slow lane: a few statements at once, within a deadline, and equal ones only once.

use std::sync::Arc;
use std::time::Duration;

use clickhouse::Row;
use schemas::rollup::Rollup;
use schemas::time::UnixMillis;
use serde::Deserialize;

use crate::access::Reader;
use crate::answers::freshness::{AS_OF, ROLLUPS};
use crate::config::Config;
use crate::metrics::QueryMetrics;
use crate::problem::Problem;
use crate::query::budget::{self, Budget, BudgetLimits, Kept, Key};
use crate::query::fetch::Database;
use crate::query::sql::{Parameter, Statement};

/// Memory of one statement in ClickHouse.
const MAX_MEMORY: u64 = 2 << 30;
/// More rows than any of the statements has.
const MAX_RESULT_ROWS: u64 = 1_000;
/// Approximate bytes of the answers that are kept.
const MAX_KEPT: usize = 64 << 20;

/// Turns for statements about people, and their answers.
pub(super) struct Lane {
    budget: Budget<Counted>,
    database: Database,
    /// Seconds between two ticks, and the longest run of a statement.
    interval: Duration,
    deadline: Duration,
    /// Most rows of tables that a statement may read, by the estimate of the index.
    max_rows_to_read: u64,
}

/// What was counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Counted {
    /// All that was in Kafka before this moment is counted; none while nothing is.
    pub(super) as_of: Option<UnixMillis>,
    /// Hash of the aggregator's rollups; none before one has started.
    pub(super) declared: Option<u64>,
    /// The moment, in seconds, from which on the rollup has every event; none if it always had.
    pub(super) since: Option<i64>,
    /// The figures of each start.
    pub(super) rows: Vec<(i64, Vec<u64>)>,
}

impl Kept for Counted {
    fn bytes(&self) -> usize {
        let rows = self.rows.iter().map(|(_, figures)| size_of::<(i64, Vec<u64>)>() + figures.len() * 8);
        size_of::<Self>() + rows.sum::<usize>()
    }
}

/// A row of a statement.
#[derive(Debug, Row, Deserialize)]
struct CountedRow {
    /// 0 in the row that says how far the tables reach.
    part: u8,
    /// What the figures are of; in the first row `as_of` in milliseconds.
    start: i64,
    figures: Vec<u64>,
}

impl Lane {
    pub(super) fn new(config: &Config, metrics: QueryMetrics) -> Self {
        let limits = BudgetLimits {
            concurrency: config.people.concurrency.get(),
            slow_concurrency: 0,
            queue_deadline: config.people.queue_deadline,
            deadline: config.people.deadline,
            cache_bytes: MAX_KEPT,
            // Answers are kept for this time and not for a tick: a statement may outlast the tick, and an equal
            // request must not begin another.
            kept: config.refresh.interval,
        };
        Self {
            budget: Budget::new(limits, metrics),
            database: Database::new(&config.clickhouse),
            interval: config.refresh.interval,
            deadline: config.people.deadline,
            max_rows_to_read: config.people.max_rows_to_read.get(),
        }
    }

    /// How old an answer may be that could not have been renewed twice.
    pub(super) fn longest_age(&self) -> Duration {
        3 * self.interval + self.deadline
    }

    /// The answer that is kept or being computed; otherwise the result of `run`, once it is its turn.
    pub(super) async fn answer(
        &self,
        reader: &Arc<Reader>,
        window: (i64, i64),
        query: String,
        run: impl Future<Output = Result<Counted, Problem>>,
    ) -> Result<Arc<Counted>, Problem> {
        let key = Key { tick: 0, reader: Arc::clone(reader), window, query };
        self.budget.answer(key, budget::Lane::Normal, run).await
    }

    /// Asks ClickHouse.
    pub(super) async fn count(&self, statement: Statement) -> Result<Counted, Problem> {
        let rows = self.database.rows::<CountedRow>(statement).await?;
        let (reach, rows): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.part == 0);
        let reach = reach.first();
        let declared = reach.and_then(|row| row.figures.first().copied());
        let since = reach.and_then(|row| row.figures.get(1).copied());
        Ok(Counted {
            as_of: reach.map(|row| UnixMillis(row.start)).filter(|as_of| as_of.0 > 0),
            declared: declared.filter(|hash| *hash != 0),
            // 1970 stands for a rollup that always counted.
            since: since.filter(|millis| *millis > 0).map(seconds),
            rows: rows.into_iter().map(|row| (row.start, row.figures)).collect(),
        })
    }

    /// A statement that first returns how far the tables and the rollup reach. `select` has the columns `start`
    /// and `figures` of a [`CountedRow`].
    pub(super) fn statement(
        &self,
        select: &str,
        parameters: Vec<(String, Parameter)>,
        rollup: &Rollup,
    ) -> Statement {
        statement(select, parameters, rollup, self.deadline, self.max_rows_to_read)
    }
}

/// The first second that begins at or after this moment.
fn seconds(millis: u64) -> i64 {
    i64::try_from(millis.div_ceil(1000)).unwrap_or(i64::MAX)
}

/// `as_of` is a scalar subquery: ClickHouse evaluates it before it takes the parts of the tables that follow, so the
/// rows are never older than it says.
pub(super) fn statement(
    select: &str,
    parameters: Vec<(String, Parameter)>,
    rollup: &Rollup,
    deadline: Duration,
    max_rows_to_read: u64,
) -> Statement {
    let since = format!(
        "assumeNotNull((SELECT toUnixTimestamp64Milli(max(since)) FROM rollup_since FINAL WHERE rollup = '{}'))",
        rollup.name
    );
    let text = format!(
        "SELECT toUInt8(0) AS part, toInt64({AS_OF}) AS start, [toUInt64({ROLLUPS}), toUInt64({since})] AS figures\n\
         UNION ALL\nSELECT toUInt8(1), start, figures FROM (\n{select}\n)"
    );
    let settings = vec![
        ("max_execution_time", deadline.as_secs().max(1).to_string()),
        ("max_rows_to_read", max_rows_to_read.to_string()),
        ("read_overflow_mode", "throw".to_owned()),
        ("max_memory_usage", MAX_MEMORY.to_string()),
        ("max_result_rows", MAX_RESULT_ROWS.to_string()),
        ("result_overflow_mode", "throw".to_owned()),
        ("cancel_http_readonly_queries_on_client_close", "1".to_owned()),
    ];
    Statement { text, parameters, settings }
}
