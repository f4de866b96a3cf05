//! Creates or replaces the views of the analysts' database on every migration, and drops views that are no longer
//! declared. No data is lost, because views hold no data.
//!
//! Invariants:
//!
//! - Only views are replaced or dropped. This must be checked, because `CREATE OR REPLACE VIEW` would also replace a
//!   table, and its rows would be lost.
//! - A view is dropped only if a migration has noted that it created the view, because an administrator may keep other
//!   views in the same database.
//! - Each view is replaced atomically, so a query sees either the old view or the new one.

use schemas::bi::{self, Definers, Rights, View, identifier};

use super::{MigrateError, apply, failed};
use crate::apply::store::{Store, StoreError};
use crate::config::MigrateConfig;

/// ClickHouse's error code for an unknown user.
const UNKNOWN_USER: u32 = 192;
/// ClickHouse's error code for an unknown database.
const UNKNOWN_DATABASE: u32 = 81;

/// What [`make`] has done.
pub(super) struct ViewChanges {
    /// Number of views that were created or replaced.
    pub(super) views: usize,
    /// The views that were dropped, by name.
    pub(super) dropped: Vec<String>,
}

/// Creates the views over all tenants, and drops views of rollups that are no longer declared.
///
/// If ClickHouse lacks a definer that `config` names, each query of a view uses the rights of the querying user, who
/// then needs rights on the tables.
pub(super) async fn make(config: &MigrateConfig) -> Result<ViewChanges, MigrateError> {
    let database = &config.bi_database;
    let server = Store::without_database(&config.store);
    apply(&server, database, &format!("CREATE DATABASE IF NOT EXISTS {}", identifier(database))).await?;
    let views = bi::views(&config.rollups, config.databases());
    match make_in(config, database, &views, config.definers()).await {
        Err(MigrateError::Apply { source: StoreError::Refused { code: UNKNOWN_USER, .. }, .. }) => {
            tracing::warn!(
                "this ClickHouse lacks the user `{}` or `{}`, so readers of the views of `{database}` need rights on \
                 the tables; `stream-agg migrate --print-grants` prints the statements that create these users",
                config.bi_definer,
                config.bi_freshness_definer
            );
            replace(config, database, &views, Rights::Reader).await
        }
        outcome => outcome,
    }
}

/// Creates `views` in `database`, which must exist, with the rights of `definers`. Drops views that earlier migrations
/// created and that are not in `views`.
pub(super) async fn make_in(
    config: &MigrateConfig,
    database: &str,
    views: &[View],
    definers: Definers<'_>,
) -> Result<ViewChanges, MigrateError> {
    replace(config, database, views, Rights::Definers(definers)).await
}

async fn replace(
    config: &MigrateConfig,
    database: &str,
    views: &[View],
    rights: Rights<'_>,
) -> Result<ViewChanges, MigrateError> {
    let server = Store::without_database(&config.store);
    let tables = tables_in(&server, database).await?;
    if let Some(view) = views.iter().find(|view| tables.contains(&view.name)) {
        return Err(MigrateError::NotAView(format!("{database}.{}", view.name)));
    }
    let notes = Notes::of(config, database);
    let noted = notes.read().await?;
    // Notes are written before the views are created, so that no view exists without its note.
    let new = views.iter().map(|view| view.name.clone()).filter(|name| !noted.contains(name));
    notes.write(&new.collect::<Vec<_>>(), 1).await?;
    for view in views {
        let name = format!("{database}.{}", view.name);
        apply(&server, &name, &view.create(database, rights)).await?;
    }
    let is_declared = |name: &String| views.iter().any(|view| view.name == *name);
    let dropped: Vec<_> =
        noted.into_iter().filter(|name| !is_declared(name) && !tables.contains(name)).collect();
    for view in &dropped {
        drop_view(&server, database, view).await?;
    }
    // The notes are cleared only now, after the views are dropped. If this migration is killed earlier, the next one
    // still finds the notes and can drop the remaining views.
    notes.write(&dropped, 0).await?;
    Ok(ViewChanges { views: views.len(), dropped })
}

/// Drops the views that migrations have created in `database`. Returns the names of the other objects in the database.
pub(super) async fn drop_ours(config: &MigrateConfig, database: &str) -> Result<Vec<String>, MigrateError> {
    let server = Store::without_database(&config.store);
    let notes = Notes::of(config, database);
    let noted = notes.read().await?;
    let tables = tables_in(&server, database).await?;
    for view in noted.iter().filter(|name| !tables.contains(name)) {
        drop_view(&server, database, view).await?;
    }
    notes.write(&noted, 0).await?;
    let sql = format!("SELECT name FROM system.tables WHERE database = '{database}' ORDER BY name");
    server.rows(&sql).await.map_err(|source| MigrateError::Apply { name: database.to_owned(), source })
}

async fn drop_view(server: &Store, database: &str, view: &str) -> Result<(), MigrateError> {
    let name = format!("{}.`{view}`", identifier(database));
    // The database of a removed tenant may have been dropped already.
    match apply(server, &name, &format!("DROP VIEW IF EXISTS {name}")).await {
        Err(MigrateError::Apply { source: StoreError::Refused { code: UNKNOWN_DATABASE, .. }, .. }) => Ok(()),
        outcome => outcome,
    }
}

/// The names of the objects in `database` that are not views.
async fn tables_in(server: &Store, database: &str) -> Result<Vec<String>, MigrateError> {
    let sql = format!("SELECT name FROM system.tables WHERE database = '{database}' AND engine != 'View'");
    server.rows(&sql).await.map_err(|source| MigrateError::Apply { name: database.to_owned(), source })
}

/// Notes about the objects that migrations create: rows of `schema_migrations`. A migration writes a note with the
/// checksum 1 before it creates an object, and one with the checksum 0 after it has dropped the object. The newest note
/// about an object counts.
pub(super) struct Notes {
    pub(super) store: Store,
    /// The text before the name of the object in column `name`. It ends in a dot, which no name of a database, view or
    /// tenant contains.
    pub(super) prefix: String,
}

impl Notes {
    /// The notes about the views of a database.
    fn of(config: &MigrateConfig, database: &str) -> Self {
        Self { store: Store::new(&config.store), prefix: format!("view_{database}.") }
    }

    /// The names of the objects that exist according to the notes.
    pub(super) async fn read(&self) -> Result<Vec<String>, MigrateError> {
        let Self { store, prefix } = self;
        let sql = format!(
            "SELECT substring(name, {}) FROM schema_migrations WHERE startsWith(name, '{prefix}') \
             GROUP BY name HAVING argMax(checksum, applied_at) = 1 ORDER BY name",
            prefix.len() + 1
        );
        store.rows(&sql).await.map_err(failed("schema_migrations"))
    }

    /// Writes a note with this `checksum` for each of `names`.
    pub(super) async fn write(&self, names: &[String], checksum: u8) -> Result<(), MigrateError> {
        if names.is_empty() {
            return Ok(());
        }
        let Self { store, prefix } = self;
        let rows: Vec<_> = names.iter().map(|name| format!("('{prefix}{name}', {checksum})")).collect();
        let sql = format!(
            "INSERT INTO schema_migrations (name, checksum) SETTINGS async_insert = 0 VALUES {}",
            rows.join(", ")
        );
        apply(store, "schema_migrations", &sql).await
    }
}
