//! What stands around every request, from the outside in.

use std::convert::Infallible;
use std::future::poll_fn;
use std::panic::{self, AssertUnwindSafe};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Instant, SystemTime};

use ::http::{HeaderMap, HeaderName, Request, Response, Version};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Body;
use runtime::request_id::RequestId;
use schemas::time::UnixMillis;
use schemas::trace::TraceParent;
use tower::layer::layer_fn;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt as _, service_fn};

use crate::http::handlers::Shared;
use crate::http::response::{self, Answer, Said};
use crate::outcome::{Bound, Refusal};
use crate::route::Route;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The whole edge as one service.
pub fn stack<B>(
    shared: &Arc<Shared>,
    max_requests: usize,
) -> impl Service<Request<B>, Response = Response<Full<Bytes>>, Error = Infallible, Future: Send>
+ Clone
+ Send
+ use<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
{
    let (outer, edge) = (Arc::clone(shared), Arc::clone(shared));
    ServiceBuilder::new()
        .layer(layer_fn(move |inner| answered(inner, &outer))) // outermost: also counts what is shed
        .load_shed() // refuse at once rather than queue
        .concurrency_limit(max_requests) // bounds memory together with the bound on bodies
        .service(service_fn(move |request: Request<B>| {
            let edge = Arc::clone(&edge);
            async move {
                let server_time = UnixMillis::from(SystemTime::now()); // the headers are complete
                Ok::<_, BoxError>(caught(edge.answer(request, server_time)).await)
            }
        }))
}

/// Names the request, renders its answer, says what browsers ask, and counts it.
fn answered<S, B>(
    inner: S,
    shared: &Arc<Shared>,
) -> impl Service<Request<B>, Response = Response<Full<Bytes>>, Error = Infallible, Future: Send>
+ Clone
+ Send
+ use<S, B>
where
    S: Service<Request<B>, Response = Answer, Error = BoxError, Future: Send> + Clone + Send + 'static,
    B: Send + 'static,
{
    let shared = Arc::clone(shared);
    service_fn(move |mut request: Request<B>| {
        let (inner, shared) = (inner.clone(), Arc::clone(&shared));
        async move {
            let start = Instant::now();
            let id = RequestId::of(request.headers());
            let trace = trace(request.headers());
            if let Some(trace) = trace {
                request.extensions_mut().insert(trace);
            }
            let route = Route::of(request.uri().path());
            // HTTP/2 has no header for it; hyper says goodbye in its own way when the process stops.
            let one_by_one = request.version() < Version::HTTP_2;
            let origin = shared.cors.origin(request.headers());
            let preflight = shared.cors.is_preflight(&request);
            let answer = if preflight {
                Answer::new(Said::NoContent)
            } else {
                inner.oneshot(request).await.unwrap_or_else(shed)
            };
            if let Said::Refused(refusal, _) = &answer.said {
                shared.refusals.tell(refusal, route, &id, trace.as_ref());
                if let Refusal::Overloaded(bound) = refusal {
                    shared.metrics.shed(*bound);
                }
            }
            let closes = one_by_one && (answer.closes || shared.is_draining());
            let mut response = response::render(&answer, &id, closes);
            shared.cors.allow(origin.as_ref(), preflight, response.headers_mut());
            shared.metrics.answered(route, response.status(), start.elapsed());
            Ok(response)
        }
    })
}

/// The trace that a request belongs to; none if it names several.
fn trace(headers: &HeaderMap) -> Option<TraceParent> {
    let mut named = headers.get_all(TRACEPARENT).iter();
    let only = named.next().filter(|_| named.next().is_none());
    only.and_then(|value| TraceParent::parse(value.as_bytes()))
}

/// What a shed request is told. Its body was not read.
fn shed(_: BoxError) -> Answer {
    Answer { closes: true, ..Answer::refused(Refusal::Overloaded(Bound::Requests)) }
}

/// A panic costs its request, not the process.
async fn caught(answer: impl Future<Output = Answer>) -> Answer {
    let mut answer = pin!(answer);
    let polled = poll_fn(|context| {
        let poll = AssertUnwindSafe(|| answer.as_mut().poll(context));
        match panic::catch_unwind(poll) {
            Ok(poll) => poll,
            Err(_) => Poll::Ready(Answer { closes: true, ..Answer::refused(Refusal::Internal) }),
        }
    });
    polled.await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_becomes_an_answer() {
        let answer = caught(async { panic!("on purpose, in a test") }).await;
        assert!(matches!(answer.said, Said::Refused(Refusal::Internal, None)) && answer.closes);
    }
}
