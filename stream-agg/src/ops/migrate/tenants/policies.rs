//! Checks that row policies show the definer of a tenant's views only rows of that tenant.

use clickhouse::Row;
use serde::Deserialize;

use super::MigrateError;

/// A row of `system.row_policies` in ClickHouse.
#[derive(Debug, Clone, Row, Deserialize)]
pub(super) struct Policy {
    name: String,
    short_name: String,
    /// Empty if the policy applies to all tables.
    table: String,
    filter: String,
    is_restrictive: u8,
    is_for_all: u8,
    users: Vec<String>,
    except: Vec<String>,
}

impl Policy {
    /// The statement that reads the row policies on `database`, and those on all databases.
    pub(super) fn select(database: &str) -> String {
        format!(
            "SELECT name, short_name, table, ifNull(select_filter, '') AS filter, toUInt8(is_restrictive) AS \
             is_restrictive, toUInt8(apply_to_all) AS is_for_all, apply_to_list AS users, apply_to_except AS except \
             FROM system.row_policies WHERE database IN ('{database}', '')"
        )
    }

    fn applies_to(&self, user: &str) -> bool {
        let has = |users: &[String]| users.iter().any(|name| name == user);
        has(&self.users) || (self.is_for_all == 1 && !has(&self.except))
    }

    /// Whether this is the policy that `migrate` creates for `definer`: it has the name of the definer and applies to
    /// the whole database.
    fn is_of(&self, definer: &str) -> bool {
        self.short_name == definer && self.table.is_empty()
    }
}

/// Checks that `definer` has its policy with the filter `condition`, and that no other permissive policy applies to the
/// definer. The policy of the definer is permissive if it is from a users file, and ClickHouse combines permissive
/// policies by OR: another permissive policy would then show the definer more rows.
pub(super) fn check(policies: &[Policy], definer: &str, condition: &str) -> Result<(), MigrateError> {
    let applied = || policies.iter().filter(|policy| policy.applies_to(definer));
    let ours: Vec<_> = applied().filter(|policy| policy.is_of(definer)).collect();
    if ours.is_empty() || ours.iter().any(|policy| policy.filter != condition) {
        return Err(MigrateError::NoPolicy(definer.to_owned()));
    }
    match applied().find(|policy| policy.is_restrictive == 0 && !policy.is_of(definer)) {
        Some(other) => Err(MigrateError::OtherPolicy(other.name.clone(), definer.to_owned())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(name: &str, filter: &str, users: &[&str]) -> Policy {
        Policy {
            name: format!("{name} ON millrace.*"),
            short_name: name.to_owned(),
            table: String::new(),
            filter: filter.to_owned(),
            is_restrictive: 0,
            is_for_all: 0,
            users: users.iter().map(|&user| user.to_owned()).collect(),
            except: Vec::new(),
        }
    }

    fn ours() -> Policy {
        policy("bi_owner_acme", "tenant = 'acme'", &["bi_owner_acme"])
    }

    fn check_with(others: &[Policy]) -> Result<(), String> {
        let policies: Vec<_> = others.iter().cloned().chain([ours()]).collect();
        check(&policies, "bi_owner_acme", "tenant = 'acme'").map_err(|error| error.to_string())
    }

    #[test]
    fn a_definer_needs_its_own_policy_with_the_condition_of_its_tenant() {
        let needs = |policies: &[Policy]| {
            let refused = check(policies, "bi_owner_acme", "tenant = 'acme'");
            assert!(matches!(refused, Err(MigrateError::NoPolicy(_))), "{refused:?}");
        };
        needs(&[]);
        needs(&[policy("bi_owner_acme", "1", &["bi_owner_acme"])]);
        needs(&[policy("bi_owner_acme", "tenant = 'acme'", &[])]);
        needs(&[Policy { table: "events".to_owned(), ..ours() }]);
        assert_eq!(check_with(&[]), Ok(()));
    }

    #[test]
    fn another_policy_that_shows_a_definer_more_is_named_in_the_error() {
        let seen = policy("seen", "1", &[]);
        let for_all = Policy { is_for_all: 1, ..seen.clone() };
        let of_one_table = Policy { table: "events".to_owned(), ..ours() };
        for other in [policy("seen", "1", &["x", "bi_owner_acme"]), for_all.clone(), of_one_table] {
            let error = check_with(std::slice::from_ref(&other)).unwrap_err();
            assert!(error.contains(&format!("`{}`", other.name)), "{error}");
        }
        let without_it = Policy { except: vec!["bi_owner_acme".to_owned()], ..for_all.clone() };
        let restrictive = Policy { is_restrictive: 1, ..for_all };
        let of_another = policy("bi_owner_shop", "tenant = 'shop'", &["bi_owner_shop"]);
        assert_eq!(check_with(&[seen, without_it, restrictive, of_another]), Ok(()));
    }
}
