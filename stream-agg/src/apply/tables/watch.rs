//! Looks at the tables again and again while they are written to.
//!
//! A part that is lost takes its marker along. What is inserted after it raises the marker
//! of that table partition beyond the hole, so that neither the checks at a start nor
//! `stream-agg adopt` see one any more; and a table that is restored from a copy lacks all
//! that came after the copy. So after a finding nothing is inserted into any table: the
//! tables stay at one offset, and all that an operator must restore is a copy of that offset
//! or an older one, of all tables. Batches may be declared meanwhile; they wait at the [`InsertGate`].

use std::time::Duration;

use runtime::backoff::Backoff;
use schemas::field::Field;
use tokio::sync::{Notify, watch};
use tokio::time;
use tokio_util::sync::CancellationToken;

use super::{TablesError, check};
use crate::apply::store::Store;
use crate::health::{Component, Health};
use crate::metrics::Metrics;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(60);
/// Shortest and longest wait between looks until the tables are as they must be.
const WAITS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// Whether batches may be inserted: while every doubt about the tables was settled.
#[derive(Debug)]
pub struct InsertGate {
    doubts: watch::Sender<Doubts>,
    look: Notify,
}

/// Doubts are numbered, so that a look settles those that were raised before it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Doubts {
    raised: u64,
    settled: u64,
}

/// Open: it is made once the tables were looked at.
impl Default for InsertGate {
    fn default() -> Self {
        Self { doubts: watch::Sender::new(Doubts::default()), look: Notify::new() }
    }
}

impl InsertGate {
    /// Returns once batches may be inserted.
    pub async fn open(&self) {
        // The sender lives as long as `self`.
        let _ = self.doubts.subscribe().wait_for(|doubts| doubts.settled == doubts.raised).await;
    }

    /// ClickHouse did not answer: when it does, it may have started without a part that it
    /// could not read. Closed until the tables were looked at again, which is at once.
    pub fn doubt(&self) {
        self.close();
        self.look.notify_one();
    }

    fn close(&self) {
        self.doubts.send_modify(|doubts| doubts.raised += 1);
    }

    fn raised(&self) -> u64 {
        self.doubts.borrow().raised
    }

    fn settle(&self, raised: u64) {
        self.doubts.send_modify(|doubts| doubts.settled = raised);
    }
}

/// Who looks, and who is told.
pub struct TableWatch<'w> {
    /// ClickHouse.
    pub store: &'w Store,
    /// What has columns of its own in the raw table.
    pub fields: &'w [Field],
    /// Closed by what is found.
    pub gate: &'w InsertGate,
    /// What is counted.
    pub metrics: &'w Metrics,
    /// What is in trouble.
    pub health: &'w Health,
}

impl TableWatch<'_> {
    /// Looks every minute, and at once when there is a doubt, until `stop`.
    pub async fn run(self, stop: &CancellationToken) {
        let looks = async {
            loop {
                // Either way it is time to look.
                let _ = time::timeout(LOOK, self.gate.look.notified()).await;
                self.look_until_sound().await;
            }
        };
        let _stopped = stop.run_until_cancelled(looks).await;
    }

    async fn look_until_sound(&self) {
        let mut backoff = Backoff::new(WAITS.0, WAITS.1);
        loop {
            let raised = self.gate.raised();
            match check(self.store, self.fields).await {
                Ok(()) => {
                    self.metrics.inserts_held.set(0);
                    self.health.recovered(Component::Tables);
                    return self.gate.settle(raised);
                }
                Err(TablesError::Store(error)) => {
                    self.gate.close();
                    self.health.degraded(Component::ClickHouse, error);
                }
                Err(finding) => {
                    self.gate.close();
                    self.metrics.inserts_held.set(1);
                    self.health
                        .alarm(Component::Tables, format!("{finding}; nothing is inserted until then"));
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
    async fn a_look_settles_only_the_doubts_that_were_raised_before_it_began() {
        let gate = InsertGate::default();
        assert!(is_open(&gate).await, "nobody doubts");
        gate.doubt();
        assert!(!is_open(&gate).await);
        let raised = gate.raised();
        gate.doubt();
        gate.settle(raised);
        assert!(!is_open(&gate).await, "clickhouse was away again after the look began");
        gate.settle(gate.raised());
        assert!(is_open(&gate).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_doubt_has_the_tables_looked_at_without_waiting_for_the_minute() {
        let gate = InsertGate::default();
        gate.doubt();
        assert!(time::timeout(LOOK / 2, gate.look.notified()).await.is_ok());
        assert!(time::timeout(LOOK / 2, gate.look.notified()).await.is_err(), "once for each doubt");
    }
}
