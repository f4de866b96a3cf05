//! Creates metrics and registers them in one step, under the prefix of their service.

use std::sync::{Mutex, PoisonError};

use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::descriptors;

/// Creates the metrics of one service, in a registry of their own.
///
/// Names and labels are constants, so a name or a label that Prometheus does not allow, or a name that is used twice,
/// is a bug of the service. Every method that creates a metric panics on such a bug, so the first start of the service
/// reveals it.
#[derive(Debug)]
pub struct MetricFactory {
    registry: Registry,
    prefix: &'static str,
    descriptions: Mutex<Vec<MetricDescription>>,
}

/// The description of a metric, for the page that lists all metrics (`docs/metrics.md`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricDescription {
    /// The full name.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// The names of the labels.
    pub labels: Vec<String>,
    /// What the metric counts or shows.
    pub help: String,
}

impl MetricFactory {
    /// A factory for metrics that are called `<prefix>_<name>`.
    pub fn new(prefix: &'static str) -> Self {
        Self { registry: Registry::new(), prefix, descriptions: Mutex::default() }
    }

    /// The registry of all metrics that were created.
    pub fn registry(&self) -> Registry {
        self.registry.clone()
    }

    /// The descriptions of all metrics that were created, in order of creation.
    pub fn descriptions(&self) -> Vec<MetricDescription> {
        self.descriptions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A counter.
    pub fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.register("counter", IntCounter::with_opts(self.opts(name, help)))
    }

    /// Counters with these labels.
    pub fn counter_vec(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.register("counter", IntCounterVec::new(self.opts(name, help), labels))
    }

    /// A gauge.
    pub fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.register("gauge", IntGauge::with_opts(self.opts(name, help)))
    }

    /// Gauges with these labels.
    pub fn gauge_vec(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.register("gauge", IntGaugeVec::new(self.opts(name, help), labels))
    }

    /// A histogram; `buckets` are the upper bounds of its buckets.
    pub fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        self.register("histogram", Histogram::with_opts(self.histogram_opts(name, help, buckets)))
    }

    /// Histograms with these labels; `buckets` are the upper bounds of their buckets.
    pub fn histogram_vec(&self, name: &str, help: &str, buckets: &[f64], labels: &[&str]) -> HistogramVec {
        self.register("histogram", HistogramVec::new(self.histogram_opts(name, help, buckets), labels))
    }

    /// Creates the gauge `<prefix>_build_info`, whose label `version` shows the running release. Its value is always 1.
    pub fn build_info(&self, version: &str) {
        self.gauge_vec("build_info", "The release that runs.", &["version"])
            .with_label_values(&[version])
            .set(1);
    }

    /// Creates the gauge `<prefix>_open_files_limit`: how many files, including connections, the process may have open.
    pub fn open_files_limit(&self) {
        let help = "Files, including connections, that the process may have open; 0 means no limit.";
        self.gauge("open_files_limit", help).set(i64::try_from(descriptors::limit()).unwrap_or(i64::MAX));
    }

    fn opts(&self, name: &str, help: &str) -> Opts {
        Opts::new(name, help).namespace(self.prefix)
    }

    fn histogram_opts(&self, name: &str, help: &str, buckets: &[f64]) -> HistogramOpts {
        HistogramOpts::from(self.opts(name, help)).buckets(buckets.to_vec())
    }

    fn register<M: Collector + Clone + 'static>(
        &self,
        kind: &'static str,
        metric: prometheus::Result<M>,
    ) -> M {
        let metric = metric.expect("the constant names and labels are valid");
        let mut descriptions = self.descriptions.lock().unwrap_or_else(PoisonError::into_inner);
        descriptions.extend(metric.desc().into_iter().map(|desc| MetricDescription {
            name: desc.fq_name.clone(),
            kind,
            labels: desc.variable_labels.clone(),
            help: desc.help.clone(),
        }));
        self.registry.register(Box::new(metric.clone())).expect("each name is registered once");
        metric
    }
}

#[cfg(test)]
mod tests {
    use prometheus::proto::MetricFamily;

    use super::*;

    #[test]
    fn a_new_metric_is_registered_under_the_prefix() {
        let metrics = MetricFactory::new("edge");
        metrics.counter("things_total", "Things.").inc();
        metrics.histogram_vec("seconds", "Times.", &[0.5], &["route"]).with_label_values(&["a"]).observe(0.1);
        metrics.build_info("1.2.3");
        let families = metrics.registry().gather();
        let names: Vec<_> = families.iter().map(MetricFamily::name).collect();
        assert_eq!(names, ["edge_build_info", "edge_seconds", "edge_things_total"]);
    }

    #[test]
    #[should_panic(expected = "each name is registered once")]
    fn a_metric_name_that_is_used_twice_panics() {
        let metrics = MetricFactory::new("edge");
        metrics.gauge("up", "Up.");
        metrics.gauge("up", "Up.");
    }
}
