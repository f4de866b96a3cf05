//! Creates or replaces the views of the analysts' database each time: they hold no data.
//!
//! Invariant: only views are replaced. `CREATE OR REPLACE VIEW` would also replace a table, with its rows. The view
//! of a rollup that is no longer declared stays, as its rows do.

use schemas::bi::{self, Rights, View};

use super::{MigrateError, apply};
use crate::apply::store::{Store, StoreError};
use crate::config::MigrateConfig;

/// ClickHouse's code for an unknown user.
const UNKNOWN_USER: u32 = 192;

/// Creates all views. Returns how many.
///
/// If the server does not have the user that `config` names, the views read with the rights of their readers: they
/// exist, and give nobody more rights than before.
pub(super) async fn make(config: &MigrateConfig) -> Result<usize, MigrateError> {
    let (database, definer) = (&config.bi_database, &config.bi_definer);
    let server = Store::without_database(&config.store);
    apply(&server, database, &format!("CREATE DATABASE IF NOT EXISTS {database}")).await?;
    let views = bi::views(&config.rollups, &config.store.database);
    refuse_tables(&server, database, &views).await?;
    match make_with(Rights::Definer(definer), &server, database, &views).await {
        Err(MigrateError::Apply { source: StoreError::Refused { code: UNKNOWN_USER, .. }, .. }) => {
            make_with(Rights::Reader, &server, database, &views).await?;
            tracing::warn!(
                "there is no user `{definer}` in this ClickHouse, so readers of the views of `{database}` need rights on \
                 the tables; `stream-agg migrate --print-grants` prints the statements that create the user"
            );
        }
        outcome => outcome?,
    }
    Ok(views.len())
}

async fn make_with(
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

/// The statements that create the definer of the views, and grant it what the views read and nothing more.
pub(super) fn grants(config: &MigrateConfig) -> Vec<String> {
    let MigrateConfig { bi_definer, store, rollups, .. } = config;
    let grants = bi::grants(rollups, &store.database);
    let grants = grants.iter().map(|grant| format!("{grant} TO {bi_definer};"));
    std::iter::once(format!("CREATE USER IF NOT EXISTS {bi_definer} HOST NONE;")).chain(grants).collect()
}

/// Fails if a table has the name of a view.
async fn refuse_tables(server: &Store, database: &str, views: &[View]) -> Result<(), MigrateError> {
    let sql = format!("SELECT name FROM system.tables WHERE database = '{database}' AND engine != 'View'");
    let others: Vec<String> = server
        .rows(&sql)
        .await
        .map_err(|source| MigrateError::Apply { name: database.to_owned(), source })?;
    match views.iter().find(|view| others.contains(&view.name)) {
        Some(view) => Err(MigrateError::NotAView(format!("{database}.{}", view.name))),
        None => Ok(()),
    }
}
