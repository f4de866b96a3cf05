//! The query API as a service: what it starts, serves and stops, in order.

use std::sync::Arc;
use std::time::Duration;

use axum::{Router, middleware};
use runtime::admin::Admin;
use runtime::serve::{DrainOverran, Listeners, Server};
use tokio::time;
use tokio_util::sync::CancellationToken;
use tower::ServiceBuilder;

use crate::access::{self, Access, Cost};
use crate::config::Config;
use crate::cors;
use crate::http;
use crate::live;
use crate::meta;
use crate::metrics::Metrics;
use crate::openapi;
use crate::page;
use crate::people;
use crate::pipeline;
use crate::problem::{Kind, add_request_id};
use crate::query;
use crate::refresh::Refresher;
use crate::state::AppState;

/// The longest wait for open requests after the listener was closed.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);

/// A running query API.
pub struct QueryApi {
    state: Arc<AppState>,
    access: Arc<Access>,
    config: Config,
    /// Ends the tasks that refresh answers and keys.
    refreshing: CancellationToken,
    /// Ends the streams of `/v1/live`.
    streaming: CancellationToken,
}

/// Requests were still open at the end of the drain.
#[derive(Debug, thiserror::Error)]
#[error("stop the query API")]
pub struct StopError(#[from] DrainOverran);

impl QueryApi {
    /// Starts the tasks that refresh answers and keys on the current tokio runtime. ClickHouse need not be reachable
    /// yet.
    pub fn start(config: Config) -> Self {
        let state = Arc::new(AppState::new(config.refresh.clone(), Metrics::new()));
        let access = Arc::new(Access::new(&config.access, &state.metrics));
        let refreshing = CancellationToken::new();
        tokio::spawn(Arc::clone(&access).follow(refreshing.clone()));
        let refresher = Refresher::new(&config, Arc::clone(&state));
        tokio::spawn(refreshing.clone().run_until_cancelled_owned(refresher.run()));
        Self { state, access, config, refreshing, streaming: CancellationToken::new() }
    }

    /// Cancelled, it ends the streams of `/v1/live`, which would keep their connections open. [`QueryApi::serve`] does so
    /// before it drains; who serves [`QueryApi::service`] does so before its own drain.
    pub fn streaming(&self) -> CancellationToken {
        self.streaming.clone()
    }

    /// All routes, for a caller that serves them beside others.
    pub fn service(&self) -> Router {
        // Prepared for all readers of a tenant, so a key may permit less than they show.
        let prepared = http::routes(Arc::clone(&self.state))
            .merge(live::routes(Arc::clone(&self.state), self.streaming.clone()))
            .route_layer(middleware::from_fn(access::permit_prepared));
        let answers = prepared
            .merge(meta::routes(&self.config, Arc::clone(&self.state)))
            .merge(pipeline::routes(&self.config, Arc::clone(&self.state)))
            .merge(openapi::routes(self.access.needs_key()))
            .route_layer(middleware::from_fn_with_state(Cost::Answer, access::charge));
        let queries = query::routes(&self.config, Arc::clone(&self.state))
            .merge(people::routes(&self.config, Arc::clone(&self.state)))
            .route_layer(middleware::from_fn_with_state(Cost::Query, access::charge));
        // One stack: each `Router::layer` would cost an allocation for every request.
        let layers = ServiceBuilder::new()
            .map_response(cors::no_content) // preflights are answered without a body
            .layer(self.config.cors.layer()) // preflights have no token, and pages see refusals
            .layer(middleware::from_fn(add_request_id)); // also on refusals of the layer of access
        answers
            .merge(queries)
            .fallback(|| async { Kind::NotFound })
            .method_not_allowed_fallback(|| async { Kind::MethodNotAllowed })
            .layer(middleware::from_fn_with_state(Arc::clone(&self.access), access::identify))
            // Outside of that layer: the page has no data, so it needs no reader. It sends its key with each question.
            .merge(page::routes(&self.config.page))
            .layer(layers)
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
