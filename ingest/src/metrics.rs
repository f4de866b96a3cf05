//! What the edge counts; one struct, registered once.
//!
//! Invariants, by the names below: received = accepted + rejected, and accepted =
//! delivered + spooled + queued + not_durable + lost. Each event ends once: one that was
//! spooled stays so when Kafka has it at last, which `spool_replayed_total` counts, for
//! those that an earlier process left behind too. Tenants, users and paths are never labels.

use std::time::Duration;

use ::http::StatusCode;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};
use runtime::serve::Counted;
use schemas::event::Code;
use schemas::time::UnixMillis;

use crate::address_source::AddressSource;
use crate::outcome::{Bound, Loss, Outcome};
use crate::route::Route;
use crate::warnings;

/// Everything counted, with its registry.
pub struct Metrics {
    /// What the admin port shows.
    pub registry: Registry,
    /// `connections`, `connections_refused_total`, `accept_failures_total`, `accept_fails` and
    /// `tls_handshake_failures_total`.
    pub connections: Counted,
    /// `tls_stale`: 1 while certificate or key is bad and those read before stay.
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
    /// `reserved_replaced_total`: events whose `ip`, `server_time` or `tenant` was replaced.
    pub reserved_replaced: IntCounter,
    batch_events: Histogram,
    ack_seconds: Histogram,
    shed: [IntCounter; Bound::ALL.len()],
    client_ip: [IntCounter; AddressSource::ALL.len()],
    /// `rate_limited_total`: requests refused for the rate of their key or address.
    pub rate_limited: IntCounter,
    /// `keys_stale`: 1 while the file of keys is bad and the keys read before stay.
    pub keys_stale: IntGauge,
    /// `rejected_samples_total{result="delivered"}`: samples of rejected lines that Kafka has acknowledged.
    pub samples_delivered: IntCounter,
    /// `rejected_samples_total{result="dropped"}`: those that it has not.
    pub samples_dropped: IntCounter,
    /// `hot_key_total`: events that did not go where their user's go, because of these there are too many.
    pub hot_key: IntCounter,
    /// `queue_messages`: records in the queues of Kafka's client.
    pub queue_messages: IntGauge,
    /// `queue_bytes`: of these.
    pub queue_bytes: IntGauge,
    /// `geoip_stale`: 1 while the file of countries is bad and the one read before stays.
    pub geoip_stale: IntGauge,
    poll_results_refreshes: IntCounterVec,
    poll_results_as_of: IntGauge,
    /// `kafka_up`: 1 while the topic can be reached.
    pub kafka_up: IntGauge,
    /// `spool_up`: 1 while records can be put into the spool.
    pub spool_up: IntGauge,
    /// `spool_records`: how many are in it.
    pub spool_records: IntGauge,
    /// `spool_bytes`: of their values.
    pub spool_bytes: IntGauge,
    /// `spool_oldest_seconds`: how long ago the oldest of them was made.
    pub spool_oldest_seconds: IntGauge,
    /// `spool_replayed_total`: events of the spool that Kafka has acknowledged.
    pub spool_replayed: IntCounter,
    /// `spool_set_aside_total`: files that could not be read.
    pub spool_set_aside: IntCounter,
}

impl Metrics {
    /// All metrics at zero, in a registry of their own.
    pub fn new() -> Self {
        let make = Make(Registry::new());
        let request_seconds = make.histograms("request_seconds", "From headers to answer.", SECONDS, "route");
        let received = make.counters("events_received_total", "Lines read.", "route");
        let rejected = make.counters("events_rejected_total", "Bad lines, told to their senders.", "code");
        let lost = make.counters("events_lost_total", "Events stored nowhere, and not refused.", "reason");
        let shed = make.counters("shed_total", "Requests refused at a bound.", "reason");
        let warned = make.counters(
            "event_warnings_total",
            "Fields of accepted events that senders were warned of.",
            "field",
        );
        let samples = make.counters("rejected_samples_total", "Rejected lines for dead letters.", "result");
        let client_ip =
            make.counters("client_ip_source_total", "Addresses by where they come from.", "source");
        make.build_info();
        Self {
            connections: Counted {
                open: make.gauge("connections", "Open connections."),
                refused: make.counter("connections_refused_total", "Connections beyond those of an address."),
                accept_failures: make.counter("accept_failures_total", "Times that none could be accepted."),
                accept_fails: make.gauge("accept_fails", "Whether the last try to accept one failed."),
                handshake_failures: make.counter("tls_handshake_failures_total", "Handshakes that failed."),
            },
            tls_stale: make.gauge("tls_stale", "Whether certificate or key is bad."),
            requests: make.counters_by("requests_total", "Requests answered.", &["route", "code"]),
            request_seconds: Route::ALL.map(|route| request_seconds.with_label_values(&[route.as_str()])),
            body_bytes: make.histogram("body_bytes", "Bodies as sent.", BYTES),
            received: Route::ALL.map(|route| received.with_label_values(&[route.as_str()])),
            accepted: make.counter("events_accepted_total", "Good lines."),
            warned: warnings::FIELDS.map(|field| warned.with_label_values(&[field])),
            rejected: Code::ALL.map(|code| rejected.with_label_values(&[code.as_str()])),
            delivered: make.counter("events_delivered_total", "Events acknowledged by Kafka."),
            spooled: make.counter("events_spooled_total", "Events put into the spool."),
            not_durable: make.counter("events_not_durable_total", "Events stored nowhere, and refused."),
            lost: Loss::ALL.map(|loss| lost.with_label_values(&[loss.as_str()])),
            queued: make.gauge("events_queued", "Events that wait for Kafka."),
            at_risk_bytes: make.gauge("at_risk_bytes", "Bytes that wait for Kafka."),
            in_flight_bytes: make.gauge("inflight_bytes", "Bytes reserved for bodies in memory."),
            reserved_replaced: make.counter("reserved_replaced_total", "Events with replaced fields."),
            batch_events: make.histogram("batch_events", "Events of a record.", EVENTS),
            ack_seconds: make.histogram("ack_seconds", "From sending a record to its end.", SECONDS),
            shed: Bound::ALL.map(|bound| shed.with_label_values(&[bound.as_str()])),
            client_ip: AddressSource::ALL.map(|source| client_ip.with_label_values(&[source.as_str()])),
            rate_limited: make.counter("rate_limited_total", "Requests beyond a rate."),
            keys_stale: make.gauge("keys_stale", "Whether the file of keys is bad."),
            samples_delivered: samples.with_label_values(&["delivered"]),
            samples_dropped: samples.with_label_values(&["dropped"]),
            hot_key: make.counter("hot_key_total", "Events of users with too many, spread."),
            queue_messages: make.gauge("queue_messages", "Records in the queues of Kafka's client."),
            queue_bytes: make.gauge("queue_bytes", "Bytes of these records."),
            geoip_stale: make.gauge("geoip_stale", "Whether the file of countries is bad."),
            poll_results_refreshes: make.counters(
                "poll_results_refreshes_total",
                "Requests for the polls' results by result.",
                "result",
            ),
            poll_results_as_of: make.gauge(
                "poll_results_as_of_milliseconds",
                "Moment of the polls' results that votes are told, since 1970.",
            ),
            kafka_up: make.gauge("kafka_up", "Whether the topic can be reached."),
            spool_up: make.gauge("spool_up", "Whether the spool takes records."),
            spool_records: make.gauge("spool_records", "Records in the spool."),
            spool_bytes: make.gauge("spool_bytes", "Bytes of the records in the spool."),
            spool_oldest_seconds: make.gauge("spool_oldest_seconds", "Age of the spool's oldest record."),
            spool_replayed: make.counter("spool_replayed_total", "Events of the spool that Kafka has."),
            spool_set_aside: make.counter("spool_set_aside_total", "Spool files that could not be read."),
            registry: make.0,
        }
    }

    /// A request was answered.
    pub fn answered(&self, route: Route, status: StatusCode, took: Duration) {
        self.requests.with_label_values(&[route.as_str(), status.as_str()]).inc();
        self.request_seconds[route as usize].observe(took.as_secs_f64());
    }

    /// A body was read.
    pub fn body(&self, bytes: usize) {
        self.body_bytes.observe(bytes as f64);
    }

    /// A request was refused at a bound.
    pub fn shed(&self, bound: Bound) {
        self.shed[bound as usize].inc();
    }

    /// The address of a client was found.
    pub fn client_ip(&self, source: AddressSource) {
        self.client_ip[source as usize].inc();
    }

    /// Lines were read.
    pub fn received(&self, route: Route, events: u64) {
        self.received[route as usize].inc_by(events);
    }

    /// Good lines wait for Kafka from now on, until [`Metrics::settled`].
    pub fn accepted(&self, events: u64, bytes: usize) {
        self.accepted.inc_by(events);
        self.queued.add(events as i64);
        self.at_risk_bytes.add(bytes as i64);
    }

    /// They wait no longer.
    pub fn settled(&self, events: u64, bytes: usize) {
        self.queued.sub(events as i64);
        self.at_risk_bytes.sub(bytes as i64);
    }

    /// This became of so many events.
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

    /// Senders were warned of so many of each field, in the order of [`warnings::FIELDS`].
    pub fn warned(&self, fields: &[u32; warnings::FIELDS.len()]) {
        for (counter, events) in self.warned.iter().zip(fields) {
            counter.inc_by(u64::from(*events));
        }
    }

    /// A record was sent.
    pub fn sent(&self, events: u32) {
        self.batch_events.observe(f64::from(events));
    }

    /// A record's end was learnt this long after it was sent.
    pub fn acknowledged(&self, after: Duration) {
        self.ack_seconds.observe(after.as_secs_f64());
    }

    /// The polls' results were asked for: they are of this moment, or did not come.
    pub fn poll_results(&self, as_of: Option<UnixMillis>) {
        let result = if as_of.is_some() { "ok" } else { "error" };
        self.poll_results_refreshes.with_label_values(&[result]).inc();
        if let Some(as_of) = as_of {
            self.poll_results_as_of.set(as_of.0);
        }
    }

    /// The totals so far.
    pub fn totals(&self) -> Totals {
        let sum = |counters: &[IntCounter]| counters.iter().map(IntCounter::get).sum();
        Totals {
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

/// Events by what became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Lines read.
    pub received: u64,
    /// Good ones.
    pub accepted: u64,
    /// Bad ones.
    pub rejected: u64,
    /// Acknowledged by Kafka.
    pub delivered: u64,
    /// Put into the spool.
    pub spooled: u64,
    /// Stored nowhere; their senders were told.
    pub not_durable: u64,
    /// Not ended yet; at the end of the process as good as lost.
    pub queued: u64,
    /// Stored nowhere; their senders were not told.
    pub lost: u64,
}

const SECONDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const BYTES: &[f64] = &[256.0, 1024.0, 4096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 4_194_304.0];
const EVENTS: &[f64] = &[1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10_000.0];

/// Makes metrics and registers them; neither can fail, since the names are constants.
struct Make(Registry);

impl Make {
    fn opts(name: &str, help: &str) -> Opts {
        Opts::new(name, help).namespace("ingest")
    }

    fn register<M: prometheus::core::Collector + Clone + 'static>(&self, made: prometheus::Result<M>) -> M {
        let metric = made.expect("names and labels are constants");
        self.0.register(Box::new(metric.clone())).expect("each name is registered once");
        metric
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.register(IntCounter::with_opts(Self::opts(name, help)))
    }

    fn counters(&self, name: &str, help: &str, label: &str) -> IntCounterVec {
        self.counters_by(name, help, &[label])
    }

    fn counters_by(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.register(IntCounterVec::new(Self::opts(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.register(IntGauge::with_opts(Self::opts(name, help)))
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        let opts = HistogramOpts::from(Self::opts(name, help)).buckets(buckets.to_vec());
        self.register(Histogram::with_opts(opts))
    }

    fn histograms(&self, name: &str, help: &str, buckets: &[f64], label: &str) -> HistogramVec {
        let opts = HistogramOpts::from(Self::opts(name, help)).buckets(buckets.to_vec());
        self.register(HistogramVec::new(opts, &[label]))
    }

    fn build_info(&self) {
        let info = IntGaugeVec::new(Self::opts("build_info", "The release that runs."), &["version"]);
        self.register(info).with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    }
}
