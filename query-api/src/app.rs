//! The query API as a service: how it starts its tasks, serves requests and stops.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::HttpBody;
use axum::extract::Request;
use axum::response::Response;
use axum::{BoxError, Extension, Router};
use bytes::Bytes;
use futures_util::TryFutureExt as _;
use runtime::admin::Admin;
use runtime::request_id::RequestId;
use runtime::serve::{DrainOverran, Listeners, Server};
use tokio::time;
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceBuilder, ServiceExt as _, service_fn};

use crate::access::{Access, Cost};
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
use crate::problem::{self, Kind};
use crate::query;
use crate::refresh::Refresher;
use crate::state::AppState;

/// The longest wait for open requests after the listener was closed.
pub(crate) const DRAIN_DEADLINE: Duration = Duration::from_secs(10);

/// A tower service that answers every request with a response, never with an error.
pub trait HttpService<B>:
    Service<Request<B>, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static
{
}

impl<B, S> HttpService<B> for S where
    S: Service<Request<B>, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static
{
}

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

/// Requests were still open when the drain deadline passed.
#[derive(Debug, thiserror::Error)]
#[error("stop the query API")]
pub struct StopError(#[from] DrainOverran);

impl QueryApi {
    /// Starts the tasks that refresh answers and keys. They run on the current tokio runtime. ClickHouse need not be
    /// reachable yet.
    pub fn start(config: Config) -> Self {
        let state = Arc::new(AppState::new(config.refresh.clone(), Metrics::new()));
        let access = Arc::new(Access::new(&config.access, &state.metrics));
        let refreshing = CancellationToken::new();
        tokio::spawn(Arc::clone(&access).follow(refreshing.clone()));
        let refresher = Refresher::new(&config, Arc::clone(&state));
        tokio::spawn(refreshing.clone().run_until_cancelled_owned(refresher.run()));
        Self { state, access, config, refreshing, streaming: CancellationToken::new() }
    }

    /// The token that ends the streams of `/v1/live`, which would otherwise keep their connections open during a
    /// drain. [`QueryApi::serve`] cancels the token when it drains. A caller that serves [`QueryApi::service`] itself
    /// must do the same.
    pub fn streaming(&self) -> CancellationToken {
        self.streaming.clone()
    }

    /// All routes, for a caller that serves them together with other routes.
    pub fn service<B>(&self) -> impl HttpService<B> + use<B>
    where
        B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        // These layers wrap the router. Layers added with `Router::layer` would cost each request several allocations.
        // The CORS layer must wrap the key check, which is in the router. Then the CORS layer answers preflights, which
        // have no token, and also adds CORS headers to refusals.
        let routes = ServiceBuilder::new()
            .map_response(cors::no_content) // preflights are answered without a body
            .layer(self.config.cors.layer())
            .option_layer(self.access.anonymous_reader().map(Extension))
            .service(self.routes());
        service_fn(move |request: Request<B>| {
            let id = RequestId::of(request.headers());
            routes.clone().oneshot(request).map_ok(move |response| problem::complete(response, &id))
        })
    }

    fn routes(&self) -> Router {
        let access = &self.access;
        // A prepared answer is the same for all readers of a tenant. So a request is refused if its key permits less
        // than the answer shows.
        let prepared = http::routes(Arc::clone(&self.state))
            .merge(live::routes(Arc::clone(&self.state), self.streaming.clone()));
        let answers = access
            .permit_prepared(prepared)
            .merge(meta::routes(&self.config, Arc::clone(&self.state)))
            .merge(pipeline::routes(&self.config, Arc::clone(&self.state)))
            .merge(openapi::routes(access.needs_key()));
        let queries = query::routes(&self.config, Arc::clone(&self.state))
            .merge(people::routes(&self.config, Arc::clone(&self.state)));
        let routes = access
            .charge(Cost::Answer, answers)
            .merge(access.charge(Cost::Query, queries))
            .fallback(|| async { Kind::NotFound })
            .method_not_allowed_fallback(|| async { Kind::MethodNotAllowed });
        // The page contains no data, so a request for it needs no token. The script of the page sends the reader's
        // token, if there is one, with each request for data.
        access.identify(routes).merge(page::routes(&self.config.page))
    }

    /// Serves the API port and the admin port until `shutdown`, then drains. The admin port is closed last.
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
        // From now on `/readyz` tells load balancers to send no more requests. Requests that still arrive are answered.
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
