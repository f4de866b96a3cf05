//! Generations of a Kafka log, as rows and markers carry them.

/// Generations of a log lie below; from here on `g` of a marker names a day that was filled.
pub const BACKFILL_G: u16 = 1 << 15;
