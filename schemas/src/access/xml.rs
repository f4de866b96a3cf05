//! Users as the file `users.xml`.

use super::limits::{BI_QUOTA, PROFILES, Profile, Quota};
use super::users::{Login, Rows, User};

/// Where passwords come from, and which addresses may connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginSource<'a> {
    /// This password for each user with [`Login::Password`]. Users may connect only from this machine.
    Local(&'a str),
    /// For each user with [`Login::Password`], an environment variable that has the password, for example
    /// `LOADER_PASSWORD`. Users may connect from any address.
    Variables,
}

/// The first comment in the file for every server except that of the local stack. The name of the flag has no dashes
/// here, because an XML comment cannot contain `--`.
pub const FILE_COMMENT: &str =
    "Users, their rights and their limits: what `stream-agg migrate` prints with the flag print-users-xml.";

/// The text of the file. `about` becomes its first comment.
pub fn file(about: &str, users: &[User], logins: LoginSource<'_>) -> String {
    let profiles: String = PROFILES.into_iter().map(profile).collect();
    let users: String = users.iter().map(|one| user(one, logins)).collect();
    let quota = quota(&BI_QUOTA);
    format!(
        "<!-- {about} -->\n<clickhouse>\n    <profiles>\n{profiles}    </profiles>\n\n    <quotas>\n        <default/>\n\
         {quota}    </quotas>\n\n    <users>\n{ADMINISTRATOR}{users}    </users>\n</clickhouse>\n"
    )
}

const ADMINISTRATOR: &str =
    "        <!-- The administrator has no password, and may connect only from the machine of the server. -->
        <default>
            <password></password>
            <networks>
                <ip>127.0.0.1</ip>
                <ip>::1</ip>
            </networks>
            <profile>default</profile>
            <quota>default</quota>
            <access_management>1</access_management>
        </default>
";

fn profile(profile: &Profile) -> String {
    let name = profile.name;
    let about = match profile.about {
        "" => String::new(),
        text => format!("        <!-- {text} -->\n"),
    };
    let settings: String = profile
        .settings
        .iter()
        .map(|(name, value)| format!("            <{name}>{value}</{name}>\n"))
        .collect();
    let constraint = |(name, range): &(&str, Option<(u64, u64)>)| {
        let range = range.map(|(least, most)| format!("<min>{least}</min><max>{most}</max>"));
        let range = range.unwrap_or_default();
        format!("                <{name}>{range}<changeable_in_readonly/></{name}>\n")
    };
    let constraints: String = profile.changeable.iter().map(constraint).collect();
    let constraints = match &constraints[..] {
        "" => String::new(),
        some => format!("            <constraints>\n{some}            </constraints>\n"),
    };
    format!("{about}        <{name}>\n{settings}{constraints}        </{name}>\n")
}

fn quota(quota: &Quota) -> String {
    let limits: String = quota
        .limits
        .iter()
        .map(|(name, most)| format!("                <{name}>{most}</{name}>\n"))
        .collect();
    let Quota { name, seconds, .. } = quota;
    format!(
        "        <{name}>\n            <interval>\n                <duration>{seconds}</duration>\n{limits}            \
         </interval>\n        </{name}>\n"
    )
}

fn user(user: &User, logins: LoginSource<'_>) -> String {
    let User { name, about, .. } = user;
    let networks = match (&user.login, logins) {
        (Login::Nobody, _) => "            <networks/>\n",
        (_, LoginSource::Local(_)) => {
            "            <networks>\n                <ip>127.0.0.1</ip>\n                <ip>::1</ip>\n            </networks>\n"
        }
        (_, LoginSource::Variables) => {
            "            <networks>\n                <ip>::/0</ip>\n            </networks>\n"
        }
    };
    let named = |element: &str, name: Option<&str>| {
        name.map(|name| format!("            <{element}>{name}</{element}>\n")).unwrap_or_default()
    };
    let profile = named("profile", user.profile.map(|profile| profile.name));
    let quota = named("quota", user.quota.map(|quota| quota.name));
    let rights = user.rights.iter().map(|right| format!("GRANT {right}"));
    let grantable = user.grantable.iter().map(|right| format!("GRANT {right} WITH GRANT OPTION"));
    let grants: String =
        rights.chain(grantable).map(|grant| format!("                <query>{grant}</query>\n")).collect();
    let rows = user.rows.as_ref().map(policy).unwrap_or_default();
    format!(
        "\n        <!-- {about} -->\n        <{name}>\n            {}\n{networks}{profile}{quota}{rows}            <grants>\n\
         {grants}            </grants>\n        </{name}>\n",
        password(user, logins)
    )
}

fn password(user: &User, logins: LoginSource<'_>) -> String {
    match (&user.login, logins) {
        (Login::Nobody, _) => "<no_password/>".to_owned(),
        (Login::Sha256(hash), _) => format!("<password_sha256_hex>{hash}</password_sha256_hex>"),
        (Login::Password, LoginSource::Local(password)) => format!("<password>{password}</password>"),
        (Login::Password, LoginSource::Variables) => {
            format!("<password from_env=\"{}_PASSWORD\"/>", user.name.to_ascii_uppercase())
        }
    }
}

/// The row policy of a user. An empty table name means every table of the database, including later ones.
fn policy(Rows { database, condition }: &Rows) -> String {
    format!(
        "            <databases>\n                <{database}>\n                    <table name=\"\"><filter>{condition}</filter></table>\n                \
         </{database}>\n            </databases>\n"
    )
}
