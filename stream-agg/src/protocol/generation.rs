//! Generations of a Kafka log: a topic that is created again under its name begins the next one.

/// Generations of logs lie below this number. In the markers of a backfill, `g` is this number plus a day of raw
/// rows.
pub const FIRST_BACKFILL_GENERATION: u16 = 1 << 15;
