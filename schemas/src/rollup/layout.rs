//! Where a rollup is stored: in which of the two rollup tables, and in which columns.
//!
//! `rollup_sums` holds the rollups whose measures are all counts or sums; `rollup_states` holds all others. Each row
//! has the name of its rollup. Dimensions are in `dim1` to `dim6` in their declared order. Measures are in the columns
//! of their kind (`sum1` to `sum4`, `min1` to `min4`, …), sorted by name. Every row has a count of events, `rows`:
//! without it, a row of `rollup_sums` could have only zero sums, and SummingMergeTree removes such a row.
//!
//! Both tables are partitioned by the day on which rows may be dropped, not by the time of events. These days are a
//! quarter of the retention apart, so a batch touches few table partitions even if its events are of many days.

use super::definition::Rollup;
use super::dimension::Dimension;
use super::measure::Measure;
use crate::table_partition::partition_id;
use crate::time::{DAY, UnixMillis};

/// A table of rollups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// `rollup_sums`, a SummingMergeTree.
    Sums,
    /// `rollup_states`, an AggregatingMergeTree.
    States,
}

impl Table {
    /// Both tables.
    pub const ALL: [Self; 2] = [Self::Sums, Self::States];

    /// The name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sums => "rollup_sums",
            Self::States => "rollup_states",
        }
    }
}

/// The number of columns for dimensions, and so the maximum number of dimensions of a rollup.
pub const DIMENSIONS: usize = 6;
/// The number of columns of each kind (`sum`, `min`, `max`, `uniq`), and so the maximum number of measures that one
/// rollup can store in columns of that kind.
pub const MEASURES: usize = 4;
/// Maximum number of different retentions in one file. Rows of rollups with different retentions mostly expire on
/// different days, so each retention adds table partitions.
pub const RETENTIONS: usize = 8;

/// A column for measures: its kind and its number, from 1. Values of this type are ordered like the columns in the
/// tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MeasureColumn {
    /// `rows`, which stores the number of events.
    Rows,
    /// `sum1` to `sum4`, for sums and for counts of events that have a field.
    Sum(usize),
    /// `min1` to `min4`.
    Min(usize),
    /// `max1` to `max4`.
    Max(usize),
    /// `uniq1` to `uniq4`.
    Uniq(usize),
}

impl MeasureColumn {
    /// The name.
    pub fn name(self) -> String {
        match self {
            Self::Rows => "rows".to_owned(),
            Self::Sum(n) => format!("sum{n}"),
            Self::Min(n) => format!("min{n}"),
            Self::Max(n) => format!("max{n}"),
            Self::Uniq(n) => format!("uniq{n}"),
        }
    }
}

/// The day on which a table partition of a rollup may be dropped: the column `expires`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Expiry(u16);

impl Expiry {
    /// 2149-06-06, the last day of `Date`: rows are kept forever.
    pub const NEVER: Self = Self(u16::MAX);

    /// Days since 1970, as in `Date`.
    pub fn days(self) -> u16 {
        self.0
    }

    /// The `_partition_id` of the table partition.
    pub fn partition_id(self) -> String {
        partition_id(self.start())
    }

    /// When ClickHouse may drop the table partition; `None` for never.
    pub fn droppable_from(self) -> Option<UnixMillis> {
        (self != Self::NEVER).then(|| self.start())
    }

    fn start(self) -> UnixMillis {
        UnixMillis(i64::from(self.0) * DAY)
    }
}

/// The prefix of the names that [`Rollup::sample_of`] returns. No declared name has this prefix, because declared names
/// begin with a lower-case letter.
const SAMPLE_PREFIX: &str = "Sample_";

impl Rollup {
    /// The table that stores this rollup.
    pub fn table(&self) -> Table {
        let are_sums = self.measures.iter().all(|(_, measure)| measure.is_additive());
        if are_sums { Table::Sums } else { Table::States }
    }

    /// The column of each measure, in the order of `measures`.
    pub fn measure_columns(&self) -> Vec<MeasureColumn> {
        let (mut sums, mut minima, mut maxima, mut sets) = (0, 0, 0, 0);
        let mut next = |measure: &Measure| {
            let count = |number: &mut usize| {
                *number += 1;
                *number
            };
            match measure {
                Measure::Count => MeasureColumn::Rows,
                Measure::CountOf(_) | Measure::Sum(_) => MeasureColumn::Sum(count(&mut sums)),
                Measure::Min(_) => MeasureColumn::Min(count(&mut minima)),
                Measure::Max(_) => MeasureColumn::Max(count(&mut maxima)),
                Measure::UniqExact(_) => MeasureColumn::Uniq(count(&mut sets)),
            }
        };
        self.measures.iter().map(|(_, measure)| next(measure)).collect()
    }

    /// The first measure for which the tables have no column.
    pub(super) fn first_without_column(&self) -> Option<&(String, Measure)> {
        let has_none = |column: &MeasureColumn| match *column {
            MeasureColumn::Rows => false,
            MeasureColumn::Sum(n)
            | MeasureColumn::Min(n)
            | MeasureColumn::Max(n)
            | MeasureColumn::Uniq(n) => n > MEASURES,
        };
        Some(&self.measures[self.measure_columns().iter().position(has_none)?])
    }

    /// The column of the dimension at index `at`.
    pub fn dimension_column(at: usize) -> String {
        format!("dim{}", at + 1)
    }

    /// Whether each of these names is the name of a dimension or a measure of this rollup.
    pub fn has_columns(&self, names: &[&str]) -> bool {
        let dimensions = self.dimensions.iter().map(Dimension::column_name);
        let all: Vec<_> = dimensions.chain(self.measures.iter().map(|(name, _)| name.clone())).collect();
        names.iter().all(|name| all.iter().any(|there| there == name))
    }

    /// A subquery that returns the rows of this rollup: `tenant`, `bucket`, and the dimensions and measures under their
    /// declared names. It leaves out marker rows and buckets that are past the retention. It does not merge rows with
    /// equal keys, and `uniq` columns are aggregate states. In the subquery, the columns of the table are qualified by
    /// `T.`, because a declared name may also be the name of another column of the table.
    pub fn source(&self) -> String {
        let dimensions = self.dimensions.iter().enumerate();
        let dimensions =
            dimensions.map(|(at, d)| format!("T.{} AS `{}`", Self::dimension_column(at), d.column_name()));
        let measures = self.measures.iter().zip(self.measure_columns());
        let measures = measures.map(|((name, _), column)| format!("T.{} AS `{name}`", column.name()));
        let columns: Vec<_> = dimensions.chain(measures).collect();
        format!(
            "(SELECT T.tenant AS tenant, T.bucket AS bucket, {} FROM {} AS T WHERE {})",
            columns.join(", "),
            self.table().name(),
            self.condition()
        )
    }

    /// The name by which queries read the sample of the distinct count `measure`: an aggregate state with only the
    /// 64-bit hashes below 2^60, which is one hash in sixteen.
    pub fn sample_of(measure: &str) -> String {
        format!("{SAMPLE_PREFIX}{measure}")
    }

    /// The column of the rollup's table that stores a dimension, a measure or the [sample](Self::sample_of) of a
    /// distinct count; `None` if the rollup declares no such name.
    pub fn table_column(&self, name: &str) -> Option<String> {
        if let Some(at) = self.dimensions.iter().position(|dimension| dimension.column_name() == name) {
            return Some(Self::dimension_column(at));
        }
        let measures = || self.measures.iter().map(|(name, _)| name).zip(self.measure_columns());
        let sampled = name.strip_prefix(SAMPLE_PREFIX).map(|of| measures().find(|(name, _)| *name == of));
        match sampled {
            Some(Some((_, MeasureColumn::Uniq(n)))) => Some(format!("sample{n}")),
            _ => measures().find(|(there, _)| *there == name).map(|(_, column)| column.name()),
        }
    }

    /// The condition for the rows of this rollup that are within the retention and in a bucket that begins at or after
    /// `from` and before `to`. In the condition, the rollup's table has the alias `T`. The condition also names the
    /// table partitions that can have such rows, so that ClickHouse opens no others.
    pub fn condition_between(&self, from: UnixMillis, to: UnixMillis) -> String {
        let bucket = |edge: UnixMillis| format!("toDateTime({}, 'UTC')", edge.0.div_euclid(1000));
        let expiries = self.retention_days.map(|_| {
            let [first, last] = [from, to].map(|edge| self.expires(UnixMillis(edge.0.max(0))).days());
            format!(" AND T.expires BETWEEN toDate({first}) AND toDate({last})")
        });
        format!(
            "{}{} AND T.bucket >= {} AND T.bucket < {}",
            self.condition(),
            expiries.unwrap_or_default(),
            bucket(from),
            bucket(to)
        )
    }

    /// Returns `sql` after replacing the name of this rollup in braces, for example `{event_hourly}`, by
    /// [`Self::source`].
    pub fn substitute_in(&self, sql: &str) -> String {
        sql.replace(&format!("{{{}}}", self.name), &self.source())
    }

    /// The condition for the rows of this rollup that are within the retention. In the condition, the rollup's table
    /// has the alias `T`.
    pub(crate) fn condition(&self) -> String {
        // The retention of a rollup never changes, so all rows of a rollup without a retention are in the table
        // partition of the day 2149-06-06. With the condition on `expires`, ClickHouse opens no other table partition.
        let kept = match self.retention_days {
            Some(days) => format!("T.bucket >= toDateTime(toDate(now('UTC')) - {days}, 'UTC')"),
            None => "T.expires = '2149-06-06'".to_owned(),
        };
        format!("T.tenant != '' AND T.rollup = '{}' AND {kept}", self.name)
    }

    /// The moment from which readers no longer see a bucket: the end of its day plus the retention; `None` for never.
    pub fn kept_until(&self, bucket: UnixMillis) -> Option<UnixMillis> {
        Some(UnixMillis(bucket.floor(DAY).0 + (1 + i64::from(self.retention_days?)) * DAY))
    }

    /// The table partition of a bucket. Possible days of expiry are a quarter of the retention apart, so that a rollup
    /// has few table partitions at a time.
    pub fn expires(&self, bucket: UnixMillis) -> Expiry {
        let (Some(days), Some(until)) = (self.retention_days, self.kept_until(bucket)) else {
            return Expiry::NEVER;
        };
        let step = i64::from(days.div_ceil(STEPS));
        let day = (until.0 / DAY + step - 1).div_euclid(step) * step;
        Expiry(u16::try_from(day).unwrap_or(u16::MAX))
    }

    /// [`Rollup::expires`] as SQL: days since 1970. `time` is an SQL expression for the event time in milliseconds.
    pub fn expires_sql(&self, time: &str) -> String {
        let Some(days) = self.retention_days else { return Expiry::NEVER.days().to_string() };
        let step = days.div_ceil(STEPS);
        format!("intDiv(intDiv({time}, {DAY}) + {}, {step}) * {step}", 1 + days + step - 1)
    }
}

/// The number of steps into which a retention is divided: table partitions expire once per step.
const STEPS: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollup::Rollups;
    use crate::row::{STORABLE, TimeLimits};

    fn rollup(more: &str) -> Rollup {
        let text = format!(
            "[[rollup]]\nname = \"r\"\ngrain = \"minute\"\ndimensions = [\"country\", \"props.plan\"]\n\
             measures = {{ b = \"sum(param_int)\", a = \"sum(sequence)\", n = \"count\" }}\n{more}"
        );
        Rollups::parse("", &text).unwrap().get("r").unwrap().clone()
    }

    #[test]
    fn rollups_of_sums_are_in_one_table_and_all_others_in_the_other() {
        let tables = Rollups::built_in().iter().map(|r| (r.name.clone(), r.table())).collect::<Vec<_>>();
        for (name, table) in tables {
            let expected = if name.starts_with("event_") { Table::Sums } else { Table::States };
            assert_eq!(table, expected, "{name}");
        }
    }

    #[test]
    fn a_source_has_the_declared_names_and_no_markers_or_expired_buckets() {
        assert_eq!(
            rollup("retention = \"7d\"").source(),
            "(SELECT T.tenant AS tenant, T.bucket AS bucket, T.dim1 AS `country`, T.dim2 AS `plan`, T.sum1 AS `a`, \
             T.sum2 AS `b`, T.rows AS `n` FROM rollup_sums AS T WHERE T.tenant != '' AND T.rollup = 'r' \
             AND T.bucket >= toDateTime(toDate(now('UTC')) - 7, 'UTC'))"
        );
        let never = "WHERE T.tenant != '' AND T.rollup = 'r' AND T.expires = '2149-06-06')";
        assert!(rollup("").source().ends_with(never));
    }

    #[test]
    fn declared_names_are_mapped_to_columns_of_the_table() {
        let rollups = Rollups::built_in();
        let users = rollups.get("users_hourly").unwrap();
        let columns = ["event", "users", "Sample_users"].map(|name| users.table_column(name).unwrap());
        assert_eq!(columns, ["dim1", "uniq1", "sample1"]);
        let events = rollups.get("event_hourly").unwrap();
        let columns = ["country", "events", "value"].map(|name| events.table_column(name).unwrap());
        assert_eq!(columns, ["dim2", "rows", "sum1"]);
        assert_eq!((users.table_column("country"), events.table_column("Sample_events")), (None, None));
    }

    #[test]
    fn a_window_is_read_from_the_table_partitions_that_expire_with_its_buckets() {
        let [from, to] = ["2026-11-20 00:00:00.000", "2026-11-21 00:00:00.000"]
            .map(|edge| UnixMillis::parse(edge).unwrap());
        let week = rollup("retention = \"7d\"").condition_between(from, to);
        let [first, last] = [from, to].map(|edge| rollup("retention = \"7d\"").expires(edge).days());
        assert!(week.contains(&format!("T.expires BETWEEN toDate({first}) AND toDate({last})")), "{week}");
        let ends = "T.bucket >= toDateTime(1795132800, 'UTC') AND T.bucket < toDateTime(1795219200, 'UTC')";
        assert!(week.ends_with(ends), "{week}");
        let forever = rollup("").condition_between(from, to);
        assert!(forever.contains("T.expires = '2149-06-06'") && forever.ends_with(ends), "{forever}");
    }

    #[track_caller]
    fn check_expiry(retention: u32, bucket: &str, expires: &str) {
        let rollup = rollup(&format!("retention = \"{retention}d\""));
        let bucket = UnixMillis::parse(bucket).unwrap();
        let expiry = rollup.expires(bucket);
        assert_eq!(expiry.partition_id(), expires);
        assert!(
            expiry.droppable_from() >= rollup.kept_until(bucket),
            "readers still see the bucket when its table partition may be dropped"
        );
    }

    #[test]
    fn a_bucket_expires_at_the_first_step_after_its_whole_retention() {
        // With a retention of 7 days, buckets expire on every second day; 1970-01-09 is day 8.
        check_expiry(7, "1970-01-01 00:00:00", "19700109");
        check_expiry(7, "1970-01-01 23:59:00", "19700109");
        check_expiry(7, "1970-01-02 00:00:00", "19700111");
        check_expiry(1, "2026-11-28 12:00:00", "20261130");
        check_expiry(400, "2026-11-28 12:00:00", "20280117");
    }

    #[test]
    fn a_rollup_without_a_retention_never_expires() {
        let expiry = rollup("").expires(UnixMillis(0));
        assert_eq!(
            (expiry, expiry.droppable_from(), &*expiry.partition_id()),
            (Expiry::NEVER, None, "21490606")
        );
    }

    #[test]
    fn every_retention_of_every_accepted_time_expires_before_never() {
        let latest = UnixMillis(STORABLE.end.0 - 1 + TimeLimits::MAX_AHEAD);
        let longest = rollup(&format!("retention = \"{}d\"", Rollup::MAX_RETENTION_DAYS));
        let expiry = longest.expires(latest);
        assert!(expiry < Expiry::NEVER, "{expiry:?}");
        assert!(expiry.droppable_from() >= longest.kept_until(latest));
    }
}
