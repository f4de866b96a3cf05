//! What a rollup aggregates.

use std::fmt;

use crate::field::{Field, FieldType};

/// What a rollup aggregates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Measure {
    /// The number of events.
    Count,
    /// The number of events that have a value of this integer field.
    CountOf(Field),
    /// The sum of a number.
    Sum(Number),
    /// The minimum of a number.
    Min(Number),
    /// The maximum of a number.
    Max(Number),
    /// The exact number of distinct values, by their 64-bit hash; absent values do not count.
    UniqExact(Distinct),
}

/// A field that is a whole number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Number {
    /// The integer that the client chooses.
    ParamInt,
    /// The position in the session.
    Sequence,
    /// A declared field of [`FieldType::Int`](crate::field::FieldType::Int). Events without a value do not change the
    /// measure. A float cannot be measured, because its sum would depend on the order of the events.
    Field(Field),
}

/// The column in the raw table: `param_int`, `prop_amount`.
impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ParamInt => f.write_str("param_int"),
            Self::Sequence => f.write_str("sequence"),
            Self::Field(field) => f.write_str(&field.column()),
        }
    }
}

impl Number {
    /// The declared field of `props`; `None` for `param_int` and `sequence`.
    fn field(&self) -> Option<&Field> {
        match self {
            Self::Field(field) => Some(field),
            Self::ParamInt | Self::Sequence => None,
        }
    }
}

/// A field whose distinct values can be counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distinct {
    /// The user: `user_id`, else `device_id`.
    User,
    /// The session.
    Session,
    /// The device.
    DeviceId,
}

/// The measure as it is declared: `sum(param_int)`.
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
    /// Every measure that a declaration with these fields can use.
    pub(super) fn all(fields: &[Field]) -> impl Iterator<Item = Self> {
        // This match does nothing at run time. It stops compiling when a variant is added, as a reminder to add the
        // variant to the list below: a measure that is not in the list cannot be declared.
        let _listed = |measure: &Self| match measure {
            Self::Count | Self::CountOf(_) => {}
            Self::Sum(n) | Self::Min(n) | Self::Max(n) => match n {
                Number::ParamInt | Number::Sequence | Number::Field(_) => {}
            },
            Self::UniqExact(distinct) => match distinct {
                Distinct::User | Distinct::Session | Distinct::DeviceId => {}
            },
        };
        let fields = fields.iter().filter(|field| field.kind == FieldType::Int);
        let numbers = [Number::ParamInt, Number::Sequence].into_iter();
        let numbers = numbers.chain(fields.clone().cloned().map(Number::Field));
        let distinct = [Distinct::User, Distinct::Session, Distinct::DeviceId].map(Self::UniqExact);
        std::iter::once(Self::Count)
            .chain(numbers.flat_map(|n| [Self::Sum(n.clone()), Self::Min(n.clone()), Self::Max(n)]))
            .chain(fields.cloned().map(Self::CountOf))
            .chain(distinct)
    }

    /// The declared field of `props` that the measure reads, if it reads one.
    pub fn field(&self) -> Option<&Field> {
        match self {
            Self::CountOf(field) => Some(field),
            Self::Sum(n) | Self::Min(n) | Self::Max(n) => n.field(),
            Self::Count | Self::UniqExact(_) => None,
        }
    }

    /// The name of the extra column that the rollup's view has for this measure, which is declared as `name`. `None`
    /// unless the measure is the minimum or maximum of a declared field. The extra column shows the number of events in
    /// the group, or 0 if none of these events has the field.
    pub(crate) fn rows_column(&self, name: &str) -> Option<String> {
        match self {
            Self::Min(Number::Field(_)) | Self::Max(Number::Field(_)) => Some(format!("{name}_rows")),
            // Every event has a `param_int` and a `sequence`: if the client sends none, the value is 0.
            Self::Min(Number::ParamInt | Number::Sequence)
            | Self::Max(Number::ParamInt | Number::Sequence) => None,
            Self::Count | Self::CountOf(_) | Self::Sum(_) | Self::UniqExact(_) => None,
        }
    }

    /// Whether the measure counts distinct values. The cost to merge such a measure grows with the number of values.
    pub fn is_distinct(&self) -> bool {
        match self {
            Self::UniqExact(_) => true,
            Self::Count | Self::CountOf(_) | Self::Sum(_) | Self::Min(_) | Self::Max(_) => false,
        }
    }

    /// Whether values of several rows may be added up.
    pub fn is_additive(&self) -> bool {
        match self {
            Self::Count | Self::CountOf(_) | Self::Sum(_) => true,
            Self::Min(_) | Self::Max(_) | Self::UniqExact(_) => false,
        }
    }
}
