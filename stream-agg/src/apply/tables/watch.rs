//! Checks the tables every minute while batches are inserted.
//!
//! When a table partition loses a part, it loses the rows and the marker in this part. If a later batch were
//! inserted, the marker of this batch would cover the offsets of the lost rows, too. Then the checks at the start of a
//! pipeline and `stream-agg adopt` could no longer detect that rows are missing. So once a check finds a problem, no
//! batch is inserted into any table until a check finds none. An operator restores all tables from the same backup and
//! runs `stream-agg adopt`. Restoring only the damaged table would not help, because this table would lack everything
//! after the backup. While inserts are held back, batches may still be declared; their inserts wait at the
//! [`InsertGate`].

use std::time::Duration;

use runtime::backoff::RetryPolicy;
use schemas::field::Field;
use tokio::sync::{Notify, watch};
use tokio::time;
use tokio_util::sync::CancellationToken;

use super::{TablesError, check};
use crate::apply::store::Store;
use crate::health::{Component, Health};
use crate::metrics::Metrics;

/// Pause between two checks while no check finds a problem.
const CHECK_PAUSE: Duration = Duration::from_secs(60);
/// The backoff between checks after a check has found a problem or got no answer.
const CHECK_RETRIES: RetryPolicy = RetryPolicy::new(Duration::from_millis(200), Duration::from_secs(5));

/// Holds back inserts while a requested check of the tables is pending.
#[derive(Debug)]
pub struct InsertGate {
    checks: watch::Sender<Checks>,
    check_now: Notify,
}

/// How many checks of the tables were requested, and how many of these requests are `done`. A check that finds no
/// problem settles only the requests that were made before it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Checks {
    requested: u64,
    done: u64,
}

/// The gate is open at first, because it is created after the tables were checked.
impl Default for InsertGate {
    fn default() -> Self {
        Self { checks: watch::Sender::new(Checks::default()), check_now: Notify::new() }
    }
}

impl InsertGate {
    /// Returns once batches may be inserted.
    pub async fn open(&self) {
        // Waiting fails only once the sender is dropped, and the sender lives as long as `self`.
        let _ = self.checks.subscribe().wait_for(|checks| checks.done == checks.requested).await;
    }

    /// Closes the gate because ClickHouse did not answer: it may have restarted without a part that it could not read.
    /// Requests a check of the tables. The gate stays closed until a check that begins after this request finds no
    /// problem.
    pub fn close_until_checked(&self) {
        self.close();
        self.check_now.notify_one();
    }

    fn close(&self) {
        self.checks.send_modify(|checks| checks.requested += 1);
    }

    fn requested(&self) -> u64 {
        self.checks.borrow().requested
    }

    fn settle(&self, requested: u64) {
        self.checks.send_modify(|checks| checks.done = requested);
    }
}

/// Checks the tables every minute, and reports problems.
pub struct TableWatch<'w> {
    /// The client of the database with the tables.
    pub store: &'w Store,
    /// Declared fields, which have columns of their own in the raw table.
    pub fields: &'w [Field],
    /// Closed from the moment at which a check finds a problem or gets no answer, until a check finds no problem.
    pub gate: &'w InsertGate,
    /// Shows the number of parts of each table, and whether a problem holds back inserts.
    pub metrics: &'w Metrics,
    /// Reports the problem that a check found, until a check finds none.
    pub health: &'w Health,
}

impl TableWatch<'_> {
    /// Checks the tables every minute, and at once when [`InsertGate::close_until_checked`] requests a check. Returns
    /// when `stop` is cancelled.
    pub async fn run(self, stop: &CancellationToken) {
        let checking = async {
            self.count_parts().await;
            loop {
                // A request and the end of the pause both mean that a check is due.
                let _ = time::timeout(CHECK_PAUSE, self.gate.check_now.notified()).await;
                self.check_until_sound().await;
                self.count_parts().await;
            }
        };
        let _stopped = stop.run_until_cancelled(checking).await;
    }

    /// Sets the metric of the number of parts: for each table, the number in the table partition with the most parts.
    /// Nothing else depends on this number. So if the query fails, for example because the user has no right to read
    /// `system.parts`, the error is only logged at level debug.
    async fn count_parts(&self) {
        match super::parts(self.store).await {
            Ok(tables) => tables.iter().for_each(|(table, parts)| self.metrics.parts(table, *parts)),
            Err(error) => tracing::debug!("count the parts of the tables: {error}"),
        }
    }

    async fn check_until_sound(&self) {
        let mut backoff = CHECK_RETRIES.backoff();
        loop {
            let requested = self.gate.requested();
            match check(self.store, self.fields).await {
                Ok(()) => {
                    self.metrics.inserts_held.set(0);
                    // A process that owns no partition has no insert that would show this.
                    self.health.recovered(Component::ClickHouse);
                    self.health.recovered(Component::Tables);
                    return self.gate.settle(requested);
                }
                Err(TablesError::Store(error)) => {
                    self.gate.close();
                    self.health.degraded(Component::ClickHouse, error);
                }
                Err(finding) => {
                    self.gate.close();
                    self.metrics.inserts_held.set(1);
                    self.health.alarm(
                        Component::Tables,
                        format!("{finding}; inserts wait until this problem is fixed"),
                    );
                }
            }
            time::sleep(backoff.wait()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn is_open(gate: &InsertGate) -> bool {
        time::timeout(Duration::from_secs(1), gate.open()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_settles_only_the_requests_that_were_made_before_it_began() {
        let gate = InsertGate::default();
        assert!(is_open(&gate).await, "no check is due");
        gate.close_until_checked();
        assert!(!is_open(&gate).await);
        let requested = gate.requested();
        gate.close_until_checked();
        gate.settle(requested);
        assert!(!is_open(&gate).await, "the second request came after the check began");
        gate.settle(gate.requested());
        assert!(is_open(&gate).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_requested_check_does_not_wait_for_the_next_minute() {
        let gate = InsertGate::default();
        gate.close_until_checked();
        assert!(time::timeout(CHECK_PAUSE / 2, gate.check_now.notified()).await.is_ok());
        assert!(
            time::timeout(CHECK_PAUSE / 2, gate.check_now.notified()).await.is_err(),
            "one check for each request"
        );
    }
}
