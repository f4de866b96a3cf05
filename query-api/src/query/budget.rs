//! Limits the cost of all queries together.
//!
//! A limited number of statements runs at once; further statements wait for their turn, up to a deadline. Statements
//! that may take long have a separate limit, so other statements do not wait for them. Requests with equal [`Key`]s
//! share one statement, and its answer is kept. Answers to `/v1/query` are kept until the next refresh. So each query
//! of a dashboard runs once per refresh and reader, however often the dashboard is open. If the client whose request
//! runs a statement disconnects, the statement is cancelled; if equal requests wait for its answer, one of them runs
//! the statement again. If a statement fails, all requests that wait for its answer get the error. Errors are not kept:
//! the next equal request runs the statement again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::future::Cache;
use tokio::sync::Semaphore;
use tokio::time;

use crate::access::Reader;
use crate::config::Config;
use crate::metrics::QueryMetrics;
use crate::problem::{Kind, Problem};

/// The limits of a budget.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BudgetLimits {
    /// Maximum number of statements of bounded cost that run at once.
    pub(crate) concurrency: usize,
    /// Maximum number of statements of unbounded cost that run at once; 0 if the budget is not used for such
    /// statements.
    pub(crate) slow_concurrency: usize,
    /// Longest time that a query waits for its turn.
    pub(crate) queue_deadline: Duration,
    /// Longest time that a statement runs.
    pub(crate) deadline: Duration,
    /// About how many bytes of answers are kept.
    pub(crate) cache_bytes: usize,
    /// Longest time that an answer is kept.
    pub(crate) max_answer_age: Duration,
}

impl BudgetLimits {
    /// The limits of `/v1/query`.
    pub(super) fn of_queries(config: &Config) -> Self {
        Self {
            concurrency: config.query.concurrency.get(),
            slow_concurrency: config.query.slow_concurrency.get(),
            queue_deadline: config.query.queue_deadline,
            deadline: config.query.deadline,
            cache_bytes: config.query.cache_bytes,
            // Normally an answer is kept until the next refresh. While refreshes fail, this limit applies instead.
            max_answer_age: 2 * config.refresh.interval,
        }
    }
}

/// An answer that a [`Budget`] can keep.
pub(crate) trait CachedAnswer: Send + Sync + 'static {
    /// About how much memory the answer takes.
    fn bytes(&self) -> usize;
}

/// Gives each statement its turn, and keeps the answers.
pub(crate) struct Budget<A> {
    normal: Semaphore,
    slow: Semaphore,
    answers: Cache<Key, Arc<A>>,
    limits: BudgetLimits,
    metrics: QueryMetrics,
}

/// The queue in which a query waits for its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// The queue of statements whose cost is bounded.
    Normal,
    /// The queue of statements that count distinct values exactly, so their cost is not bounded.
    Slow,
}

/// The key of an answer: requests with equal keys share one answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// The number of refreshes that succeeded before the request; 0 if an answer is also kept after the next refresh.
    pub(crate) refresh: u64,
    /// The rights of the reader: only requests with equal rights may get the answer.
    pub(crate) reader: Arc<Reader>,
    /// The start and the end of the query's window.
    pub(crate) window: (i64, i64),
    /// The request in canonical form.
    pub(crate) query: String,
}

impl<A: CachedAnswer> Budget<A> {
    pub(crate) fn new(limits: BudgetLimits, metrics: QueryMetrics) -> Self {
        let bytes = |_: &Key, answer: &Arc<A>| u32::try_from(answer.bytes()).unwrap_or(u32::MAX);
        let answers = Cache::builder()
            .weigher(bytes)
            .max_capacity(limits.cache_bytes as u64)
            .time_to_live(limits.max_answer_age)
            .build();
        Self {
            normal: Semaphore::new(limits.concurrency),
            slow: Semaphore::new(limits.slow_concurrency),
            answers,
            limits,
            metrics,
        }
    }

    /// Returns the kept answer for `key`, or waits for the answer that another request is computing. If there is
    /// neither, waits for a turn of the lane and computes the answer with `run`.
    pub(crate) async fn answer(
        &self,
        key: Key,
        lane: Lane,
        run: impl Future<Output = Result<A, Problem>>,
    ) -> Result<Arc<A>, Problem> {
        let mut is_shared = true;
        let shares = &mut is_shared;
        let bounded = async move {
            *shares = false;
            let turns = match lane {
                Lane::Normal => &self.normal,
                Lane::Slow => &self.slow,
            };
            let waiting = self.metrics.waiting();
            let turn = time::timeout(self.limits.queue_deadline, turns.acquire()).await;
            let _turn = turn.map_err(|_| Problem::from(Kind::Busy))?.expect("the semaphore is never closed");
            drop(waiting);
            let started = Instant::now();
            let answer = time::timeout(self.limits.deadline, run).await;
            self.metrics.ran(started.elapsed());
            answer.map_err(|_| Problem::from(Kind::TooSlow))?.map(Arc::new)
        };
        let answer = self.answers.try_get_with(key, bounded).await;
        if is_shared {
            self.metrics.shared();
        }
        answer.map_err(|problem| (*problem).clone())
    }
}

#[cfg(test)]
mod tests {
    use std::future;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::shape::Shaped;
    use super::*;
    use crate::metrics::Metrics;

    const LIMITS: BudgetLimits = BudgetLimits {
        concurrency: 4,
        slow_concurrency: 2,
        queue_deadline: Duration::from_secs(5),
        deadline: Duration::from_secs(10),
        cache_bytes: 64 << 20,
        max_answer_age: Duration::from_secs(6),
    };

    fn budget() -> Budget<Shaped> {
        Budget::new(LIMITS, Metrics::new().queries)
    }

    fn key(refresh: u64, query: &str) -> Key {
        Key { refresh, reader: Arc::default(), window: (0, 60), query: query.to_owned() }
    }

    fn shaped() -> Shaped {
        Shaped {
            rows: Vec::new(),
            total: 0,
            truncated: false,
            next: None,
            complete_until: None,
            as_of: None,
            rollups: Vec::new(),
            window: (0, 60),
            is_before_since: false,
            compared: None,
            sampled: Vec::new(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn equal_queries_share_one_statement_until_the_next_refresh() {
        let (budget, runs) = (budget(), AtomicUsize::new(0));
        let ask = |refresh| {
            let run = async {
                runs.fetch_add(1, Ordering::Relaxed);
                time::sleep(Duration::from_secs(1)).await;
                Ok(shaped())
            };
            budget.answer(key(refresh, "a"), Lane::Normal, run)
        };
        let (one, two, three) = tokio::join!(ask(7), ask(7), ask(7));
        assert!(one.is_ok() && two.is_ok() && three.is_ok());
        assert!(ask(7).await.is_ok());
        assert_eq!(runs.load(Ordering::Relaxed), 1);
        assert!(ask(8).await.is_ok());
        assert_eq!(runs.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn answers_are_not_shared_among_readers() {
        let (budget, runs) = (budget(), AtomicUsize::new(0));
        for tenant in ["a", "b", "a"] {
            let reader = Arc::new(Reader { tenant: tenant.to_owned(), ..Reader::default() });
            let run = async {
                runs.fetch_add(1, Ordering::Relaxed);
                Ok(shaped())
            };
            budget.answer(Key { reader, ..key(7, "a") }, Lane::Normal, run).await.unwrap();
        }
        assert_eq!(runs.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn statements_over_the_limit_wait_for_a_turn_until_the_deadline() {
        let budget = Arc::new(budget());
        let ask = |query: String| {
            let budget = Arc::clone(&budget);
            async move { budget.answer(key(7, &query), Lane::Normal, future::pending()).await }
        };
        let running: Vec<_> = (0..LIMITS.concurrency).map(|n| tokio::spawn(ask(n.to_string()))).collect();
        tokio::task::yield_now().await;
        assert_eq!(ask("one more".to_owned()).await, Err(Kind::Busy.into()));
        // Statements that may take long have a separate limit.
        let slow = budget.answer(key(7, "slow"), Lane::Slow, async { Ok(shaped()) });
        assert!(slow.await.is_ok());
        for run in running {
            assert_eq!(run.await.unwrap(), Err(Kind::TooSlow.into()));
        }
        assert!(budget.answer(key(7, "later"), Lane::Normal, async { Ok(shaped()) }).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_request_runs_the_statement_when_the_first_client_disconnects() {
        let budget = Arc::new(budget());
        let ask = || {
            let budget = Arc::clone(&budget);
            tokio::spawn(async move {
                let run = async {
                    time::sleep(Duration::from_secs(1)).await;
                    Ok(shaped())
                };
                budget.answer(key(7, "a"), Lane::Normal, run).await
            })
        };
        let (first, second) = (ask(), ask());
        tokio::task::yield_now().await;
        first.abort();
        assert!(second.await.unwrap().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_not_kept() {
        let budget = budget();
        let failed = budget.answer(key(7, "a"), Lane::Normal, async { Err(Kind::Unavailable.into()) }).await;
        assert_eq!(failed, Err(Kind::Unavailable.into()));
        assert!(budget.answer(key(7, "a"), Lane::Normal, async { Ok(shaped()) }).await.is_ok());
    }
}
