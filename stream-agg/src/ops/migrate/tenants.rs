//! Creates and removes the databases of tenants. The database of a tenant contains views over the tenant's rows. Each
//! tenant also has two ClickHouse users: the definer, whose rights the views use, and a reader, whose login can read
//! only these views.
//!
//! Invariants:
//!
//! - The definer of a tenant has a row policy, so the tenant's views read only rows of this tenant.
//! - A migration writes a note about a database to `schema_migrations` before it creates the database. A later
//!   migration removes the databases that have a note but no tenant in the tenants file. A database without a note
//!   stays, because no migration created it.
//! - When a tenant is removed from the tenants file or disabled in it, its login is removed before its views.
//!
//! Migrations with different tenants files may run at the same time. Therefore a migration that has created a database
//! writes the note again if another migration has removed the note in the meantime.

use std::collections::BTreeSet;

use schemas::access::{self, Tenant, User, sql};
use schemas::bi::{self, Databases, Definers, identifier};

use self::policies::Policy;
use super::views::{self, Notes};
use super::{MigrateError, apply, check_rows_are_visible, failed};
use crate::apply::store::{Store, StoreError};
use crate::config::MigrateConfig;

mod policies;

/// ClickHouse's error codes on a server that takes its users from a file: the user cannot be changed, or there is no
/// storage for a new user.
const USERS_IN_FILE_ERRORS: [u32; 2] = [495, 514];

/// The first safe version of ClickHouse in each of the releases 26.6, 26.7 and 26.8. A version is safe if a user with
/// rights only on views can read rows only through these views. Every later release is safe, and no earlier one.
const MIN_VERSIONS: [[u32; 4]; 3] = [[26, 6, 5, 113], [26, 7, 7, 84], [26, 8, 3, 74]];

/// What [`make`] has done.
#[derive(Debug, Default)]
pub(super) struct TenantChanges {
    /// Number of tenants that have a database now.
    pub(super) tenants: usize,
    /// The tenants that were removed, by name. The database of a removed tenant stays if it contains objects that
    /// migrations did not create.
    pub(super) dropped: Vec<String>,
}

/// Creates the database of every declared tenant, and removes the databases of tenants that are no longer declared.
pub(super) async fn make(config: &MigrateConfig) -> Result<TenantChanges, MigrateError> {
    let server = Store::without_database(&config.store);
    let notes = Notes { store: Store::new(&config.store), prefix: format!("tenant_{}.", config.bi_database) };
    let noted: BTreeSet<String> = notes.read().await?.into_iter().collect();
    let declared: BTreeSet<_> = config.tenants.iter().map(|tenant| tenant.name.clone()).collect();
    let dropped: Vec<_> = noted.difference(&declared).cloned().collect();
    for name in &dropped {
        remove(config, &server, name).await?;
    }
    notes.write(&dropped, 0).await?;
    notes.write(&still_there(config, &server, &dropped).await?, 1).await?;
    if !config.tenants.is_empty() {
        check_version(config, &server).await?;
        for tenant in config.tenants.iter() {
            create(config, &server, &notes, tenant).await?;
        }
    }
    Ok(TenantChanges { tenants: declared.len(), dropped })
}

/// Refuses a server on which tenants would not be isolated from each other, unless the configuration allows such a
/// server.
async fn check_version(config: &MigrateConfig, server: &Store) -> Result<(), MigrateError> {
    let found: Vec<String> = server.rows("SELECT version()").await.map_err(failed("version()"))?;
    let found = found.concat();
    if !confines_readers_to_views(&found) && !config.allow_old_server {
        return Err(MigrateError::OldServer(found));
    }
    Ok(())
}

fn confines_readers_to_views(version: &str) -> bool {
    let numbers: Vec<u32> = version.split('.').map_while(|number| number.parse().ok()).collect();
    let release = |least: &&[u32; 4]| numbers.starts_with(&least[..2]);
    match MIN_VERSIONS.iter().find(release) {
        Some(least) => numbers[..] >= least[..],
        None => numbers[..] > MIN_VERSIONS[MIN_VERSIONS.len() - 1][..],
    }
}

async fn create(
    config: &MigrateConfig,
    server: &Store,
    notes: &Notes,
    tenant: &Tenant,
) -> Result<(), MigrateError> {
    let database = tenant.database(&config.bi_database);
    // The database must be looked for before the note. In the opposite order, another migration could write the note
    // and create the database between the two reads, and its database would seem to have no note.
    if is_there(server, &database).await? && !notes.read().await?.contains(&tenant.name) {
        return Err(MigrateError::NotOurs(database));
    }
    let note = std::slice::from_ref(&tenant.name);
    notes.write(note, 1).await?;
    apply(server, &database, &format!("CREATE DATABASE IF NOT EXISTS {}", identifier(&database))).await?;
    // Another migration, whose file lacks the tenant, may have removed the note since. Without the note, no migration
    // could remove the database later.
    if !notes.read().await?.contains(&tenant.name) {
        notes.write(note, 1).await?;
    }
    let names = config.definers();
    let users = access::of_tenant(tenant, &config.rollups, config.databases(), names);
    create_users(config, server, tenant, &users).await?;
    let on = Databases { views: &database, ..config.databases() };
    let definer = tenant.definer(names.views);
    let definers = Definers { views: &definer, ..names };
    views::make_in(config, &database, &bi::tenants_views(&config.rollups, on), definers).await?;
    check_policies(config, server, tenant).await
}

async fn is_there(server: &Store, database: &str) -> Result<bool, MigrateError> {
    let sql = format!("SELECT name FROM system.databases WHERE name = '{database}'");
    let found: Vec<String> = server.rows(&sql).await.map_err(failed("system.databases"))?;
    Ok(!found.is_empty())
}

/// The removed tenants whose database or login still exists. A database still exists if it contains objects that
/// migrations did not create. The database and the login also exist if another migration has created the tenant again
/// in the meantime.
async fn still_there(
    config: &MigrateConfig,
    server: &Store,
    names: &[String],
) -> Result<Vec<String>, MigrateError> {
    let mut found = Vec::new();
    for name in names {
        let gone = removed(name);
        let login = format!(
            "SELECT name FROM system.users WHERE storage != 'users_xml' AND name = '{}'",
            gone.reader()
        );
        let logins: Vec<String> = server.rows(&login).await.map_err(failed("system.users"))?;
        if !logins.is_empty() || is_there(server, &gone.database(&config.bi_database)).await? {
            found.push(name.clone());
        }
    }
    Ok(found)
}

/// Creates the users of a tenant. If they are defined in a file, only checks that the definer has its row policy.
async fn create_users(
    config: &MigrateConfig,
    server: &Store,
    tenant: &Tenant,
    users: &[User; 2],
) -> Result<(), MigrateError> {
    if are_in_a_file(server, users).await? {
        return check_policies(config, server, tenant).await;
    }
    let [definer, reader] = users;
    check_policies_spare_others(config, server, &tenant.name, definer).await?;
    for statement in sql::user(definer).into_iter().chain(sql::user(reader)) {
        apply_to_users(server, &tenant.name, &definer.name, &statement).await?;
    }
    check_policies(config, server, tenant).await
}

async fn are_in_a_file(server: &Store, users: &[User; 2]) -> Result<bool, MigrateError> {
    let names: Vec<_> = users.iter().map(|user| format!("'{}'", user.name)).collect();
    let sql = format!(
        "SELECT name FROM system.users WHERE storage = 'users_xml' AND name IN ({})",
        names.join(", ")
    );
    let found: Vec<String> = server.rows(&sql).await.map_err(failed("system.users"))?;
    Ok(found.len() == users.len())
}

/// Checks that the row policy of the definer exists, and that no other policy shows the definer more rows.
async fn check_policies(config: &MigrateConfig, server: &Store, tenant: &Tenant) -> Result<(), MigrateError> {
    let sql = Policy::select(&config.store.database);
    let policies: Vec<Policy> = server.rows(&sql).await.map_err(failed("system.row_policies"))?;
    policies::check(&policies, &tenant.definer(&config.bi_definer), &tenant.condition())
}

/// Checks that a row policy for the definer hides no rows from other users. If
/// `users_without_row_policies_can_read_rows` is false in ClickHouse, the policy would hide the rows from them. Creates
/// a trial policy on `schema_migrations`, checks that the user of this process still sees the rows of this table, and
/// drops the policy. The trial uses this table because it has no markers and no events. If an aggregator checks the
/// table while the trial policy hides its rows, the aggregator only holds inserts back until a later check succeeds.
async fn check_policies_spare_others(
    config: &MigrateConfig,
    server: &Store,
    tenant: &str,
    definer: &User,
) -> Result<(), MigrateError> {
    let name = identifier(&definer.name);
    let policy = format!("millrace_trial ON {}.schema_migrations", config.store.database);
    let user = sql::create_without_login(&definer.name);
    let trial = format!("CREATE ROW POLICY IF NOT EXISTS {policy} FOR SELECT USING 0 TO {name}");
    for statement in [user, trial] {
        apply_to_users(server, tenant, &definer.name, &statement).await?;
    }
    let seen = check_rows_are_visible(config).await;
    apply(server, &definer.name, &format!("DROP ROW POLICY IF EXISTS {policy}")).await?;
    seen
}

/// Removes a tenant. Drops the reader first, so that it can read nothing while the rest is removed. Objects in the
/// database that migrations did not create stay.
async fn remove(config: &MigrateConfig, server: &Store, name: &str) -> Result<(), MigrateError> {
    let gone = removed(name);
    drop_users(server, name, &sql::drop_reader(&gone.reader())).await?;
    let database = gone.database(&config.bi_database);
    let others = views::drop_ours(config, &database).await?;
    if others.is_empty() {
        apply(server, &database, &format!("DROP DATABASE IF EXISTS {} SYNC", identifier(&database))).await?;
    } else {
        tracing::warn!(
            "tenant `{name}`: the database `{database}` stays, because it contains objects that `migrate` did not \
             create: {}",
            others.join(", ")
        );
    }
    drop_users(server, name, &[sql::drop_definer(&gone.definer(&config.bi_definer))]).await
}

fn removed(name: &str) -> Tenant {
    Tenant { name: name.to_owned(), password_sha256: String::new() }
}

/// Drops users of a tenant. For users that are defined in a file, only warns: an administrator must remove them from
/// the file. They can read no events any more once the views of the tenant are dropped.
async fn drop_users(server: &Store, tenant: &str, statements: &[String]) -> Result<(), MigrateError> {
    for statement in statements {
        match apply_to_users(server, tenant, tenant, statement).await {
            Err(MigrateError::UsersAreInAFile(_)) => tracing::warn!(
                "the users of tenant `{tenant}` are defined in a users file of ClickHouse: remove them from that file"
            ),
            outcome => outcome?,
        }
    }
    Ok(())
}

/// Runs a statement about users of a tenant. If ClickHouse refuses the statement, the error names its object, `name`.
///
/// # Errors
/// The server takes its users from a file, or refuses the statement.
async fn apply_to_users(server: &Store, tenant: &str, name: &str, sql: &str) -> Result<(), MigrateError> {
    apply(server, name, sql).await.map_err(|error| match error {
        MigrateError::Apply { source: StoreError::Refused { code, .. }, .. }
            if USERS_IN_FILE_ERRORS.contains(&code) =>
        {
            MigrateError::UsersAreInAFile(tenant.to_owned())
        }
        other => other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_versions_that_confine_readers_to_their_views_are_accepted() {
        for good in
            ["26.6.5.113", "26.6.6.1", "26.7.7.84", "26.8.3.74", "26.8.10.1-lts", "26.9.1.1", "27.1.1.1"]
        {
            assert!(confines_readers_to_views(good), "{good}");
        }
        for bad in ["26.7.2.1", "26.6.5.112", "26.8.3.73", "26.5.9.1", "25.12.1.1", "26.8", "head", ""] {
            assert!(!confines_readers_to_views(bad), "{bad}");
        }
    }
}
