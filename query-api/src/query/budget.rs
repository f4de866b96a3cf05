//! What queries may cost together.
//!
//! A number of statements runs at once; one more waits for its turn, but not for long. Those that may take long have
//! turns of their own, so that they do not keep the others waiting. Queries that are equal share one statement, and
//! its rows count until the next tick: so however many readers look at a dashboard, each of its queries runs once per
//! tick. A statement ends with its last reader. Failures are shown to those who wait and not kept.

use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::future::Cache;
use tokio::sync::Semaphore;
use tokio::time;

use super::shape::Shaped;
use crate::access::Reader;
use crate::config::{QueryConfig, RefreshConfig};
use crate::metrics::QueryMetrics;
use crate::problem::{Kind, Problem};

/// Turns for statements, and the answers of this tick.
pub(super) struct Budget {
    normal: Semaphore,
    slow: Semaphore,
    answers: Cache<Key, Arc<Shaped>>,
    /// Longest that a query waits for its turn.
    queue_deadline: Duration,
    /// Longest that a statement runs.
    deadline: Duration,
    metrics: QueryMetrics,
}

/// Which turns a query waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// Those of statements whose cost is bounded.
    Normal,
    /// Those of statements that count exactly at any cost.
    Slow,
}

/// Which answers are equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// The tick that computed it.
    pub(super) tick: u64,
    /// Who may see it.
    pub(super) reader: Arc<Reader>,
    /// The start and the end of its window.
    pub(super) window: (i64, i64),
    /// What was asked.
    pub(super) query: String,
}

impl Budget {
    pub(super) fn new(config: &QueryConfig, refresh: &RefreshConfig, metrics: QueryMetrics) -> Self {
        let bytes = |_: &Key, shaped: &Arc<Shaped>| u32::try_from(shaped.bytes()).unwrap_or(u32::MAX);
        let answers = Cache::builder()
            .weigher(bytes)
            .max_capacity(config.cache_bytes as u64)
            // Ticks end an answer's time; without ClickHouse there are none.
            .time_to_live(2 * refresh.interval)
            .build();
        Self {
            normal: Semaphore::new(config.concurrency.get()),
            slow: Semaphore::new(config.slow_concurrency.get()),
            answers,
            queue_deadline: config.queue_deadline,
            deadline: config.deadline,
            metrics,
        }
    }

    /// The answer that is kept or under way, else what `run` gives when it is its turn.
    pub(super) async fn answer(
        &self,
        key: Key,
        lane: Lane,
        run: impl Future<Output = Result<Shaped, Problem>>,
    ) -> Result<Arc<Shaped>, Problem> {
        let mut is_shared = true;
        let shares = &mut is_shared;
        let bounded = async move {
            *shares = false;
            let turns = match lane {
                Lane::Normal => &self.normal,
                Lane::Slow => &self.slow,
            };
            let waiting = self.metrics.waiting();
            let turn = time::timeout(self.queue_deadline, turns.acquire()).await;
            let _turn = turn.map_err(|_| Problem::from(Kind::Busy))?.expect("it is never closed");
            drop(waiting);
            let started = Instant::now();
            let shaped = time::timeout(self.deadline, run).await;
            self.metrics.ran(started.elapsed());
            shaped.map_err(|_| Problem::from(Kind::TooSlow))?.map(Arc::new)
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

    use super::*;
    use crate::metrics::Metrics;

    fn budget() -> Budget {
        let refresh = RefreshConfig { interval: Duration::from_secs(3), deadline: Duration::from_secs(10) };
        Budget::new(&QueryConfig::default(), &refresh, Metrics::new().queries)
    }

    fn key(tick: u64, query: &str) -> Key {
        Key { tick, reader: Arc::default(), window: (0, 60), query: query.to_owned() }
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
    async fn equal_queries_share_one_statement_until_the_next_tick() {
        let (budget, runs) = (budget(), AtomicUsize::new(0));
        let ask = |tick| {
            let run = async {
                runs.fetch_add(1, Ordering::Relaxed);
                time::sleep(Duration::from_secs(1)).await;
                Ok(shaped())
            };
            budget.answer(key(tick, "a"), Lane::Normal, run)
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
    async fn more_than_may_run_at_once_wait_and_none_waits_for_ever() {
        let budget = Arc::new(budget());
        let ask = |query: String| {
            let budget = Arc::clone(&budget);
            async move { budget.answer(key(7, &query), Lane::Normal, future::pending()).await }
        };
        let running: Vec<_> =
            (0..QueryConfig::default().concurrency.get()).map(|n| tokio::spawn(ask(n.to_string()))).collect();
        tokio::task::yield_now().await;
        assert_eq!(ask("one more".to_owned()).await, Err(Kind::Busy.into()));
        // What may take long has turns of its own.
        let slow = budget.answer(key(7, "slow"), Lane::Slow, async { Ok(shaped()) });
        assert!(slow.await.is_ok());
        for run in running {
            assert_eq!(run.await.unwrap(), Err(Kind::TooSlow.into()));
        }
        assert!(budget.answer(key(7, "later"), Lane::Normal, async { Ok(shaped()) }).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_statement_outlives_the_reader_who_began_it_while_another_waits() {
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
