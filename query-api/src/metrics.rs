//! What the query API counts.

use std::time::Duration;

use axum::http::StatusCode;
use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGauge, Opts, Registry};
use schemas::time::UnixMillis;

/// All metrics, registered once.
pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    polls: IntCounterVec,
    poll_seconds: Histogram,
    as_of: IntGauge,
    cold_waiting: IntGauge,
}

impl Metrics {
    /// Makes and registers them.
    pub(crate) fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let requests = Opts::new("query_api_requests_total", "Requests by route and status code.");
        let polls = Opts::new("query_api_polls_total", "Statements to ClickHouse by result.");
        let poll_seconds =
            HistogramOpts::new("query_api_poll_seconds", "Duration of a statement to ClickHouse.");
        let metrics = Self {
            requests: IntCounterVec::new(requests, &["route", "code"])?,
            polls: IntCounterVec::new(polls, &["result"])?,
            poll_seconds: Histogram::with_opts(poll_seconds)?,
            as_of: IntGauge::new(
                "query_api_as_of_milliseconds",
                "Moment for which answers are true, since 1970.",
            )?,
            cold_waiting: IntGauge::new(
                "query_api_cold_waiting",
                "Requests that wait for the next statement.",
            )?,
            registry,
        };
        metrics.registry.register(Box::new(metrics.requests.clone()))?;
        metrics.registry.register(Box::new(metrics.polls.clone()))?;
        metrics.registry.register(Box::new(metrics.poll_seconds.clone()))?;
        metrics.registry.register(Box::new(metrics.as_of.clone()))?;
        metrics.registry.register(Box::new(metrics.cold_waiting.clone()))?;
        Ok(metrics)
    }

    /// For `/metrics`.
    pub(crate) fn registry(&self) -> Registry {
        self.registry.clone()
    }

    /// A request was answered.
    pub(crate) fn answered(&self, route: &'static str, code: StatusCode) {
        self.requests.with_label_values(&[route, code.as_str()]).inc();
    }

    /// A refresh ended.
    pub(crate) fn refreshed(&self, succeeded: bool, duration: Duration) {
        self.polls.with_label_values(&[if succeeded { "ok" } else { "error" }]).inc();
        self.poll_seconds.observe(duration.as_secs_f64());
    }

    /// Answers are now true for this moment.
    pub(crate) fn as_of(&self, moment: Option<UnixMillis>) {
        self.as_of.set(moment.map_or(0, |moment| moment.0));
    }

    /// A request waits for as long as the value lives.
    pub(crate) fn waiting(&self) -> Waiting<'_> {
        self.cold_waiting.inc();
        Waiting(self)
    }
}

/// A request that waits for a statement.
pub(crate) struct Waiting<'a>(&'a Metrics);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.cold_waiting.dec();
    }
}
