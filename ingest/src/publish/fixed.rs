//! Settings of librdkafka that the edge needs, above all to keep its promise that `200` means durable.
//!
//! No variable `KAFKA_OPT_…` may set any of these settings, under any alias. All other settings may be set, for example
//! compression, linger, queue sizes, TLS and authentication.

use runtime::vars::Fixed;

/// The settings that no variable may set.
pub(super) const FIXED: [Fixed; 11] = [
    Fixed {
        names: &["bootstrap.servers", "metadata.broker.list"],
        reason: "KAFKA_BROKERS names the brokers",
    },
    Fixed {
        names: &["acks", "request.required.acks"],
        reason: "a request is answered once all in-sync replicas have its events",
    },
    Fixed {
        names: &[
            "enable.idempotence",
            "enable.gapless.guarantee",
            "max.in.flight",
            "max.in.flight.requests.per.connection",
            "message.send.max.retries",
            "retries",
            "queuing.strategy",
        ],
        reason: "a record that is sent again must be in the log once, and in order",
    },
    Fixed { names: &["message.timeout.ms", "delivery.timeout.ms"], reason: "set DURABLE_WAIT instead" },
    Fixed {
        names: &["delivery.report.only.error"],
        reason: "requests wait for the delivery reports of their records",
    },
    Fixed {
        names: &["transactional.id", "transaction.timeout.ms"],
        reason: "the edge commits no transactions, so its records would never be read",
    },
    Fixed { names: &["partitioner"], reason: "the edge chooses the partition of each event, by its user" },
    Fixed {
        names: &["api.version.request", "api.version.fallback.ms", "broker.version.fallback"],
        reason: "older protocols omit the headers, which say what a record contains",
    },
    Fixed {
        names: &["allow.auto.create.topics"],
        reason: "a topic that is created by accident has the wrong number of partitions",
    },
    Fixed { names: &["plugin.library.paths"], reason: "a plugin could change every setting that is fixed" },
    Fixed {
        names: &["test.mock.num.brokers", "test.mock.broker.rtt"],
        reason: "a mock broker within the client keeps records only in memory",
    },
];

#[cfg(test)]
mod tests {
    use rdkafka::ClientConfig;

    use super::*;

    #[test]
    fn every_fixed_setting_exists_in_librdkafka() {
        for name in FIXED.iter().flat_map(|fixed| fixed.names) {
            let set = ClientConfig::new().set(*name, "1").create_native_config();
            let error = set.err().map(|error| error.to_string()).unwrap_or_default();
            assert!(!error.contains("No such configuration property"), "{error}");
        }
    }
}
