//! The metrics of the edge: one struct, registered once.
//!
//! Invariants, with the fields of [`EventTotals`]: received = accepted + rejected, and accepted = delivered + spooled +
//! queued + not_durable + lost. An event is counted under one outcome only: a spooled event stays counted as spooled
//! after its replay to Kafka. `spool_replayed_total` counts all replayed events separately, including events that an
//! earlier process spooled. Tenants, users and paths are never labels.

use std::time::Duration;

use ::http::StatusCode;
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, Registry};
use runtime::metrics::{MetricDescription, MetricFactory};
use runtime::serve::ConnectionMetrics;
use schemas::event::Code;
use schemas::time::UnixMillis;

use crate::address_source::AddressSource;
use crate::outcome::{Bound, Loss, Outcome};
use crate::route::Route;
use crate::warnings;

/// All metrics, with their registry.
pub struct Metrics {
    /// The registry that the admin port serves.
    pub registry: Registry,
    /// The description of each metric, from which docs/metrics.md is generated.
    pub descriptions: Vec<MetricDescription>,
    /// The metrics of client connections: `connections`, `connections_refused_total`, `accept_failures_total`,
    /// `accept_fails` and `tls_handshake_failures_total`.
    pub connections: ConnectionMetrics,
    /// `tls_stale`: 1 while the file of the certificate or key is not valid, and the previous certificate and key stay
    /// in use.
    pub tls_stale: IntGauge,
    requests: IntCounterVec,
    request_seconds: [Histogram; Route::ALL.len()],
    body_bytes: Histogram,
    received: [IntCounter; Route::ALL.len()],
    accepted: IntCounter,
    rejected: [IntCounter; Code::ALL.len()],
    warned: [IntCounter; warnings::FIELDS.len()],
    delivered: IntCounter,
    spooled: IntCounter,
    not_durable: IntCounter,
    lost: [IntCounter; Loss::ALL.len()],
    queued: IntGauge,
    at_risk_bytes: IntGauge,
    /// `inflight_bytes`: bytes reserved for bodies in memory.
    pub in_flight_bytes: IntGauge,
    /// `reserved_replaced_total`: events in which the client sent `ip`, `server_time` or `tenant`; the edge replaced
    /// them.
    pub reserved_replaced: IntCounter,
    batch_events: Histogram,
    ack_seconds: Histogram,
    shed: [IntCounter; Bound::ALL.len()],
    client_ip: [IntCounter; AddressSource::ALL.len()],
    /// `rate_limited_total`: requests that exceeded the rate of their key or address.
    pub rate_limited: IntCounter,
    /// `keys_stale`: 1 while the key file is not valid and the previous keys stay in use.
    pub keys_stale: IntGauge,
    /// `rejected_samples_total{result="delivered"}`: samples of rejected lines that Kafka has acknowledged.
    pub samples_delivered: IntCounter,
    /// `rejected_samples_total{result="dropped"}`: samples of rejected lines that were not sent, because Kafka was not
    /// known to be reachable, or that Kafka did not accept.
    pub samples_dropped: IntCounter,
    /// `hot_key_total`: events that were spread over all partitions because their user sends too many events.
    pub hot_key: IntCounter,
    /// `queue_messages`: records in the queues of Kafka's client.
    pub queue_messages: IntGauge,
    /// `queue_bytes`: the bytes of the records in the queues of Kafka's client.
    pub queue_bytes: IntGauge,
    /// `geoip_stale`: 1 while the country database is not valid and the previous one stays in use.
    pub geoip_stale: IntGauge,
    poll_results_refreshes: IntCounterVec,
    poll_results_as_of: IntGauge,
    /// `kafka_up`: 1 while the topic can be reached.
    pub kafka_up: IntGauge,
    /// `spool_up`: 1 while the spool accepts records.
    pub spool_up: IntGauge,
    /// `spool_records`: records in the spool.
    pub spool_records: IntGauge,
    /// `spool_bytes`: the bytes of the values of the records in the spool.
    pub spool_bytes: IntGauge,
    /// `spool_oldest_seconds`: the age of the oldest record in the spool.
    pub spool_oldest_seconds: IntGauge,
    /// `spool_replayed_total`: events of the spool that Kafka has acknowledged.
    pub spool_replayed: IntCounter,
    /// `spool_set_aside_total`: files of the spool that could not be read and were renamed.
    pub spool_set_aside: IntCounter,
}

impl Metrics {
    /// All metrics at zero, in a registry of their own.
    pub fn new() -> Self {
        let metrics = MetricFactory::new("ingest");
        let request_seconds = metrics.histogram_vec(
            "request_seconds",
            "Time from the headers of a request to its response.",
            SECONDS,
            &["route"],
        );
        let received = metrics.counter_vec("events_received_total", "Events received.", &["route"]);
        let rejected = metrics.counter_vec(
            "events_rejected_total",
            "Events that are not valid; the response lists the first ones.",
            &["code"],
        );
        let lost = metrics.counter_vec(
            "events_lost_total",
            "Events that neither Kafka nor the spool confirmed, and whose clients may not know this.",
            &["reason"],
        );
        let shed = metrics.counter_vec("shed_total", "Requests that were shed at a limit.", &["reason"]);
        let warned = metrics.counter_vec(
            "event_warnings_total",
            "Warnings about fields of accepted events.",
            &["field"],
        );
        let samples = metrics.counter_vec(
            "rejected_samples_total",
            "Samples of rejected lines, by result.",
            &["result"],
        );
        let client_ip = metrics.counter_vec(
            "client_ip_source_total",
            "Requests, by the source of the client's address.",
            &["source"],
        );
        metrics.build_info(env!("CARGO_PKG_VERSION"));
        metrics.open_files_limit();
        Self {
            connections: ConnectionMetrics {
                open: metrics.gauge("connections", "Open connections."),
                refused: metrics.counter(
                    "connections_refused_total",
                    "Connections refused because their address has too many open connections.",
                ),
                accept_failures: metrics
                    .counter("accept_failures_total", "Connections that could not be accepted."),
                accept_failing: metrics
                    .gauge("accept_fails", "Whether the last attempt to accept a connection failed."),
                handshake_failures: metrics
                    .counter("tls_handshake_failures_total", "TLS handshakes that failed."),
            },
            tls_stale: metrics.gauge("tls_stale", "Whether the file of the certificate or key is not valid."),
            requests: metrics.counter_vec("requests_total", "Requests answered.", &["route", "code"]),
            request_seconds: Route::ALL.map(|route| request_seconds.with_label_values(&[route.as_str()])),
            body_bytes: metrics.histogram("body_bytes", "Bytes of a body as sent.", BYTES),
            received: Route::ALL.map(|route| received.with_label_values(&[route.as_str()])),
            accepted: metrics.counter("events_accepted_total", "Events that are valid."),
            warned: warnings::FIELDS.map(|field| warned.with_label_values(&[field])),
            rejected: Code::ALL.map(|code| rejected.with_label_values(&[code.as_str()])),
            delivered: metrics.counter("events_delivered_total", "Events acknowledged by Kafka."),
            spooled: metrics.counter("events_spooled_total", "Events stored in the spool."),
            not_durable: metrics.counter(
                "events_not_durable_total",
                "Events that neither Kafka nor the spool confirmed, so their requests were refused.",
            ),
            lost: Loss::ALL.map(|loss| lost.with_label_values(&[loss.as_str()])),
            queued: metrics.gauge("events_queued", "Events that wait for Kafka."),
            at_risk_bytes: metrics.gauge("at_risk_bytes", "Bytes that wait for Kafka."),
            in_flight_bytes: metrics.gauge("inflight_bytes", "Bytes reserved for bodies in memory."),
            reserved_replaced: metrics
                .counter("reserved_replaced_total", "Events with reserved fields, which were replaced."),
            batch_events: metrics.histogram("batch_events", "Events in a record.", EVENTS),
            ack_seconds: metrics.histogram(
                "ack_seconds",
                "Time from sending a record to its acknowledgement or failure.",
                SECONDS,
            ),
            shed: Bound::ALL.map(|bound| shed.with_label_values(&[bound.as_str()])),
            client_ip: AddressSource::ALL.map(|source| client_ip.with_label_values(&[source.as_str()])),
            rate_limited: metrics
                .counter("rate_limited_total", "Requests that exceeded the rate of their key or address."),
            keys_stale: metrics.gauge("keys_stale", "Whether the key file is not valid."),
            samples_delivered: samples.with_label_values(&["delivered"]),
            samples_dropped: samples.with_label_values(&["dropped"]),
            hot_key: metrics.counter(
                "hot_key_total",
                "Events spread over all partitions because their user sends too many.",
            ),
            queue_messages: metrics.gauge("queue_messages", "Records in the queues of Kafka's client."),
            queue_bytes: metrics
                .gauge("queue_bytes", "Bytes of the records in the queues of Kafka's client."),
            geoip_stale: metrics.gauge("geoip_stale", "Whether the country database is not valid."),
            poll_results_refreshes: metrics.counter_vec(
                "poll_results_refreshes_total",
                "Fetches of poll results, by result.",
                &["result"],
            ),
            poll_results_as_of: metrics.gauge(
                "poll_results_as_of_milliseconds",
                "Time of the poll results in responses to votes, in milliseconds since 1970.",
            ),
            kafka_up: metrics.gauge("kafka_up", "Whether the topic can be reached."),
            spool_up: metrics.gauge("spool_up", "Whether the spool accepts records."),
            spool_records: metrics.gauge("spool_records", "Records in the spool."),
            spool_bytes: metrics.gauge("spool_bytes", "Bytes of the records in the spool."),
            spool_oldest_seconds: metrics
                .gauge("spool_oldest_seconds", "Age of the oldest record in the spool."),
            spool_replayed: metrics
                .counter("spool_replayed_total", "Events of the spool that Kafka has acknowledged."),
            spool_set_aside: metrics.counter(
                "spool_set_aside_total",
                "Files of the spool that could not be read and were renamed.",
            ),
            descriptions: metrics.descriptions(),
            registry: metrics.registry(),
        }
    }

    /// Counts a request that was answered.
    pub fn answered(&self, route: Route, status: StatusCode, took: Duration) {
        self.requests.with_label_values(&[route.as_str(), status.as_str()]).inc();
        self.request_seconds[route as usize].observe(took.as_secs_f64());
    }

    /// Records the size of a body that was read, before decompression.
    pub fn body(&self, bytes: usize) {
        self.body_bytes.observe(bytes as f64);
    }

    /// Counts a request that was shed at a limit.
    pub fn shed(&self, bound: Bound) {
        self.shed[bound as usize].inc();
    }

    /// Counts a request by the source of the client's address.
    pub fn client_ip(&self, source: AddressSource) {
        self.client_ip[source as usize].inc();
    }

    /// Counts lines that were read.
    pub fn received(&self, route: Route, events: u64) {
        self.received[route as usize].inc_by(events);
    }

    /// Counts valid lines as accepted and as waiting for Kafka or the spool. [`Metrics::settled`] ends the waiting.
    pub fn accepted(&self, events: u64, bytes: usize) {
        self.accepted.inc_by(events);
        self.queued.add(events as i64);
        self.at_risk_bytes.add(bytes as i64);
    }

    /// Subtracts lines that no longer wait for Kafka or the spool.
    pub fn settled(&self, events: u64, bytes: usize) {
        self.queued.sub(events as i64);
        self.at_risk_bytes.sub(bytes as i64);
    }

    /// Counts events with this outcome.
    pub fn ended(&self, outcome: Outcome, events: u64) {
        match outcome {
            Outcome::Rejected(code) => &self.rejected[code as usize],
            Outcome::Delivered => &self.delivered,
            Outcome::Spooled => &self.spooled,
            Outcome::NotDurable => &self.not_durable,
            Outcome::Lost(loss) => &self.lost[loss as usize],
        }
        .inc_by(events);
    }

    /// Counts the warnings for each field, in the order of [`warnings::FIELDS`].
    pub fn warned(&self, fields: &[u32; warnings::FIELDS.len()]) {
        for (counter, events) in self.warned.iter().zip(fields) {
            counter.inc_by(u64::from(*events));
        }
    }

    /// Records the number of events in a record that was sent.
    pub fn sent(&self, events: u32) {
        self.batch_events.observe(f64::from(events));
    }

    /// Records the time from sending a record to its acknowledgement or failure.
    pub fn acknowledged(&self, after: Duration) {
        self.ack_seconds.observe(after.as_secs_f64());
    }

    /// Counts a fetch of poll results: `as_of` is the time of the results, or `None` if the fetch failed.
    pub fn poll_results(&self, as_of: Option<UnixMillis>) {
        let result = if as_of.is_some() { "ok" } else { "error" };
        self.poll_results_refreshes.with_label_values(&[result]).inc();
        if let Some(as_of) = as_of {
            self.poll_results_as_of.set(as_of.0);
        }
    }

    /// The number of events so far, by outcome.
    pub fn totals(&self) -> EventTotals {
        let sum = |counters: &[IntCounter]| counters.iter().map(IntCounter::get).sum();
        EventTotals {
            received: sum(&self.received),
            accepted: self.accepted.get(),
            rejected: sum(&self.rejected),
            delivered: self.delivered.get(),
            spooled: self.spooled.get(),
            not_durable: self.not_durable.get(),
            queued: self.queued.get().max(0) as u64,
            lost: sum(&self.lost),
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Numbers of events since the process started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventTotals {
    /// Events that were received.
    pub received: u64,
    /// Valid events.
    pub accepted: u64,
    /// Invalid events.
    pub rejected: u64,
    /// Events acknowledged by Kafka.
    pub delivered: u64,
    /// Events stored in the spool.
    pub spooled: u64,
    /// Events that neither Kafka nor the spool has confirmed; their requests were refused.
    pub not_durable: u64,
    /// Accepted events that still wait for Kafka or the spool. An event that still waits when the process ends is lost.
    pub queued: u64,
    /// Lost events: neither Kafka nor the spool has confirmed them, and their clients may not know that.
    pub lost: u64,
}

const SECONDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const BYTES: &[f64] = &[256.0, 1024.0, 4096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 4_194_304.0];
const EVENTS: &[f64] = &[1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10_000.0];
