//! A declared rollup: its dimensions, measures and grain, and the table they make.
//!
//! Invariant: a [`Rollup`] that exists is valid; names can stand in SQL as they are.
//! Every table has a count column, declared or not: a row whose sums all reach zero
//! would vanish from a SummingMergeTree. No list of columns is given to that engine:
//! with one it drops marker rows.

use std::fmt;

use crate::time::{DAY, HOUR, MINUTE, UnixMillis};

mod declare;

mod page;

mod text;

pub use declare::DeclareError;

/// All rollups of a deployment, in the order of their file. Equal if they declare the same.
#[derive(Debug, Clone)]
pub struct Rollups {
    all: Vec<Rollup>,
    source: String,
}

impl PartialEq for Rollups {
    fn eq(&self, other: &Self) -> bool {
        self.all == other.all
    }
}

impl Eq for Rollups {}

impl Rollups {
    /// The rollups that are compiled in: `rollups.toml` beside this crate's sources.
    pub fn built_in() -> Self {
        Self::parse("rollups.toml", include_str!("../rollups.toml")).expect("the built-in file is tested")
    }

    /// Reads declarations; an error names `file`, the line and what is wrong there.
    pub fn parse(file: &str, text: &str) -> Result<Self, DeclareError> {
        declare::parse(file, text).map(|all| Self { all, source: text.to_owned() })
    }

    /// The text that declares them.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// In the order of their file.
    pub fn iter(&self) -> std::slice::Iter<'_, Rollup> {
        self.all.iter()
    }

    /// The rollup of this name.
    pub fn get(&self, name: &str) -> Option<&Rollup> {
        self.all.iter().find(|rollup| rollup.name == name)
    }
}

/// One declared rollup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollup {
    /// Name of its table.
    pub name: String,
    /// Length of a bucket.
    pub grain: Grain,
    /// What it is broken down by, besides tenant and bucket.
    pub dimensions: Vec<Dimension>,
    /// Which events count: those that meet every condition.
    pub conditions: Vec<Condition>,
    /// Its measures by name, in the order of their names.
    pub measures: Vec<(String, Measure)>,
    /// Days that a bucket is kept; for ever if absent.
    pub retention_days: Option<u32>,
}

/// Length of a bucket of the event's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grain {
    /// A minute.
    Minute,
    /// A quarter of an hour.
    QuarterHour,
    /// An hour.
    Hour,
    /// A UTC day.
    Day,
    /// One bucket for all time, and no bucket column.
    None,
}

impl Grain {
    const ALL: [Self; 5] = [Self::Minute, Self::QuarterHour, Self::Hour, Self::Day, Self::None];

    /// Its name in a declaration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::QuarterHour => "15m",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::None => "none",
        }
    }

    /// Milliseconds of a bucket.
    pub fn length(self) -> Option<i64> {
        match self {
            Self::Minute => Some(MINUTE),
            Self::QuarterHour => Some(15 * MINUTE),
            Self::Hour => Some(HOUR),
            Self::Day => Some(DAY),
            Self::None => None,
        }
    }

    /// Start of the bucket that holds `time`; the epoch where there is but one bucket.
    pub fn bucket(self, time: UnixMillis) -> UnixMillis {
        self.length().map_or(UnixMillis(0), |length| time.floor(length))
    }
}

/// A field that a rollup is broken down by, or that its `where` looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dimension {
    /// A column of the raw table.
    Column(Column),
    /// A field of `props`: `props.plan`, `props.a.b`. Texts count as they are, numbers and
    /// truth values as their JSON; anything else, and absence, is empty.
    Prop(PropPath),
}

impl Dimension {
    /// Name of its column in the rollup's table: that of the raw column, or the path with
    /// `_` between its steps.
    pub fn column_name(&self) -> String {
        match self {
            Self::Column(column) => column.name().to_owned(),
            Self::Prop(path) => path.0.join("_"),
        }
    }

    /// ClickHouse type of that column.
    pub fn column_type(&self) -> &'static str {
        match self {
            Self::Column(Column::Event | Column::Country | Column::DeviceOs) => "LowCardinality(String)",
            Self::Column(_) | Self::Prop(_) => "String",
        }
    }
}

/// As it is declared: `country`, `props.plan`.
impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Column(column) => f.write_str(column.name()),
            Self::Prop(path) => write!(f, "props.{}", path.0.join(".")),
        }
    }
}

/// The steps from `props` to a field, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PropPath(Vec<String>);

impl PropPath {
    /// The names on the way, outermost first.
    pub fn steps(&self) -> &[String] {
        &self.0
    }
}

/// A text column of the raw table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    /// The event's name.
    Event,
    /// Its country.
    Country,
    /// The device's operating system.
    DeviceOs,
    /// The device.
    DeviceId,
    /// The user as sent.
    UserId,
    /// The session.
    Session,
    /// The client's text.
    ParamStr,
}

impl Column {
    const ALL: [Self; 7] = [
        Self::Event,
        Self::Country,
        Self::DeviceOs,
        Self::DeviceId,
        Self::UserId,
        Self::Session,
        Self::ParamStr,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Country => "country",
            Self::DeviceOs => "device_os",
            Self::DeviceId => "device_id",
            Self::UserId => "user_id",
            Self::Session => "session",
            Self::ParamStr => "param_str",
        }
    }
}

/// A condition on the events of a rollup: the field holds one of these texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// The field.
    pub field: Dimension,
    /// What it may hold, at least one.
    pub values: Vec<String>,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Events.
    Count,
    /// Sum of a number.
    Sum(Number),
    /// Least of a number.
    Min(Number),
    /// Greatest of a number.
    Max(Number),
    /// Exact number of distinct values, by their 64-bit hash; absent ones do not count.
    UniqExact(Distinct),
}

/// A field that is a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// The client's number.
    ParamInt,
    /// The position in the session.
    Sequence,
}

/// A field whose values can be counted as distinct.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distinct {
    /// Who did it: `user_id`, else `device_id`.
    User,
    /// The session.
    Session,
    /// The device.
    DeviceId,
}

/// How a table is cut, so that old data can leave whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PartitionBy {
    /// By UTC day.
    Day,
    /// By UTC month.
    Month,
    /// Not at all.
    Nothing,
}

impl PartitionBy {
    /// Start of the table partition that holds `time`, which also names it.
    pub fn start(self, time: UnixMillis) -> UnixMillis {
        match self {
            Self::Day => time.floor(DAY),
            Self::Month => time.month(),
            Self::Nothing => UnixMillis(0),
        }
    }

    /// What ClickHouse calls the table partition that begins at `start`: its `_partition_id`.
    pub fn id(self, start: UnixMillis) -> String {
        let digits = start.to_string().replace('-', "");
        match self {
            Self::Day => digits[..8].to_owned(),
            Self::Month => digits[..6].to_owned(),
            Self::Nothing => "all".to_owned(),
        }
    }

    /// When ClickHouse may drop the table partition that begins at `start`, if its rows
    /// are kept for so many days after its end.
    pub fn ends(self, start: UnixMillis, kept_days: u32) -> Option<UnixMillis> {
        let end = match self {
            Self::Day => start.0 + DAY,
            Self::Month => UnixMillis(start.0 + 31 * DAY).month().0,
            Self::Nothing => return None,
        };
        Some(UnixMillis(end + i64::from(kept_days) * DAY))
    }
}

impl Rollup {
    /// Retentions below this many days cut the table by day, others by month.
    const CUT_BY_DAY_BELOW: u32 = 60;

    /// The longest retention, 40 years: beyond what `DateTime` holds ClickHouse would drop rows at once.
    pub const MAX_RETENTION_DAYS: u32 = 14_600;

    /// How its table is cut.
    pub fn partition_by(&self) -> PartitionBy {
        match (self.grain, self.retention_days) {
            (Grain::None, _) => PartitionBy::Nothing,
            (_, Some(days)) if days < Self::CUT_BY_DAY_BELOW => PartitionBy::Day,
            _ => PartitionBy::Month,
        }
    }

    /// When ClickHouse may drop its table partition that begins at `start`; never if absent.
    pub fn ends(&self, start: UnixMillis) -> Option<UnixMillis> {
        self.partition_by().ends(start, self.retention_days?)
    }

    /// Whether every measure is a plain sum, so that a SummingMergeTree can hold it.
    pub fn is_summing(&self) -> bool {
        self.measures.iter().all(|(_, measure)| matches!(measure, Measure::Count | Measure::Sum(_)))
    }

    /// Name of the count column that is added when no count is declared.
    pub const ADDED_COUNT: &str = "rows";

    /// Its measures, and the added count where none is declared.
    pub fn measures_with_count(&self) -> impl Iterator<Item = (&str, Measure)> {
        let declared = self.measures.iter().any(|(_, measure)| *measure == Measure::Count);
        let added = (!declared).then_some((Self::ADDED_COUNT, Measure::Count));
        self.measures.iter().map(|(name, measure)| (name.as_str(), *measure)).chain(added)
    }

    /// All columns and their ClickHouse types, in the order of the table: tenant, bucket
    /// (unless the grain is none), dimensions, `g`, `kp`, measures, `hwm`.
    pub fn columns(&self) -> Vec<(String, String)> {
        let key = self.key_columns().into_iter();
        let measures =
            self.measures_with_count().map(|(name, measure)| (name.to_owned(), self.column_type(measure)));
        key.chain(measures)
            .chain([("hwm".to_owned(), "SimpleAggregateFunction(max, UInt64)".to_owned())])
            .collect()
    }

    fn key_columns(&self) -> Vec<(String, String)> {
        let fixed = |name: &str, kind: &str| (name.to_owned(), kind.to_owned());
        let bucket = self.grain.length().map(|_| fixed("bucket", "DateTime('UTC')"));
        let dimensions = self.dimensions.iter().map(|d| (d.column_name(), d.column_type().to_owned()));
        std::iter::once(fixed("tenant", "LowCardinality(String)"))
            .chain(bucket)
            .chain(dimensions)
            .chain([fixed("g", "UInt16"), fixed("kp", "UInt16")])
            .collect()
    }

    fn column_type(&self, measure: Measure) -> String {
        let number = |n: Number| match n {
            Number::ParamInt => "Int64",
            Number::Sequence => "UInt64",
        };
        let sum = |of: &str| {
            if self.is_summing() { of.to_owned() } else { format!("SimpleAggregateFunction(sum, {of})") }
        };
        match measure {
            Measure::Count => sum("UInt64"),
            Measure::Sum(n) => sum(number(n)),
            Measure::Min(n) => format!("SimpleAggregateFunction(min, {})", number(n)),
            Measure::Max(n) => format!("SimpleAggregateFunction(max, {})", number(n)),
            Measure::UniqExact(_) => "AggregateFunction(uniqExact, UInt64)".to_owned(),
        }
    }

    /// The statement that creates its table in the connection's database.
    pub fn create_table(&self) -> String {
        let columns: Vec<_> =
            self.columns().iter().map(|(name, kind)| format!("    {name} {kind}")).collect();
        let engine = if self.is_summing() { "SummingMergeTree()" } else { "AggregatingMergeTree" };
        let order: Vec<_> = self.key_columns().into_iter().map(|(name, _)| name).collect();
        let (cut, period, length) = match self.partition_by() {
            PartitionBy::Day => ("toYYYYMMDD(bucket)", "toStartOfDay(bucket)", "1 DAY"),
            PartitionBy::Month => ("toYYYYMM(bucket)", "toDateTime(toStartOfMonth(bucket))", "1 MONTH"),
            PartitionBy::Nothing => ("tuple()", "", ""),
        };
        // The TTL ends where the table partition ends: on a row's own time it would remove the marker first.
        let ttl = match self.retention_days {
            Some(days) if self.grain != Grain::None => {
                format!("\nTTL {period} + INTERVAL {length} + INTERVAL {days} DAY")
            }
            _ => String::new(),
        };
        // Default granules drag thousands of states along for the one that is read.
        let granularity = if self.is_summing() { "" } else { ", index_granularity = 128" };
        format!(
            "CREATE TABLE IF NOT EXISTS {name}\n(\n{columns}\n)\nENGINE = {engine}\nPARTITION BY {cut}\nORDER BY ({order}){ttl}\n\
             SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000, fsync_after_insert = 1, \
             fsync_part_directory = 1, old_parts_lifetime = 480{granularity}",
            name = self.name,
            columns = columns.join(",\n"),
            order = order.join(", "),
        )
    }
}

/// Names that no dimension or measure can take.
const RESERVED_COLUMNS: [&str; 10] =
    ["tenant", "bucket", "g", "kp", "hwm", Rollup::ADDED_COUNT, "minute", "quarter_hour", "hour", "day"];

/// Words that ClickHouse does not take for a column's name as they are: all of its keywords were tried.
const COLUMN_WORDS: [&str; 7] = ["constraint", "false", "index", "not", "null", "projection", "true"];

/// Those that it does not take for a table's name.
const TABLE_WORDS: [&str; 2] = ["function", "table"];

/// As it is declared: `sum(param_int)`.
impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |n: &Number| match n {
            Number::ParamInt => "param_int",
            Number::Sequence => "sequence",
        };
        match self {
            Self::Count => f.write_str("count"),
            Self::Sum(n) => write!(f, "sum({})", number(n)),
            Self::Min(n) => write!(f, "min({})", number(n)),
            Self::Max(n) => write!(f, "max({})", number(n)),
            Self::UniqExact(Distinct::User) => f.write_str("uniq_exact(user)"),
            Self::UniqExact(Distinct::Session) => f.write_str("uniq_exact(session)"),
            Self::UniqExact(Distinct::DeviceId) => f.write_str("uniq_exact(device_id)"),
        }
    }
}

impl Measure {
    fn all() -> impl Iterator<Item = Self> {
        let numbers = [Number::ParamInt, Number::Sequence].into_iter();
        let distinct = [Distinct::User, Distinct::Session, Distinct::DeviceId].map(Self::UniqExact);
        std::iter::once(Self::Count)
            .chain(numbers.flat_map(|n| [Self::Sum(n), Self::Min(n), Self::Max(n)]))
            .chain(distinct)
    }
}

#[cfg(test)]
mod tests;
