//! One connection, from its handshake to its end.

use std::convert::Infallible;
use std::error::Error;
use std::future::{poll_fn, ready};
use std::net::SocketAddr;
use std::pin::pin;
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

use super::limits::Limits;
use super::unparsed::Unparsed;
use super::watched::{Answering, Asked, Said, SharedPulse, Stream, Watched};
use super::{PeerAddr, Server};
use crate::problem;
use crate::request_id::{REQUEST_ID, RequestId};

/// Streams that an HTTP/2 client may have reset before they were taken, and that we had to
/// reset: beyond them the connection ends (CVE-2023-44487 and its like).
const MAX_RESETS: usize = 64;
/// Bytes of hyper's buffer for HTTP/1: a header block or a read of the body, and what follows it.
const READ_BUFFER: usize = 64 * 1024;

/// How long a connection may last after it was told to end: a peer that does not read its answer
/// would keep it for ever.
const GOODBYE: Duration = Duration::from_secs(60);

/// How all connections of a port are served.
pub(super) struct Rules {
    pub(super) server: Server,
    http: auto::Builder<TokioExecutor>,
}

impl Rules {
    pub(super) fn new(server: Server) -> Self {
        Self { http: protocol(&server.limits), server }
    }
}

/// One connection.
pub(super) struct Connection {
    pub(super) peer: SocketAddr,
    pub(super) pulse: SharedPulse,
    /// Ends it, once it has answered what it was asked.
    pub(super) closing: CancellationToken,
}

impl Connection {
    /// Serves it to its end.
    pub(super) async fn serve<S, B>(self, stream: TcpStream, service: S, rules: &Rules)
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send + 'static,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let limits = rules.server.limits;
        let Some(stream) = self.secured(stream, &rules.server).await else { return };
        let stream = TokioIo::new(Watched::new(stream, self.pulse.clone()));
        let service = watched(service, self.peer, self.pulse.clone(), limits);
        let mut connection = pin!(rules.http.serve_connection(stream, service));
        let mut enough = pin!(enough(&self.closing, limits.age));
        let mut goodbye = None;
        let mut silent = pin!(time::sleep(limits.header_time));
        let ended = poll_fn(|context| {
            if goodbye.is_none() && enough.as_mut().poll(context).is_ready() {
                connection.as_mut().graceful_shutdown();
                goodbye = Some(Box::pin(time::sleep(GOODBYE)));
            }
            if let Poll::Ready(ended) = connection.as_mut().poll(context) {
                return Poll::Ready(ended);
            }
            if goodbye.as_mut().is_some_and(|over| over.as_mut().poll(context).is_ready()) {
                return Poll::Ready(Ok(()));
            }
            // After the connection was polled, for that may have moved it.
            let Some(deadline) = self.pulse.lock().deadline(limits.patience()) else { return Poll::Pending };
            if silent.deadline() != deadline {
                silent.as_mut().reset(deadline);
            }
            silent.as_mut().poll(context).map(|()| Ok(()))
        });
        if let Err(error) = ended.await {
            tracing::debug!(peer = %self.peer, error, "connection ended early");
        }
    }

    /// The stream after its handshake, if it needs one; none if that failed.
    async fn secured(&self, stream: TcpStream, server: &Server) -> Option<Stream> {
        let Some(tls) = &server.tls else { return Some(Stream::Left(stream)) };
        // Boxed: connections are many, and handshakes short.
        let handshake = time::timeout(server.limits.header_time, Box::pin(tls.accept(stream)));
        let error = match self.closing.run_until_cancelled(handshake).await? {
            Ok(Ok(stream)) => return Some(Stream::Right(Box::new(stream))),
            Ok(Err(error)) => error.to_string(),
            Err(overdue) => overdue.to_string(),
        };
        server.counted.handshake_failures.inc();
        tracing::debug!(peer = %self.peer, error, "TLS handshake");
        None
    }
}

/// Ends when a connection should: when it is told to close, or at its age, which differs from one
/// to the next, so that those made together do not return together.
async fn enough(closing: &CancellationToken, age: Duration) {
    let age = age.mul_f64(0.9 + fastrand::f64() / 5.0);
    let _aged = time::timeout(age, closing.cancelled()).await;
}

/// The service of one connection, which tells its requests the peer, and its pulse the requests.
fn watched<S, B>(
    service: S,
    peer: SocketAddr,
    pulse: SharedPulse,
    limits: Limits,
) -> impl service::Service<
    Request<Incoming>,
    Response = Response<Answering<B>>,
    Error = Infallible,
    Future: Send + 'static,
>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
{
    service_fn(move |mut request: Request<Incoming>| {
        let asked = pulse.asked();
        let unparsed = match Unparsed::check_host(&request) {
            _ if limits.refuses(&request) => Err(Unparsed::HeadersTooLarge),
            host => host,
        };
        if let Err(unparsed) = unparsed {
            return Either::Left(ready(Ok(refused(unparsed, request.headers(), asked))));
        }
        request.extensions_mut().insert(PeerAddr(peer));
        // Not an async block, which would copy the whole future once more.
        let answer = service.clone().oneshot(request);
        Either::Right(
            answer.map_ok(|answer| answer.map(|body| Answering { body: Said::Service(body), _asked: asked })),
        )
    })
}

/// What is said to a request that its service does not see.
fn refused<B>(unparsed: Unparsed, headers: &HeaderMap, asked: Asked) -> Response<Answering<B>> {
    let id = RequestId::of(headers);
    let body = Said::Ours(Some(unparsed.body(&id)));
    let mut answer = Response::new(Answering { body, _asked: asked });
    *answer.status_mut() = unparsed.status();
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(problem::MEDIA_TYPE));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REQUEST_ID, id.header());
    answer
}

/// HTTP/1.1 and HTTP/2 with our limits.
fn protocol(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        // Ours, in `pulse`, also knows a connection that sends nothing at all.
        .header_read_timeout(None::<Duration>)
        .max_headers(limits.headers.get())
        .max_buf_size(READ_BUFFER.max(limits.header_bytes as usize))
        // Else an answer that ends its connection is lost where bytes follow the request.
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
