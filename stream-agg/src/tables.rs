//! Looks whether the tables are as the protocol needs them: before anything is read, and
//! every minute from then on ([`Watch`]).
//!
//! Invariant: no record is taken, and no batch inserted, while a table is missing, would
//! forget a token too early, or is known to have lost a part. What the tables hold is looked
//! at per Kafka partition, in `restore`.

use schemas::field::Field;

use crate::store::{Store, StoreError};

mod watch;

pub use watch::{Gate, Watch};

/// Tables that get cells.
pub const TABLES: [&str; 5] = ["events", "ledger", "dead_letters", "rollup_sums", "rollup_states"];

/// Inserts of a table whose tokens it must know at least. A token must outlive every
/// statement that carries it: by its deadline and ClickHouse's limit that is 55 s. Twice
/// that, at 32 inserts a second into one table (64 Kafka partitions, two cells each, a batch every 4 s), are
/// 3,520; ten times as many are safe.
const MIN_TOKENS: u64 = 50_000;

/// What keeps the aggregator from using the tables.
#[derive(Debug, thiserror::Error)]
pub enum TablesError {
    /// Some are not there.
    #[error("`{database}` has no table {}: run `stream-agg migrate`", names.join(", "))]
    Missing {
        /// Where they should be.
        database: String,
        /// Those that are missing.
        names: Vec<String>,
    },
    /// A declared field has no column.
    #[error("`{database}.events` has no column {}: run `stream-agg migrate`", names.join(", "))]
    MissingColumns {
        /// Where the table is.
        database: String,
        /// Those that are missing.
        names: Vec<String>,
    },
    /// An insert that was long under way could be applied a second time.
    #[error(
        "`{database}.{table}` knows the tokens of its last {tokens} inserts only: run `ALTER TABLE \
         {database}.{table} MODIFY SETTING non_replicated_deduplication_window = {MIN_TOKENS}`"
    )]
    ForgetsTokens {
        /// Where it is.
        database: String,
        /// The table.
        table: String,
        /// What it is set to.
        tokens: u64,
    },
    /// ClickHouse put a part aside that it could not read: its rows and its marker are missing.
    #[error(
        "`{database}.{table}` has lost part {part} ({reason}): restore all tables from one copy and run \
         `stream-agg adopt` for every partition, as one table alone would lack what came after the copy, or go on \
         without the part's rows by `ALTER TABLE {database}.{table} DROP DETACHED PART '{part}' SETTINGS \
         allow_drop_detached = 1`"
    )]
    LostPart {
        /// Where it is.
        database: String,
        /// The table.
        table: String,
        /// As its folder is called.
        part: String,
        /// What ClickHouse says of it.
        reason: String,
    },
    /// ClickHouse did not tell.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Looks at all tables that the aggregator writes.
///
/// # Errors
/// What is not as it must be.
pub async fn check(store: &Store, fields: &[Field]) -> Result<(), TablesError> {
    // `system` is asked from outside the database, which may be missing itself.
    let (system, database) = (store.outside(), store.database.to_string());
    let there: Vec<(String, u64)> = system
        .rows(&format!(
            "SELECT name, toUInt64OrZero(extract(engine_full, 'non_replicated_deduplication_window = (\\d+)')) \
             FROM system.tables WHERE database = '{database}'"
        ))
        .await?;
    let find = |table: &str| there.iter().find(|(name, _)| name == table);
    let needed = TABLES.into_iter().chain(["progress", "configs"]);
    let names: Vec<_> = needed.filter(|name| find(name).is_none()).map(str::to_owned).collect();
    if !names.is_empty() {
        return Err(TablesError::Missing { database, names });
    }
    if let Some((table, tokens)) =
        TABLES.iter().filter_map(|table| find(table)).find(|(_, n)| *n < MIN_TOKENS)
    {
        return Err(TablesError::ForgetsTokens { database, table: table.clone(), tokens: *tokens });
    }
    if !fields.is_empty() {
        let columns: Vec<String> = system
            .rows(&format!(
                "SELECT name FROM system.columns WHERE database = '{database}' AND table = 'events'"
            ))
            .await?;
        let names: Vec<_> =
            fields.iter().map(Field::column).filter(|column| !columns.contains(column)).collect();
        if !names.is_empty() {
            return Err(TablesError::MissingColumns { database, names });
        }
    }
    let lost: Vec<(String, String, String)> = system
        .rows(&format!(
            "SELECT table, name, assumeNotNull(reason) FROM system.detached_parts WHERE database = '{database}' \
             AND startsWith(reason, 'broken') AND table IN ({}) ORDER BY table, name LIMIT 1",
            TABLES.iter().map(|table| format!("'{table}'")).collect::<Vec<_>>().join(", ")
        ))
        .await?;
    match lost.into_iter().next() {
        None => Ok(()),
        Some((table, part, reason)) => Err(TablesError::LostPart { database, table, part, reason }),
    }
}
