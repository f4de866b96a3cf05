//! What the definers of the views may read.

use std::collections::{BTreeMap, BTreeSet};

use super::view::{Definers, Owner};
use super::{Databases, FRESHNESS, views};
use crate::rollup::Rollups;

/// A user with whose rights views read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definer {
    /// The name of the user.
    pub name: String,
    /// Its rights, each a statement without the `TO` of its end.
    pub grants: Vec<String>,
}

/// The definers of all [`views`] with the grants that they need, and no more: the columns that the views read. A
/// reader can make a definer evaluate a predicate on everything that the definer may read (ClickHouse issues 116028
/// and 118063, fixed in 26.6.5.113, 26.7.7.84 and 26.8.3.74).
pub fn definers(rollups: &Rollups, on: Databases<'_>, names: Definers<'_>) -> Vec<Definer> {
    let mut of_views = of_tables(rollups, on, Owner::Views);
    // Their column `complete`.
    of_views.push(format!("GRANT SELECT(`as_of`) ON {}.{FRESHNESS}", on.views));
    let of_freshness = of_tables(rollups, on, Owner::Freshness);
    [(names.views, of_views), (names.freshness, of_freshness)]
        .map(|(name, grants)| Definer { name: name.to_owned(), grants })
        .into()
}

fn of_tables(rollups: &Rollups, on: Databases<'_>, owner: Owner) -> Vec<String> {
    let views = views(rollups, on);
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
