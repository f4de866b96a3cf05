//! What the edge is told by its variables.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use runtime::serve;
use runtime::serve::tls::TlsConfig;
use runtime::vars::{VarError, Vars};
use schemas::record;
use schemas::row::{Earliest, TimeLimits};

use crate::accept::geoip::GeoIpConfig;
use crate::auth::client_ip::ClientIpConfig;
use crate::auth::key_file::KeysConfig;
use crate::auth::rate::RateConfig;
use crate::http::cors::CorsConfig;
use crate::http::handlers::BENCH_BYTES;
use crate::publish::fixed::FIXED;

const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;

/// All that the edge is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where clients call: `LISTEN_ADDR`, default `0.0.0.0:8081`.
    pub listen_addr: SocketAddr,
    /// Health and metrics: `ADMIN_ADDR`, default `0.0.0.0:9081`.
    pub admin_addr: SocketAddr,
    /// How long it serves on, not ready, after it was told to stop, so that
    /// balancers look elsewhere first: `DRAIN_DELAY`, default 5s.
    pub drain_delay: Duration,
    /// Whether clients speak TLS: `TLS_CERT` and `TLS_KEY`, default neither.
    pub tls: Option<TlsConfig>,
    /// What connections may cost.
    pub connections: serve::Limits,
    /// When events are answered: `ACK`, `durable` or `accepted`, default `durable`.
    pub ack: Ack,
    /// What a request may cost.
    pub limits: Limits,
    /// Where client clocks are believed, as the aggregator's variables of these names say: `EVENT_TIME_FROM`, default
    /// 2000-01-01T00:00:00Z, and `EVENT_TIME_AHEAD`, default 1day. A reaction at another time is refused.
    pub times: TimeLimits,
    /// Who may send.
    pub keys: KeysConfig,
    /// How much may come from an address.
    pub ip_rate: Option<RateConfig>,
    /// Which pages may call.
    pub cors: CorsConfig,
    /// How a client's address is found.
    pub client_ip: ClientIpConfig,
    /// Where countries come from that clients do not tell; `None`: nowhere.
    pub geoip: Option<GeoIpConfig>,
    /// Events a second of one user beyond which they are spread over all partitions: `HOT_KEY_RATE`,
    /// default 0, never: while users become hot, repeats may miss their events.
    pub hot_key_rate: u32,
    /// Where records go.
    pub kafka: KafkaConfig,
    /// Where they wait while Kafka does not take them; `None`: nowhere.
    pub spool: Option<SpoolConfig>,
    /// Where the polls' results come from.
    pub poll_results: PollResultsConfig,
}

/// When events are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ack {
    /// Once they are safe, in Kafka or in the spool.
    Durable,
    /// Once they wait for Kafka; what is lost then is counted, and its sender is not told.
    Accepted,
}

impl Ack {
    /// The name in the variable and in answers.
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
        named.ok_or("it is `durable` or `accepted`")
    }
}

/// Where the polls' results come from that votes are told.
#[derive(Debug, Clone)]
pub struct PollResultsConfig {
    /// Address of query-api, `http://…`: `POLL_RESULTS_URL`, default none, and then votes are told
    /// no results.
    pub url: Option<String>,
    /// Between two requests, ±10 %: `POLL_RESULTS_INTERVAL`, default 5s.
    pub interval: Duration,
}

/// What a request, and all requests together, may cost.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Longest body as sent: `MAX_BODY_BYTES`, default 8 MiB.
    pub body_bytes: usize,
    /// Longest body once inflated: `MAX_DECODED_BYTES`, default 32 MiB.
    pub decoded_bytes: usize,
    /// Events of one request: `MAX_EVENTS`, default 10 000.
    pub events: usize,
    /// Longest pause within a body: `BODY_IDLE_TIMEOUT`, default 10s.
    pub body_idle: Duration,
    /// Longest a body may take: `BODY_TIMEOUT`, default 30s.
    pub body_total: Duration,
    /// Bytes a second that a body must bring on average once it has taken 5 s:
    /// `BODY_MIN_RATE`, default 512.
    pub body_min_rate: NonZeroU32,
    /// Bytes of all bodies in memory at once, and of the lines being made of them: `IN_FLIGHT_BYTES`,
    /// default 256 MiB.
    pub in_flight_bytes: usize,
    /// Requests at once, waiting for Kafka ones included: `MAX_REQUESTS`, default 16 384.
    pub requests: usize,
}

/// The topic and how it is written.
#[derive(Debug, Clone)]
pub struct KafkaConfig {
    /// `host:port` of one or more brokers: `KAFKA_BROKERS`, required.
    pub brokers: String,
    /// Topic of the records: `TOPIC`, default `events`.
    pub topic: String,
    /// Longest a record waits for its acknowledgement, before it goes to the spool or is
    /// refused: `DURABLE_WAIT`, default 10s.
    pub durable_wait: Duration,
    /// Bytes of lines not yet acknowledged: `UNACKED_BYTES`, default 96 MiB, so that they and
    /// `IN_FLIGHT_BYTES` stay below 384 MiB together, and ours is met before librdkafka's own bound.
    pub unacked_bytes: usize,
    /// Settings of librdkafka by their own names, over ours: `KAFKA_OPT_<name>`, for
    /// example `KAFKA_OPT_compression.type=zstd`; none of those that the answer `200` rests on.
    pub options: BTreeMap<String, String>,
}

/// The overflow on disk.
#[derive(Debug, Clone)]
pub struct SpoolConfig {
    /// Holds one file per topic, and no other edge's: `SPOOL_DIR`, default none, and then
    /// there is no spool.
    pub directory: PathBuf,
    /// Bytes of all records in it; the file may become twice as long: `SPOOL_MAX_BYTES`,
    /// default 10 GiB.
    pub max_bytes: u64,
    /// Room that it leaves on its disk: `SPOOL_MIN_FREE`, default 1 GiB.
    pub min_free: u64,
}

impl Config {
    /// Reads and checks the variables above.
    pub fn from_vars(vars: &Vars) -> Result<Self, VarError> {
        let any = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        Ok(Self {
            listen_addr: vars.parsed_or("LISTEN_ADDR", any(8081))?,
            admin_addr: vars.parsed_or("ADMIN_ADDR", any(9081))?,
            drain_delay: vars.duration_or("DRAIN_DELAY", Duration::from_secs(5))?,
            tls: TlsConfig::from_vars(vars)?,
            connections: serve::Limits::from_vars(vars)?,
            ack: vars.parsed_or("ACK", Ack::Durable)?,
            limits: Limits::from_vars(vars)?,
            times: times(vars)?,
            keys: KeysConfig::from_vars(vars)?,
            ip_rate: RateConfig::of_addresses(vars)?,
            cors: CorsConfig::from_vars(vars)?,
            client_ip: ClientIpConfig::from_vars(vars)?,
            geoip: GeoIpConfig::from_vars(vars)?,
            hot_key_rate: vars.parsed_or("HOT_KEY_RATE", 0)?,
            kafka: KafkaConfig::from_vars(vars)?,
            spool: SpoolConfig::from_vars(vars)?,
            poll_results: PollResultsConfig::from_vars(vars)?,
        })
    }
}

fn times(vars: &Vars) -> Result<TimeLimits, VarError> {
    let TimeLimits { earliest, ahead } = TimeLimits::default();
    let [default, most] =
        [ahead, TimeLimits::MAX_AHEAD].map(|millis| Duration::from_millis(millis.unsigned_abs()));
    let why = "rollups hold no later times";
    let ahead = vars.duration_up_to("EVENT_TIME_AHEAD", default, most, why)?;
    Ok(TimeLimits {
        earliest: vars.parsed_or("EVENT_TIME_FROM", Earliest(earliest))?.0,
        ahead: i64::try_from(ahead.as_millis()).expect("it is below a limit in milliseconds"),
    })
}

impl Limits {
    fn from_vars(vars: &Vars) -> Result<Self, VarError> {
        let limits = Self {
            body_bytes: vars.bytes_or("MAX_BODY_BYTES", 8 * MIB)?,
            decoded_bytes: vars.bytes_or("MAX_DECODED_BYTES", 32 * MIB)?,
            events: vars.parsed_or("MAX_EVENTS", 10_000)?,
            body_idle: vars.duration_or("BODY_IDLE_TIMEOUT", Duration::from_secs(10))?,
            body_total: vars.duration_or("BODY_TIMEOUT", Duration::from_secs(30))?,
            body_min_rate: vars.parsed_or("BODY_MIN_RATE", const { NonZeroU32::new(512).unwrap() })?,
            in_flight_bytes: vars.bytes_or("IN_FLIGHT_BYTES", 256 * MIB)?,
            requests: vars.parsed_or("MAX_REQUESTS", 16_384)?,
        };
        let largest =
            limits.body_bytes.saturating_add(2 * limits.decoded_bytes).saturating_add(2 * MIB + BENCH_BYTES);
        if limits.in_flight_bytes < largest || limits.in_flight_bytes > u32::MAX as usize {
            return Err(VarError::Invalid {
                name: "IN_FLIGHT_BYTES",
                value: limits.in_flight_bytes.to_string(),
                reason: format!(
                    "it must hold one largest request while it is inflated, MAX_BODY_BYTES + 2 × \
                     MAX_DECODED_BYTES, and the bench, {largest} in all, and be below 4 GiB"
                ),
            });
        }
        Ok(limits)
    }
}

impl PollResultsConfig {
    fn from_vars(vars: &Vars) -> Result<Self, VarError> {
        let url = vars.string_or("POLL_RESULTS_URL", "");
        let interval = vars.duration_or("POLL_RESULTS_INTERVAL", Duration::from_secs(5))?;
        if interval.is_zero() {
            let reason = "it must be above zero, for example `5s`".to_owned();
            return Err(VarError::Invalid { name: "POLL_RESULTS_INTERVAL", value: "0s".to_owned(), reason });
        }
        if !url.is_empty() && !reqwest::Url::parse(&url).is_ok_and(|url| url.scheme() == "http") {
            let reason =
                "it must be the address of query-api, for example `http://localhost:8083`".to_owned();
            return Err(VarError::Invalid { name: "POLL_RESULTS_URL", value: url, reason });
        }
        Ok(Self { url: Some(url).filter(|url| !url.is_empty()), interval })
    }
}

impl KafkaConfig {
    fn from_vars(vars: &Vars) -> Result<Self, VarError> {
        let durable_wait = vars.duration_or("DURABLE_WAIT", Duration::from_secs(10))?;
        if durable_wait < Duration::from_millis(1) {
            return Err(VarError::Invalid {
                name: "DURABLE_WAIT",
                value: format!("{durable_wait:?}"),
                reason: "it must be 1ms or longer".to_owned(),
            });
        }
        Ok(Self {
            brokers: vars.required("KAFKA_BROKERS", "host:port of a Kafka broker, several with commas")?,
            topic: vars.string_or("TOPIC", "events"),
            durable_wait,
            unacked_bytes: vars.bytes_or("UNACKED_BYTES", 96 * MIB)?,
            options: vars.passed_through("KAFKA_OPT_", &FIXED)?,
        })
    }
}

impl SpoolConfig {
    fn from_vars(vars: &Vars) -> Result<Option<Self>, VarError> {
        let directory = vars.string_or("SPOOL_DIR", "");
        let max_bytes = vars.bytes_or("SPOOL_MAX_BYTES", 10 * GIB)?;
        let min_free = vars.bytes_or("SPOOL_MIN_FREE", GIB)?;
        if max_bytes < record::MAX_BYTES {
            return Err(VarError::Invalid {
                name: "SPOOL_MAX_BYTES",
                value: max_bytes.to_string(),
                reason: format!("it must hold one largest record, {}", record::MAX_BYTES),
            });
        }
        let spool =
            Self { directory: directory.into(), max_bytes: max_bytes as u64, min_free: min_free as u64 };
        Ok(Some(spool).filter(|spool| !spool.directory.as_os_str().is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_brokers_have_no_default() {
        assert!(matches!(
            Config::from_vars(&Vars::from_pairs([("TOPIC", "t")])),
            Err(VarError::Missing { name: "KAFKA_BROKERS", .. })
        ));
        let config = Config::from_vars(&Vars::from_pairs([("KAFKA_BROKERS", "k:1")])).unwrap();
        assert_eq!((config.kafka.topic.as_str(), config.limits.body_bytes), ("events", 8 << 20));
    }

    #[test]
    fn settings_of_kafkas_client_that_a_durable_answer_rests_on_cannot_be_set() {
        let with = |name: &str| {
            let variable = format!("KAFKA_OPT_{name}");
            Config::from_vars(&Vars::from_pairs([("KAFKA_BROKERS", "k:1"), (variable.as_str(), "1")]))
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
        for name in ["compression.type", "linger.ms", "message.max.bytes", "request.timeout.ms"] {
            assert_eq!(with(name).expect(name).kafka.options[name], "1");
        }
    }

    #[test]
    fn results_of_polls_come_from_an_address_or_not_at_all() {
        let with =
            |url| Config::from_vars(&Vars::from_pairs([("KAFKA_BROKERS", "k:1"), ("POLL_RESULTS_URL", url)]));
        assert_eq!(with("").unwrap().poll_results.url, None);
        assert_eq!(with("http://q:80").unwrap().poll_results.url.as_deref(), Some("http://q:80"));
        for url in ["query-api:80", "https://q", "/v1/polls"] {
            assert!(matches!(with(url), Err(VarError::Invalid { name: "POLL_RESULTS_URL", .. })), "{url}");
        }
    }

    #[test]
    fn bounds_that_no_request_could_keep_fail_the_start() {
        let vars = Vars::from_pairs([("KAFKA_BROKERS", "k:1"), ("IN_FLIGHT_BYTES", "1MiB")]);
        let error = Config::from_vars(&vars).unwrap_err().to_string();
        assert!(error.starts_with("variable IN_FLIGHT_BYTES=`1048576` is not usable: "), "{error}");
    }
}
