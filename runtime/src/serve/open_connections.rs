//! The connections that are open: how many there are of an address, and which do nothing.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::{IntCounter, IntGauge};
use tokio_util::sync::CancellationToken;

use super::watched::SharedPulse;

/// What is counted of connections. Whoever shows it registers it, under names of its own.
#[derive(Debug, Clone)]
pub struct Counted {
    /// Connections that are open.
    pub open: IntGauge,
    /// Those closed at once, because their address had as many as it may.
    pub refused: IntCounter,
    /// How often none could be accepted, as without a descriptor left.
    pub accept_failures: IntCounter,
    /// 1 from such a failure until a connection is accepted.
    pub accept_fails: IntGauge,
    /// TLS handshakes that failed or took too long.
    pub handshake_failures: IntCounter,
}

impl Default for Counted {
    fn default() -> Self {
        let counter = |name| IntCounter::new(name, name).expect("the names are constants");
        let gauge = |name| IntGauge::new(name, name).expect("the names are constants");
        Self {
            open: gauge("connections"),
            refused: counter("connections_refused_total"),
            accept_failures: counter("accept_failures_total"),
            accept_fails: gauge("accept_fails"),
            handshake_failures: counter("tls_handshake_failures_total"),
        }
    }
}

/// All connections of a port.
pub(super) struct Open {
    per_ip: Option<NonZeroU32>,
    counted: Counted,
    connections: Mutex<Connections>,
}

#[derive(Default)]
struct Connections {
    next: u64,
    by_id: HashMap<u64, (SharedPulse, CancellationToken)>,
    /// How many of each network; kept only where they are bounded.
    by_network: HashMap<IpAddr, u32>,
}

impl Open {
    /// None is open yet.
    pub(super) fn new(per_ip: Option<NonZeroU32>, counted: Counted) -> Arc<Self> {
        Arc::new(Self { per_ip, counted, connections: Mutex::default() })
    }

    /// Lets a connection in, unless its network has as many as it may; `closing` ends it.
    pub(super) fn enter(
        self: &Arc<Self>,
        ip: IpAddr,
        pulse: SharedPulse,
        closing: CancellationToken,
    ) -> Option<Entered> {
        self.counted.accept_fails.set(0);
        let network = network(ip);
        let mut connections = self.lock();
        if let Some(most) = self.per_ip {
            let of_network = connections.by_network.entry(network).or_default();
            if *of_network >= most.get() {
                self.counted.refused.inc();
                return None;
            }
            *of_network += 1;
        }
        let id = connections.next;
        connections.next += 1;
        connections.by_id.insert(id, (pulse, closing));
        self.counted.open.inc();
        Some(Entered { open: Arc::clone(self), id, network })
    }

    /// No connection could be accepted: counts that, and makes room. Returns how many had to end.
    pub(super) fn accept_failed(&self) -> usize {
        self.counted.accept_failures.inc();
        self.counted.accept_fails.set(1);
        self.make_room()
    }

    /// Ends connections that wait for a request. Returns how many.
    pub(super) fn make_room(&self) -> usize {
        let connections = self.lock();
        let idle = connections.by_id.values().filter(|(pulse, _)| pulse.lock().is_idle());
        idle.inspect(|(_, closing)| closing.cancel()).count()
    }

    fn lock(&self) -> MutexGuard<'_, Connections> {
        // No call can panic half-way.
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that is open; dropped when it is closed.
pub(super) struct Entered {
    open: Arc<Open>,
    id: u64,
    network: IpAddr,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut connections = self.open.lock();
        connections.by_id.remove(&self.id);
        if let Some(of_network) = connections.by_network.get_mut(&self.network) {
            *of_network -= 1;
            if *of_network == 0 {
                connections.by_network.remove(&self.network);
            }
        }
        self.open.counted.open.dec();
    }
}

/// An address as it is bounded: whoever has one of v6 has its whole /64.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(open: &Arc<Open>, ip: &str) -> Option<Entered> {
        open.enter(ip.parse().unwrap(), SharedPulse::new(), CancellationToken::new())
    }

    #[test]
    fn an_address_has_as_many_connections_as_it_may_and_others_have_theirs() {
        let open = Open::new(NonZeroU32::new(2), Counted::default());
        let first = enter(&open, "2001:db8::1").unwrap();
        let _second = enter(&open, "2001:db8::2:3").unwrap();
        assert!(enter(&open, "2001:db8::4").is_none(), "one /64");
        let _other = enter(&open, "2001:db8:0:1::1").unwrap();
        let _v4 = enter(&open, "192.0.2.1").unwrap();
        let _mapped = enter(&open, "::ffff:192.0.2.1").unwrap();
        assert!(enter(&open, "192.0.2.1").is_none());
        assert_eq!((open.counted.open.get(), open.counted.refused.get()), (5, 2));
        drop(first);
        let _again = enter(&open, "2001:db8::4").unwrap();
        assert_eq!(open.counted.open.get(), 5);
    }

    #[test]
    fn only_connections_that_wait_for_a_request_are_closed() {
        let open = Open::new(None, Counted::default());
        let [fresh, busy, idle] = [(); 3].map(|()| (SharedPulse::new(), CancellationToken::new()));
        let _request = busy.0.asked();
        drop(idle.0.asked());
        let all = [&fresh, &busy, &idle];
        let ip = IpAddr::from([192, 0, 2, 1]);
        let _entered = all.map(|(pulse, closing)| open.enter(ip, pulse.clone(), closing.clone()));
        assert_eq!(open.make_room(), 1);
        assert_eq!(all.map(|(_, closing)| closing.is_cancelled()), [false, false, true]);
    }
}
