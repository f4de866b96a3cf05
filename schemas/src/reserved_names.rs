//! Names that a declaration cannot use, because they name something else or because ClickHouse rejects them.

/// The view of single events.
pub const EVENTS_RECENT: &str = "events_recent";

/// The view of samples of lines that the edge rejected.
pub const REJECTED_LINES: &str = "rejected_lines";

/// Names that a rollup cannot have: those of tables, and those of other views in its view's database.
pub(crate) const TABLES: [&str; 13] = [
    "events",
    "ledger",
    "progress",
    "configs",
    "audits",
    "dead_letters",
    "schema_migrations",
    "rollup_sums",
    "rollup_states",
    "rollup_since",
    "country_totals",
    EVENTS_RECENT,
    REJECTED_LINES,
];

/// Keywords that ClickHouse does not accept as the name of a table.
pub(crate) const TABLE_KEYWORDS: [&str; 2] = ["function", "table"];

/// Names that no dimension or measure can have: columns of the tables of rollups and time columns of views.
pub(crate) const COLUMNS: [&str; 10] =
    ["tenant", "bucket", "g", "kp", "hwm", "rows", "minute", "quarter_hour", "hour", "day"];

/// Keywords that ClickHouse does not accept as the name of a column without quotes: all of its keywords were
/// tried.
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
