//! Limits that affect which rows a record becomes. The rows also depend on the record itself and on the rollups.

use std::ops::RangeInclusive;

use schemas::row::TimeLimits;
use schemas::time::HOUR;

use crate::protocol::window::WindowLimits;

/// Maximum number of groups that a batch adds to one rollup. Further groups are folded into `(other)`.
pub const MAX_GROUPS: usize = 50_000;

/// Maximum number of bytes of the line that a dead letter keeps. A longer line is truncated.
pub const MAX_DEAD_LETTER_BYTES: usize = 4096;

/// The version of the decoding code. Raise it when a change makes the same record and settings produce different rows;
/// a golden test fails in that case. The changed code must check [`DecodeLimits::version`] and keep the previous
/// behaviour for the previous version, so that this release can still finish a batch of the previous version.
pub const DECODE_VERSION: u32 = 2;
/// Versions whose batches this release can finish: the current version and the previous one.
pub const READABLE_VERSIONS: RangeInclusive<u32> =
    (if DECODE_VERSION > 1 { DECODE_VERSION - 1 } else { 1 })..=DECODE_VERSION;

/// Maximum number of days that a spool may hold a record. The retention of the ledger is much longer, so the ledger
/// still shows whether a record that comes through a spool was stored before.
pub const MAX_SPOOLED_DAYS: i64 = 14;

/// Maximum number of days between the arrival of a line at the edge and its append to Kafka. An older `server_time`
/// is not trusted.
pub const MAX_DAYS_TO_KAFKA: i64 = MAX_SPOOLED_DAYS + 1;

/// How far an edge's clock may be ahead of Kafka's. Rows depend on this value and on [`MAX_DAYS_TO_KAFKA`], but stored
/// declarations contain neither, so a change of either value needs a new [`DECODE_VERSION`].
pub(crate) const MAX_EDGE_CLOCK_AHEAD_MS: i64 = HOUR;

/// The limits that affect which rows a record becomes. The last three fields are constants of a release. A declared
/// batch is always finished with the limits of its declaration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Which event times are accepted from clients.
    pub time: TimeLimits,
    /// How far back repeats are recognized.
    pub window: WindowLimits,
    /// How records are decoded: one of [`READABLE_VERSIONS`].
    pub version: u32,
    /// Maximum number of days that a spool may hold a record.
    pub spooled_days: i64,
    /// Maximum number of bytes of the line that a dead letter keeps.
    pub dead_letter_bytes: usize,
}

/// The values of this release, which apply unless an environment variable overrides them.
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
