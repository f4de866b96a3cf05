//! Starts, serves and stops the whole edge. To stop, the edge first stops accepting requests, then finishes the open
//! requests, and then flushes the pending events to Kafka or to the spool.

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
use crate::endpoints::votes::refresh::{self, LatestResults, PollResultsConfig};
use crate::http::{HttpState, layers};
use crate::metrics::{EventTotals, Metrics};
use crate::publish::{Publisher, StartError};

/// How long the open requests may take to finish once the edge accepts no more requests.
pub(crate) const FINISH_WAIT: Duration = Duration::from_secs(10);
/// After the open requests have finished, how long Kafka may take to acknowledge the events that are still pending.
pub(crate) const FLUSH_WAIT: Duration = Duration::from_secs(10);
/// After a fatal error of Kafka's client, the edge accepts events into its spool for at least this time and at most
/// twice this time. Then the edge exits, and a restart gives it a new client. The time is random, so that not all edges
/// exit at the same time. The minimum is ten minutes, because Kubernetes restarts a container without delay if the
/// container ran for ten minutes. If it ran for less time, Kubernetes delays the restart, by more after each restart.
const SERVE_AFTER_FATAL_ERROR: Duration = Duration::from_secs(600);

/// A running edge.
pub struct Edge {
    app: Arc<App>,
    http: Arc<HttpState>,
    server: Server,
    drain_delay: Duration,
    serve_after_fatal_error: Duration,
    /// Stops the task that fetches poll results, if it runs.
    stop_refreshing: CancellationToken,
}

/// Why an edge ended with an error.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Accepted events are lost: neither Kafka nor the spool has confirmed them, and no response has
    /// reported the loss to their clients.
    #[error("accepted events are lost: neither kafka nor the spool confirmed them ({0})")]
    Lost(Summary),
    /// Kafka's client has a fatal error and can send no more records until the process is restarted. No accepted event
    /// is lost.
    #[error("write to kafka: kafka's client has a fatal error: {reason}; restart the edge ({summary})")]
    KafkaClient {
        /// The fatal error.
        reason: String,
        /// The event counts of the edge.
        summary: Summary,
    },
}

/// The event counts of an edge. When the edge ends, they are in its last log line or in its error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary(pub EventTotals);

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let EventTotals { received, accepted, rejected, delivered, spooled, not_durable, queued, lost } =
            self.0;
        write!(
            f,
            "events received {received}, accepted {accepted}, rejected {rejected}, \
             delivered {delivered}, spooled {spooled}, not durable {not_durable}, queued {queued}, lost {lost}"
        )
    }
}

impl Edge {
    /// Starts Kafka's client in the background and, on the current tokio runtime, the task that fetches poll results.
    /// Neither Kafka nor query-api needs to be reachable. Fails only if librdkafka does not accept a setting, or if a
    /// thread cannot be started.
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
        let http = Arc::new(HttpState::new(config.http, Arc::clone(&app)));
        let tls = config.tls.map(|tls| Arc::new(Tls::new(tls, metrics.tls_stale.clone())));
        let server = Server { limits: config.connections, tls, metrics: metrics.connections.clone() };
        let stop_refreshing = CancellationToken::new();
        let PollResultsConfig { url, token_file, interval } = config.poll_results;
        if let Some(url) = url {
            let refresh = refresh::run(url, token_file, interval, Arc::clone(&app.poll_results), metrics);
            tokio::spawn(stop_refreshing.clone().run_until_cancelled_owned(refresh));
        }
        Ok(Self {
            app,
            http,
            server,
            drain_delay: config.drain_delay,
            serve_after_fatal_error: SERVE_AFTER_FATAL_ERROR.mul_f64(1.0 + fastrand::f64()),
            stop_refreshing,
        })
    }

    /// Returns the edge as a service, for requests with any type of body. Each call returns a service with its own
    /// limit of `MAX_REQUESTS` concurrent requests, which the clones of that service share. All other limits are shared
    /// by all services of the edge.
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

    /// Serves the port for clients and the admin port until `shutdown` is cancelled, or until Kafka's client has a
    /// fatal error. If the spool accepts records, the edge serves for a while after the error. Then the edge drains:
    /// for the drain delay, `/readyz` answers 503, but the edge still accepts requests. After the delay, the edge stops
    /// accepting requests, finishes the open requests, and flushes the pending events to Kafka or to the spool.
    pub async fn serve(self, listeners: Listeners, shutdown: CancellationToken) -> Result<Summary, RunError> {
        let (stop_accepting, stop) = (CancellationToken::new(), CancellationToken::new());
        let admin = tokio::spawn(self.admin().serve(listeners.admin, stop.clone()));
        let service = self.service::<Incoming>();
        let files = tokio::spawn(self.follow_files(stop.clone()));
        let serving = self.server.clone().until(listeners.http, service, stop_accepting.clone(), FINISH_WAIT);
        let (served, fatal_error) = tokio::join!(serving, self.drain_after(shutdown, stop_accepting));
        // No `?` here: the events are flushed even if some open requests did not end in time.
        if let Err(error) = served {
            tracing::warn!(%error, "some open requests did not end in time; they may not be answered");
        }
        self.stop_refreshing.cancel();
        let summary = self.pending_events().flush(FLUSH_WAIT).await;
        // The admin port stops last, so that it serves probes and metrics until the flush is done.
        stop.cancel();
        let (_served, _followed) = tokio::join!(admin, files);
        match (summary?, fatal_error) {
            (summary, None) => Ok(summary),
            (summary, Some(reason)) => Err(RunError::KafkaClient { reason, summary }),
        }
    }

    /// Returns a handle to flush the pending events, for a process that stops at once and drops the future of
    /// [`Self::serve`].
    pub fn pending_events(&self) -> PendingEvents {
        PendingEvents(Arc::clone(&self.app))
    }

    /// Waits for `shutdown` or for a fatal error of Kafka's client. Then reports not ready, waits for the drain delay,
    /// and cancels `stop_accepting`. Returns the fatal error, if there is one.
    async fn drain_after(
        &self,
        shutdown: CancellationToken,
        stop_accepting: CancellationToken,
    ) -> Option<String> {
        let fatal_error = shutdown.run_until_cancelled(self.fatal_error()).await;
        tracing::info!("stopping: reporting not ready, serving for {:?} more", self.drain_delay);
        self.app.drain.set();
        tokio::time::sleep(self.drain_delay).await;
        stop_accepting.cancel();
        fatal_error
    }

    /// Waits until Kafka's client has a fatal error, and returns the error. If the spool accepts events, waits for
    /// `serve_after_fatal_error` before returning.
    async fn fatal_error(&self) -> String {
        let reason = self.app.publisher.fatal_error().await;
        tracing::error!(
            "kafka's client has a fatal error and cannot send until the edge is restarted: {reason}"
        );
        if matches!(self.app.publisher.readiness(), Readiness::Degraded(_)) {
            tracing::warn!(
                "events go to the spool; the edge exits in {:.0?} to be restarted",
                self.serve_after_fatal_error
            );
            tokio::time::sleep(self.serve_after_fatal_error).await;
        }
        reason
    }

    /// Reloads the key file, the certificate and the country database when they change, until `stop` is cancelled.
    fn follow_files(&self, stop: CancellationToken) -> impl Future<Output = ()> + Send + use<> {
        let keys = self.app.auth.keys().follow(stop.clone());
        let tls = self.server.tls.clone().map(|tls| tls.follow(stop.clone()));
        let geoip = self.app.acceptor.geoip().cloned().map(|geoip| geoip.follow(stop));
        async move {
            tokio::join!(keys, OptionFuture::from(tls), OptionFuture::from(geoip));
        }
    }

    fn admin(&self) -> Admin {
        let app = Arc::clone(&self.app);
        let readiness = move || match app.publisher.readiness() {
            _ if app.drain.is_set() => Readiness::Not("draining".to_owned()),
            Readiness::Ready if app.metrics.connections.accept_failing.get() != 0 => Readiness::Degraded(
                "the last connection could not be accepted; raise the limit on open files (ulimit -n)"
                    .to_owned(),
            ),
            readiness => readiness,
        };
        Admin { registry: self.app.metrics.registry.clone(), readiness: Box::new(readiness) }
    }
}

/// Events that were accepted and are not stored yet.
pub struct PendingEvents(Arc<App>);

impl PendingEvents {
    /// Waits up to `wait` for Kafka to acknowledge the events, then puts the rest into the spool. If there is no spool,
    /// or if the spool accepts no records, the rest is lost. Returns an error if events are lost.
    pub async fn flush(&self, wait: Duration) -> Result<Summary, RunError> {
        self.0.publisher.flush(wait).await;
        let summary = Summary(self.0.metrics.totals());
        if summary.0.lost + summary.0.queued > 0 { Err(RunError::Lost(summary)) } else { Ok(summary) }
    }
}

#[cfg(test)]
mod tests;
