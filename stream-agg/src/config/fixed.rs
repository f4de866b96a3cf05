//! Settings of Kafka's client library that exactly-once storage depends on.
//!
//! Invariant: the library always uses the settings in [`CONSUMER`], because no variable `KAFKA_OPT_…` may name one of
//! them, one of its aliases, or a setting that overrides it. Every setting that is not in [`FIXED`] may be changed, for
//! example timeouts, fetch sizes, TLS and credentials.

use runtime::vars::Fixed;

/// Settings of every consumer of the group.
pub(crate) const CONSUMER: [(&str, &str); 6] = [
    ("partition.assignment.strategy", "cooperative-sticky"),
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    // The aggregator chooses the offset to start at. If the log no longer has this offset, the partition must stop.
    ("auto.offset.reset", "error"),
    // A record that the disk or the network damaged must stop the partition, not become another event.
    ("check.crcs", "true"),
    ("isolation.level", "read_committed"),
];

/// Settings that no variable `KAFKA_OPT_…` may change.
pub(super) const FIXED: [Fixed; 13] = [
    Fixed {
        names: &["bootstrap.servers", "metadata.broker.list"],
        reason: "KAFKA_BROKERS names the brokers",
    },
    Fixed { names: &["group.id"], reason: "GROUP names the consumer group" },
    Fixed { names: &["group.instance.id"], reason: "GROUP_INSTANCE_ID names the member of the group" },
    Fixed {
        names: &[
            "partition.assignment.strategy",
            "group.protocol",
            "group.protocol.type",
            "group.remote.assignor",
        ],
        reason: "the aggregator relies on the classic protocol and its cooperative-sticky assignor",
    },
    Fixed {
        names: &[
            "enable.auto.commit",
            "auto.commit.enable",
            "auto.commit.interval.ms",
            "enable.auto.offset.store",
            "offset.store.method",
            "offset.store.path",
            "offset.store.sync.interval.ms",
        ],
        reason: "an offset is committed only when ClickHouse has everything below it, and only in Kafka",
    },
    Fixed {
        names: &["auto.offset.reset"],
        reason: "a partition whose offset is not in the log must stop, or records would be left out or read again",
    },
    Fixed { names: &["check.crcs"], reason: "a damaged record must not be stored" },
    Fixed {
        names: &["isolation.level"],
        reason: "a batch that is read again must hold the same records as before",
    },
    Fixed {
        names: &["enable.partition.eof"],
        reason: "a report of the end of a log would stop its partition; only `stream-agg adopt` uses such reports",
    },
    Fixed {
        names: &["api.version.request", "api.version.fallback.ms", "broker.version.fallback"],
        reason: "older protocols leave out the headers, which say what a record is",
    },
    Fixed { names: &["allow.auto.create.topics"], reason: "`stream-agg migrate` creates the topic" },
    Fixed { names: &["plugin.library.paths"], reason: "a plugin could change every setting that is fixed" },
    Fixed {
        names: &["test.mock.num.brokers", "test.mock.broker.rtt"],
        reason: "a mock broker inside the client has no records",
    },
];

#[cfg(test)]
mod tests {
    use rdkafka::ClientConfig;

    use super::*;

    /// The value that librdkafka itself reports for a setting of the consumer.
    fn resolved(name: &str) -> String {
        let settings: ClientConfig =
            CONSUMER.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().collect();
        settings.create_native_config().unwrap().get(name).unwrap()
    }

    #[test]
    fn records_are_checked_for_damage_and_librdkafka_commits_or_resets_no_offset() {
        for (name, value) in [
            ("check.crcs", "true"),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("auto.offset.reset", "error"),
            ("partition.assignment.strategy", "cooperative-sticky"),
            ("isolation.level", "read_committed"),
            ("group.protocol", "classic"),
            ("enable.partition.eof", "false"),
        ] {
            assert_eq!(resolved(name), value, "{name}");
        }
    }

    #[test]
    fn every_fixed_setting_exists_in_librdkafka() {
        for name in FIXED.iter().flat_map(|fixed| fixed.names) {
            let set = ClientConfig::new().set(*name, "1").create_native_config();
            let error = set.err().map(|error| error.to_string()).unwrap_or_default();
            assert!(!error.contains("No such configuration property"), "{error}");
        }
    }
}
