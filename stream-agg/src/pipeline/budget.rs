//! Limits the memory of large batches, for all partitions of the process together.
//!
//! A batch that grows large needs a permit, and keeps the permit until the batch is applied. Invariant: no partition
//! waits forever for a permit, although a partition that makes no progress keeps its permit. After [`PERMIT_TIMEOUT`],
//! the waiting batch closes instead of growing further; a declared batch, which cannot close earlier, grows without a
//! permit.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time;

use crate::config::BatchConfig;

/// A batch of this size or more is large. Smaller batches need no permit.
pub const LARGE_BYTES: usize = 1 << 20;
/// Longest time that a batch waits for a permit. Without a permit, the batch closes instead of growing further.
const PERMIT_TIMEOUT: Duration = Duration::from_secs(10);

/// The permits for large batches, shared by all partitions of the process.
pub struct LargeBatchBudget(Arc<Semaphore>);

/// Allows one batch to be large, until the permit is dropped.
#[derive(Debug)]
pub struct Permit {
    _held: Option<OwnedSemaphorePermit>,
}

impl Permit {
    /// A permit beyond the budget, for a declared batch: its size is fixed, so it cannot stay small.
    pub fn over_budget() -> Self {
        Self { _held: None }
    }
}

impl LargeBatchBudget {
    /// A budget with as many permits as batches of `BATCH_MAX_BYTES` fit into `BATCHES_MAX_BYTES`; at least one.
    pub fn new(config: &BatchConfig) -> Self {
        let BatchConfig { max_bytes, max_total_bytes, .. } = config;
        let permits = NonZeroUsize::new(max_total_bytes.get() / max_bytes.get());
        Self(Arc::new(Semaphore::new(permits.map_or(1, NonZeroUsize::get))))
    }

    /// A permit, or `None` if no permit is free in time. The batch that has waited longest gets the next permit.
    pub async fn acquire(&self) -> Option<Permit> {
        let held = time::timeout(PERMIT_TIMEOUT, Arc::clone(&self.0).acquire_owned()).await.ok()?;
        Some(Permit { _held: Some(held.expect("the semaphore is never closed")) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(max_bytes: usize, max_total_bytes: usize) -> LargeBatchBudget {
        LargeBatchBudget::new(&BatchConfig {
            max_rows: NonZeroUsize::MIN,
            max_bytes: max_bytes.try_into().unwrap(),
            max_total_bytes: max_total_bytes.try_into().unwrap(),
            max_age: Duration::from_secs(2),
        })
    }

    #[tokio::test(start_paused = true)]
    async fn as_many_permits_as_fit_the_byte_limit_and_a_dropped_one_is_reusable() {
        let budget = budget(10, 29);
        let (first, second) = (budget.acquire().await, budget.acquire().await);
        assert!(first.is_some() && second.is_some());
        assert!(budget.acquire().await.is_none(), "only two batches of ten bytes fit into 29");
        drop(first);
        assert!(budget.acquire().await.is_some());
    }

    #[tokio::test]
    async fn at_least_one_large_batch_gets_a_permit() {
        assert!(budget(10, 9).acquire().await.is_some());
    }
}
