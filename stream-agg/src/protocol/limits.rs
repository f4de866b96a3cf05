//! Limits that decide, besides the record and the rollups, which rows a record becomes.

use std::ops::RangeInclusive;

use schemas::row::TimeLimits;
use schemas::time::HOUR;

use crate::protocol::window::WindowLimits;

/// Most groups that a batch brings to a rollup before further ones fold.
pub const MAX_GROUPS: usize = 50_000;

/// Of a longer line only the beginning is kept.
pub const MAX_DEAD_LETTER_BYTES: usize = 4096;

/// Raised when the same record and settings give other rows: a golden test says so. What gives other
/// rows then asks [`DecodeLimits::version`], so that a batch of the version before can still be finished.
pub const DECODE_VERSION: u32 = 2;
/// Versions whose batches this release can finish: the one that it declares, and the one before.
pub const READABLE: RangeInclusive<u32> =
    (if DECODE_VERSION > 1 { DECODE_VERSION - 1 } else { 1 })..=DECODE_VERSION;

/// How long a spool may hold a record: far less than the ledger knows it.
pub const MAX_SPOOLED_DAYS: i64 = 14;

/// Days that a line may be on its way from an edge to Kafka; a `server_time` that says more is not believed.
pub const LONGEST_WAY_DAYS: i64 = MAX_SPOOLED_DAYS + 1;

/// How far an edge's clock may be ahead of Kafka's, in milliseconds. This and the days above decide about rows:
/// other values take another [`DECODE_VERSION`].
pub(crate) const EDGE_AHEAD: i64 = HOUR;

/// What decides about rows besides the records and the rollups. The last three are constants of a
/// release; a batch is finished under those that it was declared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Where client clocks are believed.
    pub time: TimeLimits,
    /// How far back repeats are known.
    pub window: WindowLimits,
    /// How records are decoded, one of [`READABLE`].
    pub version: u32,
    /// Days that a spool may hold a record.
    pub spooled_days: i64,
    /// Bytes that a dead letter keeps of its line.
    pub dead_letter_bytes: usize,
}

/// Those of this release, where no variable says otherwise.
impl Default for DecodeLimits {
    fn default() -> Self {
        Self {
            time: TimeLimits::default(),
            window: WindowLimits::default(),
            version: DECODE_VERSION,
            spooled_days: MAX_SPOOLED_DAYS,
            dead_letter_bytes: MAX_DEAD_LETTER_BYTES,
        }
    }
}
