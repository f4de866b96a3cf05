//! The open connections of a port: which of them are idle, and how many each network has. A network is one IPv4
//! address, or the /64 of an IPv6 address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::{IntCounter, IntGauge};
use tokio_util::sync::CancellationToken;

use super::monitored::SharedActivity;

/// The metrics of connections. A service that exports them registers them under names of its own.
#[derive(Debug, Clone)]
pub struct ConnectionMetrics {
    /// Open connections.
    pub open: IntGauge,
    /// Connections that were closed at once because their network (an IPv4 address, or the /64 of an IPv6 address) had
    /// reached its limit.
    pub refused: IntCounter,
    /// How often accepting failed, for example because there was no free file descriptor.
    pub accept_failures: IntCounter,
    /// 1 from a failure to accept until the next connection is accepted.
    pub accept_failing: IntGauge,
    /// TLS handshakes that failed or timed out.
    pub handshake_failures: IntCounter,
}

impl Default for ConnectionMetrics {
    fn default() -> Self {
        let counter = |name| IntCounter::new(name, name).expect("the constant name is valid");
        let gauge = |name| IntGauge::new(name, name).expect("the constant name is valid");
        Self {
            open: gauge("connections"),
            refused: counter("connections_refused_total"),
            accept_failures: counter("accept_failures_total"),
            accept_failing: gauge("accept_fails"),
            handshake_failures: counter("tls_handshake_failures_total"),
        }
    }
}

/// The open connections of a port.
pub(super) struct OpenConnections {
    per_ip: Option<NonZeroU32>,
    metrics: ConnectionMetrics,
    connections: Mutex<Connections>,
}

#[derive(Default)]
struct Connections {
    next: u64,
    by_id: HashMap<u64, (SharedActivity, CancellationToken)>,
    /// The number of connections of each network; empty if connections per network are not limited.
    by_network: HashMap<IpAddr, u32>,
}

impl OpenConnections {
    /// No connection is open yet.
    pub(super) fn new(per_ip: Option<NonZeroU32>, metrics: ConnectionMetrics) -> Arc<Self> {
        Arc::new(Self { per_ip, metrics, connections: Mutex::default() })
    }

    /// Adds a connection, and removes it when the returned guard is dropped. Returns `None` if the network of `ip` has
    /// reached its limit. Cancelling the token `closing` ends the connection.
    pub(super) fn insert(
        self: &Arc<Self>,
        ip: IpAddr,
        activity: SharedActivity,
        closing: CancellationToken,
    ) -> Option<OpenGuard> {
        self.metrics.accept_failing.set(0);
        let network = network(ip);
        let mut connections = self.lock();
        if let Some(most) = self.per_ip {
            let of_network = connections.by_network.entry(network).or_default();
            if *of_network >= most.get() {
                self.metrics.refused.inc();
                return None;
            }
            *of_network += 1;
        }
        let id = connections.next;
        connections.next += 1;
        connections.by_id.insert(id, (activity, closing));
        self.metrics.open.inc();
        Some(OpenGuard { open: Arc::clone(self), id, network })
    }

    /// Counts a failure to accept, and starts to close all idle connections. Returns the number of idle connections.
    pub(super) fn accept_failed(&self) -> usize {
        self.metrics.accept_failures.inc();
        self.metrics.accept_failing.set(1);
        self.make_room()
    }

    /// Starts to close all idle connections. Returns the number of idle connections.
    pub(super) fn make_room(&self) -> usize {
        let connections = self.lock();
        let idle = connections.by_id.values().filter(|(activity, _)| activity.lock().is_idle());
        idle.inspect(|(_, closing)| closing.cancel()).count()
    }

    fn lock(&self) -> MutexGuard<'_, Connections> {
        // No method panics half-way, so the state is consistent even after a panic elsewhere.
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Guards the entry of an open connection: dropping the guard removes the entry.
pub(super) struct OpenGuard {
    open: Arc<OpenConnections>,
    id: u64,
    network: IpAddr,
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        let mut connections = self.open.lock();
        connections.by_id.remove(&self.id);
        if let Some(of_network) = connections.by_network.get_mut(&self.network) {
            *of_network -= 1;
            if *of_network == 0 {
                connections.by_network.remove(&self.network);
            }
        }
        self.open.metrics.open.dec();
    }
}

/// The network of an address, to which the limit applies: the IPv4 address itself, or the /64 of the IPv6 address,
/// because one client usually has the whole /64.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert(open: &Arc<OpenConnections>, ip: &str) -> Option<OpenGuard> {
        open.insert(ip.parse().unwrap(), SharedActivity::new(), CancellationToken::new())
    }

    #[test]
    fn the_limit_of_connections_applies_to_each_network_on_its_own() {
        let open = OpenConnections::new(NonZeroU32::new(2), ConnectionMetrics::default());
        let first = insert(&open, "2001:db8::1").unwrap();
        let _second = insert(&open, "2001:db8::2:3").unwrap();
        assert!(insert(&open, "2001:db8::4").is_none(), "the addresses of one /64 share a limit");
        let _other = insert(&open, "2001:db8:0:1::1").unwrap();
        let _v4 = insert(&open, "192.0.2.1").unwrap();
        let _mapped = insert(&open, "::ffff:192.0.2.1").unwrap();
        assert!(insert(&open, "192.0.2.1").is_none());
        assert_eq!((open.metrics.open.get(), open.metrics.refused.get()), (5, 2));
        drop(first);
        let _again = insert(&open, "2001:db8::4").unwrap();
        assert_eq!(open.metrics.open.get(), 5);
    }

    #[test]
    fn only_idle_connections_are_closed() {
        let open = OpenConnections::new(None, ConnectionMetrics::default());
        let [fresh, busy, idle] = [(); 3].map(|()| (SharedActivity::new(), CancellationToken::new()));
        let _request = busy.0.request();
        drop(idle.0.request());
        let all = [&fresh, &busy, &idle];
        let ip = IpAddr::from([192, 0, 2, 1]);
        let _guards = all.map(|(activity, closing)| open.insert(ip, activity.clone(), closing.clone()));
        assert_eq!(open.make_room(), 1);
        assert_eq!(all.map(|(_, closing)| closing.is_cancelled()), [false, false, true]);
    }
}
