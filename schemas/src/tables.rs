//! The tables that are not rendered from a declaration: numbered SQL files.
//!
//! One statement a file, table names without a database: the connection's database counts.

use std::time::Duration;

use crate::bi;
use crate::rollup::Rollups;
use crate::time::{DAY, UnixMillis};

/// One SQL file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migration {
    /// The file's name without its ending.
    pub name: &'static str,
    /// Its one statement.
    pub sql: &'static str,
}

macro_rules! migrations {
    ($($name:literal),* $(,)?) => {
        [$(Migration { name: $name, sql: include_str!(concat!("../sql/", $name, ".sql")) }),*]
    };
}

/// All files, in the order in which they are applied.
pub const MIGRATIONS: [Migration; 8] = migrations![
    "0001_events",
    "0002_ledger",
    "0003_progress",
    "0004_dead_letters",
    "0005_configs",
    "0007_audits",
    "0008_rollup_sums",
    "0009_rollup_states",
];

/// Days that the raw table keeps an event after the day of its arrival.
pub const RAW_DAYS: u32 = 31;

/// Days that the ledger keeps a record after the day on which Kafka took it.
pub const LEDGER_DAYS: u32 = 30;

/// Days that a dead letter is kept after the day on which Kafka took it.
pub const DEAD_LETTER_DAYS: u32 = 14;

/// What ClickHouse calls the table partition of the day that begins at `start`: its `_partition_id`.
pub fn partition_id(start: UnixMillis) -> String {
    let (year, month, day) = start.civil();
    format!("{year:04}{month:02}{day:02}")
}

/// When ClickHouse may drop the table partition of the day that begins at `start`, if its rows are kept for
/// so many days after its end.
pub fn partition_ends(start: UnixMillis, kept_days: u32) -> UnixMillis {
    UnixMillis(start.0 + (1 + i64::from(kept_days)) * DAY)
}

/// A view that query-api answers from: a function of a rollup, made again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServingView {
    /// Its file.
    pub migration: Migration,
    /// The rollup that it reads; without that one it is not made.
    pub rollup: &'static str,
    /// The dimensions and measures of that rollup which the view and query-api read.
    pub columns: &'static [&'static str],
}

impl ServingView {
    /// Whether what it reads is declared.
    pub fn is_served(&self, rollups: &Rollups) -> bool {
        rollups.get(self.rollup).is_some_and(|rollup| rollup.has_columns(self.columns))
    }

    /// The statement that makes it; none if what it reads is not declared.
    pub fn statement(&self, rollups: &Rollups) -> Option<String> {
        let rollup = rollups.get(self.rollup).filter(|_| self.is_served(rollups))?;
        Some(rollup.in_place(self.migration.sql))
    }
}

/// Between two times that the views are made, as their files say.
pub const REFRESH: Duration = Duration::from_secs(5);

/// Which countries count most of all time.
pub const COUNTRY_TOTALS: ServingView = ServingView {
    migration: migrations!["0006_country_totals"][0],
    rollup: "event_daily",
    columns: &["event", "country", "events"],
};

/// All of them; applied after the rollups.
pub const SERVING_VIEWS: [ServingView; 1] = [COUNTRY_TOTALS];

/// Names that a rollup cannot take.
pub const NAMES: [&str; 12] = [
    "events",
    "ledger",
    "progress",
    "configs",
    "audits",
    "dead_letters",
    "schema_migrations",
    "rollup_sums",
    "rollup_states",
    "country_totals",
    // Its view would take the place of the one of single events, or of rejected lines.
    bi::EVENTS_RECENT,
    bi::REJECTED_LINES,
];

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
    fn tables_are_kept_as_long_as_they_say() {
        for (name, days) in
            [("0001_events", RAW_DAYS), ("0002_ledger", LEDGER_DAYS), ("0004_dead_letters", DEAD_LETTER_DAYS)]
        {
            let file = MIGRATIONS.iter().find(|migration| migration.name == name).unwrap();
            assert!(file.sql.contains(&format!("INTERVAL 1 DAY + INTERVAL {days} DAY\n")), "{name}");
        }
    }

    #[test]
    fn a_serving_view_is_made_from_its_rollup_as_often_as_it_says() {
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
            assert_eq!(view.statement(&Rollups::parse("", &other).unwrap()), None, "it has no country");
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
