//! What an aggregator with a given configuration needs: memory, time to stop, ports and connections.

use runtime::needs::{Address, Needs};

use crate::apply::store::STATEMENT_TIMEOUT;
use crate::config::{Config, DEFAULT_PORT};
use crate::group::RELEASE_TIMEOUT;
use crate::kafka::client::QUEUED_BYTES;
use crate::ops::freshness::ASK_TIMEOUT;
use crate::pipeline::budget::LARGE_BYTES;
use crate::start::LEAVE_TIMEOUT;

const MIB: usize = 1 << 20;
/// Bytes of memory that each id in the deduplication window takes.
const ID_BYTES: usize = 50;
/// Memory for which no limit in bytes exists: the groups of the rollups, and freed memory that jemalloc keeps for the
/// next batch. The number was measured while an aggregator worked off a backlog.
const UNBOUNDED_BYTES: usize = 320 * MIB;
/// Memory of a command: more than any command took in measurements.
const COMMAND_BYTES: usize = 64 * MIB;

/// What an aggregator with this configuration needs.
pub fn of_service(config: &Config) -> Needs {
    // The sum includes all partitions, because one process owns all of them while the other processes are down.
    let partitions = usize::from(config.migrate.partitions.get());
    Needs {
        memory: vec![
            // A batch takes about 1.5 times as much memory as its records have bytes.
            ("large batches: BATCHES_MAX_BYTES", config.batch.max_total_bytes.get() / 2 * 3),
            ("a small batch of each partition: TOPIC_PARTITIONS", partitions * LARGE_BYTES),
            ("fetched records that wait", QUEUED_BYTES),
            ("ids of all partitions: DEDUP_WINDOW_IDS", partitions * config.limits.window.max_ids * ID_BYTES),
            ("groups of rollups, and freed memory that jemalloc keeps", UNBOUNDED_BYTES),
        ],
        stop: vec![
            ("the running inserts and commits", RELEASE_TIMEOUT),
            ("leaving the consumer group", LEAVE_TIMEOUT),
            ("a last update of the table progress", STATEMENT_TIMEOUT),
            ("a last request to kafka for the ends of the logs", ASK_TIMEOUT),
        ],
        listens: vec![("ADMIN_ADDR", config.admin_addr)],
        connects: connects(config),
    }
}

/// What a command with this configuration needs. It needs no time to stop: a command stops at once, and finishes its
/// work when it is run again.
pub fn of_command(config: &Config) -> Needs {
    Needs { memory: vec![("a command", COMMAND_BYTES)], connects: connects(config), ..Needs::default() }
}

fn connects(config: &Config) -> Vec<Address> {
    let checked = "the variable was checked when it was read";
    let mut all =
        Address::of_list("KAFKA_BROKERS", &config.migrate.kafka.brokers, DEFAULT_PORT).expect(checked);
    all.push(Address::of_url("CLICKHOUSE_URL", &config.migrate.store.url).expect(checked));
    all
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use runtime::vars::Vars;

    use super::*;

    fn config(pairs: &[(&str, &str)]) -> Config {
        let given = [("KAFKA_BROKERS", "k"), ("CLICKHOUSE_URL", "http://c:8123")];
        Config::from_vars(&Vars::from_pairs(given.iter().chain(pairs).copied())).unwrap()
    }

    #[test]
    fn memory_includes_a_window_for_each_partition_of_the_topic() {
        let needed = |pairs| of_service(&config(pairs)).memory_bytes();
        let one = needed(&[("TOPIC_PARTITIONS", "1")]);
        assert_eq!(one, (384 + 1 + 64 + 320) * MIB + 50_000_000);
        assert_eq!(needed(&[("TOPIC_PARTITIONS", "24")]) - one, 23 * (MIB + 50_000_000));
        let fewer = needed(&[("TOPIC_PARTITIONS", "24"), ("DEDUP_WINDOW_IDS", "100000")]);
        assert_eq!(needed(&[("TOPIC_PARTITIONS", "24")]) - fewer, 24 * 45_000_000);
        assert_eq!(needed(&[("BATCHES_MAX_BYTES", "64MiB"), ("TOPIC_PARTITIONS", "1")]), one - 288 * MIB);
    }

    #[test]
    fn the_longest_stop_of_a_service_has_four_steps_and_a_command_stops_at_once() {
        assert_eq!(of_service(&config(&[])).longest_stop(), Duration::from_secs(40));
        assert_eq!(of_command(&config(&[])).longest_stop(), Duration::ZERO);
    }

    #[test]
    fn connections_to_kafka_and_clickhouse_are_needed() {
        for needs in [of_service(&config(&[])), of_command(&config(&[]))] {
            let all: Vec<_> = needs.connects.iter().map(Address::to_string).collect();
            assert_eq!(all, ["k:9092", "c:8123"]);
        }
    }
}
