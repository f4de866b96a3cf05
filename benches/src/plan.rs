//! What a run measures, how long and how often.

use std::time::Duration;

use crate::input::Work;

/// What to measure, how long and how often.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Length of each measurement under load.
    pub duration: Duration,
    /// Length of each measurement while few events arrive.
    pub window: Duration,
    /// How many times each measurement is made.
    pub repeats: usize,
    /// Number of events that each consumer stores in [`Measurement::Drain`], and that ClickHouse holds while queries
    /// and dashboards are measured.
    pub events: u64,
    /// The only measurements to make; all if empty.
    pub only: Vec<Measurement>,
    /// The only kind of events for [`Measurement::Edge`] and [`Measurement::Drain`]; all kinds if absent.
    pub work: Option<Work>,
    /// Whether [`Measurement::Drain`] also measures the program Spate, which must have been built.
    pub peers: bool,
}

impl Plan {
    /// The kinds of events for [`Measurement::Edge`] and [`Measurement::Drain`].
    pub fn works(&self) -> impl Iterator<Item = Work> + use<> {
        let only = self.work;
        Work::ALL.into_iter().filter(move |work| only.is_none_or(|only| only == *work))
    }

    /// Whether the plan includes this measurement.
    pub fn includes(&self, measurement: Measurement) -> bool {
        self.only.is_empty() || self.only.contains(&measurement)
    }
}

/// A measurement of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Measurement {
    /// CPU time of all processes while few events arrive.
    Rest,
    /// The edge, compared with servers that only read requests, or read them and write to Kafka.
    Edge,
    /// Reads of the current hour, compared with a server that answers with a constant.
    Reads,
    /// Queries of `/v1/query`, and the page in a browser.
    Queries,
    /// Queries of dashboards on the analysts' views.
    Dashboards,
    /// The edge and the aggregator together, from requests to stored rows.
    WholeWay,
    /// The aggregator alone stores the records that a topic already holds. It is compared with ClickHouse's Kafka
    /// engine and, with `--peers`, with Spate.
    Drain,
}
