//! The users of a deployment, and the rights of each.

use super::limits::{BI, BI_QUOTA, POLLER, Profile, Quota};
use super::tenant::{Tenant, Tenants};
use crate::bi::{self, Databases, Definer, Definers, identifier};
use crate::rollup::Rollups;

/// A user of ClickHouse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: String,
    /// What the user is for, in a sentence.
    pub about: &'static str,
    /// How the user logs in.
    pub login: Login,
    pub(super) profile: Option<&'static Profile>,
    pub(super) quota: Option<&'static Quota>,
    /// The rights of the user, each as `RIGHT ON object`.
    pub(super) rights: Vec<String>,
    /// The rights that the user has and may grant to others.
    pub(super) grantable: Vec<String>,
    pub(super) rows: Option<Rows>,
}

/// How a user logs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    /// Nobody can log in as this user: no address may connect.
    Nobody,
    /// With a password that is chosen when the server is installed.
    Password,
    /// With the password that has this SHA-256.
    Sha256(String),
}

/// The rows that a user sees in the tables of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rows {
    pub(super) database: String,
    pub(super) condition: String,
}

/// The databases in which services and readers work. On a test server, the names are patterns, because each test may
/// use databases of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseScope {
    /// The database of the tables; `*` means any database.
    pub tables: String,
    /// The databases of views over all tenants; the name of a database may end in `*`, which means any ending.
    pub views: Vec<String>,
}

impl DatabaseScope {
    /// Only the two databases that `on` names.
    pub fn only(on: Databases<'_>) -> Self {
        Self { tables: on.tables.to_owned(), views: vec![on.views.to_owned()] }
    }

    /// Any database for tables; for views, `bi` and every database with a name that begins with `bi_`.
    pub fn any() -> Self {
        Self { tables: "*".to_owned(), views: vec!["bi".to_owned(), "bi_*".to_owned()] }
    }
}

/// All users of a deployment: the services, the readers, and the users that [`of_views`] returns.
pub fn of_deployment(
    rollups: &Rollups,
    on: Databases<'_>,
    definers: Definers<'_>,
    tenants: &Tenants,
) -> Vec<User> {
    let scope = DatabaseScope::only(on);
    let of_views = of_views(rollups, on, definers, tenants);
    services(&scope).into_iter().chain(readers(&scope)).chain(of_views).collect()
}

/// The users that depend on the declared rollups and tenants: the definers of the views, and the users of tenants.
pub fn of_views(
    rollups: &Rollups,
    on: Databases<'_>,
    definers: Definers<'_>,
    tenants: &Tenants,
) -> Vec<User> {
    let tenants = tenants.iter().flat_map(|tenant| of_tenant(tenant, rollups, on, definers));
    bi::definers(rollups, on, definers).into_iter().map(User::from).chain(tenants).collect()
}

/// The users of the services: `migrator` and `loader` for `stream-agg`, and `poller` for `query-api`.
pub fn services(scope: &DatabaseScope) -> [User; 3] {
    let all = format!("{}.*", scope.tables);
    let service = |name: &str, about, rights: Vec<String>| User {
        name: name.to_owned(),
        about,
        login: Login::Password,
        profile: None,
        quota: None,
        rights,
        grantable: Vec::new(),
        rows: None,
    };
    let system = "SELECT ON system.*".to_owned();
    let migrator = service("migrator", MIGRATOR_ABOUT, of_migrator(scope));
    let poller = service("poller", POLLER_ABOUT, vec![format!("SELECT ON {all}"), system.clone()]);
    [
        User { grantable: grantable_of_migrator(scope), ..migrator },
        service("loader", LOADER_ABOUT, vec![format!("SELECT, INSERT ON {all}"), system]),
        User { profile: Some(&POLLER), ..poller },
    ]
}

const MIGRATOR_ABOUT: &str = "`stream-agg migrate` and `drop-rollup`: create databases, tables, views, and the users \
    of tenants; remove only views, the databases and users of tenants that are no longer enabled, and the rows of a \
    dropped rollup.";
const LOADER_ABOUT: &str = "`stream-agg`: inserts rows, and reads which rows are stored already.";
const POLLER_ABOUT: &str = "`query-api`: reads, with a deadline for each query.";
const READER_ABOUT: &str = "Dashboards and notebooks: read the views and nothing else.";
const JDBC_ABOUT: &str =
    "Tools with a JDBC driver: the same rights as `bi_reader`, but another name in logs.";
const DEFINER_ABOUT: &str = "Nobody can log in as this user. Views use the rights of this user, who may read only the \
    columns that the views need.";
const TENANT_DEFINER_ABOUT: &str = "Nobody can log in as this user. The views of one tenant use the rights of this \
    user, and see only the rows of this tenant.";
const TENANT_READER_ABOUT: &str = "The analysts of one tenant: read its views and nothing else.";

/// The rights of the migrator. It needs the rights to create and drop tables for views, too: to replace a view,
/// ClickHouse creates the new view as a table and drops the old view as a table, and each refresh of a refreshable view
/// replaces its table.
fn of_migrator(scope: &DatabaseScope) -> Vec<String> {
    let tables = format!("{}.*", scope.tables);
    let mut rights = vec![
        format!(
            "CREATE DATABASE, CREATE TABLE, CREATE VIEW, DROP TABLE, INSERT, ALTER ADD COLUMN, ALTER DELETE ON {tables}"
        ),
        "SELECT ON system.*".to_owned(),
        "TABLE ENGINE ON *".to_owned(),
        "SET DEFINER ON *".to_owned(),
        // These rights are for creating and removing the users of tenants.
        "SHOW ACCESS, CREATE USER, ALTER USER, DROP USER, CREATE ROW POLICY, ALTER ROW POLICY, DROP ROW POLICY, \
         CREATE QUOTA, ALTER QUOTA, DROP QUOTA ON *.*"
            .to_owned(),
    ];
    let of_views = "CREATE DATABASE, DROP DATABASE, CREATE TABLE, CREATE VIEW, DROP VIEW, DROP TABLE, INSERT";
    rights.extend(databases_of_views(scope).map(|name| format!("{of_views} ON {name}.*")));
    rights
}

/// The rights to read that the migrator has, and that it grants to the definers and to the users of tenants.
fn grantable_of_migrator(scope: &DatabaseScope) -> Vec<String> {
    let databases = [scope.tables.clone()].into_iter().chain(databases_of_views(scope));
    databases.map(|name| format!("SELECT ON {name}.*")).chain([SELECT_ON_PARTS.to_owned()]).collect()
}

/// Each database of views over all tenants (`bi`), and a pattern for the databases of single tenants (`bi_*`).
fn databases_of_views(scope: &DatabaseScope) -> impl Iterator<Item = String> {
    let of_all = scope.views.iter().filter(|views| !views.ends_with('*'));
    of_all.flat_map(|views| [views.clone(), format!("{views}_*")])
}

/// A user needs this right to read `information_schema.tables`. The user still does not see parts of tables that the
/// user may not read.
const SELECT_ON_PARTS: &str = "SELECT(database, table, active, rows, bytes, bytes_on_disk, data_compressed_bytes, \
    data_uncompressed_bytes) ON system.parts";

/// The readers of the views over all tenants.
pub fn readers(scope: &DatabaseScope) -> [User; 2] {
    [("bi_reader", READER_ABOUT), ("bi_jdbc", JDBC_ABOUT)].map(|(name, about)| {
        let views = scope.views.iter().map(String::as_str).collect();
        reader(name.to_owned(), about, Login::Password, views)
    })
}

fn reader(name: String, about: &'static str, login: Login, databases: Vec<&str>) -> User {
    let views = databases.into_iter().map(|database| format!("SELECT ON {}.*", identifier(database)));
    let rights = views.chain([SELECT_ON_PARTS.to_owned()]).collect();
    let (profile, quota) = (Some(&BI), Some(&BI_QUOTA));
    User { name, about, login, profile, quota, rights, grantable: Vec::new(), rows: None }
}

/// The users of one tenant: the definer of its views, and its reader.
pub fn of_tenant(tenant: &Tenant, rollups: &Rollups, on: Databases<'_>, names: Definers<'_>) -> [User; 2] {
    let database = tenant.database(on.views);
    let own = Databases { views: &database, ..on };
    let name = tenant.definer(names.views);
    let definer = User::from(bi::tenants_definer(rollups, own, &name));
    let definer = User { about: TENANT_DEFINER_ABOUT, ..definer }.limited_to(on.tables, &tenant.condition());
    let login = Login::Sha256(tenant.password_sha256.clone());
    [definer, reader(tenant.reader(), TENANT_READER_ABOUT, login, vec![&database])]
}

impl User {
    /// The user, limited to the rows of the database `tables` for which `condition` holds.
    #[must_use]
    pub fn limited_to(self, tables: &str, condition: &str) -> Self {
        let (database, condition) = (tables.to_owned(), condition.to_owned());
        Self { rows: Some(Rows { database, condition }), ..self }
    }
}

impl From<Definer> for User {
    fn from(Definer { name, grants }: Definer) -> Self {
        let rights = grants.into_iter().map(|grant| grant.trim_start_matches("GRANT ").to_owned()).collect();
        let login = Login::Nobody;
        Self {
            name,
            about: DEFINER_ABOUT,
            login,
            profile: None,
            quota: None,
            rights,
            grantable: Vec::new(),
            rows: None,
        }
    }
}
