//! Binds the ports of a service.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::io::Errno;
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpSocket};

/// The two ports of a service, bound before the service starts.
pub struct Listeners {
    /// The port for the requests of clients.
    pub http: TcpListener,
    /// The admin port: `/healthz`, `/readyz` and `/metrics`.
    pub admin: TcpListener,
}

/// Maximum number of connections that may wait in the kernel's queue for `accept`; `net.core.somaxconn` may limit them
/// further. When the queue is full, Linux answers with SYN cookies and then resets clients whose first bytes arrive
/// before there is room again. The standard library uses 128, and more clients than that may connect at once.
const BACKLOG: u32 = 4096;

/// Every address of this machine, IPv4 and IPv6. [`bind`] uses `0.0.0.0` instead if the machine has no IPv6.
pub fn every_address(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))
}

/// Binds `addr`, which comes from `variable`. The error names both and, if the port is in use, says what to do.
pub fn bind(addr: SocketAddr, variable: &'static str) -> anyhow::Result<TcpListener> {
    with_or_without_ipv6(addr, listen).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => {
            anyhow::anyhow!(
                "listen on {addr}: the port is in use; free it or set {variable} to another address"
            )
        }
        _ => anyhow::anyhow!("listen on {addr} ({variable}): {error}"),
    })
}

/// Calls `listen` with `addr`, or with `0.0.0.0` if `addr` is `[::]` and the machine has no IPv6.
fn with_or_without_ipv6<T>(addr: SocketAddr, listen: impl Fn(SocketAddr) -> io::Result<T>) -> io::Result<T> {
    match listen(addr) {
        Err(error) if addr.ip() == Ipv6Addr::UNSPECIFIED && is_without_ipv6(&error) => {
            tracing::info!("this machine has no IPv6: listening on 0.0.0.0:{}", addr.port());
            listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, addr.port())))
        }
        listening => listening,
    }
}

/// Whether listening failed because the kernel has no IPv6 or because its IPv6 is turned off.
fn is_without_ipv6(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL))
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        let socket = TcpSocket::new_v6()?;
        // Makes `[::]` accept IPv4 too, even if the default of the machine (`net.ipv6.bindv6only`) is IPv6 only.
        sockopt::set_ipv6_v6only(&socket, false)?;
        socket
    };
    // Without this option, which the standard library sets too, a restarted process could not bind the port while
    // connections of the previous process are in the TCP state TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls [`with_or_without_ipv6`] with `addr` and a function that fails for the address `refused`, with the error
    /// `with`. Returns the address for which that function succeeded.
    fn listens(addr: &str, refused: &str, with: Errno) -> Result<String, io::ErrorKind> {
        let (addr, refused) = (addr.parse().unwrap(), refused.parse().unwrap());
        let listen = |addr: SocketAddr| if addr == refused { Err(with.into()) } else { Ok(addr.to_string()) };
        with_or_without_ipv6(addr, listen).map_err(|error| error.kind())
    }

    #[test]
    fn a_machine_without_ipv6_listens_on_every_address_of_ipv4() {
        for without in [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL] {
            assert_eq!(listens("[::]:80", "[::]:80", without), Ok("0.0.0.0:80".to_owned()));
        }
    }

    #[test]
    fn no_other_address_and_no_other_error_falls_back_to_ipv4() {
        assert_eq!(listens("[::]:80", "[::]:81", Errno::AFNOSUPPORT), Ok("[::]:80".to_owned()));
        assert_eq!(listens("[::]:80", "[::]:80", Errno::ADDRINUSE), Err(io::ErrorKind::AddrInUse));
        assert_eq!(
            listens("[::1]:80", "[::1]:80", Errno::ADDRNOTAVAIL),
            Err(io::ErrorKind::AddrNotAvailable)
        );
    }
}
