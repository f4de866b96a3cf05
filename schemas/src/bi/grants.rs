//! What the definers of the views may read.

use std::collections::{BTreeMap, BTreeSet};

use super::view::{Definers, Owner, View, identifier};
use super::{Databases, FRESHNESS, tenants_views, views};
use crate::rollup::Rollups;

/// A user that cannot log in. Views read their tables with the rights of this user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definer {
    /// The name of the user.
    pub name: String,
    /// The rights of the user, each as a GRANT statement without `TO` and the name of the user.
    pub grants: Vec<String>,
}

/// The definers of all [`views`], each with exactly the grants that it needs: for the columns that its views read.
/// Every further grant would leak data: on a server with ClickHouse issues 116028 and 118063 (fixed in 26.6.5.113,
/// 26.7.7.84 and 26.8.3.74), a reader can make a definer evaluate a predicate on everything that the definer may read.
pub fn definers(rollups: &Rollups, on: Databases<'_>, names: Definers<'_>) -> Vec<Definer> {
    let views = views(rollups, on);
    let of_freshness = of_tables(&views, on, Owner::Freshness);
    [(names.views, of_views(&views, on)), (names.freshness, of_freshness)]
        .map(|(name, grants)| Definer { name: name.to_owned(), grants })
        .into()
}

/// The definer of all views of one tenant in `on.views`, except `freshness`. The tenant's view `freshness` has the
/// same definer as the view `freshness` over all tenants.
pub fn tenants_definer(rollups: &Rollups, on: Databases<'_>, name: &str) -> Definer {
    Definer { name: name.to_owned(), grants: of_views(&tenants_views(rollups, on), on) }
}

fn of_views(views: &[View], on: Databases<'_>) -> Vec<String> {
    let mut grants = of_tables(views, on, Owner::Views);
    // The column `complete` of the views of rollups reads `as_of` of the view `freshness`.
    grants.push(format!("GRANT SELECT(`as_of`) ON {}.{FRESHNESS}", identifier(on.views)));
    grants
}

fn of_tables(views: &[View], on: Databases<'_>, owner: Owner) -> Vec<String> {
    let mut tables = BTreeMap::<_, BTreeSet<_>>::new();
    for view in views.iter().filter(|view| view.owner == owner) {
        tables.entry(view.table).or_default().extend(view.reads());
    }
    let grant = |(table, columns): (&str, BTreeSet<&str>)| {
        let columns: Vec<_> = columns.into_iter().map(|column| format!("`{column}`")).collect();
        format!("GRANT SELECT({}) ON {}.{table}", columns.join(", "), on.tables)
    };
    tables.into_iter().map(grant).collect()
}
