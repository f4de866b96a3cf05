//! The users of ClickHouse: their rights, their limits, and the rows that they see.
//!
//! Everything is declared here once, and rendered as `users.xml` ([`xml`]) for servers that read their users from a
//! file, and as statements ([`sql`]) for those that keep them as SQL says.
//!
//! Invariants: a definer can read the columns of its views and nothing else, and cannot log in; what a tenant's definer
//! reads passes a row policy beneath the view, because a filter in the view would be applied after predicates of the
//! reader, which can show a value in an error; readers may change
//! only those settings that their profile names.

mod limits;

mod tenant;

mod users;

pub mod sql;

pub mod xml;

pub use self::tenant::{Tenant, Tenants, TenantsError};
pub use self::users::{Login, Reach, User, of_deployment, of_tenant, of_views, readers, services};

#[cfg(test)]
mod tests;
