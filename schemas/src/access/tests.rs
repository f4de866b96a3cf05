use std::{fs, path};

use super::limits::{BI, BI_QUOTA, PROFILES};
use super::*;
use crate::bi::{Databases, Definers};
use crate::rollup::Rollups;

const ON: Databases<'_> = Databases { tables: "millrace", views: "bi" };
const HASH: &str = "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8";

fn tenants() -> Tenants {
    Tenants::parse(&format!(
        "[[tenant]]\nname = \"acme\"\npassword_sha256 = \"{HASH}\"\n\
         [[tenant]]\nname = \"my-shop\"\npassword_sha256 = \"{HASH}\"\nenabled = true\n\
         [[tenant]]\nname = \"gone\"\npassword_sha256 = \"{HASH}\"\nenabled = false\n"
    ))
    .unwrap()
}

fn users() -> Vec<User> {
    of_deployment(&Rollups::built_in(), ON, Definers::DEFAULT, &tenants())
}

/// Kubernetes mounts `users.xml`, which the code renders: to change it, change the code, not the file.
#[test]
fn users_xml_of_kubernetes_is_up_to_date() {
    let users = of_deployment(&Rollups::built_in(), ON, Definers::DEFAULT, &Tenants::default());
    let expected = xml::file(xml::FILE_COMMENT, &users, xml::LoginSource::Variables);
    let file =
        path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../k8s/components/clickhouse-single/users.xml");
    if fs::read_to_string(&file).unwrap() != expected {
        fs::write(&file, expected).unwrap();
        panic!(
            "k8s/components/clickhouse-single/users.xml was out of date; the test has rewritten it: commit the file"
        );
    }
}

#[test]
fn the_file_and_the_statements_give_each_user_the_same() {
    let users = users();
    let file = xml::file("", &users, xml::LoginSource::Local("local"));
    let file = between(&file, "<users>", "</users>");
    let statements = sql::statements(&users);
    for user in &users {
        let name = crate::bi::identifier(&user.name);
        let element = between(file, &format!("<{}>\n", user.name), &format!("</{}>\n", user.name));
        let given = |end: &str| {
            let grants = statements.iter().filter_map(|sql| sql.strip_prefix("GRANT ")?.strip_suffix(end));
            grants.collect::<Vec<_>>().join(", ")
        };
        let in_file = |has_option: bool| {
            let queries = element.split("<query>GRANT ").skip(1).map(|rest| between(rest, "", "</query>"));
            let option = " WITH GRANT OPTION";
            let queries = queries.filter(|query| query.ends_with(option) == has_option);
            queries.map(|query| query.trim_end_matches(option)).collect::<Vec<_>>().join(", ")
        };
        assert_eq!(in_file(false), given(&format!(" TO {name} WITH REPLACE OPTION")), "{name}");
        assert_eq!(in_file(true), given(&format!(" TO {name} WITH GRANT OPTION")), "{name}");
        let profile = element.contains("<profile>bi</profile>");
        assert_eq!(
            profile,
            statements.contains(&format!("ALTER USER {name} SETTINGS PROFILE 'bi'")),
            "{name}"
        );
        let quota = element.contains("<quota>bi</quota>");
        let limited = statements.iter().any(|sql| sql.starts_with(&format!("ALTER QUOTA {name} ")));
        assert_eq!(quota, limited, "{name}");
        let is_nobody = element.contains("<networks/>");
        assert_eq!(is_nobody, user.login == Login::Nobody, "{name}");
        let filter = element.contains("<filter>").then(|| between(element, "<filter>", "</filter>"));
        let policy = statements.iter().find(|sql| sql.starts_with(&format!("ALTER ROW POLICY {name} ")));
        assert_eq!(filter, policy.map(|sql| between(sql, " USING ", " AS RESTRICTIVE ")), "{name}");
    }
}

#[test]
fn the_file_and_the_statements_have_the_same_limits() {
    let file = xml::file("", &users(), xml::LoginSource::Variables);
    let statements = sql::statements(&users()).join(";\n");
    for profile in PROFILES {
        let element = between(&file, &format!("<{}>\n", profile.name), &format!("</{}>\n", profile.name));
        for (name, value) in profile.settings {
            assert!(element.contains(&format!("<{name}>{value}</{name}>")), "{name}");
            let is_in_statements = profile.name != "default";
            assert_eq!(statements.contains(&format!("{name} = {value}")), is_in_statements, "{name}");
        }
        let changeable = element.matches("<changeable_in_readonly/>").count();
        assert_eq!(changeable, profile.changeable.len());
    }
    assert_eq!(statements.matches("CHANGEABLE_IN_READONLY").count(), BI.changeable.len());
    for (name, most) in BI_QUOTA.limits {
        assert!(file.contains(&format!("<{name}>{most}</{name}>")), "{name}");
        assert!(statements.contains(&format!("{name} = {most}")), "{name}");
    }
}

#[track_caller]
fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let (_, rest) = text.split_once(start).unwrap();
    rest.split_once(end).unwrap().0
}

#[test]
fn nobody_logs_in_as_a_definer_and_no_reader_reaches_a_table() {
    for user in users() {
        if user.name.starts_with("bi_owner") || user.name == "bi_freshness" {
            assert_eq!(user.login, Login::Nobody);
            assert!(
                user.rights.iter().all(|right| right.starts_with("SELECT(")),
                "{} may read more than columns: {:?}",
                user.name,
                user.rights
            );
        }
        if user.name.starts_with("bi_reader") || user.name == "bi_jdbc" {
            assert_eq!(user.profile, Some(&BI));
            assert!(user.rights.iter().all(|right| !right.contains("millrace")), "{:?}", user.rights);
        }
    }
}

#[test]
fn a_tenant_has_a_definer_with_a_policy_and_a_reader_of_one_database() {
    let statements = sql::statements(&users());
    let has =
        |sql: &str| assert!(statements.iter().any(|one| one == sql), "{sql}\n{}", statements.join("\n"));
    let nobody = format!("IDENTIFIED WITH sha256_hash BY '{}' HOST NONE", "0".repeat(64));
    for name in ["bi_owner", "bi_owner_acme", "bi_reader_acme", "bi_reader"] {
        has(&format!("CREATE USER IF NOT EXISTS {name} {nobody}"));
    }
    has(
        "CREATE ROW POLICY IF NOT EXISTS bi_owner_acme ON millrace.* FOR SELECT USING tenant = 'acme' AS RESTRICTIVE TO \
         bi_owner_acme",
    );
    has(
        "ALTER ROW POLICY `bi_owner_my-shop` ON millrace.* FOR SELECT USING tenant = 'my-shop' AS RESTRICTIVE TO \
         `bi_owner_my-shop`",
    );
    let opened = format!("ALTER USER `bi_reader_my-shop` IDENTIFIED WITH sha256_hash BY '{HASH}' HOST ANY");
    let last = statements.iter().rfind(|sql| sql.contains("bi_reader_my-shop"));
    assert_eq!(last, Some(&opened), "a login is enabled only after its limits are set");
    let reader = statements.iter().find(|sql| sql.ends_with(" TO `bi_reader_my-shop` WITH REPLACE OPTION"));
    let reader = reader.unwrap();
    assert!(reader.starts_with("GRANT SELECT ON `bi_my-shop`.*, SELECT(database, "), "{reader}");
    let owner = statements.iter().find(|sql| sql.ends_with(" TO bi_owner_acme WITH REPLACE OPTION")).unwrap();
    assert!(owner.contains("SELECT(`as_of`) ON bi_acme.freshness") && !owner.contains("ledger"), "{owner}");
    assert!(statements.iter().all(|sql| !sql.contains("gone")), "a disabled tenant has nothing");
}

#[test]
fn an_error_in_a_file_of_tenants_names_its_line() {
    let check = |text: &str, expected: &str| {
        let error = Tenants::parse(text).unwrap_err().to_string();
        assert_eq!(error, expected, "{text}");
    };
    let good = format!("[[tenant]]\nname = \"acme\"\npassword_sha256 = \"{HASH}\"\n");
    check(&format!("{good}{good}"), "line 4: tenant `acme` occurs twice");
    let off = format!("{good}enabled = false\n");
    check(&format!("{off}{good}"), "line 5: tenant `acme` occurs twice");
    let name = "the name of a tenant must be 1 to 64 characters, each one of a-z, 0-9, _ and -";
    for bad in ["", "*", "Acme", "a'b"] {
        check(&good.replace("acme", bad), &format!("line 1: {name}"));
    }
    let short = good.replace(HASH, "secret");
    check(&short, "line 1: tenant `acme`: its password_sha256 must be 64 hexadecimal digits");
    let nothing = "E3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let empty = good.replace(HASH, nothing);
    check(&empty, "line 1: tenant `acme`: its password_sha256 is the hash of an empty password");
    let types =
        "a value has the wrong type: names and hashes are texts in quotes, `enabled` is true or false";
    check(&good.replace(&format!("\"{HASH}\""), "12345678"), &format!("line 3: {types}"));
    let error = Tenants::parse(&good.replace("name", "nam")).unwrap_err().to_string();
    assert!(error.starts_with("line 2: unknown field `nam`"), "{error}");
    assert!(Tenants::parse("").unwrap().is_empty());
    let upper = Tenants::parse(&good.replace(HASH, &HASH.to_uppercase())).unwrap();
    assert_eq!(upper.iter().next().unwrap().password_sha256, HASH);
}
