//! The metrics of the query API.

use std::time::Duration;

use axum::http::StatusCode;
use prometheus::{DEFAULT_BUCKETS, Histogram, IntCounterVec, IntGauge, Registry};
use runtime::metrics::{MetricDescription, MetricFactory};
use schemas::time::UnixMillis;

/// All metrics, registered once.
pub struct Metrics {
    registry: Registry,
    /// What each of them is.
    pub descriptions: Vec<MetricDescription>,
    requests: IntCounterVec,
    polls: IntCounterVec,
    poll_seconds: Histogram,
    as_of: IntGauge,
    cold_waiting: IntGauge,
    live_streams: IntGauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All metrics at zero, in a registry of their own.
    pub fn new() -> Self {
        let metrics = MetricFactory::new("query_api");
        Self {
            requests: metrics.counter_vec(
                "requests_total",
                "Requests by route and status code.",
                &["route", "code"],
            ),
            polls: metrics.counter_vec("polls_total", "Statements to ClickHouse by result.", &["result"]),
            poll_seconds: metrics.histogram(
                "poll_seconds",
                "Duration of a statement to ClickHouse.",
                DEFAULT_BUCKETS,
            ),
            as_of: metrics
                .gauge("as_of_milliseconds", "Moment that answers are true for, in milliseconds since 1970."),
            cold_waiting: metrics.gauge("cold_waiting", "Requests that wait for the next statement."),
            live_streams: metrics.gauge("live_streams", "Open streams of /v1/live."),
            descriptions: metrics.descriptions(),
            registry: metrics.registry(),
        }
    }

    /// What the admin port serves as `/metrics`.
    pub(crate) fn registry(&self) -> Registry {
        self.registry.clone()
    }

    /// Counts a response.
    pub(crate) fn answered(&self, route: &'static str, code: StatusCode) {
        self.requests.with_label_values(&[route, code.as_str()]).inc();
    }

    /// Counts a refresh.
    pub(crate) fn refreshed(&self, succeeded: bool, duration: Duration) {
        self.polls.with_label_values(&[if succeeded { "ok" } else { "error" }]).inc();
        self.poll_seconds.observe(duration.as_secs_f64());
    }

    /// Sets the moment that answers are true for.
    pub(crate) fn as_of(&self, moment: Option<UnixMillis>) {
        self.as_of.set(moment.map_or(0, |moment| moment.0));
    }

    /// Sets the number of open streams.
    pub(crate) fn live_streams(&self, open: usize) {
        self.live_streams.set(i64::try_from(open).unwrap_or(i64::MAX));
    }

    /// Counts a waiting request until the guard is dropped.
    pub(crate) fn waiting(&self) -> WaitingGuard<'_> {
        self.cold_waiting.inc();
        WaitingGuard(self)
    }
}

/// A request that waits for the next snapshot.
pub(crate) struct WaitingGuard<'a>(&'a Metrics);

impl Drop for WaitingGuard<'_> {
    fn drop(&mut self) {
        self.0.cold_waiting.dec();
    }
}
