//! The generation of a Kafka log. `stream-agg adopt --new-log` begins the next one, for example after the topic was
//! deleted and created again under the same name.

/// Generations of logs are below this number. In the markers of a backfill, column `g` does not hold the generation of
/// a log: it is this number plus the day of the raw rows, counted in days since 1970-01-01.
pub const FIRST_BACKFILL_GENERATION: u16 = 1 << 15;
