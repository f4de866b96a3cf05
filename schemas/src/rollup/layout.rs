//! Where a rollup is stored: in which of the two tables that hold all rollups, and in which columns.
//!
//! `rollup_sums` holds the rollups of which every measure is a count or a sum, `rollup_states` the others. A
//! row names its rollup; dimensions stand in `dim1` to `dim6` in their declared order, sums in `sum1` to
//! `sum4`, and so on, in the order of their names. Every row has a count, `rows`: one whose sums all reach
//! zero would vanish from a SummingMergeTree.
//!
//! Both tables are partitioned by the day on which rows may be dropped, never by the time of events. So the
//! events of a batch touch few table partitions, whatever their times are.

use super::{Dimension, Measure, Rollup};
use crate::tables;
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
    /// Both.
    pub const ALL: [Self; 2] = [Self::Sums, Self::States];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sums => "rollup_sums",
            Self::States => "rollup_states",
        }
    }
}

/// Columns for dimensions, and so the most dimensions of a rollup.
pub const DIMENSIONS: usize = 6;
/// Columns for measures of one kind, and so the most of that kind.
pub const MEASURES: usize = 4;
/// Different retentions in one declaration: each has table partitions of its own.
pub const RETENTIONS: usize = 8;

/// A column for measures: its kind and, from 1, its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// `rows`, which every count is.
    Rows,
    /// `sum1` to `sum4`.
    Sum(usize),
    /// `min1` to `min4`.
    Min(usize),
    /// `max1` to `max4`.
    Max(usize),
    /// `uniq1` to `uniq4`.
    Uniq(usize),
}

impl Stored {
    /// Its name.
    pub fn column(self) -> String {
        match self {
            Self::Rows => "rows".to_owned(),
            Self::Sum(n) => format!("sum{n}"),
            Self::Min(n) => format!("min{n}"),
            Self::Max(n) => format!("max{n}"),
            Self::Uniq(n) => format!("uniq{n}"),
        }
    }
}

/// Day on which a table partition of a rollup may be dropped: its `expires`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Expiry(u16);

impl Expiry {
    /// 2149-06-06, the last day that `Date` holds: rows are kept for ever.
    pub const NEVER: Self = Self(u16::MAX);

    /// Days since 1970, as `Date` has it.
    pub fn days(self) -> u16 {
        self.0
    }

    /// Id of the table partition, as `_partition_id` has it.
    pub fn partition_id(self) -> String {
        tables::partition_id(self.start())
    }

    /// When ClickHouse may drop the table partition; never if absent.
    pub fn ends(self) -> Option<UnixMillis> {
        (self != Self::NEVER).then(|| self.start())
    }

    fn start(self) -> UnixMillis {
        UnixMillis(i64::from(self.0) * DAY)
    }
}

impl Rollup {
    /// Which table holds it.
    pub fn table(&self) -> Table {
        let is_sum =
            |measure: &Measure| matches!(measure, Measure::Count | Measure::CountOf(_) | Measure::Sum(_));
        if self.measures.iter().all(|(_, measure)| is_sum(measure)) { Table::Sums } else { Table::States }
    }

    /// The column of each of its measures.
    pub fn stored(&self) -> Vec<Stored> {
        let (mut sums, mut minima, mut maxima, mut sets) = (0, 0, 0, 0);
        let mut next = |measure: &Measure| {
            let count = |number: &mut usize| {
                *number += 1;
                *number
            };
            match measure {
                Measure::Count => Stored::Rows,
                Measure::CountOf(_) | Measure::Sum(_) => Stored::Sum(count(&mut sums)),
                Measure::Min(_) => Stored::Min(count(&mut minima)),
                Measure::Max(_) => Stored::Max(count(&mut maxima)),
                Measure::UniqExact(_) => Stored::Uniq(count(&mut sets)),
            }
        };
        self.measures.iter().map(|(_, measure)| next(measure)).collect()
    }

    /// The first of its measures that the tables have no column for.
    pub(super) fn first_without_column(&self) -> Option<&(String, Measure)> {
        let has_none = |stored: &Stored| match *stored {
            Stored::Rows => false,
            Stored::Sum(n) | Stored::Min(n) | Stored::Max(n) | Stored::Uniq(n) => n > MEASURES,
        };
        Some(&self.measures[self.stored().iter().position(has_none)?])
    }

    /// Column of the dimension at this place.
    pub fn dimension_column(at: usize) -> String {
        format!("dim{}", at + 1)
    }

    /// Whether it has dimensions or measures of these names.
    pub fn has_columns(&self, names: &[&str]) -> bool {
        let dimensions = self.dimensions.iter().map(Dimension::column_name);
        let all: Vec<_> = dimensions.chain(self.measures.iter().map(|(name, _)| name.clone())).collect();
        names.iter().all(|name| all.iter().any(|there| there == name))
    }

    /// A table expression of its rows under the names that it declares, as `tenant`, `bucket`, dimensions and
    /// measures; without marker rows and without buckets that are past the retention. Rows of equal keys are
    /// not merged, states are states. Columns are qualified, for a declared name may be that of another column.
    pub fn source(&self) -> String {
        let dimensions = self.dimensions.iter().enumerate();
        let dimensions =
            dimensions.map(|(at, d)| format!("T.{} AS `{}`", Self::dimension_column(at), d.column_name()));
        let measures = self.measures.iter().zip(self.stored());
        let measures = measures.map(|((name, _), stored)| format!("T.{} AS `{name}`", stored.column()));
        let columns: Vec<_> = dimensions.chain(measures).collect();
        format!(
            "(SELECT T.tenant AS tenant, T.bucket AS bucket, {} FROM {} AS T WHERE {})",
            columns.join(", "),
            self.table().name(),
            self.condition()
        )
    }

    /// `sql` with [`Self::source`] in place of its name in braces.
    pub fn in_place(&self, sql: &str) -> String {
        sql.replace(&format!("{{{}}}", self.name), &self.source())
    }

    /// Which rows of its table, which is called `T`, are its own and within the retention.
    pub(crate) fn condition(&self) -> String {
        let kept = self
            .retention_days
            .map(|days| format!(" AND T.bucket >= toDateTime(toDate(now('UTC')) - {days}, 'UTC')"));
        format!("T.tenant != '' AND T.rollup = '{}'{}", self.name, kept.unwrap_or_default())
    }

    /// When readers see a bucket no longer: as many days after the end of its day as it is kept; never if absent.
    pub fn kept_until(&self, bucket: UnixMillis) -> Option<UnixMillis> {
        Some(UnixMillis(bucket.floor(DAY).0 + (1 + i64::from(self.retention_days?)) * DAY))
    }

    /// Which table partition holds a bucket. Days of expiry are a quarter of the retention apart, so that a
    /// rollup has a handful of table partitions at a time.
    pub fn expires(&self, bucket: UnixMillis) -> Expiry {
        let (Some(days), Some(until)) = (self.retention_days, self.kept_until(bucket)) else {
            return Expiry::NEVER;
        };
        let step = i64::from(days.div_ceil(STEPS));
        let day = (until.0 / DAY + step - 1).div_euclid(step) * step;
        Expiry(u16::try_from(day).unwrap_or(u16::MAX))
    }

    /// The same as SQL: days since 1970, of the event time `time` in milliseconds.
    pub fn expires_sql(&self, time: &str) -> String {
        let Some(days) = self.retention_days else { return Expiry::NEVER.days().to_string() };
        let step = days.div_ceil(STEPS);
        format!("intDiv(intDiv({time}, {DAY}) + {}, {step}) * {step}", 1 + days + step - 1)
    }
}

/// Days of expiry within a retention.
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
    fn sums_stand_in_one_table_and_everything_else_in_the_other() {
        let tables = Rollups::built_in().iter().map(|r| (r.name.clone(), r.table())).collect::<Vec<_>>();
        for (name, table) in tables {
            let expected = if name.starts_with("event_") { Table::Sums } else { Table::States };
            assert_eq!(table, expected, "{name}");
        }
    }

    #[test]
    fn a_source_has_the_declared_names_and_neither_markers_nor_what_is_past_the_retention() {
        assert_eq!(
            rollup("retention = \"7d\"").source(),
            "(SELECT T.tenant AS tenant, T.bucket AS bucket, T.dim1 AS `country`, T.dim2 AS `plan`, T.sum1 AS `a`, \
             T.sum2 AS `b`, T.rows AS `n` FROM rollup_sums AS T WHERE T.tenant != '' AND T.rollup = 'r' \
             AND T.bucket >= toDateTime(toDate(now('UTC')) - 7, 'UTC'))"
        );
        assert!(rollup("").source().ends_with("WHERE T.tenant != '' AND T.rollup = 'r')"));
    }

    #[track_caller]
    fn check_expiry(retention: u32, bucket: &str, expires: &str) {
        let rollup = rollup(&format!("retention = \"{retention}d\""));
        let bucket = UnixMillis::parse(bucket).unwrap();
        let expiry = rollup.expires(bucket);
        assert_eq!(expiry.partition_id(), expires);
        assert!(expiry.ends() >= rollup.kept_until(bucket), "gone while readers may see it");
    }

    #[test]
    fn a_bucket_expires_at_the_first_quarter_of_a_retention_after_it_was_kept_for_all_of_it() {
        // 1970-01-09 is day 8, a multiple of two days.
        check_expiry(7, "1970-01-01 00:00:00", "19700109");
        check_expiry(7, "1970-01-01 23:59:00", "19700109");
        check_expiry(7, "1970-01-02 00:00:00", "19700111");
        check_expiry(1, "2026-11-28 12:00:00", "20261130");
        check_expiry(400, "2026-11-28 12:00:00", "20280117");
    }

    #[test]
    fn what_has_no_retention_never_expires() {
        let expiry = rollup("").expires(UnixMillis(0));
        assert_eq!((expiry, expiry.ends(), &*expiry.partition_id()), (Expiry::NEVER, None, "21490606"));
    }

    #[test]
    fn every_retention_of_every_time_that_is_believed_expires_before_never() {
        let latest = UnixMillis(STORABLE.end.0 - 1 + TimeLimits::MAX_AHEAD);
        let longest = rollup(&format!("retention = \"{}d\"", Rollup::MAX_RETENTION_DAYS));
        let expiry = longest.expires(latest);
        assert!(expiry < Expiry::NEVER, "{expiry:?}");
        assert!(expiry.ends() >= longest.kept_until(latest));
    }
}
