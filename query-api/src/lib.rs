//! The read API: rows become answers, in advance.
//!
//! The files follow the way of an answer: [`poll`] → [`snapshot`] with [`counters`] and [`polls`] → [`http`]. One task asks
//! ClickHouse once per tick; requests look into the snapshot it made. Invariants: no request
//! asks ClickHouse, so the number of statements does not depend on the number of requests; no
//! answer is without the moment it is true for. Never speaks to Kafka.

pub mod config;

pub mod counters;

pub mod polls;

pub mod wanted;

pub mod poll;

pub mod snapshot;

pub mod http;

mod query;

mod problem;

pub mod metrics;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use axum::Router;
use runtime::admin::{Admin, Readiness};
use runtime::serve::{DrainOverran, Listeners, Server};
use schemas::time::UnixMillis;
use tokio::sync::watch;
use tokio::time;
use tokio_util::sync::CancellationToken;

pub use config::Config;
use metrics::Metrics;
use poll::Poller;
use snapshot::Snapshot;
use wanted::Wanted;

/// From the end of accepting to the end of open requests.
const DRAIN: Duration = Duration::from_secs(10);

/// What requests and the poll task share.
pub(crate) struct Shared {
    /// The latest snapshot; none before the first statement succeeded.
    pub(crate) snapshot: ArcSwapOption<Snapshot>,
    /// Why the latest statement failed, if one did.
    pub(crate) trouble: ArcSwapOption<Trouble>,
    /// Hours outside the hot window that readers ask for.
    pub(crate) wanted_hours: Wanted<UnixMillis>,
    /// Polls beyond the largest that readers ask for.
    pub(crate) wanted_polls: Wanted<String>,
    /// Changes with each new snapshot, for those who wait for one.
    pub(crate) ticks: watch::Sender<u64>,
    pub(crate) metrics: Metrics,
    pub(crate) draining: AtomicBool,
}

/// Why there is no newer snapshot.
pub(crate) struct Trouble {
    /// For people.
    pub(crate) reason: String,
    /// Whether the aggregator has other rollups: what we have is then out of date however young it is.
    pub(crate) differs: bool,
}

/// A running query API.
pub struct QueryApi {
    shared: Arc<Shared>,
    config: Config,
    polling: CancellationToken,
}

/// Why it could not start or end well.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A metric that cannot be registered; a fault of ours.
    #[error("register metrics")]
    Metrics(#[from] prometheus::Error),
    /// Open requests outlived the drain.
    #[error("stop the query API")]
    Drain(#[from] DrainOverran),
}

impl QueryApi {
    /// Starts to poll, on the current tokio runtime. ClickHouse need not be there yet.
    pub fn start(config: Config) -> Result<Self, RunError> {
        let shared = Arc::new(Shared {
            snapshot: ArcSwapOption::empty(),
            trouble: ArcSwapOption::empty(),
            wanted_hours: Wanted::new(wanted::MAX_HOURS, config.poll.interval),
            wanted_polls: Wanted::new(wanted::MAX_POLLS, config.poll.interval),
            ticks: watch::Sender::new(0),
            metrics: Metrics::new()?,
            draining: AtomicBool::new(false),
        });
        let polling = CancellationToken::new();
        let poller = Poller::new(&config, Arc::clone(&shared));
        tokio::spawn(polling.clone().run_until_cancelled_owned(poller.run()));
        Ok(Self { shared, config, polling })
    }

    /// Its routes, for whoever serves them beside others.
    pub fn service(&self) -> Router {
        http::routes(Arc::clone(&self.shared), self.config.poll.clone())
            .merge(query::routes(&self.config, Arc::clone(&self.shared)))
    }

    /// Serves both ports until `shutdown`, then drains. The admin port ends last.
    pub async fn serve(self, listeners: Listeners, shutdown: CancellationToken) -> Result<(), RunError> {
        let ended = CancellationToken::new();
        let shared = Arc::clone(&self.shared);
        let admin =
            Admin { registry: shared.metrics.registry(), readiness: Box::new(move || readiness(&shared)) };
        let admin = tokio::spawn(admin.serve(listeners.admin, ended.clone()));

        let closing = CancellationToken::new();
        let serving = Server::default().until(listeners.http, self.service(), closing.clone(), DRAIN);
        let serving = tokio::spawn(serving);
        shutdown.cancelled().await;
        // Balancers look elsewhere first; what still arrives meanwhile is answered.
        self.shared.draining.store(true, Ordering::Relaxed);
        time::sleep(self.config.drain_delay).await;
        closing.cancel();
        let drained = serving.await.expect("serving does not panic");

        self.polling.cancel();
        ended.cancel();
        admin.await.expect("the admin port does not panic");
        Ok(drained?)
    }
}

fn readiness(shared: &Shared) -> Readiness {
    if shared.draining.load(Ordering::Relaxed) {
        return Readiness::Not("draining".to_owned());
    }
    match &*shared.snapshot.load() {
        Some(_) => Readiness::Ready,
        None => Readiness::Not(match &*shared.trouble.load() {
            Some(trouble) => format!("clickhouse: no snapshot yet: {}", trouble.reason),
            None => "clickhouse: no snapshot yet".to_owned(),
        }),
    }
}
