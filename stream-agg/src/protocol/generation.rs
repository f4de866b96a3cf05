//! The generation of a Kafka log: a number that grows when the log begins again. `stream-agg adopt --new-log` begins
//! the next generation, for example after the topic was deleted and created again under the same name.

/// Generations of logs are below this number. The markers of a backfill do not belong to a log. Their column `g` holds
/// this number plus the day of the raw rows, counted in days since 1970-01-01.
pub const FIRST_BACKFILL_GENERATION: u16 = 1 << 15;
