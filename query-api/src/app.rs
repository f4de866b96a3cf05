//! The query API as a service: what it starts, serves and stops, in order.

use std::sync::Arc;
use std::time::Duration;

use axum::{Router, middleware};
use runtime::admin::Admin;
use runtime::serve::{DrainOverran, Listeners, Server};
use tokio::time;
use tokio_util::sync::CancellationToken;

use crate::access;
use crate::config::Config;
use crate::http;
use crate::live;
use crate::metrics::Metrics;
use crate::people;
use crate::problem::{Kind, add_request_id};
use crate::query;
use crate::refresh::Refresher;
use crate::state::AppState;

/// The longest wait for open requests after the listener was closed.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);

/// A running query API.
pub struct QueryApi {
    state: Arc<AppState>,
    config: Config,
    refreshing: CancellationToken,
    /// Ends the streams of `/v1/live`.
    streaming: CancellationToken,
}

/// Requests were still open at the end of the drain.
#[derive(Debug, thiserror::Error)]
#[error("stop the query API")]
pub struct StopError(#[from] DrainOverran);

impl QueryApi {
    /// Starts the refresh task on the current tokio runtime. ClickHouse need not be reachable yet.
    pub fn start(config: Config) -> Self {
        let state = Arc::new(AppState::new(config.refresh.clone(), Metrics::new()));
        let refreshing = CancellationToken::new();
        let refresher = Refresher::new(&config, Arc::clone(&state));
        tokio::spawn(refreshing.clone().run_until_cancelled_owned(refresher.run()));
        Self { state, config, refreshing, streaming: CancellationToken::new() }
    }

    /// Cancelled, it ends the streams of `/v1/live`, which would keep their connections open. [`QueryApi::serve`] does so
    /// before it drains; who serves [`QueryApi::service`] does so before its own drain.
    pub fn streaming(&self) -> CancellationToken {
        self.streaming.clone()
    }

    /// All routes, for a caller that serves them beside others.
    pub fn service(&self) -> Router {
        let queries = query::routes(&self.config, Arc::clone(&self.state));
        let people = people::routes(&self.config, Arc::clone(&self.state));
        http::routes(Arc::clone(&self.state))
            .merge(queries)
            .merge(people)
            .merge(live::routes(Arc::clone(&self.state), self.streaming.clone()))
            .fallback(|| async { Kind::NotFound })
            .method_not_allowed_fallback(|| async { Kind::MethodNotAllowed })
            .layer(middleware::from_fn(access::identify))
            .layer(middleware::from_fn(add_request_id))
    }

    /// Serves both ports until `shutdown`, then drains. The admin port is closed last.
    pub async fn serve(self, listeners: Listeners, shutdown: CancellationToken) -> Result<(), StopError> {
        let admin_end = CancellationToken::new();
        let state = Arc::clone(&self.state);
        let admin =
            Admin { registry: state.metrics.registry(), readiness: Box::new(move || state.readiness()) };
        let admin = tokio::spawn(admin.serve(listeners.admin, admin_end.clone()));

        let closing = CancellationToken::new();
        let serving =
            Server::default().until(listeners.http, self.service(), closing.clone(), DRAIN_DEADLINE);
        let serving = tokio::spawn(serving);
        shutdown.cancelled().await;
        // Load balancers see that this process is not ready; requests that still arrive are answered.
        self.state.drain();
        time::sleep(self.config.drain_delay).await;
        closing.cancel();
        self.streaming.cancel();
        let drained = serving.await.expect("serving does not panic");

        self.refreshing.cancel();
        admin_end.cancel();
        admin.await.expect("the admin port does not panic");
        Ok(drained?)
    }
}
