//! Rows become groups: the measures of a rollup for each combination of tenant,
//! bucket and dimensions.
//!
//! Pure, and generic over what is declared. Groups stand in the order of their first
//! rows, so equal batches give equal groups. Groups beyond a limit fold into one of
//! each tenant and bucket, whose dimensions are all [`OTHER`]. Left out are rows whose table partition
//! had ended when Kafka took them: ClickHouse would drop them with their marker.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::hash::BuildHasher as _;

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use schemas::rollup::{
    Column, Condition, Dimension, Distinct, Measure, Number, PartitionBy, PropPath, Rollup,
};
use schemas::time::{DAY, UnixMillis};
use xxhash_rust::xxh3::xxh3_64;

use crate::decode::props;
use crate::rows::{Interned, Interner, RowId, Rows, Texts};

/// Most groups that a batch brings to a rollup before further ones fold.
pub const MAX_GROUPS: usize = 50_000;
/// What each dimension of a folded group holds.
pub const OTHER: &str = "(other)";

/// Number of a group in its aggregate.
pub type GroupId = u32;

/// What a batch adds to one rollup.
pub struct Aggregate<'r> {
    /// Number of the tenant, by group.
    pub tenants: Vec<u32>,
    /// Start of the bucket, by group.
    pub buckets: Vec<UnixMillis>,
    /// For each dimension of the rollup its texts, and the number of one by group.
    pub dimensions: Vec<Numbered<'r>>,
    /// For each measure of the rollup, its count included, a value by group.
    pub measures: Vec<Values>,
    /// The groups of each table partition, by its start; never empty ones.
    pub cells: BTreeMap<UnixMillis, Vec<GroupId>>,
    /// Rows whose group was one too many.
    pub folded_rows: u64,
}

/// Numbers of texts: of the decoder's, or of such as were numbered for this rollup.
pub struct Numbered<'r> {
    texts: Texted<'r>,
    /// A number for each row that counts, or each group.
    pub numbers: Vec<u32>,
}

enum Texted<'r> {
    Decoded(&'r Interner),
    Own(Interner),
}

impl Numbered<'_> {
    /// The number of `text`, which may be new.
    fn intern(&mut self, text: &str) -> u32 {
        if let Texted::Decoded(texts) = self.texts {
            self.texts = Texted::Own(texts.clone());
        }
        match &mut self.texts {
            Texted::Own(texts) => texts.intern(text),
            Texted::Decoded(_) => unreachable!("decoded texts were copied just now"),
        }
    }

    /// The texts that the numbers stand for.
    pub fn texts(&self) -> &Interner {
        match &self.texts {
            Texted::Decoded(texts) => texts,
            Texted::Own(texts) => texts,
        }
    }
}

/// A measure, by group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Values {
    /// Counts, and measures of unsigned numbers.
    Unsigned(Vec<u64>),
    /// Measures of signed numbers.
    Signed(Vec<i64>),
    /// Sets of hashes.
    Distinct(Sets),
}

/// Sets of hashes, by group, end to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sets {
    hashes: Vec<u64>,
    ends: Vec<u32>,
}

impl Sets {
    /// The different hashes of a group, in ascending order.
    pub fn get(&self, group: GroupId) -> &[u64] {
        let group = group as usize;
        let start = group.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.hashes[start as usize..self.ends[group] as usize]
    }
}

/// Aggregates `rows` for `rollup`; groups beyond the first `max_groups` fold.
pub fn aggregate<'r>(rollup: &Rollup, rows: &'r Rows, max_groups: usize) -> Aggregate<'r> {
    let counted = counted(rollup, rows);
    let mut dimensions: Vec<_> = rollup.dimensions.iter().map(|d| numbered(d, rows, &counted)).collect();
    let Groups { firsts, members, others, folded_rows } =
        group(rollup, rows, &counted, &dimensions, max_groups);
    let buckets: Vec<_> = firsts.iter().map(|at| bucket(rollup, rows, counted[*at])).collect();
    let mut cells = BTreeMap::<_, Vec<GroupId>>::new();
    for (group, bucket) in (0..).zip(&buckets) {
        cells.entry(rollup.partition_by().start(*bucket)).or_default().push(group);
    }
    for dimension in &mut dimensions {
        dimension.numbers = firsts.iter().map(|at| dimension.numbers[*at]).collect();
        if !others.is_empty() {
            let other = dimension.intern(OTHER);
            others.iter().for_each(|group| dimension.numbers[*group as usize] = other);
        }
    }
    let measures = rollup.measures_with_count();
    Aggregate {
        tenants: firsts.iter().map(|at| rows.tenant.numbers[counted[*at] as usize]).collect(),
        buckets,
        dimensions,
        measures: measures.map(|(_, measure)| values(measure, rows, &members, firsts.len())).collect(),
        cells,
        folded_rows,
    }
}

fn bucket(rollup: &Rollup, rows: &Rows, row: RowId) -> UnixMillis {
    rollup.grain.bucket(rows.event_time[row as usize])
}

/// The rows that count, in their order.
fn counted(rollup: &Rollup, rows: &Rows) -> Vec<RowId> {
    let tests: Vec<_> = rollup.conditions.iter().map(|condition| Test::new(condition, rows)).collect();
    let counts = |row: &RowId| {
        let now = rows.kafka_time[*row as usize];
        !has_ended(rollup, bucket(rollup, rows, *row), now) && tests.iter().all(|test| test.holds(rows, *row))
    };
    (0..rows.len() as RowId).filter(counts).collect()
}

/// A condition, prepared for the texts of one batch.
enum Test<'c, 'r> {
    /// Whether each numbered text is one of the wanted.
    Numbered(&'r [u32], Vec<bool>),
    Text(&'r Texts, &'c [String]),
    Prop(&'c PropPath, &'c [String]),
}

impl<'c, 'r> Test<'c, 'r> {
    fn new(condition: &'c Condition, rows: &'r Rows) -> Self {
        let wanted = &condition.values;
        match &condition.field {
            Dimension::Prop(path) => Self::Prop(path, wanted),
            Dimension::Column(column) => match source(*column, rows) {
                Source::Numbered(column) => {
                    let numbers = 0..column.texts.count() as u32;
                    let is_wanted = |number| wanted.iter().any(|text| text == column.texts.get(number));
                    Self::Numbered(&column.numbers, numbers.map(is_wanted).collect())
                }
                Source::Plain(texts) => Self::Text(texts, wanted),
            },
        }
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

/// Where a text column is.
enum Source<'r> {
    Numbered(&'r Interned),
    Plain(&'r Texts),
}

fn source(column: Column, rows: &Rows) -> Source<'_> {
    match column {
        Column::Event => Source::Numbered(&rows.event),
        Column::Country => Source::Numbered(&rows.country),
        Column::DeviceOs => Source::Numbered(&rows.device_os),
        Column::DeviceId => Source::Plain(&rows.device_id),
        Column::UserId => Source::Plain(&rows.user_id),
        Column::Session => Source::Plain(&rows.session),
        Column::ParamStr => Source::Plain(&rows.param_str),
    }
}

fn prop<'r>(rows: &'r Rows, path: &PropPath, row: RowId) -> Cow<'r, str> {
    props::scalar(rows.props.get(row), path.steps())
}

/// The numbers of a dimension for the rows that count.
fn numbered<'r>(dimension: &Dimension, rows: &'r Rows, counted: &[RowId]) -> Numbered<'r> {
    let own = |text: &dyn Fn(RowId) -> Cow<'r, str>| {
        let mut texts = Interner::default();
        let numbers = counted.iter().map(|row| texts.intern(&text(*row))).collect();
        Numbered { texts: Texted::Own(texts), numbers }
    };
    match dimension {
        Dimension::Prop(path) => own(&|row| prop(rows, path, row)),
        Dimension::Column(column) => match source(*column, rows) {
            Source::Plain(texts) => own(&|row| texts.get(row).into()),
            Source::Numbered(column) => Numbered {
                texts: Texted::Decoded(&column.texts),
                numbers: counted.iter().map(|row| column.numbers[*row as usize]).collect(),
            },
        },
    }
}

/// Which rows belong together.
struct Groups {
    /// For each group the place of its first row among those that count.
    firsts: Vec<usize>,
    /// Each row that counts, and its group.
    members: Vec<(RowId, GroupId)>,
    /// Groups of rows that were folded.
    others: Vec<GroupId>,
    folded_rows: u64,
}

fn group(
    rollup: &Rollup,
    rows: &Rows,
    counted: &[RowId],
    dimensions: &[Numbered<'_>],
    max_groups: usize,
) -> Groups {
    let hasher = DefaultHashBuilder::default();
    let tenant = |at: usize| rows.tenant.numbers[counted[at] as usize];
    let bucket = |at: usize| bucket(rollup, rows, counted[at]);
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
    let mut members = Vec::with_capacity(counted.len());
    for (at, row) in counted.iter().enumerate() {
        let key = hash(at);
        let known = groups.find(key, |group| equal(firsts[*group as usize], at)).copied();
        let group = known.unwrap_or_else(|| {
            let group = firsts.len() as GroupId;
            // Without dimensions a fold would change nothing.
            if groups.len() >= max_groups && !dimensions.is_empty() {
                folded_rows += 1;
                return *others.entry((tenant(at), bucket(at))).or_insert_with(|| {
                    firsts.push(at);
                    group
                });
            }
            firsts.push(at);
            groups.insert_unique(key, group, |group| hash(firsts[*group as usize]));
            group
        });
        members.push((*row, group));
    }
    let mut others: Vec<_> = others.into_values().collect();
    others.sort_unstable();
    Groups { firsts, members, others, folded_rows }
}

/// Whether the table partition of `bucket` is past its retention at `now`.
fn has_ended(rollup: &Rollup, bucket: UnixMillis, now: UnixMillis) -> bool {
    let Some(days) = rollup.retention_days else { return false };
    let kept = i64::from(days) * DAY;
    // Nearly always true, and cheaper than the calendar.
    if bucket.0 + kept > now.0 {
        return false;
    }
    let cut = rollup.partition_by();
    let start = cut.start(bucket);
    let end = match cut {
        PartitionBy::Day => start.0 + DAY,
        PartitionBy::Month => cut.start(UnixMillis(start.0 + 31 * DAY)).0,
        PartitionBy::Nothing => return false,
    };
    end + kept <= now.0
}

fn values(measure: Measure, rows: &Rows, members: &[(RowId, GroupId)], groups: usize) -> Values {
    // Sums wrap as those of ClickHouse do.
    match measure {
        Measure::Count => Values::Unsigned(fold(members, groups, 0, |_| 1, u64::wrapping_add)),
        Measure::Sum(n) => numbers(n, rows, members, groups, (0, i64::wrapping_add), (0, u64::wrapping_add)),
        Measure::Min(n) => numbers(n, rows, members, groups, (i64::MAX, i64::min), (u64::MAX, u64::min)),
        Measure::Max(n) => numbers(n, rows, members, groups, (i64::MIN, i64::max), (0, u64::max)),
        Measure::UniqExact(distinct) => {
            let hash = |row| match text(distinct, rows, row) {
                "" => None,
                text => Some(xxh3_64(text.as_bytes())),
            };
            Values::Distinct(sets(members, groups, hash))
        }
    }
}

fn numbers(
    number: Number,
    rows: &Rows,
    members: &[(RowId, GroupId)],
    groups: usize,
    signed: (i64, fn(i64, i64) -> i64),
    unsigned: (u64, fn(u64, u64) -> u64),
) -> Values {
    match number {
        Number::ParamInt => {
            Values::Signed(fold(members, groups, signed.0, |row| rows.param_int[row], signed.1))
        }
        Number::Sequence => {
            Values::Unsigned(fold(members, groups, unsigned.0, |row| rows.sequence[row], unsigned.1))
        }
    }
}

fn fold<T: Copy>(
    members: &[(RowId, GroupId)],
    groups: usize,
    start: T,
    value: impl Fn(usize) -> T,
    join: impl Fn(T, T) -> T,
) -> Vec<T> {
    let mut values = vec![start; groups];
    for (row, group) in members {
        let joined = &mut values[*group as usize];
        *joined = join(*joined, value(*row as usize));
    }
    values
}

fn text(distinct: Distinct, rows: &Rows, row: RowId) -> &str {
    match distinct {
        Distinct::User => rows.user(row),
        Distinct::Session => rows.session.get(row),
        Distinct::DeviceId => rows.device_id.get(row),
    }
}

fn sets(members: &[(RowId, GroupId)], groups: usize, hash: impl Fn(RowId) -> Option<u64>) -> Sets {
    let mut pairs: Vec<(GroupId, u64)> =
        members.iter().filter_map(|(row, group)| Some((*group, hash(*row)?))).collect();
    pairs.sort_unstable();
    pairs.dedup();
    let mut ends = vec![0; groups];
    pairs.iter().for_each(|(group, _)| ends[*group as usize] += 1);
    let mut end = 0;
    for length in &mut ends {
        end += *length;
        *length = end;
    }
    Sets { hashes: pairs.into_iter().map(|(_, hash)| hash).collect(), ends }
}

#[cfg(test)]
mod tests;
