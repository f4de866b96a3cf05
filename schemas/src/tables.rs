//! The tables that are not rendered from a declaration: numbered SQL files.
//!
//! One statement a file, table names without a database: the connection's database counts.

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
pub const MIGRATIONS: [Migration; 4] =
    migrations!["0001_events", "0002_ledger", "0003_progress", "0004_dead_letters"];

/// Names that a rollup cannot take.
pub const NAMES: [&str; 7] =
    ["events", "ledger", "progress", "configs", "audits", "dead_letters", "schema_migrations"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_numbered_without_a_gap_and_hold_one_statement() {
        for (at, migration) in MIGRATIONS.iter().enumerate() {
            assert!(migration.name.starts_with(&format!("{:04}_", at + 1)), "{}", migration.name);
            assert!(!migration.sql.contains(';'), "{} has a semicolon", migration.name);
        }
    }

    #[test]
    fn every_table_of_an_exactly_once_batch_keeps_tokens_and_drops_whole_parts() {
        for migration in MIGRATIONS.iter().filter(|m| m.sql.contains("hwm")) {
            for setting in [
                "non_replicated_deduplication_window = 10000",
                "ttl_only_drop_parts = 1",
                "fsync_after_insert = 1",
            ] {
                assert!(migration.sql.contains(setting), "{} lacks {setting}", migration.name);
            }
        }
    }
}
