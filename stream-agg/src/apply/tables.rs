//! Checks that the tables are as the aggregator needs them: once before any record is read, and then every minute
//! ([`TableWatch`]).
//!
//! Invariant: no record is read before a check has found no problem. After a check has found a problem, no batch is
//! inserted until a later check finds none. A problem is, for example, a table that is missing, that would forget
//! deduplication tokens too early, or that has lost a part. The markers of a Kafka partition are checked when the
//! pipeline of the partition starts.

use schemas::field::Field;

use crate::apply::store::{Store, StoreError};
use crate::apply::visible::{REMEDY, are_rows_visible};

mod watch;

pub use watch::{InsertGate, TableWatch};

/// Tables with cells, that is, tables into which batches are inserted.
pub const CELL_TABLES: [&str; 5] = ["events", "ledger", "dead_letters", "rollup_sums", "rollup_states"];

/// Tables without cells that the aggregator needs at its start.
const OTHER_TABLES: [&str; 3] = ["progress", "configs", "rollup_since"];

/// Minimum number of inserts whose deduplication tokens a table must remember. ClickHouse must remember a token for as
/// long as a statement with this token may run. A statement may run until 55 s after it was made: it starts before its
/// deadline (30 s), and then ClickHouse's time limit (25 s) ends it. A busy table gets 32 inserts a second: 64 Kafka
/// partitions, two cells for each, and a batch every 4 s. That is 3,520 inserts in 110 s, which is twice the required
/// time. This constant is more than ten times that number.
const MIN_TOKENS: u64 = 50_000;

/// Why the aggregator cannot use the tables.
#[derive(Debug, thiserror::Error)]
pub enum TablesError {
    /// Tables are missing.
    #[error("`{database}` has no table {}: run `stream-agg migrate`", names.join(", "))]
    Missing {
        /// The database.
        database: String,
        /// The missing tables.
        names: Vec<String>,
    },
    /// A declared field has no column.
    #[error("`{database}.events` has no column {}: run `stream-agg migrate`", names.join(", "))]
    MissingColumns {
        /// The database.
        database: String,
        /// The missing columns.
        names: Vec<String>,
    },
    /// The column of a declared field has a type that differs from the declared type.
    #[error(
        "`{database}.events.{column}` is {found}, but the field is declared as {declared}: undo the change, or give the \
         new field a name of its own"
    )]
    OtherType {
        /// The database.
        database: String,
        /// The column.
        column: String,
        /// The type of the column.
        found: String,
        /// The type that the field needs.
        declared: &'static str,
    },
    /// The table remembers too few deduplication tokens. If it forgets a token while a statement with this token still
    /// runs, the same rows could be stored twice.
    #[error(
        "`{database}.{table}` remembers the tokens of only its last {tokens} inserts: run `ALTER TABLE \
         {database}.{table} MODIFY SETTING non_replicated_deduplication_window = {MIN_TOKENS}`"
    )]
    ForgetsTokens {
        /// The database.
        database: String,
        /// The table.
        table: String,
        /// How many tokens the table remembers.
        tokens: u64,
    },
    /// ClickHouse detached a part that it could not read: the rows and the marker of this part are missing.
    #[error(
        "`{database}.{table}` has lost part {part} ({reason}): restore all tables from the same backup and \
         run `stream-agg adopt` for every partition (a table that is restored alone would lack everything after its \
         backup), or give up the part's rows with `ALTER TABLE {database}.{table} DROP DETACHED PART '{part}' SETTINGS \
         allow_drop_detached = 1`"
    )]
    LostPart {
        /// The database.
        database: String,
        /// The table.
        table: String,
        /// The name of the part.
        part: String,
        /// The reason that ClickHouse gives.
        reason: String,
    },
    /// Row policies hide rows, and so markers, from this process.
    #[error("`{database}.schema_migrations` shows no row to this user: {REMEDY}")]
    Hidden {
        /// The database.
        database: String,
    },
    /// ClickHouse did not answer, or refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// For each table with cells, the number of active parts in the table partition that has the most parts.
pub(crate) async fn parts(store: &Store) -> Result<Vec<(String, u64)>, StoreError> {
    let database = &store.database;
    let tables = CELL_TABLES.map(|table| format!("'{table}'")).join(", ");
    let of_partitions = format!(
        "SELECT table, count() AS parts FROM system.parts WHERE database = '{database}' AND active \
         AND table IN ({tables}) GROUP BY table, partition_id"
    );
    store
        .outside_database()
        .rows(&format!("SELECT table, max(parts) FROM ({of_partitions}) GROUP BY table"))
        .await
}

/// Checks all tables that the aggregator writes.
///
/// # Errors
/// The first problem that was found.
pub async fn check(store: &Store, fields: &[Field]) -> Result<(), TablesError> {
    // `database` may not exist, and then every request that names this database fails. So the requests for the tables
    // in `system` do not name it.
    let (system, database) = (store.outside_database(), store.database.to_string());
    let there: Vec<(String, u64)> = system
        .rows(&format!(
            "SELECT name, toUInt64OrZero(extract(engine_full, 'non_replicated_deduplication_window = (\\d+)')) \
             FROM system.tables WHERE database = '{database}'"
        ))
        .await?;
    let find = |table: &str| there.iter().find(|(name, _)| name == table);
    let needed = CELL_TABLES.into_iter().chain(OTHER_TABLES);
    let names: Vec<_> = needed.filter(|name| find(name).is_none()).map(str::to_owned).collect();
    if !names.is_empty() {
        return Err(TablesError::Missing { database, names });
    }
    if !are_rows_visible(store).await? {
        return Err(TablesError::Hidden { database });
    }
    if let Some((table, tokens)) =
        CELL_TABLES.iter().filter_map(|table| find(table)).find(|(_, n)| *n < MIN_TOKENS)
    {
        return Err(TablesError::ForgetsTokens { database, table: table.clone(), tokens: *tokens });
    }
    if !fields.is_empty() {
        let columns: Vec<(String, String)> = system
            .rows(&format!(
                "SELECT name, type FROM system.columns WHERE database = '{database}' AND table = 'events'"
            ))
            .await?;
        check_columns(&database, fields, &columns)?;
    }
    let lost: Vec<(String, String, String)> = system
        .rows(&format!(
            "SELECT table, name, assumeNotNull(reason) FROM system.detached_parts WHERE database = '{database}' \
             AND startsWith(reason, 'broken') AND table IN ({}) ORDER BY table, name LIMIT 1",
            CELL_TABLES.iter().map(|table| format!("'{table}'")).collect::<Vec<_>>().join(", ")
        ))
        .await?;
    match lost.into_iter().next() {
        None => Ok(()),
        Some((table, part, reason)) => Err(TablesError::LostPart { database, table, part, reason }),
    }
}

/// Checks that the table `events` has a column of the declared type for each of `fields`. `columns` are the names and
/// types of the columns of `events`.
fn check_columns(database: &str, fields: &[Field], columns: &[(String, String)]) -> Result<(), TablesError> {
    let found = |field: &Field| columns.iter().find(|(name, _)| *name == field.column());
    let missing = fields.iter().filter(|field| found(field).is_none());
    let names: Vec<_> = missing.map(Field::column).collect();
    let database = database.to_owned();
    if !names.is_empty() {
        return Err(TablesError::MissingColumns { database, names });
    }
    let differs = |field: &Field| {
        let declared = field.kind.column_type();
        found(field).filter(|(_, found)| found != declared).map(|(_, found)| (found.clone(), declared))
    };
    match fields.iter().find_map(|field| Some((field.column(), differs(field)?))) {
        None => Ok(()),
        Some((column, (found, declared))) => {
            Err(TablesError::OtherType { database, column, found, declared })
        }
    }
}

#[cfg(test)]
mod tests {
    use schemas::rollup::Rollups;
    use schemas::tables::MIGRATIONS;

    use super::*;

    #[test]
    fn the_tables_with_cells_are_those_with_a_column_for_markers() {
        let with_markers = MIGRATIONS.iter().filter(|migration| migration.sql.contains("\n    hwm "));
        let mut names: Vec<_> = with_markers.map(|migration| &migration.name["0001_".len()..]).collect();
        let mut tables = CELL_TABLES;
        names.sort_unstable();
        tables.sort_unstable();
        assert_eq!(names, tables);
    }

    #[test]
    fn every_table_except_audits_is_required_at_start() {
        let mut names = MIGRATIONS.map(|migration| &migration.name["0001_".len()..]);
        let mut known: Vec<_> = CELL_TABLES.into_iter().chain(OTHER_TABLES).chain(["audits"]).collect();
        names.sort_unstable();
        known.sort_unstable();
        assert_eq!(names, *known);
    }

    #[test]
    fn a_field_needs_a_column_of_its_type() {
        let rollups =
            Rollups::parse("test", "[[field]]\nname = \"f\"\npath = \"f\"\ntype = \"int\"\n").unwrap();
        let check = |columns: &[(&str, &str)], expected: Option<&str>| {
            let columns: Vec<_> =
                columns.iter().map(|(name, kind)| ((*name).to_owned(), (*kind).to_owned())).collect();
            let found = check_columns("m", rollups.fields(), &columns).err().map(|error| error.to_string());
            assert_eq!(found.as_deref(), expected);
        };
        check(&[("ip", "IPv6"), ("prop_f", "Int64")], None);
        check(&[("ip", "IPv6")], Some("`m.events` has no column prop_f: run `stream-agg migrate`"));
        let other = "`m.events.prop_f` is String, but the field is declared as Int64: undo the change, or give the new \
                     field a name of its own";
        check(&[("prop_f", "String")], Some(other));
    }
}
