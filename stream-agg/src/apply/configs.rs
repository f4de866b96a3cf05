//! The table `configs`: all declarations that aggregators have used, by their hashes. A [`Declaration`] contains the
//! rollups, the limits for decoding records, and all other settings that change the rows of a batch. The
//! intent of a batch names its declaration by the hash.
//!
//! Invariant: a declaration whose text does not match its hash is refused. The declaration of a batch determines its
//! rows. With a changed text, a batch that is built again could get rows that differ from those already inserted.

use std::collections::BTreeMap;

use schemas::field::Field;
use schemas::rollup::{Rollup, Rollups};

use crate::apply::store::{Store, StoreError};
use crate::config::Config;
use crate::protocol::declaration::{Declaration, UnknownDeclaration, known};

/// The declaration of this process: that of `config`, with the place key ([`Declaration::place_key`]) of the oldest
/// declaration in the table. If the table is empty, the place key is random. If two processes start at the same time on
/// an empty table, they choose different random keys. Their declarations then differ until the process that stored the
/// later declaration is restarted.
///
/// # Errors
/// The error of ClickHouse.
pub async fn own_declaration(store: &Store, config: &Config) -> Result<Declaration, StoreError> {
    let sql = "SELECT JSONExtractUInt(declared, 'place_key') FROM configs ORDER BY since, cfg LIMIT 1";
    let first: Vec<u64> = store.rows(sql).await?;
    Ok(config.declaration(first.first().copied().unwrap_or_else(|| fastrand::u64(1..))))
}

/// Names the first rollup or field of `ours` that any declaration in `before` defines differently under the same name;
/// `None` if there is none. If this process used the new definition, rows with two meanings would be stored under one
/// name.
pub fn changed(ours: &Rollups, before: &[Declaration]) -> Option<String> {
    let rollup = |rollup: &Rollup| {
        let mut others = before.iter().filter_map(|declared| declared.rollups.get(&rollup.name));
        others.any(|other| other != rollup).then(|| format!("rollup `{}`", rollup.name))
    };
    let field = |field: &Field| {
        let others = before.iter().flat_map(|declared| declared.rollups.fields());
        let mut others = others.filter(|other| other.name == field.name);
        others.any(|other| other != field).then(|| format!("field `{}`", field.name))
    };
    ours.iter().find_map(rollup).or_else(|| ours.fields().iter().find_map(field))
}

/// Prefix of the names of dropped rollups in the table `schema_migrations`. If the rollup `x` was dropped, the table
/// has a row with the name `dropped_x`.
pub(crate) const DROPPED: &str = "dropped_";

/// The name of a rollup in `ours` that `stream-agg drop-rollup` has dropped; `None` if there is none.
///
/// # Errors
/// The error of ClickHouse.
pub async fn dropped(store: &Store, ours: &Rollups) -> Result<Option<String>, StoreError> {
    let sql = format!("SELECT name FROM schema_migrations WHERE startsWith(name, '{DROPPED}')");
    let names: Vec<String> = store.rows(&sql).await?;
    let names = names.iter().filter_map(|name| name.strip_prefix(DROPPED));
    Ok(names.filter(|name| ours.get(name).is_some()).map(str::to_owned).next())
}

/// Records that the rollup `name` must never be declared again.
pub(crate) async fn note_dropped(store: &Store, name: &str) -> Result<(), StoreError> {
    let insert = format!(
        "INSERT INTO schema_migrations (name, checksum) SETTINGS async_insert = 0 VALUES ('{DROPPED}{name}', 0)"
    );
    store.execute(&insert).await
}

/// Stores `declaration`, unless the newest row of the table has the same declaration.
///
/// # Errors
/// The error of ClickHouse.
pub async fn write(store: &Store, declaration: &Declaration) -> Result<(), StoreError> {
    let (declaration_hash, text) = (declaration.hash(), declaration.text());
    let sql = "SELECT argMax(cfg, since), argMax(declared, since) FROM configs HAVING count() > 0";
    let newest: Vec<(u64, String)> = store.rows(sql).await?;
    if newest.first().is_some_and(|(newest, stored)| *newest == declaration_hash && *stored == text) {
        return Ok(());
    }
    let text = text.replace('\\', "\\\\").replace('\'', "\\'");
    let rollups = declaration.rollups.hash();
    let insert = format!(
        "INSERT INTO configs (cfg, rollups, declared, since) SETTINGS async_insert = 0 VALUES ({declaration_hash}, {rollups}, '{text}', now64(3))"
    );
    store.execute(&insert).await
}

/// The declaration with this hash, or why this process cannot use it.
///
/// # Errors
/// The error of ClickHouse.
pub async fn read(
    store: &Store,
    declaration_hash: u64,
) -> Result<Result<Declaration, UnknownDeclaration>, StoreError> {
    let sql = format!(
        "SELECT declared FROM configs WHERE cfg = {declaration_hash} ORDER BY since DESC LIMIT 1 BY declared"
    );
    let texts: Vec<String> = store.rows(&sql).await?;
    Ok(known(declaration_hash, &texts))
}

/// All stored declarations, each of them once, except those that this release cannot read and those whose text does not
/// match the hash.
///
/// # Errors
/// The error of ClickHouse.
pub async fn all(store: &Store) -> Result<Vec<Declaration>, StoreError> {
    let rows: Vec<(u64, String)> = store.rows("SELECT DISTINCT cfg, declared FROM configs").await?;
    let mut texts = BTreeMap::<u64, Vec<String>>::new();
    for (declaration_hash, text) in rows {
        texts.entry(declaration_hash).or_default().push(text);
    }
    Ok(texts.iter().filter_map(|(declaration_hash, texts)| known(*declaration_hash, texts).ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollup_or_field_declared_differently_than_before_is_named() {
        let declared = |text: &str| Declaration {
            rollups: Rollups::parse("test", text).unwrap(),
            ..Declaration::built_in()
        };
        let text = "[[rollup]]\nname = \"a\"\ngrain = \"hour\"\ndimensions = [\"event\"]\n\
                    measures = { events = \"count\" }\n\
                    [[field]]\nname = \"f\"\npath = \"f\"\ntype = \"int\"\n";
        let before = [declared(text)];
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(changed(&declared(text).rollups, &before).as_deref(), expected);
        };
        check(text, None);
        check(&text.replace("\"f\"", "\"g\"").replace("\"a\"", "\"b\""), None);
        check(&text.replace("hour", "day"), Some("rollup `a`"));
        check(&text.replace("int", "string"), Some("field `f`"));
        check(&text.replace("path = \"f\"", "path = \"g\""), Some("field `f`"));
    }
}
