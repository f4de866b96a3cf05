//! The layers around every request, from the outside in.

use std::convert::Infallible;
use std::future::poll_fn;
use std::panic::{self, AssertUnwindSafe};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Instant, SystemTime};

use ::http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Version};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Body;
use runtime::request_id::RequestId;
use schemas::time::UnixMillis;
use schemas::trace::TraceParent;
use tower::layer::layer_fn;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt as _, service_fn};

use super::cors::CorsConfig;
use super::response::{self, ApiResponse, ResponseBody};
use super::{HttpState, handlers};
use crate::outcome::{Bound, Refusal};
use crate::route::Route;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The whole edge as one service.
pub fn stack<B>(
    http: &Arc<HttpState>,
) -> impl Service<Request<B>, Response = Response<Full<Bytes>>, Error = Infallible, Future: Send>
+ Clone
+ Send
+ use<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
{
    let (outer, app, max_requests) = (Arc::clone(http), Arc::clone(&http.app), http.max_requests);
    ServiceBuilder::new()
        .layer(layer_fn(move |inner| observe(inner, &outer))) // outermost: also counts requests that are shed
        .load_shed() // refuses at once instead of queueing
        .concurrency_limit(max_requests) // bounds memory, together with the limit on bodies
        .service(service_fn(move |request: Request<B>| {
            let app = Arc::clone(&app);
            async move {
                let server_time = UnixMillis::from(SystemTime::now()); // hyper has received all headers
                Ok::<_, BoxError>(catch_panic(handlers::respond(&app, request, server_time)).await)
            }
        }))
}

/// Gives the request an id, answers a preflight, logs a refusal, renders the response, and counts the request. If the
/// request was shed, also counts it under the limit that was reached.
fn observe<S, B>(
    inner: S,
    http: &Arc<HttpState>,
) -> impl Service<Request<B>, Response = Response<Full<Bytes>>, Error = Infallible, Future: Send>
+ Clone
+ Send
+ use<S, B>
where
    S: Service<Request<B>, Response = ApiResponse, Error = BoxError, Future: Send> + Clone + Send + 'static,
    B: Send + 'static,
{
    let http = Arc::clone(http);
    service_fn(move |mut request: Request<B>| {
        let (inner, http) = (inner.clone(), Arc::clone(&http));
        async move {
            let start = Instant::now();
            let head = Head::of(&request, &http.cors);
            if let Some(trace) = head.trace {
                request.extensions_mut().insert(trace);
            }
            let response = if head.is_preflight {
                ApiResponse::new(ResponseBody::NoContent)
            } else {
                inner.oneshot(request).await.unwrap_or_else(shed)
            };
            note_refusal(&http, &head, &response);
            let rendered = render(&http, &head, &response);
            http.app.metrics.answered(head.route, rendered.status(), start.elapsed());
            Ok(rendered)
        }
    })
}

/// What the response and the log need from a request.
struct Head {
    id: RequestId,
    trace: Option<TraceParent>,
    route: Route,
    is_http1: bool,
    /// The origin of the page that sent the request; `None` if CORS is off or the request names no origin.
    origin: Option<HeaderValue>,
    is_preflight: bool,
}

impl Head {
    fn of<B>(request: &Request<B>, cors: &CorsConfig) -> Self {
        Self {
            id: RequestId::of(request.headers()),
            trace: trace(request.headers()),
            route: Route::of(request.uri().path()),
            is_http1: request.version() < Version::HTTP_2,
            origin: cors.origin(request.headers()),
            is_preflight: cors.is_preflight(request),
        }
    }
}

/// Logs a response that is a refusal, and counts it if the request was shed.
fn note_refusal(http: &HttpState, head: &Head, response: &ApiResponse) {
    if let ResponseBody::Refused(refusal, _) = &response.body {
        http.refusal_log.log(refusal, head.route, &head.id, head.trace.as_ref());
        if let Refusal::Overloaded(bound) = refusal {
            http.app.metrics.shed(*bound);
        }
    }
}

/// Renders a response with the CORS headers.
fn render(http: &HttpState, head: &Head, response: &ApiResponse) -> Response<Full<Bytes>> {
    // Only HTTP/1 has `Connection: close`. An HTTP/2 connection can serve other requests after an unread body. When the
    // process stops, hyper sends GOAWAY on each HTTP/2 connection.
    let close = head.is_http1 && (response.close || http.app.drain.is_set());
    let mut rendered = response::render(response, &head.id, close);
    http.cors.allow(head.origin.as_ref(), head.is_preflight, rendered.headers_mut());
    rendered
}

/// The trace of a request; `None` unless the request has exactly one valid `traceparent` header.
fn trace(headers: &HeaderMap) -> Option<TraceParent> {
    let mut named = headers.get_all(TRACEPARENT).iter();
    let only = named.next().filter(|_| named.next().is_none());
    only.and_then(|value| TraceParent::parse(value.as_bytes()))
}

/// The response to a request that was shed at `MAX_REQUESTS`; the inner layers return no other error. The response
/// closes the connection, because the body of the request was not read.
fn shed(_: BoxError) -> ApiResponse {
    ApiResponse { close: true, ..ApiResponse::refused(Refusal::Overloaded(Bound::Requests)) }
}

/// Turns a panic into a refusal, so that the panic fails only this request. tower-http's `CatchPanic` does not fit: it
/// returns a rendered response, but refusals are rendered, logged and counted only in [`observe`].
async fn catch_panic(response: impl Future<Output = ApiResponse>) -> ApiResponse {
    let mut response = pin!(response);
    let polled = poll_fn(|context| {
        let poll = AssertUnwindSafe(|| response.as_mut().poll(context));
        match panic::catch_unwind(poll) {
            Ok(poll) => poll,
            Err(_) => Poll::Ready(ApiResponse { close: true, ..ApiResponse::refused(Refusal::Internal) }),
        }
    });
    polled.await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_becomes_an_answer() {
        let response = catch_panic(async { panic!("on purpose, in a test") }).await;
        assert!(matches!(response.body, ResponseBody::Refused(Refusal::Internal, None)) && response.close);
    }
}
