//! Accepts connections until the shutdown, then lets open ones finish.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

use super::connection::{Connection, ConnectionSettings};
use super::limits::ConnectionLimits;
use super::monitored::SharedActivity;
use super::open_connections::{ConnectionMetrics, OpenConnections};
use super::tls::Tls;
use crate::backoff::{Backoff, RetryPolicy};

/// How long to wait before accepting again after a failure.
const ACCEPT_RETRIES: RetryPolicy = RetryPolicy::new(Duration::from_millis(10), Duration::from_millis(100));

/// At the limit of connections, how long to wait for a free permit before idle connections are closed again.
const ROOM_PAUSE: Duration = Duration::from_secs(1);

/// Connections were still open at the deadline of the drain.
#[derive(Debug, thiserror::Error)]
#[error("open connections did not finish within {0:?}")]
pub struct DrainOverran(pub Duration);

/// Serves connections; by default without TLS and within the default limits.
#[derive(Clone, Default)]
pub struct Server {
    /// The limits on connections.
    pub limits: ConnectionLimits,
    /// The certificate; `None` for plain connections.
    pub tls: Option<Arc<Tls>>,
    /// The metrics of connections.
    pub metrics: ConnectionMetrics,
}

impl Server {
    /// Serves `service` until `shutdown` is cancelled, then lets open connections finish for at most `drain`.
    ///
    /// # Errors
    /// Some connections have not finished within `drain`.
    pub async fn until<S, B>(
        self,
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
        let permits = Arc::new(Semaphore::new(self.limits.connections.get()));
        let open = OpenConnections::new(self.limits.connections_per_ip, self.metrics.clone());
        let settings = Arc::new(ConnectionSettings::new(self.limits, self.tls, self.metrics));
        let mut backoff = ACCEPT_RETRIES.backoff();
        loop {
            // Takes a permit before accepting, so that connections beyond the limit wait in the kernel's queue.
            let permit = shutdown.run_until_cancelled(permit(&permits, &open)).await;
            let accepted = shutdown.run_until_cancelled(accept(&listener, &mut backoff, &open)).await;
            let (Some(permit), Some((stream, peer))) = (permit, accepted) else { break };
            let activity = SharedActivity::new();
            // Each connection has its own token: every poll of a connection locks its token, and with one shared token
            // all connections would contend for that lock.
            let closing = closing.child_token();
            let Some(guard) = open.insert(peer.ip(), activity.clone(), closing.clone()) else { continue };
            let connection = Connection { peer, activity, closing };
            let (service, settings) = (service.clone(), Arc::clone(&settings));
            tasks.spawn(async move {
                let _held = (permit, guard);
                connection.serve(stream, service, &settings).await;
            });
        }
        drop(listener);
        closing.cancel();
        tasks.close();
        time::timeout(drain, tasks.wait()).await.map_err(|_| DrainOverran(drain))
    }
}

/// A permit for one more connection. At the limit of connections, closes idle connections until a permit is free.
async fn permit(permits: &Arc<Semaphore>, open: &OpenConnections) -> OwnedSemaphorePermit {
    loop {
        if permits.available_permits() == 0 {
            open.make_room();
        }
        // Connections that are busy now may become idle during the pause; the next turn of the loop closes them.
        let permit = time::timeout(ROOM_PAUSE, Arc::clone(permits).acquire_owned()).await;
        if let Ok(permit) = permit {
            return permit.expect("the semaphore is never closed");
        }
    }
}

/// The next connection; retries until accepting succeeds.
async fn accept(
    listener: &TcpListener,
    backoff: &mut Backoff,
    open: &OpenConnections,
) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                backoff.reset();
                // If the option cannot be set, latency is higher, but nothing fails.
                let _ignored = stream.set_nodelay(true);
                // A socket for both IPv4 and IPv6 returns the address of an IPv4 peer as `::ffff:192.0.2.1`. Logs and
                // limits use the form `192.0.2.1`.
                return (stream, SocketAddr::new(peer.ip().to_canonical(), peer.port()));
            }
            // The peer has already closed the connection.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            // The process may have run out of file descriptors or memory. Closing idle connections frees some.
            Err(error) => {
                let idle_closed = open.accept_failed();
                tracing::warn!(%error, idle_closed, "cannot accept a connection; closing idle connections");
                time::sleep(backoff.wait()).await;
            }
        }
    }
}
