//! The state that requests and the refresh task share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwapOption;
use runtime::admin::Readiness;
use schemas::time::UnixMillis;
use tokio::sync::watch;

use crate::config::RefreshConfig;
use crate::metrics::Metrics;
use crate::reach::Reach;
use crate::snapshot::Snapshot;
use crate::wanted::{self, Wanted};

/// The state that requests and the refresh task share.
pub(crate) struct AppState {
    /// The latest snapshot; `None` before the first refresh succeeded.
    pub(crate) snapshot: ArcSwapOption<Snapshot>,
    /// The state of the tables at the latest refresh that ClickHouse answered; `None` before the first answer.
    reach: ArcSwapOption<Reach>,
    /// Why the latest refresh failed; `None` if it succeeded, or before the first refresh has ended.
    failure: ArcSwapOption<RefreshFailure>,
    /// The number of snapshots so far. Requests that wait for the next snapshot watch this number.
    pub(crate) snapshots: watch::Sender<u64>,
    /// The tenants, besides the default tenant, that readers ask for.
    pub(crate) wanted_tenants: Wanted<String>,
    /// The hours that refreshes read only because readers ask for them, each with its tenant.
    pub(crate) wanted_hours: Wanted<(String, UnixMillis)>,
    /// The polls that refreshes read only because readers ask for them, each with its tenant.
    pub(crate) wanted_polls: Wanted<(String, String)>,
    /// How often the prepared answers are read from ClickHouse, and how long that may take.
    pub(crate) refresh: RefreshConfig,
    pub(crate) metrics: Metrics,
    draining: AtomicBool,
}

/// Why the latest refresh made no snapshot.
pub(crate) struct RefreshFailure {
    /// The error and its causes, for people.
    pub(crate) reason: String,
    /// Whether the aggregator declares other rollups than this process. If so, even a recent snapshot is stale.
    pub(crate) rollups_differ: bool,
}

impl AppState {
    pub(crate) fn new(refresh: RefreshConfig, metrics: Metrics) -> Self {
        Self {
            snapshot: ArcSwapOption::empty(),
            reach: ArcSwapOption::empty(),
            failure: ArcSwapOption::empty(),
            snapshots: watch::Sender::new(0),
            wanted_tenants: Wanted::new(wanted::MAX_TENANTS, wanted::TENANT_REMEMBERED, refresh.interval),
            wanted_hours: Wanted::new(wanted::MAX_HOURS, wanted::KEY_REMEMBERED, refresh.interval),
            wanted_polls: Wanted::new(wanted::MAX_POLLS, wanted::KEY_REMEMBERED, refresh.interval),
            refresh,
            metrics,
            draining: AtomicBool::new(false),
        }
    }

    /// Stores the state of the tables at a refresh; queries are planned with it from now on.
    pub(crate) fn set_reach(&self, reach: Reach) {
        self.reach.store(Some(Arc::new(reach)));
    }

    /// The state of the tables at the latest refresh that ClickHouse answered; `None` before the first answer.
    pub(crate) fn reach(&self) -> Option<Arc<Reach>> {
        self.reach.load_full()
    }

    /// Stores a snapshot; requests are answered from it from now on.
    pub(crate) fn publish(&self, snapshot: Snapshot) {
        self.failure.store(None);
        self.snapshot.store(Some(Arc::new(snapshot)));
        self.snapshots.send_modify(|snapshots| *snapshots += 1);
    }

    /// Notes that a refresh failed. Requests are still answered from the latest snapshot.
    pub(crate) fn refresh_failed(&self, failure: RefreshFailure) {
        self.failure.store(Some(Arc::new(failure)));
    }

    /// Whether the aggregator declares other rollups than this process, as far as the latest refreshes show.
    pub(crate) fn rollups_differ(&self) -> bool {
        self.failure.load().as_ref().is_some_and(|failure| failure.rollups_differ)
    }

    /// Makes the process report that it is not ready for traffic.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether this process may get traffic.
    pub(crate) fn readiness(&self) -> Readiness {
        if self.draining.load(Ordering::Relaxed) {
            return Readiness::Not("draining".to_owned());
        }
        match &*self.snapshot.load() {
            Some(_) => Readiness::Ready,
            None => Readiness::Not(match &*self.failure.load() {
                Some(failure) => format!("clickhouse: no snapshot yet: {}", failure.reason),
                None => "clickhouse: no snapshot yet".to_owned(),
            }),
        }
    }
}
