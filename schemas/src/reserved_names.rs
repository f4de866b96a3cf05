//! Names that a declaration cannot use, because they name something else or because ClickHouse rejects them.

/// The view of single events.
pub const EVENTS_RECENT: &str = "events_recent";

/// The view of samples of lines that the edge rejected.
pub const REJECTED_LINES: &str = "rejected_lines";

/// The table and the view of lines that could not be stored.
pub(crate) const DEAD_LETTERS: &str = "dead_letters";

/// The [serving view](crate::tables::ServingView) of the number of views, plays and clicks of all time by country, and
/// the view in `bi` that reads it.
pub(crate) const COUNTRY_TOTALS: &str = "country_totals";

/// The view that shows `as_of`: everything that was in Kafka before this moment is counted.
pub const FRESHNESS: &str = "freshness";

/// The view that counts the lines that arrived, and how many of them were stored, repeated and unreadable.
pub(crate) const PIPELINE_HEALTH: &str = "pipeline_health";

/// Names that a rollup cannot have, because tables or other views already have these names.
pub(crate) const TABLES: [&str; 20] = [
    "events",
    "ledger",
    "progress",
    "configs",
    "audits",
    DEAD_LETTERS,
    "schema_migrations",
    "rollup_sums",
    "rollup_states",
    "rollup_since",
    COUNTRY_TOTALS,
    EVENTS_RECENT,
    REJECTED_LINES,
    FRESHNESS,
    PIPELINE_HEALTH,
    "polls",
    "users_weekly",
    "users_monthly",
    "users_all_weekly",
    "users_all_monthly",
];

/// Keywords that ClickHouse does not accept as the name of a table.
pub(crate) const TABLE_KEYWORDS: [&str; 2] = ["function", "table"];

/// Names that no dimension or measure can have, because the rollup tables or the views of rollups already have columns
/// with these names.
pub(crate) const COLUMNS: [&str; 13] = [
    "tenant",
    "bucket",
    "g",
    "kp",
    "hwm",
    "rows",
    "minute",
    "quarter_hour",
    "hour",
    "day",
    "week",
    "month",
    "complete",
];

/// Keywords that ClickHouse does not accept as the name of a column without quotes. The list is complete: it was made
/// by trying every keyword of ClickHouse.
pub(crate) const COLUMN_KEYWORDS: [&str; 7] =
    ["constraint", "false", "index", "not", "null", "projection", "true"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::{MIGRATIONS, SERVING_VIEWS};

    #[test]
    fn every_table_has_a_name_that_no_rollup_can_have() {
        for migration in MIGRATIONS.into_iter().chain(SERVING_VIEWS.map(|view| view.migration)) {
            let (_, table) = migration.name.split_once('_').unwrap();
            assert!(TABLES.contains(&table), "{table}");
        }
    }
}
