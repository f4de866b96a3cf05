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

/// The queue for statements of retention and funnels, and a cache of their answers.
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
    /// The state of the tables, such as `as_of`, at the latest refresh before the request arrived. If several requests
    /// share the result, the request for which the statement ran is meant.
    pub(super) reach: Arc<Reach>,
    /// The rows of the result: at most one row for each value of `start`.
    pub(super) rows: Vec<CountedRow>,
}

/// A row of the result of a statement.
#[derive(Debug, Clone, PartialEq, Eq, Row, Deserialize)]
pub(super) struct CountedRow {
    /// For retention, the index of the cohort that the figures belong to, from 0. For a funnel, always 0.
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
            // An answer stays in the cache across refreshes, because the cache keys of this lane have `refresh: 0`.
            // Otherwise, after each refresh that happens while a slow statement runs, an equal request would start the
            // same statement again. This field limits the age of an answer instead.
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

    /// The limit on the age of an answer's `as_of`. An answer with an older `as_of` is stale, because a newer answer
    /// should have replaced it.
    pub(super) fn longest_age(&self) -> Duration {
        3 * self.interval + self.deadline
    }

    /// Returns the cached answer to an equal request, or waits for the answer that is being computed for an equal
    /// request. If there is neither, runs `run` as soon as the queue permits.
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

    /// Runs `select` in ClickHouse, with the limits of this lane. The result must have the columns of [`CountedRow`].
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
