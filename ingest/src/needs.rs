//! What an edge with a given configuration needs from the machine and from the network.

use runtime::admin;
use runtime::needs::{Address, Needs};

use crate::accept::geoip::GeoIpConfig;
use crate::config::Config;
use crate::edge::{FINISH_WAIT, FLUSH_WAIT};
use crate::publish::{DEFAULT_PORT, PURGE_WAIT};
use crate::spool::store::CACHE_BYTES;

/// The memory, the time to stop, the ports and the servers that an edge with this configuration needs.
pub fn needs(config: &Config) -> Needs {
    let Config { kafka, spool, accept, poll_results, .. } = config;
    let brokers = Address::of_list("KAFKA_BROKERS", &kafka.brokers, DEFAULT_PORT);
    let mut connects = brokers.expect("the variable was checked when it was read");
    let results = poll_results.url.as_deref().map(|url| Address::of_url("POLL_RESULTS_URL", url));
    connects.extend(results.map(|address| address.expect("the variable was checked when it was read")));
    Needs {
        memory: vec![
            ("bodies of open requests: IN_FLIGHT_BYTES", accept.limits.in_flight_bytes),
            ("events that wait for Kafka: UNACKED_BYTES", kafka.unacked_bytes),
            ("the spool's cache", spool.as_ref().map_or(0, |_| CACHE_BYTES)),
            ("the file of GEOIP_DB", accept.geoip.as_ref().map_or(0, GeoIpConfig::bytes)),
        ],
        stop: vec![
            ("requests that still arrive: DRAIN_DELAY", config.drain_delay),
            ("open requests", FINISH_WAIT),
            ("events that wait for Kafka", FLUSH_WAIT),
            ("events that go to the spool instead", PURGE_WAIT),
            ("probes and scrapes", admin::DRAIN),
        ],
        listens: vec![("LISTEN_ADDR", config.listen_addr), ("ADMIN_ADDR", config.admin_addr)],
        connects,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use runtime::vars::Vars;

    use super::*;

    #[track_caller]
    fn needs_of(pairs: &[(&str, &str)]) -> Needs {
        let given = [("KAFKA_BROKERS", "k1:9092,k2")];
        needs(&Config::from_vars(&Vars::from_pairs(given.iter().chain(pairs).copied())).unwrap())
    }

    #[test]
    fn memory_is_the_sum_of_the_limits() {
        let mib = |pairs| needs_of(pairs).memory_bytes() >> 20;
        assert_eq!(mib(&[]), 256 + 96);
        assert_eq!(mib(&[("UNACKED_BYTES", "10MiB"), ("SPOOL_DIR", "/spool")]), 256 + 10 + 16);
    }

    #[test]
    fn a_longer_drain_delay_makes_the_stop_longer() {
        assert_eq!(needs_of(&[]).longest_stop(), Duration::from_secs(36));
        assert_eq!(needs_of(&[("DRAIN_DELAY", "15s")]).longest_stop(), Duration::from_secs(46));
    }

    #[test]
    fn every_server_that_the_edge_calls_is_named() {
        let all: Vec<_> =
            needs_of(&[("POLL_RESULTS_URL", "http://q")]).connects.iter().map(Address::to_string).collect();
        assert_eq!(all, ["k1:9092", "k2:9092", "q:80"]);
    }
}
