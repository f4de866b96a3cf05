//! Ports on the loopback interface that nothing listens on.
//!
//! A port found free may be taken before it is used. Free ports therefore come
//! from below the range from which the kernel serves outgoing connections, so
//! that a stopped server finds its port again when it is restarted.

use std::collections::HashSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::sync::{LazyLock, Mutex, PoisonError};

/// Where [`free`] looks: above the ports of well-known servers, below the kernel's own.
const RANGE: Range<u16> = 20_000..32_000;
/// How far [`from`] goes beyond the preferred port.
const NEARBY: u16 = 100;

/// Ports handed out by this process, so that two tests in one never get the same.
static TAKEN: LazyLock<Mutex<HashSet<u16>>> = LazyLock::new(Mutex::default);

/// A free port that this process was not given before.
pub fn free() -> io::Result<u16> {
    let start = fastrand::u16(RANGE);
    first_free((start..RANGE.end).chain(RANGE.start..start))
}

/// `preferred`, or the next free port after it.
pub fn from(preferred: u16) -> io::Result<u16> {
    first_free(preferred..preferred.saturating_add(NEARBY))
}

/// `port` on the loopback interface.
pub fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn first_free(mut candidates: impl Iterator<Item = u16>) -> io::Result<u16> {
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    let found = candidates.find(|port| !taken.contains(port) && TcpListener::bind(local(*port)).is_ok());
    let port =
        found.ok_or_else(|| io::Error::new(io::ErrorKind::AddrInUse, "all ports looked at are taken"))?;
    taken.insert(port);
    Ok(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_gives_the_next_free_one() {
        let preferred = free().unwrap();
        let _holder = TcpListener::bind(local(preferred)).unwrap();
        let next = from(preferred).unwrap();
        assert!(next > preferred && next < preferred + NEARBY, "{next} after {preferred}");
    }

    #[test]
    fn no_port_is_handed_out_twice() {
        assert_ne!(free().unwrap(), free().unwrap());
    }
}
