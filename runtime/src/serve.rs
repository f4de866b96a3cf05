//! Serves a tower service over HTTP/1.1 and HTTP/2 until told to stop.
//!
//! Listener, service and token come from the caller. Bounded: connections,
//! header size and time, the drain. A connection that breaks concerns nobody
//! else; running out of descriptors pauses accepting instead of ending it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time;
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt};

use crate::backoff::Backoff;

/// Connections served at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 65_536;
/// A request's header block, in bytes.
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// Headers of one request.
const MAX_HEADERS: usize = 64;
/// From the first byte of a connection, or the last answer, to complete headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
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
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let graceful = GracefulShutdown::new();
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(100));
    let http = protocol();
    while let Some((stream, peer)) = shutdown.run_until_cancelled(accept(&listener, &mut backoff)).await {
        let Some(Ok(place)) = shutdown.run_until_cancelled(Arc::clone(&connections).acquire_owned()).await
        else {
            break;
        };
        let service = service.clone().map_request(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(PeerAddr(peer));
            request
        });
        let connection =
            http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)).into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            let _place = place;
            if let Err(error) = connection.await {
                tracing::debug!(%peer, error, "connection ended early");
            }
        });
    }
    drop(listener);
    time::timeout(drain, graceful.shutdown()).await.map_err(|_| DrainOverran(drain))
}

/// HTTP/1.1 and HTTP/2 with our limits.
fn protocol() -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(MAX_HEADERS)
        // hyper's buffer also holds body bytes; 16 KiB of headers and a read of the body.
        .max_buf_size(4 * MAX_HEADER_BYTES)
        .pipeline_flush(true);
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
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
