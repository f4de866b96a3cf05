//! Limits that decide, besides the record and the rollups, which rows a record becomes.

use std::ops::RangeInclusive;

use schemas::row::TimeLimits;
use schemas::time::HOUR;

use crate::protocol::window::WindowLimits;

/// Most groups that a batch adds to one rollup before further groups are folded.
pub const MAX_GROUPS: usize = 50_000;

/// Bytes that a dead letter keeps of its line; the rest of a longer line is cut off.
pub const MAX_DEAD_LETTER_BYTES: usize = 4096;

/// Raised when the same record and settings give other rows; a golden test fails then. The changed code must check
/// [`DecodeLimits::version`], so that a batch of the version before can still be finished.
pub const DECODE_VERSION: u32 = 2;
/// Versions whose batches this release can finish: the current one and the one before.
pub const READABLE: RangeInclusive<u32> =
    (if DECODE_VERSION > 1 { DECODE_VERSION - 1 } else { 1 })..=DECODE_VERSION;

/// How long a spool may hold a record: much less than the ledger remembers records.
pub const MAX_SPOOLED_DAYS: i64 = 14;

/// Days that a line may take from an edge to Kafka. An earlier `server_time` is not trusted.
pub const LONGEST_WAY_DAYS: i64 = MAX_SPOOLED_DAYS + 1;

/// How far an edge's clock may be ahead of Kafka's, in milliseconds. This value and the days above decide about
/// rows: other values need another [`DECODE_VERSION`].
pub(crate) const EDGE_AHEAD: i64 = HOUR;

/// What decides about rows besides the records and the rollups. The last three are constants of a release; a batch
/// is finished under the values that it was declared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Which client clocks are trusted.
    pub time: TimeLimits,
    /// How far back repeats are recognized.
    pub window: WindowLimits,
    /// How records are decoded: one of [`READABLE`].
    pub version: u32,
    /// Days that a spool may hold a record.
    pub spooled_days: i64,
    /// Bytes that a dead letter keeps of its line.
    pub dead_letter_bytes: usize,
}

/// The values of this release, where no variable says otherwise.
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
