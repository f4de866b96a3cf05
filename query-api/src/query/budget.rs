//! What queries may cost together.
//!
//! At most [`AT_ONCE`] statements run at once; one more waits for its turn, but not for long. Queries that are
//! equal share one statement, and its rows count until the next tick: so however many readers look at a
//! dashboard, each of its queries runs once per tick. A statement ends with its last reader. Failures are state
//! by those who wait and not kept.

use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use tokio::sync::Semaphore;
use tokio::time;

use super::shape::Shaped;
use crate::access::Reader;
use crate::config::RefreshConfig;
use crate::problem::{Kind, Problem};

/// Statements of queries that run at once.
const AT_ONCE: usize = 4;
/// Longest that a query waits for its turn.
const QUEUE_DEADLINE: Duration = Duration::from_secs(5);
/// Bytes of answers that are kept until the next tick, about.
const MAX_KEPT: u64 = 64 << 20;

/// Turns for statements, and the answers of this tick.
pub(super) struct Budget {
    turns: Semaphore,
    answers: Cache<Key, Arc<Shaped>>,
    /// Longest that a statement runs.
    deadline: Duration,
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
    pub(super) fn new(poll: &RefreshConfig) -> Self {
        let bytes = |_: &Key, shaped: &Arc<Shaped>| u32::try_from(shaped.bytes()).unwrap_or(u32::MAX);
        let answers = Cache::builder()
            .weigher(bytes)
            .max_capacity(MAX_KEPT)
            // Ticks end an answer's time; without ClickHouse there are none.
            .time_to_live(2 * poll.interval)
            .build();
        Self { turns: Semaphore::new(AT_ONCE), answers, deadline: poll.deadline }
    }

    /// The answer that is kept or under way, else what `run` gives when it is its turn.
    pub(super) async fn answer(
        &self,
        key: Key,
        run: impl Future<Output = Result<Shaped, Problem>>,
    ) -> Result<Arc<Shaped>, Problem> {
        let bounded = async {
            let turn = time::timeout(QUEUE_DEADLINE, self.turns.acquire()).await;
            let _turn = turn.map_err(|_| Problem::from(Kind::Busy))?.expect("it is never closed");
            let shaped = time::timeout(self.deadline, run).await;
            shaped.map_err(|_| Problem::from(Kind::TooSlow))?.map(Arc::new)
        };
        self.answers.try_get_with(key, bounded).await.map_err(|problem| (*problem).clone())
    }
}

#[cfg(test)]
mod tests {
    use std::future;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn budget() -> Budget {
        Budget::new(&RefreshConfig { interval: Duration::from_secs(3), deadline: Duration::from_secs(10) })
    }

    fn key(tick: u64, query: &str) -> Key {
        Key { tick, reader: Arc::default(), window: (0, 60), query: query.to_owned() }
    }

    fn shaped() -> Shaped {
        Shaped {
            rows: Vec::new(),
            truncated: false,
            next: None,
            complete_until: None,
            as_of: None,
            declared: None,
            rollups: Vec::new(),
            window: (0, 60),
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
            budget.answer(key(tick, "a"), run)
        };
        let (one, two, three) = tokio::join!(ask(7), ask(7), ask(7));
        assert!(one.is_ok() && two.is_ok() && three.is_ok());
        assert!(ask(7).await.is_ok());
        assert_eq!(runs.load(Ordering::Relaxed), 1);
        assert!(ask(8).await.is_ok());
        assert_eq!(runs.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn more_than_may_run_at_once_wait_and_none_waits_for_ever() {
        let budget = Arc::new(budget());
        let ask = |query: String| {
            let budget = Arc::clone(&budget);
            async move { budget.answer(key(7, &query), future::pending()).await }
        };
        let running: Vec<_> = (0..AT_ONCE).map(|n| tokio::spawn(ask(n.to_string()))).collect();
        tokio::task::yield_now().await;
        assert_eq!(ask("one more".to_owned()).await, Err(Kind::Busy.into()));
        for run in running {
            assert_eq!(run.await.unwrap(), Err(Kind::TooSlow.into()));
        }
        assert!(budget.answer(key(7, "later"), async { Ok(shaped()) }).await.is_ok());
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
                budget.answer(key(7, "a"), run).await
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
        let failed = budget.answer(key(7, "a"), async { Err(Kind::Unavailable.into()) }).await;
        assert_eq!(failed, Err(Kind::Unavailable.into()));
        assert!(budget.answer(key(7, "a"), async { Ok(shaped()) }).await.is_ok());
    }
}
