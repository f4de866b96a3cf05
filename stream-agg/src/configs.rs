//! The table `configs`: what each declaration's hash stands for.

use crate::declaration::Declaration;
use crate::store::{Store, StoreError};

/// Stores `declaration`, unless the newest row is the same.
///
/// # Errors
/// What ClickHouse says.
pub async fn write(store: &Store, declaration: &Declaration) -> Result<(), StoreError> {
    let cfg = declaration.cfg();
    let newest: Vec<u64> = store.rows("SELECT argMax(cfg, since) FROM configs HAVING count() > 0").await?;
    if newest == [cfg] {
        return Ok(());
    }
    let text = declaration.text().replace('\\', "\\\\").replace('\'', "\\'");
    let rollups = declaration.rollups.hash();
    let insert = format!(
        "INSERT INTO configs (cfg, rollups, declared, since) SETTINGS async_insert = 0 VALUES ({cfg}, {rollups}, '{text}', now64(3))"
    );
    store.execute(&insert).await
}

/// The declaration of this hash, if there is one that this release can read.
///
/// # Errors
/// What ClickHouse says.
pub async fn read(store: &Store, cfg: u64) -> Result<Option<Declaration>, StoreError> {
    let sql = format!("SELECT declared FROM configs WHERE cfg = {cfg} ORDER BY since DESC LIMIT 1");
    let texts: Vec<String> = store.rows(&sql).await?;
    let Some(text) = texts.first() else { return Ok(None) };
    match Declaration::parse(text) {
        Ok(declaration) => Ok(Some(declaration)),
        Err(error) => {
            tracing::error!("declaration {cfg:016x}: {error}");
            Ok(None)
        }
    }
}

/// All declarations that this release can read, each once.
///
/// # Errors
/// What ClickHouse says.
pub async fn all(store: &Store) -> Result<Vec<Declaration>, StoreError> {
    let texts: Vec<String> =
        store.rows("SELECT any(declared) FROM configs GROUP BY cfg ORDER BY cfg").await?;
    Ok(texts.iter().filter_map(|text| Declaration::parse(text).ok()).collect())
}
