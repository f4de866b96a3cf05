//! Checks that no row policy hides rows of the database from this process.
//!
//! Row policies on every table limit the analysts of a tenant to the rows of that tenant. The services must still see
//! all rows, and markers in particular: a batch whose marker is hidden would be inserted again. A server with
//! `users_without_row_policies_can_read_rows=false` would hide rows from the services: if a table has row policies,
//! this setting hides its rows from every user to whom none of these policies applies.

use super::store::{Store, StoreError};

/// What an operator must do if rows are hidden.
pub const REMEDY: &str = "a batch whose marker is hidden would count twice, so set \
    users_without_row_policies_can_read_rows to true in ClickHouse's configuration, and drop row policies that apply to \
    the users of the services";

/// Whether this process can read any row of `schema_migrations`, a table to which every migration adds a row. Checking
/// one table suffices, because each row policy of a tenant applies to all tables of the database.
pub async fn are_rows_visible(store: &Store) -> Result<bool, StoreError> {
    // The query selects a row instead of `count()`, because ClickHouse may answer `count()` from the metadata of parts,
    // which also counts hidden rows.
    let seen: Vec<String> = store.rows("SELECT name FROM schema_migrations LIMIT 1").await?;
    Ok(!seen.is_empty())
}

/// Whether the table `schema_migrations` has rows, visible or hidden.
pub async fn has_rows(store: &Store) -> Result<bool, StoreError> {
    let sql = format!(
        "SELECT name FROM system.parts WHERE active AND rows > 0 AND database = '{}' \
         AND table = 'schema_migrations' LIMIT 1",
        store.database
    );
    let parts: Vec<String> = store.rows(&sql).await?;
    Ok(!parts.is_empty())
}
