//! The configuration of the edge: each folder reads its own variables, and this file puts them together.

use std::net::SocketAddr;
use std::time::Duration;

use runtime::serve::tls::TlsConfig;
use runtime::serve::{ConnectionLimits, every_address};
use runtime::vars::{VarError, Vars};
use schemas::row::TimeLimits;

use crate::accept::AcceptConfig;
use crate::auth::AuthConfig;
use crate::endpoints::reactions;
use crate::endpoints::votes::refresh::PollResultsConfig;
use crate::http::HttpConfig;
use crate::publish::{Ack, KafkaConfig};
use crate::spool::SpoolConfig;

/// The whole configuration of the edge.
#[derive(Debug, Clone)]
pub struct Config {
    /// The address and port that clients send to: `LISTEN_ADDR`, default `[::]:8081`.
    pub listen_addr: SocketAddr,
    /// The address and port of `/healthz`, `/readyz` and `/metrics`: `ADMIN_ADDR`, default `[::]:9081`. Keep it inside
    /// your network.
    pub admin_addr: SocketAddr,
    /// After SIGTERM, how long the edge still accepts requests while `/readyz` answers 503: `DRAIN_DELAY`, default 5s.
    /// Set it to the time that your load balancer needs to notice.
    pub drain_delay: Duration,
    /// TLS for clients; `None`: the port speaks plain HTTP.
    pub tls: Option<TlsConfig>,
    /// The limits on connections.
    pub connections: ConnectionLimits,
    /// The limit on concurrent requests, and the web pages that may send requests.
    pub http: HttpConfig,
    /// Who may send events, and at which rate.
    pub auth: AuthConfig,
    /// How bodies become enriched lines.
    pub accept: AcceptConfig,
    /// The limits on the `timestamp` of a reaction, which is a click or an impression that is sent in a URL.
    pub times: TimeLimits,
    /// When a request is answered: `ACK`, `durable` or `accepted`, default `durable`. `durable`: with `200`, once its
    /// events are in Kafka or in the spool. `accepted`: with `202`, once they are queued for Kafka; a crash can lose
    /// them.
    pub ack: Ack,
    /// The topic, and how records are written to it.
    pub kafka: KafkaConfig,
    /// The spool, where records wait while Kafka does not accept them; `None`: there is no spool.
    pub spool: Option<SpoolConfig>,
    /// Where the edge fetches the poll results that responses to votes contain.
    pub poll_results: PollResultsConfig,
}

impl Config {
    /// Reads and checks all variables.
    pub fn from_vars(vars: &Vars) -> Result<Self, VarError> {
        Ok(Self {
            listen_addr: vars.parsed_or("LISTEN_ADDR", every_address(8081))?,
            admin_addr: vars.parsed_or("ADMIN_ADDR", every_address(9081))?,
            drain_delay: vars.duration_or("DRAIN_DELAY", Duration::from_secs(5))?,
            tls: TlsConfig::from_vars(vars)?,
            connections: ConnectionLimits::from_vars(vars)?,
            http: HttpConfig::from_vars(vars)?,
            auth: AuthConfig::from_vars(vars)?,
            accept: AcceptConfig::from_vars(vars)?,
            times: reactions::time_limits(vars)?,
            ack: vars.parsed_or("ACK", Ack::Durable)?,
            kafka: KafkaConfig::from_vars(vars)?,
            spool: SpoolConfig::from_vars(vars)?,
            poll_results: PollResultsConfig::from_vars(vars)?,
        })
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
        assert_eq!((config.kafka.topic.as_str(), config.accept.limits.body_bytes), ("events", 8 << 20));
    }

    #[test]
    fn poll_results_url_is_an_http_address_or_empty() {
        let with =
            |url| Config::from_vars(&Vars::from_pairs([("KAFKA_BROKERS", "k:1"), ("POLL_RESULTS_URL", url)]));
        assert_eq!(with("").unwrap().poll_results.url, None);
        assert_eq!(with("http://q:80").unwrap().poll_results.url.as_deref(), Some("http://q:80"));
        for url in ["query-api:80", "https://q", "/v1/polls"] {
            assert!(matches!(with(url), Err(VarError::Invalid { name: "POLL_RESULTS_URL", .. })), "{url}");
        }
    }

    #[test]
    fn a_timeout_or_interval_of_zero_fails_the_start() {
        for name in ["BODY_IDLE_TIMEOUT", "BODY_TIMEOUT", "DURABLE_WAIT", "POLL_RESULTS_INTERVAL"] {
            let vars = Vars::from_pairs([("KAFKA_BROKERS", "k:1"), (name, "0s")]);
            let error = Config::from_vars(&vars).unwrap_err().to_string();
            assert!(error.starts_with(&format!("variable {name}=`0")), "{error}");
        }
    }

    #[test]
    fn in_flight_bytes_too_small_for_one_request_fails_the_start() {
        let vars = Vars::from_pairs([("KAFKA_BROKERS", "k:1"), ("MAX_DECODED_BYTES", "8EiB")]);
        let error = Config::from_vars(&vars).unwrap_err().to_string();
        assert!(error.starts_with("variable IN_FLIGHT_BYTES="), "twice the size exceeds 64 bits: {error}");
        let vars = Vars::from_pairs([("KAFKA_BROKERS", "k:1"), ("IN_FLIGHT_BYTES", "1MiB")]);
        let error = Config::from_vars(&vars).unwrap_err().to_string();
        assert!(error.starts_with("variable IN_FLIGHT_BYTES=`1048576` is not usable: "), "{error}");
    }
}
