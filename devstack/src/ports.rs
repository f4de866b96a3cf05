//! Ports on the loopback interface that nothing listens on and nobody else is about to.
//!
//! A port found free may be taken before it is used, and then another's server would
//! answer as if it were ours. So a port is handed out under a lock file that the kernel
//! gives back when the process ends: no two of our processes on this machine are ever given the
//! same. Free ports come from below the range from which the kernel serves outgoing
//! connections, so that a stopped server finds its port again when it is restarted.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::sync::{LazyLock, Mutex, PoisonError};

/// Where [`free`] looks: above the ports of well-known servers, below the kernel's own.
const RANGE: Range<u16> = 20_000..32_000;
/// How far [`from`] goes beyond the preferred port.
const NEARBY: u16 = 100;

/// Ports handed out by this process, each with its lock.
static TAKEN: LazyLock<Mutex<HashMap<u16, File>>> = LazyLock::new(Mutex::default);

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

fn first_free(candidates: impl Iterator<Item = u16>) -> io::Result<u16> {
    // One directory a user: another's files could not be opened.
    let locks = std::env::temp_dir().join(format!("millrace-ports-{}", rustix::process::getuid().as_raw()));
    fs::create_dir_all(&locks)?;
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    for port in candidates {
        if taken.contains_key(&port) {
            continue;
        }
        let lock = File::create(locks.join(port.to_string()))?;
        if lock.try_lock().is_ok() && TcpListener::bind(local(port)).is_ok() {
            taken.insert(port, lock);
            return Ok(port);
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "all ports looked at are taken"))
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
        let first = free().unwrap();
        assert_ne!(first, free().unwrap());
        assert_ne!(first, from(first).unwrap());
    }
}
