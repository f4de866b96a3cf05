//! Audits periodically while the pipelines work, in one process of the group.
//!
//! The process that owns Kafka partition 0 runs the audit. During a rebalance, this partition may have two owners or
//! none for a moment. Two owners may run two audits at once, which costs only more queries. Without an owner, an audit
//! may be left out. Neither makes the result of an audit wrong. The audit does not delay the pipelines: its queries are
//! limited in time, memory and threads, and a failed audit is not repeated before the next interval.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use runtime::error::chain;
use schemas::time::{SECOND, UnixMillis};
use tokio::time::{self, Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::{Reach, audit, report};
use crate::apply::store::Store;
use crate::group::applied_watches::AppliedWatches;
use crate::metrics::Metrics;
use crate::protocol::declaration::Declaration;

/// Runs the periodic audit of the group.
pub struct Auditor {
    /// The database.
    pub store: Store,
    /// The declaration of this process.
    pub declaration: Arc<Declaration>,
    /// The partitions that have a pipeline in this process.
    pub applied_watches: Arc<AppliedWatches>,
    /// The metrics, which show the results.
    pub metrics: Arc<Metrics>,
}

impl Auditor {
    /// Audits once per `interval`, if this process then owns Kafka partition 0, until `stop` is cancelled. Never audits
    /// if `interval` is `None`.
    pub async fn run(self, interval: Option<Duration>, stop: CancellationToken) {
        let Some(interval) = interval else { return };
        let mut ticks = time::interval_at(Instant::now() + interval, interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            if !self.applied_watches.all().contains_key(&0) {
                self.metrics.audits_elsewhere();
            } else if stop.run_until_cancelled(self.audit()).await.is_none() {
                return;
            }
        }
    }

    async fn audit(&self) {
        let audit = match audit(&self.store, &self.declaration, Reach::recent()).await {
            Ok(audit) => audit,
            Err(error) => return tracing::warn!("{}", chain(&error)),
        };
        let (missing, duplicate, gaps) = (audit.missing(), audit.duplicate(), audit.offsets.in_gaps());
        let now = UnixMillis::from(SystemTime::now()).0 / SECOND;
        self.metrics.audited(missing, duplicate, gaps, now);
        for finding in &audit.findings {
            tracing::error!("audit: {finding}");
        }
        for gap in &audit.offsets.gaps {
            tracing::error!("audit: {gap}");
        }
        if !audit.is_sound() {
            tracing::error!(
                "audit: {missing} missing, {duplicate} duplicate, {gaps} offsets in no ledger row; \
                 see the table `audits`, and run `stream-agg audit`"
            );
        }
        if let Err(error) = report::record(&self.store, &audit).await {
            tracing::warn!("{}", chain(&error));
        }
    }
}
