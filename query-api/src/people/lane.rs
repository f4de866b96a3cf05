//! The queue (lane) for the statements of retention and funnels. It runs only a few statements at the same time, each
//! with a deadline. Equal requests share one answer.

use std::sync::Arc;
use std::time::Duration;

use clickhouse::Row;
use serde::Deserialize;

use crate::access::Reader;
use crate::config::Config;
use crate::metrics::QueryMetrics;
use crate::problem::Problem;
use crate::query::budget::{self, Budget, BudgetLimits, CachedAnswer, Key};
use crate::query::fetch::Database;
use crate::query::sql::{Parameter, Statement};
use crate::reach::Reach;

/// Maximum memory that ClickHouse may use for one statement, in bytes.
const MAX_MEMORY_BYTES: u64 = 2 << 30;
/// Maximum number of rows of a result. Every statement of this folder returns fewer.
const MAX_RESULT_ROWS: u64 = 1_000;
/// The approximate limit on the size of all kept answers together, in bytes.
pub(crate) const MAX_CACHE_BYTES: usize = 64 << 20;

/// The queue for statements about people, and the answers that are kept.
pub(super) struct Lane {
    budget: Budget<Counted>,
    database: Database,
    /// Time between two refreshes.
    interval: Duration,
    deadline: Duration,
    /// Maximum number of table rows that a statement may read, as ClickHouse estimates them from the index.
    max_rows_to_read: u64,
}

/// The result of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Counted {
    /// The state of the tables before they were read, such as their `as_of`.
    pub(super) reach: Arc<Reach>,
    /// A row for each `start`.
    pub(super) rows: Vec<CountedRow>,
}

/// A row of a statement.
#[derive(Debug, Clone, PartialEq, Eq, Row, Deserialize)]
pub(super) struct CountedRow {
    /// What the figures belong to: in a retention table the number of the cohort, from 0; in a funnel always 0.
    pub(super) start: i64,
    pub(super) figures: Vec<u64>,
}

impl CachedAnswer for Counted {
    fn bytes(&self) -> usize {
        let rows = self.rows.iter().map(|row| size_of::<CountedRow>() + row.figures.len() * 8);
        size_of::<Self>() + rows.sum::<usize>()
    }
}

impl Lane {
    pub(super) fn new(config: &Config, metrics: QueryMetrics) -> Self {
        let limits = BudgetLimits {
            concurrency: config.people.concurrency.get(),
            slow_concurrency: 0,
            queue_deadline: config.people.queue_deadline,
            deadline: config.people.deadline,
            cache_bytes: MAX_CACHE_BYTES,
            // An answer is kept for a whole interval, and not only until the next refresh. A statement may take longer
            // than the interval, and equal requests during that time must not start another statement.
            max_answer_age: config.refresh.interval,
        };
        Self {
            budget: Budget::new(limits, metrics),
            database: Database::new(&config.clickhouse),
            interval: config.refresh.interval,
            deadline: config.people.deadline,
            max_rows_to_read: config.people.max_rows_to_read.get(),
        }
    }

    /// The largest age of an answer that is not stale: an older answer should have been replaced by now.
    pub(super) fn longest_age(&self) -> Duration {
        3 * self.interval + self.deadline
    }

    /// The kept answer to an equal request, or the answer that is being computed for an equal request. If there is
    /// neither, runs `run` as soon as the queue permits.
    pub(super) async fn answer(
        &self,
        reader: &Arc<Reader>,
        window: (i64, i64),
        query: String,
        run: impl Future<Output = Result<Counted, Problem>>,
    ) -> Result<Arc<Counted>, Problem> {
        let key = Key { refresh: 0, reader: Arc::clone(reader), window, query };
        self.budget.answer(key, budget::Lane::Normal, run).await
    }

    /// Asks ClickHouse. `select` has the columns `start` and `figures` of a [`CountedRow`].
    pub(super) async fn count(
        &self,
        select: String,
        parameters: Vec<(String, Parameter)>,
    ) -> Result<Vec<CountedRow>, Problem> {
        self.database.rows(statement(select, parameters, self.deadline, self.max_rows_to_read)).await
    }
}

/// The statement for a SELECT, with the limits of this lane as settings.
pub(super) fn statement(
    select: String,
    parameters: Vec<(String, Parameter)>,
    deadline: Duration,
    max_rows_to_read: u64,
) -> Statement {
    let settings = vec![
        ("max_execution_time", deadline.as_secs().max(1).to_string()),
        ("max_rows_to_read", max_rows_to_read.to_string()),
        ("read_overflow_mode", "throw".to_owned()),
        ("max_memory_usage", MAX_MEMORY_BYTES.to_string()),
        ("max_result_rows", MAX_RESULT_ROWS.to_string()),
        ("result_overflow_mode", "throw".to_owned()),
        ("cancel_http_readonly_queries_on_client_close", "1".to_owned()),
    ];
    Statement { text: select, parameters, settings }
}
