//! The edge as a whole: started, served, stopped in the order of the data's way.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::http::{Request, Response};
use bytes::Bytes;
use futures_util::future::OptionFuture;
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use runtime::admin::{Admin, Readiness};
use runtime::serve::tls::Tls;
use runtime::serve::{Listeners, Server};
use tokio_util::sync::CancellationToken;
use tower::Service;

use crate::accept::Acceptor;
use crate::app::{App, DrainFlag};
use crate::auth::Auth;
use crate::config::Config;
use crate::endpoints::votes::refresh::{self, LatestResults};
use crate::http::{Http, layers};
use crate::metrics::{Metrics, Totals};
use crate::publish::{Publisher, StartError};

/// How long requests may take to finish once no new one is taken.
const FINISH_WAIT: Duration = Duration::from_secs(10);
/// How long Kafka may take for what is left then.
const FLUSH_WAIT: Duration = Duration::from_secs(10);
/// How long an edge whose Kafka client is broken serves into its spool before it ends to be started
/// anew, and up to as long again, so that not all end together. Kubernetes starts a container at once
/// that ran for ten minutes, and else ever later.
const STAYS_BROKEN: Duration = Duration::from_secs(600);

/// A running edge.
pub struct Edge {
    app: Arc<App>,
    http: Arc<Http>,
    server: Server,
    drain_delay: Duration,
    stays_broken: Duration,
    /// Ends the task that fetches the polls' results, if there is one.
    refreshing: CancellationToken,
}

/// Why an edge did not end well.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Neither Kafka nor the spool took everything before the end.
    #[error("hand everything to kafka or the spool before the end ({0})")]
    Lost(Summary),
    /// Kafka's client never sends again, so that only a new process helps; nothing is lost.
    #[error("go on with kafka's client, which only a new start mends: {reason} ({summary})")]
    Broken {
        /// What it says.
        reason: String,
        /// What was done until then.
        summary: Summary,
    },
}

/// What an edge did, for its last line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary(pub Totals);

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Totals { received, accepted, rejected, delivered, spooled, not_durable, queued, lost } = self.0;
        write!(
            f,
            "events received {received}, accepted {accepted}, rejected {rejected}, \
             delivered {delivered}, spooled {spooled}, not durable {not_durable}, queued {queued}, lost {lost}"
        )
    }
}

impl Edge {
    /// Starts Kafka's client in the background, and what fetches the polls' results on the current
    /// tokio runtime; neither Kafka nor query-api need be there. Fails only for settings that can
    /// never work.
    pub fn start(config: Config) -> Result<Self, StartError> {
        let metrics = Arc::new(Metrics::new());
        let publisher = Publisher::start(&config.kafka, config.spool.as_ref(), &metrics)?;
        let app = Arc::new(App {
            auth: Auth::new(&config.auth, &metrics),
            times: config.times,
            acceptor: Acceptor::new(&config.accept, &metrics),
            publisher,
            ack: config.ack,
            poll_results: LatestResults::default(),
            drain: DrainFlag::default(),
            metrics: Arc::clone(&metrics),
        });
        let http = Arc::new(Http::new(config.http, Arc::clone(&app)));
        let tls = config.tls.map(|tls| Arc::new(Tls::new(tls, metrics.tls_stale.clone())));
        let server = Server { limits: config.connections, tls, counted: metrics.connections.clone() };
        let refreshing = CancellationToken::new();
        if let Some(url) = config.poll_results.url {
            let interval = config.poll_results.interval;
            let refresh = refresh::run(url, interval, Arc::clone(&app.poll_results), metrics);
            tokio::spawn(refreshing.clone().run_until_cancelled_owned(refresh));
        }
        Ok(Self {
            app,
            http,
            server,
            drain_delay: config.drain_delay,
            stays_broken: STAYS_BROKEN.mul_f64(1.0 + fastrand::f64()),
            refreshing,
        })
    }

    /// The edge as a service, for requests with any body. All services of one edge share its limits.
    pub fn service<B>(
        &self,
    ) -> impl Service<Request<B>, Response = Response<Full<Bytes>>, Error = Infallible, Future: Send>
    + Clone
    + Send
    + use<B>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
    {
        layers::stack(&self.http)
    }

    /// Serves both ports until `shutdown`, or until Kafka's client is broken and the spool has helped for
    /// a while; then for the drain delay as before but not ready; then takes nothing more, finishes what
    /// was taken and lets Kafka have it.
    pub async fn serve(self, listeners: Listeners, shutdown: CancellationToken) -> Result<Summary, RunError> {
        let (closed, ended) = (CancellationToken::new(), CancellationToken::new());
        let admin = tokio::spawn(self.admin().serve(listeners.admin, ended.clone()));
        let service = self.service::<Incoming>();
        let files = tokio::spawn(self.follow_files(ended.clone()));
        let serving = self.server.clone().until(listeners.http, service, closed.clone(), FINISH_WAIT);
        let (served, broken) = tokio::join!(serving, self.drain_when(shutdown, closed));
        // A drain that overran must not cost us the flush.
        if let Err(error) = served {
            tracing::warn!(%error, "requests were cut off");
        }
        self.refreshing.cancel();
        let summary = self.leftovers().bring_home(FLUSH_WAIT).await;
        // Last: probes and scrapes go on until here.
        ended.cancel();
        let (_served, _followed) = tokio::join!(admin, files);
        match (summary?, broken) {
            (summary, None) => Ok(summary),
            (summary, Some(reason)) => Err(RunError::Broken { reason, summary }),
        }
    }

    /// What is left when the edge must end at once.
    pub fn leftovers(&self) -> Leftovers {
        Leftovers(Arc::clone(&self.app))
    }

    /// Drains when told to, or when Kafka's client is broken; then returns why it is.
    async fn drain_when(&self, shutdown: CancellationToken, closed: CancellationToken) -> Option<String> {
        let broken = shutdown.run_until_cancelled(self.broken()).await;
        tracing::info!("stopping: not ready, serving for {:?} more", self.drain_delay);
        self.app.drain.set();
        tokio::time::sleep(self.drain_delay).await;
        closed.cancel();
        broken
    }

    /// Waits until Kafka's client is broken, and then for as long as the spool helps; says why it is.
    async fn broken(&self) -> String {
        let reason = self.app.publisher.broken().await;
        tracing::error!("kafka's client never sends again, only a new start mends it: {reason}");
        if matches!(self.app.publisher.readiness(), Readiness::Degraded(_)) {
            tracing::warn!("serving into the spool; ending in {:.0?} to be started anew", self.stays_broken);
            tokio::time::sleep(self.stays_broken).await;
        }
        reason
    }

    /// Takes keys, certificate and countries anew when their files change, until `ended`.
    fn follow_files(&self, ended: CancellationToken) -> impl Future<Output = ()> + Send + use<> {
        let keys = Arc::clone(self.app.auth.keys()).follow(ended.clone());
        let tls = self.server.tls.clone().map(|tls| tls.follow(ended.clone()));
        let geoip = self.app.acceptor.geoip().cloned().map(|geoip| geoip.follow(ended));
        async move {
            tokio::join!(keys, OptionFuture::from(tls), OptionFuture::from(geoip));
        }
    }

    fn admin(&self) -> Admin {
        let app = Arc::clone(&self.app);
        let readiness = move || match app.publisher.readiness() {
            _ if app.drain.is_set() => Readiness::Not("draining".to_owned()),
            Readiness::Ready if app.metrics.connections.accept_fails.get() != 0 => Readiness::Degraded(
                "the last connection could not be accepted; there may be too few descriptors (ulimit -n)"
                    .to_owned(),
            ),
            readiness => readiness,
        };
        Admin { registry: self.app.metrics.registry.clone(), readiness: Box::new(readiness) }
    }
}

/// Events that were taken and have not ended.
pub struct Leftovers(Arc<App>);

impl Leftovers {
    /// Lets Kafka have them for so long, and the spool what is left then.
    pub async fn bring_home(&self, wait: Duration) -> Result<Summary, RunError> {
        self.0.publisher.flush(wait).await;
        let summary = Summary(self.0.metrics.totals());
        if summary.0.lost + summary.0.queued > 0 { Err(RunError::Lost(summary)) } else { Ok(summary) }
    }
}

#[cfg(test)]
mod tests;
