//! A declared rollup: its dimensions, measures and grain. [`layout`] tells where it is stored.
//!
//! Invariant: a [`Rollup`] that exists is valid; names can stand in SQL as they are.

use std::fmt;

use crate::field::{Field, Kind};
use crate::time::{DAY, HOUR, MINUTE, UnixMillis};

mod declare;

pub mod layout;

mod page;

mod text;

pub use declare::DeclareError;

/// All rollups and fields of a deployment, in the order of their file. Equal if they declare the same.
#[derive(Debug, Clone)]
pub struct Rollups {
    all: Vec<Rollup>,
    fields: Vec<Field>,
    source: String,
}

impl PartialEq for Rollups {
    fn eq(&self, other: &Self) -> bool {
        self.all == other.all && self.fields == other.fields
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
        let (all, fields) = declare::parse(file, text)?;
        Ok(Self { all, fields, source: text.to_owned() })
    }

    /// The text that declares them.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// In the order of their file.
    pub fn iter(&self) -> std::slice::Iter<'_, Rollup> {
        self.all.iter()
    }

    /// The fields of `props` that are columns of the raw table.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// The rollup of this name.
    pub fn get(&self, name: &str) -> Option<&Rollup> {
        self.all.iter().find(|rollup| rollup.name == name)
    }
}

/// One declared rollup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollup {
    /// Its name, which is also that of its view.
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
    /// One bucket for all time.
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
    /// Name of its column in the rollup's view: that of the raw column, or the path with `_` between its steps.
    pub fn column_name(&self) -> String {
        match self {
            Self::Column(column) => column.name().to_owned(),
            Self::Prop(path) => path.0.join("_"),
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Measure {
    /// Events.
    Count,
    /// Events that have a value of this integer field.
    CountOf(Field),
    /// Sum of a number.
    Sum(Number),
    /// Least of a number.
    Min(Number),
    /// Greatest of a number.
    Max(Number),
    /// Exact number of distinct values, by their 64-bit hash; absent ones do not count.
    UniqExact(Distinct),
}

/// A field that is a whole number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Number {
    /// The client's number.
    ParamInt,
    /// The position in the session.
    Sequence,
    /// A declared field of [`Kind::Int`](crate::field::Kind::Int). Events without a value change nothing. A float
    /// cannot be measured: its sum would depend on the order of the events.
    Field(Field),
}

/// Its column in the raw table: `param_int`, `prop_amount`.
impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ParamInt => f.write_str("param_int"),
            Self::Sequence => f.write_str("sequence"),
            Self::Field(field) => f.write_str(&field.column()),
        }
    }
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

impl Rollup {
    /// The longest retention, 40 years: the day on which rows expire must be a `Date`.
    pub const MAX_RETENTION_DAYS: u32 = 14_600;
}

/// Names that no dimension or measure can take.
const RESERVED_COLUMNS: [&str; 10] =
    ["tenant", "bucket", "g", "kp", "hwm", "rows", "minute", "quarter_hour", "hour", "day"];

/// Words that ClickHouse does not take for a column's name as they are: all of its keywords were tried.
const COLUMN_WORDS: [&str; 7] = ["constraint", "false", "index", "not", "null", "projection", "true"];

/// Those that it does not take for a table's name.
const TABLE_WORDS: [&str; 2] = ["function", "table"];

/// As it is declared: `sum(param_int)`.
impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count => f.write_str("count"),
            Self::CountOf(field) => write!(f, "count({})", field.column()),
            Self::Sum(n) => write!(f, "sum({n})"),
            Self::Min(n) => write!(f, "min({n})"),
            Self::Max(n) => write!(f, "max({n})"),
            Self::UniqExact(Distinct::User) => f.write_str("uniq_exact(user)"),
            Self::UniqExact(Distinct::Session) => f.write_str("uniq_exact(session)"),
            Self::UniqExact(Distinct::DeviceId) => f.write_str("uniq_exact(device_id)"),
        }
    }
}

impl Measure {
    /// All that can be declared beside these fields.
    fn all(fields: &[Field]) -> impl Iterator<Item = Self> {
        let fields = fields.iter().filter(|field| field.kind == Kind::Int);
        let numbers = [Number::ParamInt, Number::Sequence].into_iter();
        let numbers = numbers.chain(fields.clone().cloned().map(Number::Field));
        let distinct = [Distinct::User, Distinct::Session, Distinct::DeviceId].map(Self::UniqExact);
        std::iter::once(Self::Count)
            .chain(numbers.flat_map(|n| [Self::Sum(n.clone()), Self::Min(n.clone()), Self::Max(n)]))
            .chain(fields.cloned().map(Self::CountOf))
            .chain(distinct)
    }

    /// The declared field of `props` that it reads.
    pub fn field(&self) -> Option<&Field> {
        match self {
            Self::CountOf(field)
            | Self::Sum(Number::Field(field))
            | Self::Min(Number::Field(field))
            | Self::Max(Number::Field(field)) => Some(field),
            Self::Count | Self::Sum(_) | Self::Min(_) | Self::Max(_) | Self::UniqExact(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
