//! Whether this process sees the rows of its database.
//!
//! Analysts of a tenant read with a row policy on every table. Policies of others must hide nothing from the services,
//! above all no marker: a batch whose marker is hidden would be inserted again. A server with
//! `users_without_row_policies_can_read_rows=false` hides everything from whoever has no policy.

use super::store::{Store, StoreError};

/// What an operator does where rows are hidden.
pub const REMEDY: &str = "a batch whose marker is hidden would count twice, so set \
    users_without_row_policies_can_read_rows to true in ClickHouse's configuration, and drop row policies that apply to \
    the users of the services";

/// Whether a table that every migration fills shows its rows. Policies of tenants are on the whole database.
pub async fn are_rows_visible(store: &Store) -> Result<bool, StoreError> {
    // Not a count, which may be answered from what the server knows of parts.
    let seen: Vec<String> = store.rows("SELECT name FROM schema_migrations LIMIT 1").await?;
    Ok(!seen.is_empty())
}

/// Whether that table has rows, seen or hidden.
pub async fn has_rows(store: &Store) -> Result<bool, StoreError> {
    let sql = format!(
        "SELECT name FROM system.parts WHERE active AND rows > 0 AND database = '{}' \
         AND table = 'schema_migrations' LIMIT 1",
        store.database
    );
    let parts: Vec<String> = store.rows(&sql).await?;
    Ok(!parts.is_empty())
}
