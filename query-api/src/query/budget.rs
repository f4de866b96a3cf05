//! What queries may cost together.
//!
//! A number of statements runs at once; one more waits for its turn, but not for long. Queries that are
//! equal share one statement, and its rows count until the next tick: so however many readers look at a
//! dashboard, each of its queries runs once per tick. A statement ends with its last reader. Failures are shown
//! to those who wait and not kept. Statements that may take long have a budget of their own.

use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use tokio::sync::Semaphore;
use tokio::time;

use crate::problem::{Kind, Problem};

/// Bytes of answers that are kept, about.
const MAX_KEPT: u64 = 64 << 20;

/// What the statements of a budget may cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Statements that run at once.
    pub(crate) at_once: usize,
    /// Longest that a query waits for its turn.
    pub(crate) queue_deadline: Duration,
    /// Longest that a statement runs.
    pub(crate) deadline: Duration,
    /// Longest that an answer is kept.
    pub(crate) kept: Duration,
}

/// An answer that is kept.
pub(crate) trait Kept: Send + Sync + 'static {
    /// How much memory it takes, about.
    fn bytes(&self) -> usize;
}

/// Turns for statements, and the answers that are kept.
pub(crate) struct Budget<A> {
    turns: Semaphore,
    answers: Cache<Key, Arc<A>>,
    limits: Limits,
}

/// Which answers are equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// The tick that computed it; 0 where an answer outlives a tick.
    pub(crate) tick: u64,
    /// Whose rows they are.
    pub(crate) tenant: String,
    /// The start and the end of its window.
    pub(crate) window: (i64, i64),
    /// What was asked.
    pub(crate) query: String,
}

impl<A: Kept> Budget<A> {
    pub(crate) fn new(limits: Limits) -> Self {
        let bytes = |_: &Key, answer: &Arc<A>| u32::try_from(answer.bytes()).unwrap_or(u32::MAX);
        let answers =
            Cache::builder().weigher(bytes).max_capacity(MAX_KEPT).time_to_live(limits.kept).build();
        Self { turns: Semaphore::new(limits.at_once), answers, limits }
    }

    /// The answer that is kept or under way, else what `run` gives when it is its turn.
    pub(crate) async fn answer(
        &self,
        key: Key,
        run: impl Future<Output = Result<A, Problem>>,
    ) -> Result<Arc<A>, Problem> {
        let bounded = async {
            let turn = time::timeout(self.limits.queue_deadline, self.turns.acquire()).await;
            let _turn = turn.map_err(|_| Problem::from(Kind::Busy))?.expect("it is never closed");
            let answer = time::timeout(self.limits.deadline, run).await;
            answer.map_err(|_| Problem::from(Kind::TooSlow))?.map(Arc::new)
        };
        self.answers.try_get_with(key, bounded).await.map_err(|problem| (*problem).clone())
    }
}

#[cfg(test)]
mod tests {
    use std::future;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::shape::Shaped;
    use super::*;

    const AT_ONCE: usize = 4;

    fn budget() -> Budget<Shaped> {
        Budget::new(Limits {
            at_once: AT_ONCE,
            queue_deadline: Duration::from_secs(5),
            deadline: Duration::from_secs(10),
            kept: Duration::from_secs(6),
        })
    }

    fn key(tick: u64, query: &str) -> Key {
        Key { tick, tenant: "default".to_owned(), window: (0, 60), query: query.to_owned() }
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
