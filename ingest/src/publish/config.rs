//! Configuration: the brokers, the topic, how records are written to Kafka, and when a request is answered.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use runtime::needs::Address;
use runtime::vars::{VarError, Vars};

use super::fixed::FIXED;
use super::kafka;

const MIB: usize = 1 << 20;
/// The port of a broker whose address names no port.
pub(crate) const DEFAULT_PORT: u16 = 9092;

/// When a request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ack {
    /// Once its events are durable, in Kafka or in the spool.
    Durable,
    /// Once its events are queued for Kafka or for the spool. An event that is lost afterwards is counted, but its
    /// client is not informed.
    Accepted,
}

impl Ack {
    /// The value of the variable `ACK`, which is also in responses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Durable => "durable",
            Self::Accepted => "accepted",
        }
    }
}

impl fmt::Display for Ack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Ack {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = [Self::Durable, Self::Accepted].into_iter().find(|ack| ack.as_str() == text);
        named.ok_or("it must be `durable` or `accepted`")
    }
}

/// The topic and how records are written to it.
#[derive(Debug, Clone)]
pub struct KafkaConfig {
    /// Kafka brokers, each as `host:port`, separated by commas: `KAFKA_BROKERS`, required.
    pub brokers: String,
    /// Kafka topic that the edge writes to: `TOPIC`, default `events`. Set it to the same topic as in the aggregator;
    /// `stream-agg migrate` creates the topic.
    pub topic: String,
    /// Longest wait for Kafka's acknowledgement: `DURABLE_WAIT`, default 10s, at least 1ms. After this time, the
    /// events go to the spool; without a spool, the client gets `503`, at most 5 s later. Keep it at least 5 s below
    /// the timeout of your clients.
    pub durable_wait: Duration,
    /// Memory for events that Kafka has not acknowledged yet: `UNACKED_BYTES`, default 96 MiB. Requests beyond it get
    /// `503`. The process needs this memory in addition to `IN_FLIGHT_BYTES`. Keep it below the size of the queue of
    /// Kafka's client, which is 256 MiB.
    pub unacked_bytes: usize,
    /// Settings of librdkafka, which override the edge's defaults: `KAFKA_OPT_<name>`, for example
    /// `KAFKA_OPT_compression.type=zstd`. Settings on which the response `200` depends are refused.
    pub options: BTreeMap<String, String>,
}

impl KafkaConfig {
    /// Reads and checks the variables above.
    pub fn from_vars(vars: &Vars) -> Result<Self, VarError> {
        let durable_wait = vars.duration_or("DURABLE_WAIT", Duration::from_secs(10))?;
        if durable_wait < Duration::from_millis(1) {
            return Err(VarError::Invalid {
                name: "DURABLE_WAIT",
                value: format!("{durable_wait:?}"),
                reason: "it must be 1ms or longer".to_owned(),
            });
        }
        let config = Self {
            brokers: vars.required("KAFKA_BROKERS", "host:port of a Kafka broker, several with commas")?,
            topic: vars.string_or("TOPIC", "events"),
            durable_wait,
            unacked_bytes: vars.bytes_or("UNACKED_BYTES", 96 * MIB)?,
            options: vars.passed_through("KAFKA_OPT_", &FIXED)?,
        };
        Address::of_list("KAFKA_BROKERS", &config.brokers, DEFAULT_PORT)?;
        kafka::check_settings(&config)?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_on_which_a_durable_response_depends_cannot_be_set() {
        let with = |name: &str| {
            let variable = format!("KAFKA_OPT_{name}");
            KafkaConfig::from_vars(&Vars::from_pairs([("KAFKA_BROKERS", "k:1"), (variable.as_str(), "1")]))
        };
        for name in [
            "acks",
            "request.required.acks",
            "topic.request.required.acks",
            "Acks",
            "enable.idempotence",
            "max.in.flight",
            "retries",
            "message.timeout.ms",
            "delivery.timeout.ms",
            "delivery.report.only.error",
            "transactional.id",
            "partitioner",
            "allow.auto.create.topics",
            "test.mock.num.brokers",
        ] {
            let error = with(name).expect_err(name).to_string();
            assert!(error.starts_with(&format!("variable KAFKA_OPT_{name} cannot be set: ")), "{error}");
        }
        for name in ["linger.ms", "batch.num.messages", "request.timeout.ms"] {
            assert_eq!(with(name).expect(name).options[name], "1");
        }
    }

    #[track_caller]
    fn check_refused(name: &str, value: &str, reason: &str) {
        let pairs = [("KAFKA_BROKERS", "k:1"), (name, value)];
        let error = KafkaConfig::from_vars(&Vars::from_pairs(pairs)).unwrap_err().to_string();
        assert!(error.starts_with("variable KAFKA_OPT_") && error.contains(reason), "{error}");
    }

    #[test]
    fn kafka_settings_that_librdkafka_refuses_are_found_before_the_start() {
        check_refused(
            "KAFKA_OPT_linger",
            "5",
            "KAFKA_OPT_linger is not usable: No such configuration property",
        );
        check_refused("KAFKA_OPT_compression.type", "7z", "Invalid value \"7z\"");
        // 900 s is a valid value for `linger.ms`, but too long for the `message.timeout.ms` that the edge sets from
        // `DURABLE_WAIT`.
        check_refused("KAFKA_OPT_linger.ms", "900000", "KAFKA_OPT_… is not usable: `");
    }
}
