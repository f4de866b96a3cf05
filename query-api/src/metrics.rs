//! The metrics of the query API.

use std::time::Duration;

use axum::http::StatusCode;
use prometheus::{DEFAULT_BUCKETS, Histogram, IntCounter, IntCounterVec, IntGauge, Registry};
use runtime::metrics::{MetricDescription, MetricFactory};
use schemas::time::UnixMillis;

use crate::answers::LeftOut;
use crate::problem::Problem;

/// All metrics, registered once.
pub struct Metrics {
    registry: Registry,
    /// The description of each metric.
    pub descriptions: Vec<MetricDescription>,
    requests: IntCounterVec,
    refreshes: IntCounterVec,
    refresh_seconds: Histogram,
    as_of: IntGauge,
    cold_waiting: IntGauge,
    left_out: IntGauge,
    /// `keys_stale`: 1 while the key file is not valid and the previous keys stay in use.
    pub(crate) keys_stale: IntGauge,
    /// `refused_total`: requests without a valid token or with a key that does not permit them, by status code.
    pub(crate) refused: IntCounterVec,
    live_streams: IntGauge,
    pub(crate) queries: QueryMetrics,
    pub(crate) people: QueryMetrics,
}

/// The metrics of `/v1/query`, or those of `/v1/retention` and `/v1/funnel`.
#[derive(Clone)]
pub(crate) struct QueryMetrics {
    outcomes: IntCounterVec,
    seconds: Histogram,
    waiting: IntGauge,
    shared: IntCounter,
}

impl QueryMetrics {
    /// The metrics of `/v1/query`.
    fn of_queries(metrics: &MetricFactory) -> Self {
        Self {
            outcomes: metrics.counter_vec(
                "queries_total",
                "Requests to /v1/query by outcome: ok, or the code of the problem.",
                &["outcome"],
            ),
            seconds: metrics.histogram(
                "query_seconds",
                "Time to get the rows of a query once it has its turn: the statement to ClickHouse and its result.",
                DEFAULT_BUCKETS,
            ),
            waiting: metrics.gauge("queries_waiting", "Queries that wait for their turn to ask ClickHouse."),
            shared: metrics.counter(
                "query_cache_hits_total",
                "Queries that got the kept or pending answer of an equal query, without a statement of their own.",
            ),
        }
    }

    /// The metrics of `/v1/retention` and `/v1/funnel`.
    fn of_people(metrics: &MetricFactory) -> Self {
        Self {
            outcomes: metrics.counter_vec(
                "people_total",
                "Requests to /v1/retention and /v1/funnel by outcome: ok, or the code of the problem.",
                &["outcome"],
            ),
            seconds: metrics.histogram(
                "people_seconds",
                "Time to get the rows of a retention table or a funnel once it has its turn: its statements to \
                 ClickHouse.",
                DEFAULT_BUCKETS,
            ),
            waiting: metrics.gauge(
                "people_waiting",
                "Retention tables and funnels that wait for their turn to ask ClickHouse.",
            ),
            shared: metrics.counter(
                "people_cache_hits_total",
                "Retention tables and funnels that got the kept or pending answer of an equal request, without a \
                 statement of their own.",
            ),
        }
    }

    /// Counts an answer, or the problem that was sent instead.
    pub(crate) fn answered(&self, problem: Option<&Problem>) {
        self.outcomes.with_label_values(&[problem.map_or("ok", |problem| problem.kind.code())]).inc();
    }

    /// Records how long a query ran after it had got its turn.
    pub(crate) fn ran(&self, duration: Duration) {
        self.seconds.observe(duration.as_secs_f64());
    }

    /// Counts a query that got the kept or pending answer of an equal query.
    pub(crate) fn shared(&self) {
        self.shared.inc();
    }

    /// Counts a query as waiting for its turn until the guard is dropped.
    pub(crate) fn waiting(&self) -> GaugeGuard {
        GaugeGuard::new(&self.waiting)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All metrics at zero, in a new registry.
    pub fn new() -> Self {
        let metrics = MetricFactory::new("query_api");
        Self {
            requests: metrics.counter_vec(
                "requests_total",
                "Requests by route and status code.",
                &["route", "code"],
            ),
            refreshes: metrics.counter_vec("refreshes_total", "Refreshes of the prepared answers by result.", &["result"]),
            refresh_seconds: metrics.histogram(
                "refresh_seconds",
                "Duration of a refresh of the prepared answers.",
                DEFAULT_BUCKETS,
            ),
            as_of: metrics.gauge(
                "as_of_milliseconds",
                "The as_of of the latest snapshot, in milliseconds since 1970; 0 while it is unknown.",
            ),
            cold_waiting: metrics.gauge("cold_waiting", "Requests that wait for the next snapshot."),
            left_out: metrics.gauge(
                "left_out",
                "What refreshes leave out because they were too slow: 0 nothing, 1 old hours and small polls, 2 also \
                 all polls and what /v1/live shows, 3 also the country counters.",
            ),
            keys_stale: metrics.gauge("keys_stale", "Whether the key file is not valid."),
            refused: metrics.counter_vec(
                "refused_total",
                "Requests that keys did not permit, by status code: 401, 403, 429.",
                &["code"],
            ),
            live_streams: metrics.gauge("live_streams", "Open streams of /v1/live."),
            queries: QueryMetrics::of_queries(&metrics),
            people: QueryMetrics::of_people(&metrics),
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

    /// Counts a refresh by its result and records its duration.
    pub(crate) fn refreshed(&self, succeeded: bool, duration: Duration) {
        self.refreshes.with_label_values(&[if succeeded { "ok" } else { "error" }]).inc();
        self.refresh_seconds.observe(duration.as_secs_f64());
    }

    /// Sets the `as_of` of the latest snapshot.
    pub(crate) fn as_of(&self, moment: Option<UnixMillis>) {
        self.as_of.set(moment.map_or(0, |moment| moment.0));
    }

    /// Sets the number of open streams.
    pub(crate) fn live_streams(&self, open: usize) {
        self.live_streams.set(i64::try_from(open).unwrap_or(i64::MAX));
    }

    /// Sets which answers the statement of a refresh leaves out.
    pub(crate) fn left_out(&self, left_out: LeftOut) {
        self.left_out.set(match left_out {
            LeftOut::Nothing => 0,
            LeftOut::ColdKeys => 1,
            LeftOut::Polls => 2,
            LeftOut::Counters => 3,
        });
    }

    /// Counts a request as waiting for the next snapshot until the guard is dropped.
    pub(crate) fn waiting(&self) -> GaugeGuard {
        GaugeGuard::new(&self.cold_waiting)
    }
}

/// Adds one to a gauge until the guard is dropped.
pub(crate) struct GaugeGuard(IntGauge);

impl GaugeGuard {
    fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}
