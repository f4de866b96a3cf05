//! Creates or replaces the views of the analysts' database each time, and drops those that nothing declares any more:
//! they hold no data.
//!
//! Invariants: only views are replaced or dropped, and only those are dropped that a migration has noted as its own:
//! `CREATE OR REPLACE VIEW` would also replace a table, with its rows, and an administrator may keep views of their own
//! beside ours. Each view is replaced at once, so a query meets the old one or the new one.

use schemas::bi::{self, Definer, Rights, View};

use super::{MigrateError, apply};
use crate::apply::store::{Store, StoreError};
use crate::config::MigrateConfig;

/// ClickHouse's code for an unknown user.
const UNKNOWN_USER: u32 = 192;

/// What was done.
pub(super) struct Made {
    /// Number of views that were created or replaced.
    pub(super) views: usize,
    /// The views that were dropped, by name.
    pub(super) dropped: Vec<String>,
}

/// Creates all views, and drops those of earlier declarations.
///
/// If the server does not have the users that `config` names, the views read with the rights of their readers: they
/// exist, and give nobody more rights than before.
pub(super) async fn make(config: &MigrateConfig) -> Result<Made, MigrateError> {
    let database = &config.bi_database;
    let server = Store::without_database(&config.store);
    apply(&server, database, &format!("CREATE DATABASE IF NOT EXISTS {database}")).await?;
    let views = bi::views(&config.rollups, config.databases());
    let tables = tables_in(&server, database).await?;
    if let Some(view) = views.iter().find(|view| tables.contains(&view.name)) {
        return Err(MigrateError::NotAView(format!("{database}.{}", view.name)));
    }
    // Before they are created, so that none is ever there without its note.
    let noted = note(config, &views).await?;
    match create(Rights::Definers(config.definer_names()), &server, database, &views).await {
        Err(MigrateError::Apply { source: StoreError::Refused { code: UNKNOWN_USER, .. }, .. }) => {
            create(Rights::Reader, &server, database, &views).await?;
            tracing::warn!(
                "this ClickHouse lacks the user `{}` or `{}`, so readers of the views of `{database}` need rights on the \
                 tables; `stream-agg migrate --print-grants` prints the statements that create both",
                config.bi_definer,
                config.bi_freshness_definer
            );
        }
        outcome => outcome?,
    }
    let is_declared = |name: &String| views.iter().any(|view| view.name == *name);
    let dropped = noted.into_iter().filter(|name| !is_declared(name) && !tables.contains(name)).collect();
    drop_views(config, &server, &dropped).await?;
    Ok(Made { views: views.len(), dropped })
}

async fn create(
    rights: Rights<'_>,
    server: &Store,
    database: &str,
    views: &[View],
) -> Result<(), MigrateError> {
    for view in views {
        let name = format!("{database}.{}", view.name);
        apply(server, &name, &view.create(database, rights)).await?;
    }
    Ok(())
}

/// The statements that create the definers of the views, and grant them what the views read and nothing more.
pub(super) fn grants(config: &MigrateConfig) -> Vec<String> {
    let statements = |Definer { name, grants }: Definer| {
        let grants = grants.into_iter().map({
            let name = name.clone();
            move |grant| format!("{grant} TO {name};")
        });
        std::iter::once(format!("CREATE USER IF NOT EXISTS {name} HOST NONE;")).chain(grants)
    };
    config.definers().into_iter().flat_map(statements).collect()
}

/// The names in `database` that are no views.
async fn tables_in(server: &Store, database: &str) -> Result<Vec<String>, MigrateError> {
    let sql = format!("SELECT name FROM system.tables WHERE database = '{database}' AND engine != 'View'");
    server.rows(&sql).await.map_err(|source| MigrateError::Apply { name: database.to_owned(), source })
}

/// Notes that these views are ours. Returns all that are.
///
/// The notes are rows of `schema_migrations`, whose checksum is 1 while the view is there and 0 once it was dropped.
async fn note(config: &MigrateConfig, views: &[View]) -> Result<Vec<String>, MigrateError> {
    let store = Store::new(&config.store);
    let prefix = prefix(config);
    let sql = format!(
        "SELECT substring(name, {}) FROM schema_migrations WHERE startsWith(name, '{prefix}') \
         GROUP BY name HAVING argMax(checksum, applied_at) = 1",
        prefix.len() + 1
    );
    let mut noted: Vec<String> =
        store.rows(&sql).await.map_err(|source| MigrateError::Apply { name: prefix.clone(), source })?;
    let names = views.iter().map(|view| &view.name).filter(|name| !noted.contains(name));
    let new: Vec<_> = names.cloned().collect();
    write_notes(config, &store, &new, 1).await?;
    noted.extend(new);
    Ok(noted)
}

/// The note stays until its view is gone, so that a migration that dies here is finished by the next.
async fn drop_views(config: &MigrateConfig, server: &Store, names: &Vec<String>) -> Result<(), MigrateError> {
    for name in names {
        let name = format!("{}.`{name}`", config.bi_database);
        apply(server, &name, &format!("DROP VIEW IF EXISTS {name}")).await?;
    }
    write_notes(config, &Store::new(&config.store), names, 0).await
}

async fn write_notes(
    config: &MigrateConfig,
    store: &Store,
    names: &[String],
    checksum: u8,
) -> Result<(), MigrateError> {
    if names.is_empty() {
        return Ok(());
    }
    let prefix = prefix(config);
    let rows: Vec<_> = names.iter().map(|name| format!("('{prefix}{name}', {checksum})")).collect();
    let sql = format!(
        "INSERT INTO schema_migrations (name, checksum) SETTINGS async_insert = 0 VALUES {}",
        rows.join(", ")
    );
    apply(store, &prefix, &sql).await
}

/// What a note's name begins with. Names of databases and views have no dot.
fn prefix(config: &MigrateConfig) -> String {
    format!("view_{}.", config.bi_database)
}
