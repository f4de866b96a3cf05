//! The layers that find the reader of each request, charge the request to the rates of the reader's key, and refuse
//! prepared answers that show more than the key permits.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, RETRY_AFTER, VARY};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use prometheus::IntCounterVec;
use runtime::keys::{FollowedKeys, Rate, bearer};
use tokio_util::sync::CancellationToken;

use super::config::AccessConfig;
use super::keys::{DeclaredKey, Key};
use super::reader::KnownReader;
use crate::metrics::Metrics;
use crate::problem::Kind;

/// The request header with the token, for clients that cannot set `Authorization`.
const X_READ_KEY: HeaderName = HeaderName::from_static("x-read-key");
/// The response header with the number of further requests that the key may send immediately.
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// The response header with the number of requests that the key may send per second.
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

const ONE: NonZeroU32 = NonZeroU32::MIN;

/// The keys of readers; shared by all requests.
pub(crate) struct Access {
    /// The keys that are valid now; `None` if readers need no key.
    keys: Option<Arc<FollowedKeys<DeclaredKey>>>,
    /// Counts refused requests by status: 401, 403 and 429.
    refused: IntCounterVec,
}

impl Access {
    /// Starts with the keys of the configured file.
    pub(crate) fn new(config: &AccessConfig, metrics: &Metrics) -> Self {
        let followed = |file| Arc::new(FollowedKeys::new(Some(file), metrics.keys_stale.clone()));
        let keys = config.keys().map(followed);
        Self { keys, refused: metrics.refused.clone() }
    }

    /// Whether a request needs the token of a key.
    pub(crate) fn needs_key(&self) -> bool {
        self.keys.is_some()
    }

    /// The one reader of all requests, if readers need no key; `None` if [`Access::identify`] finds the reader of
    /// each request.
    pub(crate) fn anonymous_reader(&self) -> Option<KnownReader> {
        self.keys.is_none().then(KnownReader::default)
    }

    /// If readers need a key, adds the reader to each request of the routes, or refuses the request. Browsers send
    /// preflights without a token; the CORS layer, which wraps this layer, answers them.
    pub(crate) fn identify(&self, routes: Router) -> Router {
        let Some(keys) = &self.keys else { return routes };
        let keys = Keys { followed: Arc::clone(keys), refused: self.refused.clone() };
        routes.layer(middleware::from_fn_with_state(keys, identify))
    }

    /// Charges each request of the routes to one of the two rate limits of the reader's key: `cost` says which. Refuses
    /// the request if this limit is used up.
    pub(crate) fn charge(&self, cost: Cost, routes: Router) -> Router {
        if !self.needs_key() {
            return routes;
        }
        routes.route_layer(middleware::from_fn_with_state(cost, charge))
    }

    /// Refuses a request for a prepared answer if the reader's key permits less than the answer shows.
    pub(crate) fn permit_prepared(&self, routes: Router) -> Router {
        if !self.needs_key() {
            return routes;
        }
        routes.route_layer(middleware::from_fn(permit_prepared))
    }

    /// Applies changes of the key file until `stop` is cancelled.
    pub(crate) async fn follow(self: Arc<Self>, stop: CancellationToken) {
        if let Some(keys) = &self.keys {
            Arc::clone(keys).follow(stop).await;
        }
    }
}

/// The key of a request. [`identify`] adds it to the extensions of the request, and [`charge`] reads it there.
#[derive(Clone)]
struct PresentedKey(Arc<Key>);

/// The state of the layer [`identify`].
#[derive(Clone)]
struct Keys {
    followed: Arc<FollowedKeys<DeclaredKey>>,
    refused: IntCounterVec,
}

async fn identify(State(keys): State<Keys>, mut request: Request, next: Next) -> Response {
    // The refusal is the same without a token, with an unknown token and with the token of a disabled key. So it does
    // not reveal which tokens exist.
    let key = token(request.headers()).and_then(|token| keys.followed.find(token)).filter(|key| key.enabled);
    let response = match key {
        Some(key) => {
            request.extensions_mut().insert(KnownReader(Arc::clone(&key.reader)));
            request.extensions_mut().insert(PresentedKey(key));
            keep_private(next.run(request).await)
        }
        None => Kind::Unauthorized.into_response(),
    };
    let status = response.status();
    if [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::TOO_MANY_REQUESTS].contains(&status) {
        keys.refused.with_label_values(&[status.as_str()]).inc();
    }
    response
}

/// The token of a request, from `Authorization: Bearer` or from `X-Read-Key`. A token in the URL is not accepted,
/// because caches and logs keep URLs.
fn token(headers: &HeaderMap) -> Option<&[u8]> {
    bearer(headers).or_else(|| headers.get(X_READ_KEY).map(HeaderValue::as_bytes))
}

/// Keeps shared caches from giving the answer of one reader to another.
fn keep_private(mut response: Response) -> Response {
    let headers = response.headers_mut();
    if let Some(control) = headers.get(CACHE_CONTROL).and_then(|value| value.to_str().ok()) {
        let private = control.replace("public", "private");
        headers.insert(CACHE_CONTROL, HeaderValue::try_from(private).expect("`private` is ASCII too"));
    }
    headers.append(VARY, HeaderValue::from_name(AUTHORIZATION));
    headers.append(VARY, HeaderValue::from_name(X_READ_KEY));
    response
}

/// Which rate a request is charged to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cost {
    /// The request does not need a statement of its own: its answer is prepared, is known without ClickHouse, or comes
    /// from a statement that all requests of a refresh interval share (`/v1/pipeline`).
    Answer,
    /// The request may send a statement to ClickHouse.
    Query,
}

async fn charge(State(cost): State<Cost>, request: Request, next: Next) -> Response {
    let key = request.extensions().get::<PresentedKey>();
    let rate = key.and_then(|PresentedKey(key)| match cost {
        Cost::Answer => key.answers.clone(),
        Cost::Query => key.queries.clone(),
    });
    let Some(rate) = rate else { return next.run(request).await };
    match rate.charge(ONE) {
        Ok(left) => {
            let mut response = next.run(request).await;
            show_rate(&mut response, cost, &rate, &format!("r={left}"));
            response
        }
        Err(wait) => {
            let seconds = whole_seconds(wait);
            let mut response = Kind::RateLimited.into_response();
            show_rate(&mut response, cost, &rate, &format!("r=0;t={seconds}"));
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
            response
        }
    }
}

/// The smallest number of whole seconds that is greater than the wait.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + 1
}

/// Adds the headers `RateLimit` and `RateLimit-Policy` of draft-ietf-httpapi-ratelimit-headers. `state` has the
/// parameters of `RateLimit`: the requests left (`r`) and, after a refusal, the seconds to wait (`t`).
fn show_rate(response: &mut Response, cost: Cost, rate: &Rate, state: &str) {
    let name = match cost {
        Cost::Answer => "answers",
        Cost::Query => "queries",
    };
    let header = |text: String| HeaderValue::try_from(text).expect("visible ASCII is a valid header");
    let headers = response.headers_mut();
    headers.insert(RATE_LIMIT, header(format!("\"{name}\";{state}")));
    headers.insert(RATE_LIMIT_POLICY, header(format!("\"{name}\";q={};w=1", rate.config().rate)));
}

/// The paths of the prepared answers, each with the measures that its answer shows. If a route of the layer
/// [`permit_prepared`] is not in this list, the layer permits only keys without `measures` and without `filter`.
const PREPARED: [(&str, &[&str]); 10] = [
    ("/analytics", &["events", "users"]),
    ("/v1/counters", &["events"]),
    ("/v1/counters.json", &["events"]),
    ("/v1/counters.csv", &["events"]),
    ("/web/get.php", &["events"]),
    ("/v1/polls", &["votes", "voters"]),
    ("/v1/polls.json", &["votes", "voters"]),
    ("/v1/polls.csv", &["votes", "voters"]),
    ("/v1/polls/{poll}", &["votes", "voters"]),
    ("/v1/live", &["events", "users"]),
];

async fn permit_prepared(request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let measures = PREPARED.iter().find(|(known, _)| Some(*known) == path).map(|(_, measures)| *measures);
    let reader = request.extensions().get::<KnownReader>();
    let permitted = reader.is_none_or(|KnownReader(reader)| match measures {
        Some(measures) => reader.may_have_prepared(measures),
        None => reader.filters.is_empty() && reader.measures.is_none(),
    });
    if permitted { next.run(request).await } else { Kind::PreparedForbidden.into_response() }
}

#[cfg(test)]
mod tests;
