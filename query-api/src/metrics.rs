//! The metrics of the query API.

use std::time::Duration;

use axum::http::StatusCode;
use prometheus::{DEFAULT_BUCKETS, Histogram, IntCounterVec, IntGauge, Registry};
use runtime::metrics::{MetricDescription, MetricFactory};
use schemas::time::UnixMillis;

use crate::answers::LeftOut;

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
    left_out: IntGauge,
    /// `keys_stale`: 1 while the file of keys is not valid and the keys read before stay in use.
    pub(crate) keys_stale: IntGauge,
    /// `refused_total`: requests that keys did not permit, by status code.
    pub(crate) refused: IntCounterVec,
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
            left_out: metrics.gauge(
                "left_out",
                "What the statement leaves out because it missed its deadline twice: 0 nothing, 1 old hours and small \
                 polls, 2 all polls too, 3 the country counters too.",
            ),
            keys_stale: metrics.gauge("keys_stale", "Whether the file of keys is not valid."),
            refused: metrics.counter_vec(
                "refused_total",
                "Requests that keys did not permit, by status code: 401, 403, 429.",
                &["code"],
            ),
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

    /// Sets what the statement leaves out.
    pub(crate) fn left_out(&self, left_out: LeftOut) {
        self.left_out.set(match left_out {
            LeftOut::Nothing => 0,
            LeftOut::ColdKeys => 1,
            LeftOut::Polls => 2,
            LeftOut::Counters => 3,
        });
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
