//! `stream-agg drop-rollup`: deletes the rows of a rollup that is no longer declared.
//!
//! All rollups share two tables, so without this command the rows of a removed rollup would stay until their retention
//! ends. Invariant: the rows are deleted only when no insert of the rollup is in flight and none can begin.
//!
//! The command first records the name of the rollup, which then can never be declared again. A new rollup with this
//! name would lack the events that were stored while the old one was declared. A backfill could not add them, because
//! the declaration of these events has a rollup of this name, so the backfill treats them as counted.

use std::fmt;
use std::time::Duration;

use schemas::rollup::layout::Table;
use tokio::time;

use crate::apply::configs;
use crate::apply::store::{Store, StoreError};
use crate::config::Config;
use crate::ops::in_use::{self, InUseError};
use crate::ops::offline;

/// Timeout of deleting the rows from one table.
const DELETE_TIMEOUT: Duration = Duration::from_secs(3600);

/// Why a rollup was not dropped. Running the command again continues an unfinished drop.
#[derive(Debug, thiserror::Error)]
pub enum DropRollupError {
    /// The rollup is declared in the file that this command read.
    #[error(
        "drop rollup `{0}`: it is declared; take it out of ROLLUPS_FILE and restart all aggregators first"
    )]
    Declared(String),
    /// No rollup of this name was ever declared.
    #[error("drop rollup `{name}`: no such rollup was ever declared; known rollups are {}", known.join(", "))]
    Unknown {
        /// The name in the command.
        name: String,
        /// The rollups that were ever declared.
        known: Vec<String>,
    },
    /// Aggregators may still insert rows of the rollup.
    #[error(
        "drop rollup `{name}`: {partitions} a declaration with it; restart all aggregators without it in \
         ROLLUPS_FILE, wait until they own every partition, and run this command again"
    )]
    InUse {
        /// The rollup.
        name: String,
        /// The start of the message: the Kafka partitions that use a declaration with this rollup, and the verb, such
        /// as `partition 0 still uses`.
        partitions: String,
    },
    /// The declarations in use could not be read.
    #[error("drop rollup `{name}`")]
    InUseUnknown {
        /// The rollup.
        name: String,
        /// Why the declarations in use could not be read.
        source: InUseError,
    },
    /// ClickHouse did not answer, or refused the request.
    #[error("drop rollup `{name}`: {operation}")]
    Store {
        /// The rollup.
        name: String,
        /// The operation that failed.
        operation: &'static str,
        /// The error of ClickHouse.
        source: StoreError,
    },
}

/// What was deleted.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Dropped {
    /// The rollup.
    pub rollup: String,
    /// Number of rows that were deleted from the two tables of rollups.
    pub rows: u64,
}

/// Deletes all rows of the rollup `name`. Takes at least a minute, because it first waits until no insert can be in
/// flight.
///
/// # Errors
/// Why rows of the rollup may remain.
pub async fn drop_rollup(config: &Config, name: &str) -> Result<Dropped, DropRollupError> {
    let failed =
        |operation| move |source| DropRollupError::Store { name: name.to_owned(), operation, source };
    let store = Store::new(&config.migrate.store);
    if config.migrate.rollups.get(name).is_some() {
        return Err(DropRollupError::Declared(name.to_owned()));
    }
    let declared = configs::all(&store).await.map_err(failed("read all declarations"))?;
    if !declared.iter().any(|declared| declared.rollups.get(name).is_some()) {
        let mut known: Vec<_> = declared
            .iter()
            .flat_map(|declared| declared.rollups.iter())
            .map(|rollup| rollup.name.clone())
            .collect();
        known.sort_unstable();
        known.dedup();
        return Err(DropRollupError::Unknown { name: name.to_owned(), known });
    }
    check_in_use(config, &store, name).await?;
    // From here on, a process that declares the rollup refuses to start.
    configs::note_dropped(&store, name).await.map_err(failed("record that it is dropped"))?;
    let wait = offline::insert_lifetime();
    tracing::info!("waiting {} s until no insert of rollup `{name}` can be in flight", wait.as_secs());
    time::sleep(wait).await;
    check_in_use(config, &store, name).await?;
    let mut rows = 0;
    for table in [Table::Sums, Table::States].map(Table::name) {
        let of_rollup = format!("rollup = '{name}'");
        let count = format!("SELECT count() FROM {table} WHERE {of_rollup}");
        rows += store.rows::<u64>(&count).await.map_err(failed("count its rows"))?.iter().sum::<u64>();
        let delete = format!("ALTER TABLE {table} DELETE WHERE {of_rollup} SETTINGS mutations_sync = 1");
        store.execute_within(DELETE_TIMEOUT, &delete).await.map_err(failed("delete its rows"))?;
    }
    let forget =
        format!("ALTER TABLE rollup_since DELETE WHERE rollup = '{name}' SETTINGS mutations_sync = 1");
    store
        .execute_within(DELETE_TIMEOUT, &forget)
        .await
        .map_err(failed("delete its rows in `rollup_since`"))?;
    Ok(Dropped { rollup: name.to_owned(), rows })
}

async fn check_in_use(config: &Config, store: &Store, name: &str) -> Result<(), DropRollupError> {
    let partitions = in_use::by_partition(config, store)
        .await
        .map_err(|source| DropRollupError::InUseUnknown { name: name.to_owned(), source })?;
    let has_it = partitions.iter().filter(|(_, declared)| {
        declared.as_ref().is_some_and(|declared| declared.rollups.get(name).is_some())
    });
    let in_use: Vec<_> = has_it.map(|(partition, _)| partition.to_string()).collect();
    if in_use.is_empty() {
        return Ok(());
    }
    let (noun, verb) = if in_use.len() == 1 { ("partition", "uses") } else { ("partitions", "use") };
    let partitions = format!("{noun} {} still {verb}", in_use.join(", "));
    Err(DropRollupError::InUse { name: name.to_owned(), partitions })
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rollup, rows } = self;
        writeln!(f, "rollup   {rollup}, whose name cannot be declared again")?;
        writeln!(f, "rows     {rows} deleted")?;
        write!(f, "next     run `stream-agg migrate`, which drops the analysts' views of `{rollup}`")
    }
}
