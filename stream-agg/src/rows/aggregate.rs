//! Aggregates rows into groups: the measures of a rollup for each combination of tenant, bucket and dimensions.
//!
//! Pure, and generic over the declared rollups. Groups are in the order of their first rows, so equal batches give
//! equal groups. Groups beyond a limit are folded into one group for each tenant and bucket, whose dimensions are
//! all [`OTHER`]. Rows whose bucket was past the retention of the rollup when they were received are left out,
//! because no reader would see them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::hash::BuildHasher as _;

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use schemas::rollup::layout::{Expiry, MeasureColumn};
use schemas::rollup::{Column, Condition, Dimension, Distinct, Measure, Number, PropPath, Rollup};
use schemas::time::UnixMillis;

use crate::rows::columns::{Interned, Interner, RowId, Rows, Texts};
use crate::rows::decode::props;
use crate::rows::strata::Strata;

/// The value of each dimension of a folded group.
pub const OTHER: &str = "(other)";

/// Index of a group in its aggregate.
pub type GroupId = u32;

/// What a batch adds to one rollup. Each column has one value for each group.
pub struct Aggregate<'r> {
    /// Number of the tenant.
    pub tenants: Vec<u32>,
    /// Start of the bucket.
    pub buckets: Vec<UnixMillis>,
    /// The dimensions of the rollup.
    pub dimensions: Vec<Numbered<'r>>,
    /// Number of events.
    pub counts: Vec<u64>,
    /// The other measures of the rollup, each with the column that stores it.
    pub measures: Vec<(MeasureColumn, Values)>,
    /// The groups of each table partition, never an empty list.
    pub cells: BTreeMap<Expiry, Vec<GroupId>>,
    /// Rows folded into `(other)` because the batch reached its group limit.
    pub folded_rows: u64,
}

/// A text column as numbers. The texts are those of the decoder, or were interned for this rollup.
pub struct Numbered<'r> {
    texts: TextPool<'r>,
    /// The number of the text, for each counted row or for each group.
    pub numbers: Vec<u32>,
}

enum TextPool<'r> {
    Decoded(&'r Interner),
    Own(Interner),
}

impl Numbered<'_> {
    /// The number of `text`, which is added if it is new.
    fn intern(&mut self, text: &str) -> u32 {
        if let TextPool::Decoded(texts) = self.texts {
            self.texts = TextPool::Own(texts.clone());
        }
        match &mut self.texts {
            TextPool::Own(texts) => texts.intern(text),
            TextPool::Decoded(_) => unreachable!("decoded texts were copied just now"),
        }
    }

    /// The texts of the numbers.
    pub fn texts(&self) -> &Interner {
        match &self.texts {
            TextPool::Decoded(texts) => texts,
            TextPool::Own(texts) => texts,
        }
    }
}

/// The values of a measure, by group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Values {
    /// Sums, minima and maxima. They never overflow.
    Numbers(Vec<i128>),
    /// Sets of hashes, for distinct counts.
    Distinct(Sets),
}

/// Sets of hashes, by group, end to end.
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

    /// The hashes of a group that are below 2^60: one in sixteen of any set, for estimates.
    pub fn sample(hashes: &[u64]) -> &[u64] {
        &hashes[..hashes.partition_point(|hash| *hash < 1 << 60)]
    }
}

/// Aggregates `rows` for `rollup`. Groups beyond the first `max_groups` are folded.
pub fn aggregate<'r>(rollup: &Rollup, rows: &'r Rows, max_groups: usize) -> Aggregate<'r> {
    aggregate_strata(rollup, &Strata::of(rows), max_groups)
}

/// The same for rows whose strata are known already.
pub fn aggregate_strata<'r>(rollup: &Rollup, strata: &Strata<'r>, max_groups: usize) -> Aggregate<'r> {
    let rows = strata.rows;
    let units = Units::of(rollup, strata);
    let mut dimensions: Vec<_> = rollup.dimensions.iter().map(|d| numbered(d, rows, &units.rows)).collect();
    let Groups { firsts, of_unit, others, folded_rows } =
        group(rollup, rows, &units, &dimensions, max_groups);
    let buckets: Vec<_> = firsts.iter().map(|at| bucket(rollup, rows, units.rows[*at])).collect();
    let mut cells = BTreeMap::<_, Vec<GroupId>>::new();
    for (group, bucket) in (0..).zip(&buckets) {
        cells.entry(rollup.expires(*bucket)).or_default().push(group);
    }
    for dimension in &mut dimensions {
        dimension.numbers = firsts.iter().map(|at| dimension.numbers[*at]).collect();
        if !others.is_empty() {
            let other = dimension.intern(OTHER);
            others.iter().for_each(|group| dimension.numbers[*group as usize] = other);
        }
    }
    let members = Members::new(&units, &of_unit, strata);
    let measures = rollup.measures.iter().zip(rollup.measure_columns());
    let measures = measures.filter_map(|((_, measure), column)| {
        values(measure, &members, firsts.len()).map(|values| (column, values))
    });
    Aggregate {
        tenants: firsts.iter().map(|at| rows.tenant.numbers[units.rows[*at] as usize]).collect(),
        buckets,
        dimensions,
        counts: members.counts(firsts.len()),
        measures: measures.collect(),
        cells,
        folded_rows,
    }
}

fn bucket(rollup: &Rollup, rows: &Rows, row: RowId) -> UnixMillis {
    rollup.grain.bucket(rows.event_time[row as usize])
}

/// What is grouped: strata, or single rows if the rollup needs more than a stratum has.
struct Units {
    are_strata: bool,
    /// The first row of each unit that counts, in the order of the rows.
    rows: Vec<RowId>,
    /// How many rows each unit has.
    counts: Vec<u64>,
}

impl Units {
    fn of(rollup: &Rollup, strata: &Strata<'_>) -> Self {
        let rows = strata.rows;
        let tests = rollup.conditions.iter().map(|condition| Test::new(condition, rows));
        let (of_strata, of_rows): (Vec<_>, Vec<_>) = tests.partition(Test::is_of_strata);
        let counts = |row: RowId| {
            let now = rows.received[row as usize];
            !has_ended(rollup, bucket(rollup, rows, row), now)
                && of_strata.iter().all(|test| test.holds(rows, row))
        };
        let counted: Vec<bool> = strata.firsts.iter().map(|first| counts(*first)).collect();
        if of_rows.is_empty() && rollup.dimensions.iter().all(is_of_strata) {
            let (firsts, counts) = (strata.firsts.iter(), strata.counts.iter());
            let units = firsts.zip(counts).zip(&counted).filter(|(_, counts)| **counts);
            let (rows, counts) = units.map(|((first, count), _)| (*first, *count)).unzip();
            return Self { are_strata: true, rows, counts };
        }
        let holds = |row: &RowId| of_rows.iter().all(|test| test.holds(rows, *row));
        let is_counted = |row: &RowId| counted[strata.of_row[*row as usize] as usize] && holds(row);
        let rows: Vec<_> = (0..rows.len() as RowId).filter(is_counted).collect();
        Self { are_strata: false, counts: vec![1; rows.len()], rows }
    }
}

/// Whether all rows of a stratum have the same value of this field.
fn is_of_strata(field: &Dimension) -> bool {
    matches!(field, Dimension::Column(Column::Event | Column::Country | Column::DeviceOs))
}

/// A condition, prepared for the texts of one batch.
enum Test<'c, 'r> {
    /// The column, and whether each of its texts is one of the wanted values.
    Numbered(&'r [u32], Vec<bool>),
    Text(&'r Texts, &'c [String]),
    Prop(&'c PropPath, &'c [String]),
}

impl<'c, 'r> Test<'c, 'r> {
    fn new(condition: &'c Condition, rows: &'r Rows) -> Self {
        let wanted = &condition.values;
        match &condition.field {
            Dimension::Prop(path) => Self::Prop(path, wanted),
            Dimension::Column(column) => match text_column(*column, rows) {
                TextColumn::Numbered(column) => {
                    let numbers = 0..column.texts.count() as u32;
                    let is_wanted = |number| wanted.iter().any(|text| text == column.texts.get(number));
                    Self::Numbered(&column.numbers, numbers.map(is_wanted).collect())
                }
                TextColumn::Plain(texts) => Self::Text(texts, wanted),
            },
        }
    }

    /// Whether the condition holds for all rows of a stratum or for none.
    fn is_of_strata(&self) -> bool {
        matches!(self, Self::Numbered(..))
    }

    fn holds(&self, rows: &Rows, row: RowId) -> bool {
        match self {
            Self::Numbered(numbers, wanted) => wanted[numbers[row as usize] as usize],
            Self::Text(texts, wanted) => wanted.iter().any(|text| text == texts.get(row)),
            Self::Prop(path, wanted) => {
                let held = prop(rows, path, row);
                wanted.iter().any(|text| *text == held)
            }
        }
    }
}

/// A text column of the batch.
enum TextColumn<'r> {
    Numbered(&'r Interned),
    Plain(&'r Texts),
}

fn text_column(column: Column, rows: &Rows) -> TextColumn<'_> {
    match column {
        Column::Event => TextColumn::Numbered(&rows.event),
        Column::Country => TextColumn::Numbered(&rows.country),
        Column::DeviceOs => TextColumn::Numbered(&rows.device_os),
        Column::DeviceId => TextColumn::Plain(&rows.device_id),
        Column::UserId => TextColumn::Plain(&rows.user_id),
        Column::Session => TextColumn::Plain(&rows.session),
        Column::ParamStr => TextColumn::Plain(&rows.param_str),
    }
}

fn prop<'r>(rows: &'r Rows, path: &PropPath, row: RowId) -> Cow<'r, str> {
    props::scalar(rows.props.get(row), path.steps())
}

/// A dimension as numbers, for the units that count.
fn numbered<'r>(dimension: &Dimension, rows: &'r Rows, counted: &[RowId]) -> Numbered<'r> {
    let own = |text: &dyn Fn(RowId) -> Cow<'r, str>| {
        let mut texts = Interner::default();
        let numbers = counted.iter().map(|row| texts.intern(&text(*row))).collect();
        Numbered { texts: TextPool::Own(texts), numbers }
    };
    match dimension {
        Dimension::Prop(path) => own(&|row| prop(rows, path, row)),
        Dimension::Column(column) => match text_column(*column, rows) {
            TextColumn::Plain(texts) => own(&|row| texts.get(row).into()),
            TextColumn::Numbered(column) => Numbered {
                texts: TextPool::Decoded(&column.texts),
                numbers: counted.iter().map(|row| column.numbers[*row as usize]).collect(),
            },
        },
    }
}

/// The groups, and which units belong to them.
struct Groups {
    /// The first unit of each group.
    firsts: Vec<usize>,
    /// The group of each unit.
    of_unit: Vec<GroupId>,
    /// The groups of folded units.
    others: Vec<GroupId>,
    folded_rows: u64,
}

fn group(
    rollup: &Rollup,
    rows: &Rows,
    units: &Units,
    dimensions: &[Numbered<'_>],
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
        let same = |dimension: &Numbered<'_>| dimension.numbers[a] == dimension.numbers[b];
        tenant(a) == tenant(b) && bucket(a) == bucket(b) && dimensions.iter().all(same)
    };
    let mut groups = HashTable::<GroupId>::new();
    let mut others = HashMap::<(u32, UnixMillis), GroupId>::new();
    let mut folded_rows = 0;
    let mut firsts = Vec::<usize>::new();
    let mut of_unit = Vec::with_capacity(units.rows.len());
    for at in 0..units.rows.len() {
        let key = hash(at);
        let known = groups.find(key, |group| equal(firsts[*group as usize], at)).copied();
        let group = known.unwrap_or_else(|| {
            let group = firsts.len() as GroupId;
            // Without dimensions, folding would change nothing.
            if groups.len() >= max_groups && !dimensions.is_empty() {
                folded_rows += units.counts[at];
                return *others.entry((tenant(at), bucket(at))).or_insert_with(|| {
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
    let mut others: Vec<_> = others.into_values().collect();
    others.sort_unstable();
    Groups { firsts, of_unit, others, folded_rows }
}

/// Finds the group of each row.
struct Members<'a, 'r> {
    strata: &'a Strata<'r>,
    units: &'a Units,
    of_unit: &'a [GroupId],
    /// By stratum, or by row; [`NO_GROUP`] for rows that do not count.
    groups: Vec<GroupId>,
}

/// The group of rows that do not count.
const NO_GROUP: GroupId = GroupId::MAX;

impl<'a, 'r> Members<'a, 'r> {
    fn new(units: &'a Units, of_unit: &'a [GroupId], strata: &'a Strata<'r>) -> Self {
        let all = if units.are_strata { strata.firsts.len() } else { strata.rows.len() };
        let mut groups = vec![NO_GROUP; all];
        for (row, group) in units.rows.iter().zip(of_unit) {
            let unit = if units.are_strata { strata.of_row[*row as usize] } else { *row };
            groups[unit as usize] = *group;
        }
        Self { strata, units, of_unit, groups }
    }

    /// How many rows each group has.
    fn counts(&self, groups: usize) -> Vec<u64> {
        let units = self.of_unit.iter().copied().zip(self.units.counts.iter().copied());
        fold(units, groups, 0, |sum, count| sum + count)
    }

    /// Each row that counts, with its group.
    fn rows(&self) -> impl Iterator<Item = (usize, GroupId)> {
        let by_row = (!self.units.are_strata).then(|| self.groups.iter().copied());
        let by_stratum = self.units.are_strata.then(|| {
            let strata = self.strata.of_row.iter();
            strata.map(|stratum| self.groups[*stratum as usize])
        });
        let groups = by_row.into_iter().flatten().chain(by_stratum.into_iter().flatten());
        groups.enumerate().filter(|(_, group)| *group != NO_GROUP)
    }

    /// The hashes of each group in ascending order, some of them repeated; the pairs are in the order of the
    /// hashes.
    fn hashes(&self, distinct: Distinct) -> impl Iterator<Item = (GroupId, u64)> + Clone {
        let hashed = self.strata.hashed(distinct);
        let units = if self.units.are_strata { &hashed.by_stratum } else { &hashed.rows };
        let with_group = units.iter().map(|(unit, rank)| (self.groups[*unit as usize], *rank));
        with_group
            .filter(|(group, _)| *group != NO_GROUP)
            .map(|(group, rank)| (group, hashed.hashes[rank as usize]))
    }
}

/// Whether the retention of `bucket` has ended at `now`.
fn has_ended(rollup: &Rollup, bucket: UnixMillis, now: UnixMillis) -> bool {
    rollup.kept_until(bucket).is_some_and(|until| until <= now)
}

/// The values of a measure; `None` for a count, which every group has anyway.
fn values(measure: &Measure, members: &Members<'_, '_>, groups: usize) -> Option<Values> {
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
            // As the column of the field is read, but from `props`: a backfill also reads rows that are older than
            // the column.
            Number::Field(field) => {
                let found = props::find(rows.props.get(row as RowId), field.path.steps());
                found.and_then(props::int).map(i128::from)
            }
        }
    };
    let values = members.rows().filter_map(|(row, group)| Some((group, value(row)?)));
    Values::Numbers(fold(values, groups, start, join))
}

fn fold<T: Copy>(
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

/// Sets of the hashes that come in ascending order for each group.
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

#[cfg(test)]
mod tests;
