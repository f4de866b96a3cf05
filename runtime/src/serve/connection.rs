//! One connection, from its handshake to its end.

use std::convert::Infallible;
use std::error::Error;
use std::future::{poll_fn, ready};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryFutureExt as _;
use futures_util::future::Either;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Request, Response};
use hyper::body::{Body, Incoming};
use hyper::service::{self, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpStream;
use tokio::time;
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt as _};

use super::limits::ConnectionLimits;
use super::monitored::{InFlight, MonitoredBody, MonitoredStream, ResponseBody, SharedActivity, Stream};
use super::open_connections::ConnectionMetrics;
use super::protocol_refusal::ProtocolRefusal;
use super::tls::Tls;
use crate::problem;
use crate::request_id::{REQUEST_ID, RequestId};

/// An HTTP/2 connection ends when its client has reset more than this number of streams before the server accepted
/// them, or when the server had to reset more than this number (CVE-2023-44487 and similar attacks).
const MAX_RESETS: usize = 64;
/// The maximum size in bytes of the buffer into which hyper reads an HTTP/1 connection, unless `MAX_HEADER_BYTES` is
/// larger. The buffer must have room for all headers of a request; it also receives the bytes of bodies.
const READ_BUFFER: usize = 64 * 1024;

/// How long a connection may last after its graceful shutdown began. Without this limit, a peer that does not read its
/// response would keep the connection open forever.
const CLOSE_DEADLINE: Duration = Duration::from_secs(60);

/// How all connections of a port are served.
pub(super) struct ConnectionSettings {
    limits: ConnectionLimits,
    tls: Option<Arc<Tls>>,
    metrics: ConnectionMetrics,
    http: auto::Builder<TokioExecutor>,
}

impl ConnectionSettings {
    pub(super) fn new(limits: ConnectionLimits, tls: Option<Arc<Tls>>, metrics: ConnectionMetrics) -> Self {
        Self { http: protocol(&limits), limits, tls, metrics }
    }
}

/// The TCP peer of a request, in the extensions of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerAddr(pub SocketAddr);

/// One connection.
pub(super) struct Connection {
    pub(super) peer: SocketAddr,
    pub(super) activity: SharedActivity,
    /// Cancelling this token ends the connection after the requests that it has received are answered.
    pub(super) closing: CancellationToken,
}

impl Connection {
    /// Serves the connection to its end.
    pub(super) async fn serve<S, B>(self, stream: TcpStream, service: S, settings: &ConnectionSettings)
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send + 'static,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let limits = settings.limits;
        let Some(stream) = self.secured(stream, settings).await else { return };
        let stream = TokioIo::new(MonitoredStream::new(stream, self.activity.clone()));
        let service = monitored(service, self.peer, self.activity.clone(), limits);
        let mut connection = pin!(settings.http.serve_connection(stream, service));
        let mut expired = pin!(expired(&self.closing, limits.age));
        let mut close_deadline = None;
        let mut silent = pin!(time::sleep(limits.header_time));
        let ended = poll_fn(|context| {
            if close_deadline.is_none() && expired.as_mut().poll(context).is_ready() {
                connection.as_mut().graceful_shutdown();
                close_deadline = Some(Box::pin(time::sleep(CLOSE_DEADLINE)));
            }
            if let Poll::Ready(ended) = connection.as_mut().poll(context) {
                return Poll::Ready(ended);
            }
            if close_deadline.as_mut().is_some_and(|over| over.as_mut().poll(context).is_ready()) {
                return Poll::Ready(Ok(()));
            }
            // The poll of the connection may have moved the deadline, so the deadline is read after the poll.
            let Some(deadline) = self.activity.lock().deadline(limits.timeouts()) else {
                return Poll::Pending;
            };
            if silent.deadline() != deadline {
                silent.as_mut().reset(deadline);
            }
            silent.as_mut().poll(context).map(|()| Ok(()))
        });
        if let Err(error) = ended.await {
            tracing::debug!(peer = %self.peer, error, "connection ended early");
        }
    }

    /// The stream, after its TLS handshake if there is a certificate; `None` if the handshake failed, or if `closing`
    /// was cancelled before the handshake ended.
    async fn secured(&self, stream: TcpStream, settings: &ConnectionSettings) -> Option<Stream> {
        let Some(tls) = &settings.tls else { return Some(Stream::Left(stream)) };
        // The handshake is boxed, because the future of each connection would otherwise reserve space for the
        // handshake until the connection ends.
        let handshake = time::timeout(settings.limits.header_time, Box::pin(tls.accept(stream)));
        let error = match self.closing.run_until_cancelled(handshake).await? {
            Ok(Ok(stream)) => return Some(Stream::Right(Box::new(stream))),
            Ok(Err(error)) => error.to_string(),
            Err(overdue) => overdue.to_string(),
        };
        settings.metrics.handshake_failures.inc();
        tracing::debug!(peer = %self.peer, error, "TLS handshake failed");
        None
    }
}

/// Completes when the connection should end: when `closing` is cancelled, or when the connection reaches its maximum
/// age. The maximum is `age` ± 10 % at random, so that clients that connected at the same time do not reconnect at the
/// same time.
async fn expired(closing: &CancellationToken, age: Duration) {
    let age = age.mul_f64(0.9 + fastrand::f64() / 5.0);
    let _aged = time::timeout(age, closing.cancelled()).await;
}

/// The service of one connection: records each request as activity, refuses a request that violates HTTP or has too
/// many or too long headers, and passes every other request to `service` with its [`PeerAddr`].
fn monitored<S, B>(
    service: S,
    peer: SocketAddr,
    activity: SharedActivity,
    limits: ConnectionLimits,
) -> impl service::Service<
    Request<Incoming>,
    Response = Response<MonitoredBody<B>>,
    Error = Infallible,
    Future: Send + 'static,
>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
{
    service_fn(move |mut request: Request<Incoming>| {
        let in_flight = activity.request();
        let checked = match ProtocolRefusal::check_host(&request) {
            _ if limits.refuses(&request) => Err(ProtocolRefusal::HeadersTooLarge),
            host => host,
        };
        if let Err(refusal) = checked {
            return Either::Left(ready(Ok(refused(refusal, request.headers(), in_flight))));
        }
        request.extensions_mut().insert(PeerAddr(peer));
        // An async block here would copy the future of the service, which is large, once more for each request.
        let answer = service.clone().oneshot(request);
        Either::Right(answer.map_ok(|answer| {
            answer.map(|body| MonitoredBody { body: ResponseBody::Service(body), _in_flight: in_flight })
        }))
    })
}

/// The response to a request that never reaches the service.
fn refused<B>(
    refusal: ProtocolRefusal,
    headers: &HeaderMap,
    in_flight: InFlight,
) -> Response<MonitoredBody<B>> {
    let id = RequestId::of(headers);
    let body = ResponseBody::Refusal(Some(refusal.body(&id)));
    let mut answer = Response::new(MonitoredBody { body, _in_flight: in_flight });
    *answer.status_mut() = refusal.status();
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(problem::MEDIA_TYPE));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REQUEST_ID, id.header());
    answer
}

/// HTTP/1.1 and HTTP/2 with our limits.
fn protocol(limits: &ConnectionLimits) -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        // Off, because the timeouts of `activity.rs` replace it; they also close connections that send nothing at all.
        .header_read_timeout(None::<Duration>)
        .max_headers(limits.headers.get())
        .max_buf_size(READ_BUFFER.max(limits.header_bytes as usize))
        // Off: with this option, hyper does not flush a response while it has bytes of the client that it has not
        // parsed. If hyper closes the connection after that response, the response is lost.
        .pipeline_flush(false);
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams.get())
        .max_pending_accept_reset_streams(MAX_RESETS)
        .max_local_error_reset_streams(MAX_RESETS)
        .max_header_list_size(limits.header_bytes)
        .keep_alive_interval(Some(Duration::from_secs(20)));
    http
}
