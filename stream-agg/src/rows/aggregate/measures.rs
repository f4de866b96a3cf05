//! The values of measures for each group.

use schemas::rollup::{Distinct, Measure, Number};

use super::GroupId;
use super::units::Units;
use crate::rows::columns::RowId;
use crate::rows::decode::props;
use crate::rows::strata::Strata;

/// The values of a measure, by group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Values {
    /// Sums, minima, maxima, and counts of values. They never overflow: each value has at most 64 bits, and a batch has
    /// fewer than 2^32 rows.
    Numbers(Vec<i128>),
    /// Sets of hashes, for distinct counts.
    Distinct(Sets),
}

/// Sets of hashes by group, stored end to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sets {
    hashes: Vec<u64>,
    ends: Vec<u32>,
}

impl Sets {
    /// The distinct hashes of a group, in ascending order.
    pub fn get(&self, group: GroupId) -> &[u64] {
        let group = group as usize;
        let start = group.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.hashes[start as usize..self.ends[group] as usize]
    }

    /// The hashes that are below 2^60: on average one in sixteen. Estimates of distinct counts read only these hashes.
    /// `hashes` must be in ascending order.
    pub fn sample(hashes: &[u64]) -> &[u64] {
        &hashes[..hashes.partition_point(|hash| *hash < 1 << 60)]
    }
}

/// Finds the group of each row.
pub(super) struct Members<'a, 'r> {
    strata: &'a Strata<'r>,
    units: &'a Units,
    of_unit: &'a [GroupId],
    /// The group of each stratum, or of each row if the units are rows; [`NO_GROUP`] if the rollup does not count the
    /// stratum or row.
    groups: Vec<GroupId>,
}

/// Marks strata and rows that have no group because the rollup does not count them.
const NO_GROUP: GroupId = GroupId::MAX;

impl<'a, 'r> Members<'a, 'r> {
    /// Finds the group of each stratum or row in `units`.
    pub(super) fn new(units: &'a Units, of_unit: &'a [GroupId], strata: &'a Strata<'r>) -> Self {
        let all = if units.are_strata { strata.firsts.len() } else { strata.rows.len() };
        let mut groups = vec![NO_GROUP; all];
        for (row, group) in units.rows.iter().zip(of_unit) {
            let unit = if units.are_strata { strata.of_row[*row as usize] } else { *row };
            groups[unit as usize] = *group;
        }
        Self { strata, units, of_unit, groups }
    }

    /// How many rows each group has.
    pub(super) fn counts(&self, groups: usize) -> Vec<u64> {
        let units = self.of_unit.iter().copied().zip(self.units.counts.iter().copied());
        join_by_group(units, groups, 0, |sum, count| sum + count)
    }

    /// Each row that the rollup counts, with its group.
    fn rows(&self) -> impl Iterator<Item = (usize, GroupId)> {
        let by_row = (!self.units.are_strata).then(|| self.groups.iter().copied());
        let by_stratum = self.units.are_strata.then(|| {
            let strata = self.strata.of_row.iter();
            strata.map(|stratum| self.groups[*stratum as usize])
        });
        let groups = by_row.into_iter().flatten().chain(by_stratum.into_iter().flatten());
        groups.enumerate().filter(|(_, group)| *group != NO_GROUP)
    }

    /// Pairs of a group and a hash, in ascending order of the hashes. A group may have a hash more than once.
    fn hashes(&self, distinct: Distinct) -> impl Iterator<Item = (GroupId, u64)> + Clone {
        let hashed = self.strata.hashed(distinct);
        let units = if self.units.are_strata { &hashed.by_stratum } else { &hashed.rows };
        let with_group = units.iter().map(|(unit, rank)| (self.groups[*unit as usize], *rank));
        with_group
            .filter(|(group, _)| *group != NO_GROUP)
            .map(|(group, rank)| (group, hashed.hashes[rank as usize]))
    }
}

/// The values of a measure; `None` for `count`, because [`Members::counts`] already has it for every group.
pub(super) fn values(measure: &Measure, members: &Members<'_, '_>, groups: usize) -> Option<Values> {
    Some(match measure {
        Measure::Count => return None,
        Measure::CountOf(field) => {
            let count = |sum: i128, _| sum + 1;
            numbers(&Number::Field(field.clone()), members, groups, 0, count)
        }
        Measure::Sum(n) => numbers(n, members, groups, 0, |sum, value| sum + value),
        Measure::Min(n) => numbers(n, members, groups, i128::MAX, i128::min),
        Measure::Max(n) => numbers(n, members, groups, i128::MIN, i128::max),
        Measure::UniqExact(distinct) => Values::Distinct(sets(&members.hashes(*distinct), groups)),
    })
}

fn numbers(
    number: &Number,
    members: &Members<'_, '_>,
    groups: usize,
    start: i128,
    join: fn(i128, i128) -> i128,
) -> Values {
    let rows = members.strata.rows;
    let value = |row: usize| -> Option<i128> {
        match number {
            Number::ParamInt => Some(rows.param_int[row].into()),
            Number::Sequence => Some(rows.sequence[row].into()),
            // The raw table also has a typed column for the field, but rows stored before the field was declared lack
            // its value there. A backfill reads such rows too, so the value is always read from `props`.
            Number::Field(field) => {
                let found = props::find(rows.props.get(row as RowId), field.path.steps());
                found.and_then(props::int).map(i128::from)
            }
        }
    };
    let values = members.rows().filter_map(|(row, group)| Some((group, value(row)?)));
    Values::Numbers(join_by_group(values, groups, start, join))
}

/// For each group, `start` joined with the values of the group one by one.
fn join_by_group<T: Copy>(
    values: impl Iterator<Item = (GroupId, T)>,
    groups: usize,
    start: T,
    join: impl Fn(T, T) -> T,
) -> Vec<T> {
    let mut joined = vec![start; groups];
    for (group, value) in values {
        let of_group = &mut joined[group as usize];
        *of_group = join(*of_group, value);
    }
    joined
}

/// Collects the hashes of each group into a set. The hashes of a group must come in ascending order.
fn sets(hashes: &(impl Iterator<Item = (GroupId, u64)> + Clone), groups: usize) -> Sets {
    let new = || {
        let mut last = vec![None; groups];
        hashes.clone().filter(move |(group, hash)| last[*group as usize].replace(*hash) != Some(*hash))
    };
    let mut ends = vec![0_u32; groups];
    new().for_each(|(group, _)| ends[group as usize] += 1);
    let mut end = 0;
    for place in &mut ends {
        end += std::mem::replace(place, end);
    }
    let mut all = vec![0; end as usize];
    for (group, hash) in new() {
        let place = &mut ends[group as usize];
        all[*place as usize] = hash;
        *place += 1;
    }
    Sets { hashes: all, ends }
}
