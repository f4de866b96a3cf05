//! The tables and the [serving views](ServingView): numbered SQL files.
//!
//! Each file has one statement. The statement names no database, so it uses the database of the connection.

use std::time::Duration;

use crate::rollup::Rollups;
pub use crate::table_partition::{partition_droppable_from, partition_id};

/// One SQL file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migration {
    /// The name of the file without its extension.
    pub name: &'static str,
    /// The statement.
    pub sql: &'static str,
}

macro_rules! migrations {
    ($($name:literal),* $(,)?) => {
        [$(Migration { name: $name, sql: include_str!(concat!("../sql/", $name, ".sql")) }),*]
    };
}

/// The files of all tables, in the order in which `stream-agg migrate` runs them. The numbers that are missing here
/// belong to serving views.
pub const MIGRATIONS: [Migration; 9] = migrations![
    "0001_events",
    "0002_ledger",
    "0003_progress",
    "0004_dead_letters",
    "0005_configs",
    "0007_audits",
    "0008_rollup_sums",
    "0009_rollup_states",
    "0010_rollup_since",
];

/// Days that the raw table keeps an event after the day on which it arrived.
pub const RAW_DAYS: u32 = 31;

/// Days that the ledger keeps the row of a record after the day on which Kafka appended the record.
pub const LEDGER_DAYS: u32 = 30;

/// Days that a dead letter is kept after the day on which Kafka appended its record.
pub const DEAD_LETTER_DAYS: u32 = 14;

/// A materialized view of a rollup: ClickHouse refreshes it periodically, and query-api reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServingView {
    /// The file with the statement that creates the view. In this file, the name of the rollup in braces stands for a
    /// table expression that reads the rollup.
    pub migration: Migration,
    /// The rollup that the view reads. The view is created only if this rollup is declared and has all `columns`.
    pub rollup: &'static str,
    /// The dimensions and measures that the view and query-api read from that rollup.
    pub columns: &'static [&'static str],
}

impl ServingView {
    /// Whether the rollup that the view reads is declared and has all `columns`.
    pub fn is_declared(&self, rollups: &Rollups) -> bool {
        rollups.get(self.rollup).is_some_and(|rollup| rollup.has_columns(self.columns))
    }

    /// The statement that creates the view; `None` if its rollup or one of its `columns` is not declared.
    pub fn statement(&self, rollups: &Rollups) -> Option<String> {
        let rollup = rollups.get(self.rollup).filter(|_| self.is_declared(rollups))?;
        Some(rollup.substitute_in(self.migration.sql))
    }
}

/// How often ClickHouse refreshes the serving views; their SQL files have the same interval.
pub const REFRESH: Duration = Duration::from_secs(5);

/// The number of views, plays and clicks of all time by country.
pub const COUNTRY_TOTALS: ServingView = ServingView {
    migration: migrations!["0006_country_totals"][0],
    rollup: "event_daily",
    columns: &["event", "country", "events"],
};

/// All serving views; they are created after the tables.
pub const SERVING_VIEWS: [ServingView; 1] = [COUNTRY_TOTALS];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_numbered_without_a_gap_and_hold_one_statement() {
        let views = SERVING_VIEWS.iter().map(|view| &view.migration);
        let mut all: Vec<_> = MIGRATIONS.iter().chain(views).collect();
        all.sort_by_key(|migration| migration.name);
        for (at, migration) in all.into_iter().enumerate() {
            assert!(migration.name.starts_with(&format!("{:04}_", at + 1)), "{}", migration.name);
            assert!(!migration.sql.contains(';'), "{} has a semicolon", migration.name);
        }
    }

    #[test]
    fn rows_of_the_tables_are_kept_as_long_as_the_constants_say() {
        for (name, days) in
            [("0001_events", RAW_DAYS), ("0002_ledger", LEDGER_DAYS), ("0004_dead_letters", DEAD_LETTER_DAYS)]
        {
            let file = MIGRATIONS.iter().find(|migration| migration.name == name).unwrap();
            assert!(file.sql.contains(&format!("INTERVAL 1 DAY + INTERVAL {days} DAY\n")), "{name}");
        }
    }

    #[test]
    fn a_serving_view_reads_its_rollup_and_has_the_interval_of_refreshes() {
        let (all, one) = (Rollups::built_in(), "[[rollup]]\nname = \"event_daily\"\ngrain = \"day\"\n");
        let other = format!("{one}dimensions = [\"event\"]\nmeasures = {{ events = \"count\" }}\n");
        for view in SERVING_VIEWS {
            let sql = view.migration.sql;
            assert!(sql.contains(&format!("\nREFRESH EVERY {} SECOND\n", REFRESH.as_secs())), "{sql}");
            let statement = view.statement(&all).unwrap();
            assert!(
                statement.contains("T.dim2 AS `country`, T.rows AS `events` FROM rollup_sums AS T"),
                "{statement}"
            );
            assert_eq!(
                view.statement(&Rollups::parse("", &other).unwrap()),
                None,
                "no `country` is declared"
            );
        }
    }

    #[test]
    fn every_table_of_an_exactly_once_batch_keeps_tokens_and_drops_whole_parts() {
        for migration in MIGRATIONS.iter().filter(|m| m.sql.contains("hwm")) {
            for setting in [
                "non_replicated_deduplication_window = 50000",
                "ttl_only_drop_parts = 1",
                "fsync_after_insert = 1",
            ] {
                assert!(migration.sql.contains(setting), "{} lacks {setting}", migration.name);
            }
        }
    }
}
