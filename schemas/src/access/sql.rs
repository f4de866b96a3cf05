//! Users as statements, for servers that manage users with SQL.
//!
//! Invariant: the statements may be run again while the users are in use. They alter profiles, quotas and policies
//! instead of replacing them, because a profile, quota or policy that is replaced is no longer assigned to its users.
//! They set the declared password of the reader of a tenant, and change no other password.

use super::limits::{BI, POLLER, Profile, Quota};
use super::users::{Login, Rows, User};
use crate::bi::identifier;

/// The statements that create all of `users`, with their profiles.
pub fn statements(users: &[User]) -> Vec<String> {
    let profiles =
        [&POLLER, &BI].into_iter().filter(|one| users.iter().any(|user| user.profile == Some(one)));
    profiles.flat_map(profile).chain(users.iter().flat_map(user)).collect()
}

/// The statements that create a user, or give an existing user exactly the declared rights. The row policy comes
/// before the rights, so there is no moment at which the user can read the rows that the policy hides.
pub fn user(user: &User) -> Vec<String> {
    let name = identifier(&user.name);
    let mut statements = vec![create_without_login(&user.name)];
    if let Some(profile) = user.profile {
        statements.push(format!("ALTER USER {name} SETTINGS PROFILE '{}'", profile.name));
    }
    statements.extend(user.quota.into_iter().flat_map(|quota| self::quota(quota, user)));
    statements.extend(user.rows.iter().flat_map(|rows| policy(rows, &name)));
    // A single statement grants these rights and revokes all others, so the user never has the previous and the new
    // rights together.
    statements.push(format!("GRANT {} TO {name} WITH REPLACE OPTION", user.rights.join(", ")));
    if !user.grantable.is_empty() {
        statements.push(format!("GRANT {} TO {name} WITH GRANT OPTION", user.grantable.join(", ")));
    }
    // The login is enabled last, so that nobody can log in before the limits apply.
    if let Login::Sha256(hash) = &user.login {
        statements.push(format!("ALTER USER {name} IDENTIFIED WITH sha256_hash BY '{hash}' HOST ANY"));
    }
    statements
}

/// The statement that creates a user that cannot log in: no address may connect as this user, and no password is known
/// for its hash. The user has a hash, because a server may refuse users without a password.
pub fn create_without_login(name: &str) -> String {
    let (name, hash) = (identifier(name), "0".repeat(64));
    format!("CREATE USER IF NOT EXISTS {name} IDENTIFIED WITH sha256_hash BY '{hash}' HOST NONE")
}

fn profile(profile: &Profile) -> [String; 2] {
    let constraint = |name: &str| {
        let (_, range) = profile.changeable.iter().find(|(changeable, _)| *changeable == name)?;
        let range = range.map(|(least, most)| format!(" MIN {least} MAX {most}")).unwrap_or_default();
        Some(format!("{range} CHANGEABLE_IN_READONLY"))
    };
    let with_value = profile
        .settings
        .iter()
        .map(|(name, value)| format!("{name} = {value}{}", constraint(name).unwrap_or_default()));
    let has_value = |name: &str| profile.settings.iter().any(|(setting, _)| *setting == name);
    let without_value = profile.changeable.iter().filter(|(name, _)| !has_value(name));
    let without_value = without_value
        .map(|(name, _)| format!("{name}{}", constraint(name).expect("the setting is in `changeable`")));
    let settings = with_value.chain(without_value).collect::<Vec<_>>().join(", ");
    let name = profile.name;
    [
        format!("CREATE SETTINGS PROFILE IF NOT EXISTS {name}"),
        format!("ALTER SETTINGS PROFILE {name} SETTINGS {settings}"),
    ]
}

/// The statements that give a user a quota of its own. If users shared a quota, a statement about one of them would
/// replace the whole list of users to which the quota applies.
fn quota(quota: &Quota, user: &User) -> [String; 2] {
    let limits: Vec<_> = quota.limits.iter().map(|(name, most)| format!("{name} = {most}")).collect();
    let name = identifier(&user.name);
    let limits = format!("FOR INTERVAL {} SECOND MAX {}", quota.seconds, limits.join(", "));
    [
        format!("CREATE QUOTA IF NOT EXISTS {name} KEYED BY user_name {limits} TO {name}"),
        format!("ALTER QUOTA {name} {limits} TO {name}"),
    ]
}

fn policy(rows: &Rows, name: &str) -> [String; 2] {
    // The policy applies to every table of the database, including later ones. It is restrictive, because ClickHouse
    // combines permissive policies by OR: a second permissive policy would show the user more rows.
    let policy = format!("{name} ON {}.*", rows.database);
    let rest = format!("FOR SELECT USING {} AS RESTRICTIVE TO {name}", rows.condition);
    [format!("CREATE ROW POLICY IF NOT EXISTS {policy} {rest}"), format!("ALTER ROW POLICY {policy} {rest}")]
}

/// The statements that remove the reader of a tenant, and the reader's quota.
pub fn drop_reader(name: &str) -> [String; 2] {
    let name = identifier(name);
    [format!("DROP USER IF EXISTS {name}"), format!("DROP QUOTA IF EXISTS {name}")]
}

/// The statement that removes the definer of a tenant; its views must have been removed before. The row policy is not
/// removed, because another migration may be creating the same tenant again and assigning the policy to its new
/// definer. A policy that is assigned to no user does no harm: it hides no rows.
pub fn drop_definer(name: &str) -> String {
    format!("DROP USER IF EXISTS {}", identifier(name))
}
