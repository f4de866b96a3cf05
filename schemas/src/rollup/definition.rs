//! One rollup.

use super::dimension::{Condition, Dimension};
use super::grain::Grain;
use super::measure::Measure;

/// One declared rollup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollup {
    /// The name of the rollup. [`view_name`](crate::bi::view_name) returns the name of its view.
    pub name: String,
    /// Length of a bucket.
    pub grain: Grain,
    /// The fields by which events are grouped, besides tenant and bucket.
    pub dimensions: Vec<Dimension>,
    /// An event counts if it meets every condition.
    pub conditions: Vec<Condition>,
    /// The measures by name, sorted by name.
    pub measures: Vec<(String, Measure)>,
    /// Days for which a bucket is kept after the end of its day; `None`: forever.
    pub retention_days: Option<u32>,
}

impl Rollup {
    /// The longest retention, 40 years. With it, the retention of every accepted event time ends before ClickHouse's
    /// `DateTime` does (2106), and the day from which the rows may be dropped fits into a `Date` (until 2149).
    pub const MAX_RETENTION_DAYS: u32 = 14_600;
}
