//! Serves a tower service over HTTP/1.1 and HTTP/2, plain or with TLS, until told to stop.
//!
//! Listener, service and token come from the caller. Bounded: connections, also of one
//! address, their age and silence, handshakes, header size and time, HTTP/2 streams and
//! resets, the drain. A connection that breaks concerns nobody else; running out of
//! descriptors pauses accepting instead of ending it, and closes idle connections.

pub mod tls;

mod connection;

mod limits;

mod open;

mod pulse;

mod unparsed;

mod watched;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::time;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

use self::connection::{Connection, Rules};
pub use self::limits::Limits;
pub use self::open::Counted;
use self::open::Open;
use self::tls::Tls;
use self::watched::SharedPulse;
use crate::backoff::Backoff;

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

/// Connections that may wait in the kernel's queue for `accept`, as far as `net.core.somaxconn` allows.
/// Once the queue is full, Linux answers with SYN cookies and then resets clients whose first bytes
/// arrive before there is room again. The standard library asks for 128, fewer than a burst of clients.
const BACKLOG: u32 = 4096;

/// Binds `addr`; the error names the address and, when it is taken, the remedy.
pub fn bind(addr: SocketAddr, variable: &'static str) -> anyhow::Result<TcpListener> {
    listen(addr).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => {
            anyhow::anyhow!(
                "listen on {addr}: the port is taken; stop what holds it or set {variable} to another"
            )
        }
        _ => anyhow::anyhow!("listen on {addr} ({variable}): {error}"),
    })
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // As the standard library does, so that a restart need not wait for old connections to time out.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

/// How connections are taken; by default plain, and within the usual limits.
#[derive(Clone, Default)]
pub struct Server {
    /// What they may cost.
    pub limits: Limits,
    /// The certificate; `None`: plain.
    pub tls: Option<Arc<Tls>>,
    /// What is counted of them.
    pub counted: Counted,
}

impl Server {
    /// Serves `service` until `shutdown`, then lets open connections finish for at most `drain`.
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
        let places = Arc::new(Semaphore::new(self.limits.connections.get()));
        let open = Open::new(self.limits.connections_per_ip, self.counted.clone());
        let rules = Arc::new(Rules::new(self));
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(100));
        loop {
            // Whoever waits for no answer makes room for who comes.
            if places.available_permits() == 0 {
                open.make_room();
            }
            // First, so that who finds none waits in the kernel's queue and not here.
            let place = shutdown.run_until_cancelled(Arc::clone(&places).acquire_owned()).await;
            let accepted = shutdown.run_until_cancelled(accept(&listener, &mut backoff, &open)).await;
            let (Some(Ok(place)), Some((stream, peer))) = (place, accepted) else { break };
            let pulse = SharedPulse::new();
            // One of its own: at each poll its lock is taken, which must not be everybody's.
            let closing = closing.child_token();
            let Some(entered) = open.enter(peer.ip(), pulse.clone(), closing.clone()) else { continue };
            let connection = Connection { peer, pulse, closing };
            let (service, rules) = (service.clone(), Arc::clone(&rules));
            tasks.spawn(async move {
                let _held = (place, entered);
                connection.serve(stream, service, &rules).await;
            });
        }
        drop(listener);
        closing.cancel();
        tasks.close();
        time::timeout(drain, tasks.wait()).await.map_err(|_| DrainOverran(drain))
    }
}

/// The next connection, however often accepting fails on the way.
async fn accept(listener: &TcpListener, backoff: &mut Backoff, open: &Open) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                backoff.reset();
                // A refused option costs latency, not correctness.
                let _ignored = stream.set_nodelay(true);
                return (stream, peer);
            }
            // The peer is gone already.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            // Out of descriptors, or of memory: whoever does nothing makes room.
            Err(error) => {
                let idle_closed = open.accept_failed();
                tracing::warn!(%error, idle_closed, "accept a connection");
                time::sleep(backoff.wait()).await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
