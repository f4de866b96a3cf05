//! The row of the statement that reads all answers.
//!
//! All SELECTs of a UNION ALL have the same columns: each answer fills its own columns, and all other columns have
//! their default. An answer that names a column that does not exist does not compile.

use clickhouse::Row;
use serde::Deserialize;

macro_rules! columns {
    ($($(#[$doc:meta])* $name:ident: $kind:ty = $default:literal,)*) => {
        /// A row of the statement.
        #[derive(Row, Deserialize)]
        #[cfg_attr(test, derive(Default))]
        pub(crate) struct SnapshotRow {
            $($(#[$doc])* pub(crate) $name: $kind,)*
        }

        /// The SQL expressions that one SELECT has for the columns of a [`SnapshotRow`].
        pub(super) struct Columns {
            $(pub(super) $name: &'static str,)*
        }

        impl Columns {
            /// The default of every column, for the columns that an answer does not fill.
            pub(super) const DEFAULT: Self = Self { $($name: $default,)* };

            /// Every column's name and expression.
            fn all(&self) -> Vec<(&'static str, &'static str)> {
                vec![$((stringify!($name), self.$name)),*]
            }
        }
    };
}

columns! {
    /// The number of the SELECT that returned the row.
    part: u8 = "toUInt8(0)",
    /// The `as_of` of the row's data, in milliseconds since 1970; 0 if it is not known, and in rows without an `as_of`
    /// of their own.
    as_of: i64 = "toInt64(0)",
    /// Hash of the rollups of the aggregator that started last; 0 if no aggregator has started yet.
    rollups: u64 = "toUInt64(0)",
    /// The text of the aggregator's rollups; empty if this process declares the same rollups or if `rollups` is 0.
    declared: String = "''",
    /// For each rollup, its name and the moment from which on the rollup has every event, in milliseconds since 1970;
    /// 0 if the rollup has every event that ever arrived. Rollups that were declared before the first event have no
    /// entry.
    since: Vec<(String, i64)> = "CAST([], 'Array(Tuple(String, Int64))')",
    /// The tenant whose data the row has.
    tenant: String = "''",
    /// Start of the hour, in seconds since 1970.
    hour: u32 = "toUInt32(0)",
    users: u64 = "toUInt64(0)",
    impressions: u64 = "toUInt64(0)",
    clicks: u64 = "toUInt64(0)",
    country: String = "''",
    views: u64 = "toUInt64(0)",
    plays: u64 = "toUInt64(0)",
    /// All views, plays and clicks of the country, or all votes of the poll, of all time.
    total: u64 = "toUInt64(0)",
    poll: String = "''",
    option: String = "''",
    votes: u64 = "toUInt64(0)",
    voters: u64 = "toUInt64(0)",
    /// Start of a minute in the series of `/v1/live`, in seconds since 1970; 0 in all other rows.
    start: u32 = "toUInt32(0)",
    event: String = "''",
    events: u64 = "toUInt64(0)",
}

impl Columns {
    /// `SELECT` with the names of the columns, for the first SELECT of the statement: a UNION ALL takes its column
    /// names from the first SELECT.
    pub(super) fn select_named(&self) -> String {
        let columns = self.all().into_iter().map(|(name, expression)| format!("{expression} AS {name}"));
        format!("SELECT {}", columns.collect::<Vec<_>>().join(", "))
    }

    /// `SELECT` without names, for each further SELECT of the statement.
    pub(super) fn select(&self) -> String {
        let columns = self.all().into_iter().map(|(_, expression)| expression);
        format!("SELECT {}", columns.collect::<Vec<_>>().join(", "))
    }
}
