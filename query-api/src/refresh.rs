//! The task that asks ClickHouse once per interval and publishes a snapshot; the only file that asks.
//!
//! Invariant: what an aggregator with other rollups has stored is never served as if it were of ours.

use std::mem;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use clickhouse::Client;
use runtime::error::chain;
use schemas::time::UnixMillis;
use tokio::time;

use crate::answers::row::SnapshotRow;
use crate::answers::{Scope, freshness};
use crate::config::{Config, RefreshConfig};
use crate::snapshot::{NotDeclared, Snapshot, SnapshotStatement};
use crate::state::{AppState, RefreshFailure};

/// The task that publishes snapshots.
pub(crate) struct Refresher {
    client: Client,
    config: RefreshConfig,
    /// Hash of the rollups that this process was started with.
    rollups: u64,
    statement: Result<SnapshotStatement, NotDeclared>,
    state: Arc<AppState>,
}

/// Why a refresh made no snapshot.
#[derive(Debug, thiserror::Error)]
enum RefreshError {
    /// ClickHouse failed or could not be reached.
    #[error("read from clickhouse")]
    ClickHouse(#[from] clickhouse::error::Error),
    /// ClickHouse did not answer within the deadline.
    #[error("read from clickhouse in time")]
    Deadline(#[from] time::error::Elapsed),
    /// There is no statement to send.
    #[error(transparent)]
    NotDeclared(#[from] NotDeclared),
    /// The tables hold rollups that this process does not know.
    #[error(
        "this process has rollups {ours:016x}, stream-agg has {theirs:016x}: restart this one with the \
         ROLLUPS_FILE that stream-agg was started with"
    )]
    OtherRollups {
        /// Hash of our rollups.
        ours: u64,
        /// Hash of the rollups that the aggregator started with last.
        theirs: u64,
    },
}

impl Refresher {
    pub(crate) fn new(config: &Config, state: Arc<AppState>) -> Self {
        let database = &config.clickhouse;
        let client = Client::default()
            .with_url(&database.url)
            .with_database(&database.database)
            .with_user(&database.user)
            .with_password(&database.password)
            .with_setting("max_execution_time", config.refresh.deadline.as_secs().max(1).to_string());
        let (statement, rollups) = (SnapshotStatement::new(&config.rollups), config.rollups.hash());
        Self { client, config: config.refresh.clone(), rollups, statement, state }
    }

    /// Publishes a snapshot per interval until it is cancelled.
    pub(crate) async fn run(self) {
        // A change of the outcome is logged, not every refresh.
        let mut last_outcome = None;
        loop {
            let started = Instant::now();
            let refreshed = self.refresh().await;
            self.state.metrics.refreshed(refreshed.is_ok(), started.elapsed());
            let outcome = refreshed.as_ref().map_err(mem::discriminant).map(drop);
            let changed = last_outcome.replace(outcome) != Some(outcome);
            match refreshed {
                Ok(snapshot) => self.publish(snapshot, changed),
                Err(error) => self.report(&error, changed),
            }
            // Jitter keeps many instances from asking in step.
            let interval = self.config.interval.mul_f64(0.9 + fastrand::f64() / 5.0);
            time::sleep(interval.saturating_sub(started.elapsed())).await;
        }
    }

    async fn refresh(&self) -> Result<Snapshot, RefreshError> {
        let statement = self.statement.as_ref().map_err(|error| *error)?;
        let scope = Scope {
            now: UnixMillis::from(SystemTime::now()),
            hours: self.state.wanted_hours.current(Instant::now()),
            polls: self.state.wanted_polls.current(Instant::now()),
        };
        let query = statement.query(&self.client, &scope);
        let rows = time::timeout(self.config.deadline, query.fetch_all::<SnapshotRow>()).await??;
        self.check_rollups(freshness::aggregator_rollups(&rows))?;
        Ok(statement.render(rows, &scope))
    }

    /// Answers from the tables of other rollups would be wrong without a sign.
    fn check_rollups(&self, theirs: u64) -> Result<(), RefreshError> {
        let ours = self.rollups;
        if theirs == 0 || theirs == ours { Ok(()) } else { Err(RefreshError::OtherRollups { ours, theirs }) }
    }

    fn publish(&self, snapshot: Snapshot, log: bool) {
        self.state.metrics.as_of(snapshot.as_of);
        self.state.publish(snapshot);
        if log {
            tracing::info!("refreshing answers from ClickHouse");
        }
    }

    fn report(&self, error: &RefreshError, log: bool) {
        let reason = chain(error);
        if log {
            tracing::warn!("cannot refresh the answers, which get older; trying again: {reason}");
        }
        // An outage of ClickHouse does not change what the aggregator has declared.
        let rollups_differ =
            matches!(error, RefreshError::OtherRollups { .. }) || self.state.rollups_differ();
        self.state.refresh_failed(RefreshFailure { reason, rollups_differ });
    }
}
