//! The task that reads all prepared answers with one statement per interval and publishes them as a snapshot. No other
//! file sends this statement.
//!
//! Invariant: no snapshot is made while the aggregator declares other rollups than this process, because the same
//! columns may then have another meaning in the stored rows.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use clickhouse::Client;
use runtime::error::chain;
use schemas::time::UnixMillis;
use tokio::time;

use crate::access::DEFAULT_TENANT;
use crate::answers::row::SnapshotRow;
use crate::answers::{LeftOut, Scope, freshness};
use crate::config::{Config, RefreshConfig};
use crate::left_out::{LeftOutPolicy, Pace};
use crate::snapshot::{NotDeclared, Snapshot, SnapshotStatement};
use crate::state::{AppState, RefreshFailure};

/// Maximum length of the text of a statement, in bytes: 64 MiB.
const MAX_QUERY_SIZE: &str = "67108864";

/// `max_users` limits how many users and voters one refresh may merge. Of this limit, 1 / `VOTERS_DIVISOR` is for
/// voters and the rest for users.
const VOTERS_DIVISOR: u64 = 4;

/// The task that publishes snapshots.
pub(crate) struct Refresher {
    client: Client,
    config: RefreshConfig,
    /// Hash of the rollups that this process was started with.
    rollups_hash: u64,
    statement: Result<SnapshotStatement, NotDeclared>,
    /// Approximate maximum number of users and voters whose states ClickHouse may merge for one refresh.
    max_users: u64,
    left_out_policy: LeftOutPolicy,
    state: Arc<AppState>,
}

/// Why a refresh made no snapshot.
#[derive(Debug, thiserror::Error)]
enum RefreshError {
    /// ClickHouse failed or could not be reached.
    #[error("read from clickhouse")]
    ClickHouse(#[from] clickhouse::error::Error),
    /// ClickHouse did not answer within the deadline.
    #[error("timed out reading from clickhouse")]
    Deadline(#[from] time::error::Elapsed),
    /// A rollup that `/analytics` needs is not declared, so there is no statement to send.
    #[error(transparent)]
    NotDeclared(#[from] NotDeclared),
    /// Row policies hide the rows of the tables from the ClickHouse user of this process.
    #[error(
        "`schema_migrations` shows no row to CLICKHOUSE_USER: set users_without_row_policies_can_read_rows to true in \
         ClickHouse's configuration, and drop row policies that apply to the users of the services"
    )]
    Hidden,
    /// The aggregator declares other rollups than this process.
    #[error(
        "the rollups of this process (hash {ours:016x}) differ from those of stream-agg (hash {theirs:016x}): restart \
         this process with the ROLLUPS_FILE that stream-agg was started with"
    )]
    OtherRollups {
        /// Hash of the rollups of this process.
        ours: u64,
        /// Hash of the rollups of the aggregator that started last.
        theirs: u64,
    },
}

impl RefreshError {
    /// Whether a smaller statement might have succeeded.
    fn is_too_slow(&self) -> bool {
        match self {
            Self::Deadline(_) => true,
            Self::ClickHouse(error) => {
                let text = chain(error);
                // ClickHouse's errors TIMEOUT_EXCEEDED, TOO_SLOW and MEMORY_LIMIT_EXCEEDED.
                ["Code: 159", "Code: 160", "Code: 241"].iter().any(|code| text.contains(code))
            }
            Self::Hidden | Self::NotDeclared(_) | Self::OtherRollups { .. } => false,
        }
    }
}

impl Refresher {
    pub(crate) fn new(config: &Config, state: Arc<AppState>) -> Self {
        let database = &config.clickhouse;
        let client = Client::default()
            .with_url(&database.url)
            .with_database(&database.database)
            .with_user(&database.user)
            .with_password(&database.password)
            .with_setting("max_execution_time", config.refresh.deadline.as_secs().max(1).to_string())
            // A statement that missed its deadline must not keep running while the next statement runs.
            .with_setting("cancel_http_readonly_queries_on_client_close", "1")
            // The text contains the hours and polls of all tenants, each with the result of its last merge, so the text
            // can be long.
            .with_setting("max_query_size", MAX_QUERY_SIZE);
        Self {
            client,
            config: config.refresh.clone(),
            rollups_hash: config.rollups.hash(),
            statement: SnapshotStatement::new(&config.rollups),
            max_users: config.max_merged_users,
            left_out_policy: LeftOutPolicy::default(),
            state,
        }
    }

    /// Refreshes once per interval until the task is cancelled. Publishes a snapshot whenever a refresh succeeds.
    pub(crate) async fn run(mut self) {
        // Only a change of the outcome is logged, not every refresh.
        let mut last_outcome = None;
        loop {
            let started = Instant::now();
            let refreshed = self.refresh().await;
            self.state.metrics.refreshed(refreshed.is_ok(), started.elapsed());
            self.shed(&refreshed, started.elapsed());
            let outcome = refreshed.as_ref().map_err(mem::discriminant).map(drop);
            let changed = last_outcome.replace(outcome) != Some(outcome);
            match refreshed {
                Ok(snapshot) => self.publish(snapshot, changed),
                Err(error) => self.report(&error, changed),
            }
            // Jitter keeps many instances from sending their statements to ClickHouse at the same moment.
            let interval = self.config.interval.mul_f64(0.9 + fastrand::f64() / 5.0);
            time::sleep(interval.saturating_sub(started.elapsed())).await;
        }
    }

    async fn refresh(&self) -> Result<Snapshot, RefreshError> {
        let statement = self.statement.as_ref().map_err(|error| *error)?;
        let previous = self.state.snapshot.load_full();
        if previous.is_none() {
            self.check_rows_are_visible().await?;
        }
        let (previous, scope) = (previous.as_deref(), self.scope(previous.as_deref()));
        let query = statement.query(&self.client, &scope, previous);
        let rows = time::timeout(self.config.deadline, query.fetch_all::<SnapshotRow>()).await??;
        // Stored even if `check_rollups` fails: in this case there is no new snapshot, but a query can still be
        // answered from the rollups that this process and the aggregator declare equally.
        self.state.set_reach(freshness::reach(&rows));
        self.check_rollups(freshness::aggregator_rollups_hash(&rows))?;
        Ok(statement.render(rows, &scope, UnixMillis::from(SystemTime::now()), previous))
    }

    /// Checks that row policies do not hide rows from the ClickHouse user of this process: the user must see a row of
    /// `schema_migrations`, which has a row for every migration. The row policies of tenants apply to every table of
    /// the database. If ClickHouse has `users_without_row_policies_can_read_rows=false`, these policies hide all rows
    /// from every user to whom no policy applies.
    async fn check_rows_are_visible(&self) -> Result<(), RefreshError> {
        let query = self.client.query("SELECT name FROM schema_migrations LIMIT 1");
        let seen = time::timeout(self.config.deadline, query.fetch_all::<String>()).await??;
        if seen.is_empty() { Err(RefreshError::Hidden) } else { Ok(()) }
    }

    /// What this refresh reads. A tenant whose answers a reader has read from `previous` stays in `wanted_tenants`.
    fn scope(&self, previous: Option<&Snapshot>) -> Scope {
        let (state, now) = (&self.state, Instant::now());
        for tenant in previous.into_iter().flat_map(Snapshot::read_tenants) {
            // If the maximum number of tenants is reached, this tenant has to wait until another is forgotten.
            if tenant != DEFAULT_TENANT {
                let _full = state.wanted_tenants.want(tenant.to_owned(), now);
            }
        }
        let mut tenants = state.wanted_tenants.current(now);
        tenants.push(DEFAULT_TENANT.to_owned());
        tenants.sort_unstable();
        Scope {
            now: UnixMillis::from(SystemTime::now()),
            tenants,
            hours: state.wanted_hours.current(now),
            polls: state.wanted_polls.current(now),
            left_out: self.left_out_policy.left_out(),
            max_users: self.max_users - self.max_users / VOTERS_DIVISOR,
            max_voters: self.max_users / VOTERS_DIVISOR,
        }
    }

    /// Decides which answers the next statement leaves out, by the result and the duration of this refresh.
    fn shed(&mut self, refreshed: &Result<Snapshot, RefreshError>, took: Duration) {
        let pace = match refreshed {
            Ok(_) if took < self.config.deadline / 2 => Pace::Quick,
            Err(error) if error.is_too_slow() => Pace::TooSlow,
            Ok(_) | Err(_) => Pace::Other,
        };
        if !self.left_out_policy.note(pace) {
            return;
        }
        let left_out = self.left_out_policy.left_out();
        self.state.metrics.left_out(left_out);
        let names = match left_out {
            LeftOut::Nothing => return tracing::info!("refreshes read all answers again"),
            LeftOut::ColdKeys => "old hours and small polls",
            LeftOut::Polls => "old hours, all polls and what /v1/live shows",
            LeftOut::Counters => "old hours, all polls, what /v1/live shows and the country counters",
        };
        tracing::warn!(
            "refreshes leave out {names} for now, because refreshes missed their deadline or exceeded the memory \
             limit: give ClickHouse more cores or memory, or raise REFRESH_DEADLINE"
        );
    }

    /// Fails if the aggregator declares other rollups than this process: the answers could be wrong, and nothing would
    /// show it. `theirs` is 0 if no aggregator has started yet.
    fn check_rollups(&self, theirs: u64) -> Result<(), RefreshError> {
        let ours = self.rollups_hash;
        if theirs == 0 || theirs == ours { Ok(()) } else { Err(RefreshError::OtherRollups { ours, theirs }) }
    }

    fn publish(&self, snapshot: Snapshot, log: bool) {
        self.state.metrics.as_of(snapshot.as_of);
        self.state.publish(snapshot);
        if log {
            tracing::info!("refreshed the answers from clickhouse");
        }
    }

    fn report(&self, error: &RefreshError, log: bool) {
        let reason = chain(error);
        if log {
            tracing::warn!(
                "failed to refresh the answers: {reason}; readers get no newer answers until a retry succeeds"
            );
        }
        // Other errors, such as an outage of ClickHouse, do not show what the aggregator declares now. So if the
        // rollups differed before, this process assumes that they still differ.
        let rollups_differ =
            matches!(error, RefreshError::OtherRollups { .. }) || self.state.rollups_differ();
        self.state.refresh_failed(RefreshFailure { reason, rollups_differ });
    }
}
