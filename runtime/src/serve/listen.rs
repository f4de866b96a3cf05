//! Binds the ports of a service.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

/// The two ports of a service, bound by the caller.
pub struct Listeners {
    /// The service.
    pub http: TcpListener,
    /// `/healthz`, `/readyz`, `/metrics`.
    pub admin: TcpListener,
}

/// Connections that may wait in the kernel's queue for `accept`, as far as `net.core.somaxconn` allows.
/// When the queue is full, Linux answers with SYN cookies and then resets clients whose first bytes arrive
/// before there is room again. The standard library uses 128, which is less than a burst of clients.
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
    // As the standard library does, so that a restart does not wait until old connections time out.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}
