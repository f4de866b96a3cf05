//! Groups units (rows or strata) by tenant, bucket and dimensions, and folds the groups beyond a limit.

use std::hash::BuildHasher as _;

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use schemas::rollup::Rollup;
use schemas::time::UnixMillis;

use super::dimensions::DictionaryColumn;
use super::units::Units;
use super::{GroupId, bucket};
use crate::rows::columns::Rows;

/// The groups, and which units belong to them.
pub(super) struct Groups {
    /// The first unit of each group.
    pub(super) firsts: Vec<usize>,
    /// The group of each unit.
    pub(super) of_unit: Vec<GroupId>,
    /// The groups that hold folded units: at most one for each tenant and bucket.
    pub(super) folded: Vec<GroupId>,
    /// Number of rows in the groups of `folded`.
    pub(super) folded_rows: u64,
}

/// Puts units with equal tenants, buckets and dimensions into one group. Once there are `max_groups` groups, units that
/// belong to none of these groups are folded, unless the rollup has no dimensions.
pub(super) fn group(
    rollup: &Rollup,
    rows: &Rows,
    units: &Units,
    dimensions: &[DictionaryColumn<'_>],
    max_groups: usize,
) -> Groups {
    let hasher = DefaultHashBuilder::default();
    let tenant = |at: usize| rows.tenant.numbers[units.rows[at] as usize];
    let bucket = |at: usize| bucket(rollup, rows, units.rows[at]);
    let hash = |at: usize| {
        let numbers = dimensions.iter().map(|dimension| dimension.numbers[at]);
        numbers
            .fold(hasher.hash_one((tenant(at), bucket(at))), |hash, number| hasher.hash_one((hash, number)))
    };
    let equal = |a: usize, b: usize| {
        let same = |dimension: &DictionaryColumn<'_>| dimension.numbers[a] == dimension.numbers[b];
        tenant(a) == tenant(b) && bucket(a) == bucket(b) && dimensions.iter().all(same)
    };
    let mut groups = HashTable::<GroupId>::new();
    let mut folded = HashMap::<(u32, UnixMillis), GroupId>::new();
    let mut folded_rows = 0;
    let mut firsts = Vec::<usize>::new();
    let mut of_unit = Vec::with_capacity(units.rows.len());
    for at in 0..units.rows.len() {
        let key = hash(at);
        let known = groups.find(key, |group| equal(firsts[*group as usize], at)).copied();
        let group = known.unwrap_or_else(|| {
            let group = firsts.len() as GroupId;
            // A rollup without dimensions has one group for each tenant and bucket, so folding would change nothing.
            if groups.len() >= max_groups && !dimensions.is_empty() {
                folded_rows += units.counts[at];
                return *folded.entry((tenant(at), bucket(at))).or_insert_with(|| {
                    firsts.push(at);
                    group
                });
            }
            firsts.push(at);
            groups.insert_unique(key, group, |group| hash(firsts[*group as usize]));
            group
        });
        of_unit.push(group);
    }
    let mut folded: Vec<_> = folded.into_values().collect();
    folded.sort_unstable();
    Groups { firsts, of_unit, folded, folded_rows }
}
