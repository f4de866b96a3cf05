//! Serves a tower service over HTTP/1.1 and HTTP/2 until told to stop.
//!
//! Listener, service and token come from the caller. Bounded: connections, their
//! age and silence, header size and time, HTTP/2 streams and resets, the drain. A
//! connection that breaks concerns nobody else; running out of descriptors pauses
//! accepting instead of ending it.

mod pulse;

mod watched;

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryFutureExt as _;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::{Service, ServiceExt as _};

use self::pulse::Patience;
use self::watched::{Answering, SharedPulse, Watched};
use crate::backoff::Backoff;

/// Connections served at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 65_536;
/// A request's header block, in bytes.
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// Headers of one request.
const MAX_HEADERS: usize = 64;
/// How long a connection may be silent.
const PATIENCE: Patience = Patience { headers: Duration::from_secs(5), idle: Duration::from_secs(75) };
/// A connection ends after about so long, so that balancers can spread clients anew.
const MAX_AGE: Duration = Duration::from_secs(300);
/// Streams that an HTTP/2 client may have reset before they were taken, and that we had to
/// reset: beyond them the connection ends (CVE-2023-44487 and its like).
const MAX_RESETS: usize = 64;
/// Streams at once on an HTTP/2 connection.
const MAX_STREAMS: u32 = 128;

/// The two ports of a service, bound by the caller.
pub struct Listeners {
    /// What users call.
    pub http: TcpListener,
    /// `/healthz`, `/readyz`, `/metrics`.
    pub admin: TcpListener,
}

/// The TCP peer of a request, in the request's extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerAddr(pub SocketAddr);

/// Connections that were still busy when the drain's deadline had passed.
#[derive(Debug, thiserror::Error)]
#[error("finish open connections within {0:?}")]
pub struct DrainOverran(pub Duration);

/// Binds `addr`; the error names the address and, when it is taken, the remedy.
pub async fn bind(addr: SocketAddr, variable: &'static str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(addr).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            anyhow::anyhow!(
                "listen on {addr}: the port is taken; stop what holds it or set {variable} to another"
            )
        }
        _ => anyhow::anyhow!("listen on {addr} ({variable}): {error}"),
    })
}

/// Serves `service` until `shutdown`, then lets open connections finish for at most `drain`.
pub async fn until<S, B>(
    listener: TcpListener,
    service: S,
    shutdown: CancellationToken,
    drain: Duration,
) -> Result<(), DrainOverran>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (closing, tasks) = (CancellationToken::new(), TaskTracker::new());
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(100));
    let http = protocol();
    while let Some((stream, peer)) = shutdown.run_until_cancelled(accept(&listener, &mut backoff)).await {
        let Some(Ok(place)) = shutdown.run_until_cancelled(Arc::clone(&connections).acquire_owned()).await
        else {
            break;
        };
        let pulse = SharedPulse::new();
        let service = watched(service.clone(), peer, pulse.clone());
        let stream = TokioIo::new(Watched { stream, pulse: pulse.clone() });
        let connection = http.serve_connection(stream, TowerToHyperService::new(service)).into_owned();
        // One of its own: at each poll its lock is taken, which must not be everybody's.
        let closing = closing.child_token();
        tasks.spawn(async move {
            let _place = place;
            let mut connection = pin!(connection);
            let mut enough = pin!(enough(&closing));
            let mut said_goodbye = false;
            let mut silent = pin!(time::sleep(PATIENCE.headers));
            let ended = poll_fn(|context| {
                if !said_goodbye && enough.as_mut().poll(context).is_ready() {
                    said_goodbye = true;
                    connection.as_mut().graceful_shutdown();
                }
                if let Poll::Ready(ended) = connection.as_mut().poll(context) {
                    return Poll::Ready(ended);
                }
                // After the connection was polled, for that may have moved it.
                let Some(deadline) = pulse.lock().deadline(PATIENCE) else { return Poll::Pending };
                if silent.deadline() != deadline {
                    silent.as_mut().reset(deadline);
                }
                silent.as_mut().poll(context).map(|()| Ok(()))
            });
            if let Err(error) = ended.await {
                tracing::debug!(%peer, error, "connection ended early");
            }
        });
    }
    drop(listener);
    closing.cancel();
    tasks.close();
    time::timeout(drain, tasks.wait()).await.map_err(|_| DrainOverran(drain))
}

/// Ends when a connection should: when all close, or at its age, which differs from one to the
/// next, so that those made together do not return together.
async fn enough(closing: &CancellationToken) {
    let age = MAX_AGE.mul_f64(0.9 + fastrand::f64() / 5.0);
    let _aged = time::timeout(age, closing.cancelled()).await;
}

/// The service of one connection, which tells its requests the peer, and its pulse the requests.
fn watched<S, B>(
    service: S,
    peer: SocketAddr,
    pulse: SharedPulse,
) -> impl Service<Request<Incoming>, Response = Response<Answering<B>>, Error = Infallible, Future: Send>
+ Clone
+ Send
+ 'static
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Send + 'static,
{
    let told = service.map_request(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(PeerAddr(peer));
        request
    });
    told.map_future(move |answer| {
        let asked = pulse.asked();
        // Not an async block, which would copy the whole future once more.
        answer.map_ok(move |answer| answer.map(|body| Answering { body, _asked: asked }))
    })
}

/// HTTP/1.1 and HTTP/2 with our limits.
fn protocol() -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        // Ours, in `pulse`, also knows a connection that sends nothing at all.
        .header_read_timeout(None::<Duration>)
        .max_headers(MAX_HEADERS)
        // hyper's buffer also holds body bytes; 16 KiB of headers and a read of the body.
        .max_buf_size(4 * MAX_HEADER_BYTES)
        .pipeline_flush(true);
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_RESETS)
        .max_local_error_reset_streams(MAX_RESETS)
        .max_header_list_size(MAX_HEADER_BYTES as u32)
        .keep_alive_interval(Some(Duration::from_secs(20)));
    http
}

/// The next connection, however often accepting fails on the way.
async fn accept(listener: &TcpListener, backoff: &mut Backoff) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                backoff.reset();
                // A refused option costs latency, not correctness.
                let _ignored = stream.set_nodelay(true);
                return (stream, peer);
            }
            Err(error) => {
                // Out of descriptors, or the peer is gone already: both pass.
                tracing::warn!(%error, "accept a connection");
                time::sleep(backoff.wait()).await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
