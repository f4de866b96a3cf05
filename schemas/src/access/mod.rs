//! The users of ClickHouse: their rights, their limits, and the rows that they see.
//!
//! All users are declared here once. They are rendered as `users.xml` ([`xml`]) for servers that read their users
//! from a file, and as statements ([`sql`]) for servers that manage users with SQL.
//!
//! Invariants:
//! - A definer (a user whose rights a view uses) can read only the columns that its views need, and cannot log in.
//! - A row policy on the tables filters the rows that a tenant's definer reads. A filter in the view would not be
//!   enough: ClickHouse could apply it after the reader's predicates, and the error of a predicate can reveal a value.
//! - Readers may change only the settings that their profile declares as changeable.

mod limits;

mod tenant;

mod users;

pub mod sql;

pub mod xml;

pub use self::tenant::{Tenant, Tenants, TenantsError};
pub use self::users::{DatabaseScope, Login, User, of_deployment, of_tenant, of_views, readers, services};

#[cfg(test)]
mod tests;
