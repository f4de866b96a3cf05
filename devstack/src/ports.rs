//! Free ports on the loopback interface, reserved for one process.
//!
//! A server needs time to start. Meanwhile another process could bind the server's port, and would then get the
//! requests that are meant for the server. So this module reserves each port with a lock on a file, and no two
//! processes of a user that use this module get the same port. The kernel releases the lock when the process ends.
//! [`free`] returns ports below the kernel's range for outgoing connections, so that no outgoing connection takes the
//! port of a server while the server restarts.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::sync::{LazyLock, Mutex, PoisonError};

/// The range of [`free`]: above the ports of well-known servers, below the kernel's ephemeral ports.
const RANGE: Range<u16> = 20_000..32_000;
/// How many ports [`from`] tries.
const NEARBY: u16 = 100;

/// The ports that this process has reserved, each with its lock.
static RESERVED: LazyLock<Mutex<HashMap<u16, File>>> = LazyLock::new(Mutex::default);

/// A free port that this process has not reserved before.
pub fn free() -> io::Result<u16> {
    let start = fastrand::u16(RANGE);
    first_free((start..RANGE.end).chain(RANGE.start..start))
}

/// `preferred`, or the next free port after it that this process has not reserved before.
pub fn from(preferred: u16) -> io::Result<u16> {
    first_free(preferred..preferred.saturating_add(NEARBY))
}

/// `port` on the loopback interface.
pub fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn first_free(candidates: impl Iterator<Item = u16>) -> io::Result<u16> {
    // One directory for each user: a lock file of another user cannot be opened.
    let locks = std::env::temp_dir().join(format!("millrace-ports-{}", rustix::process::getuid().as_raw()));
    fs::create_dir_all(&locks)?;
    let mut reserved = RESERVED.lock().unwrap_or_else(PoisonError::into_inner);
    for port in candidates {
        if reserved.contains_key(&port) {
            continue;
        }
        let lock = File::create(locks.join(port.to_string()))?;
        if lock.try_lock().is_ok() && TcpListener::bind(local(port)).is_ok() {
            reserved.insert(port, lock);
            return Ok(port);
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "every port that was tried is taken"))
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
