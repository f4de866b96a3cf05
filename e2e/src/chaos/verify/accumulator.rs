//! Computes the value of one measure from events, one after another. Pure.

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{BuildHasher, BuildHasherDefault};

use schemas::event::Event;
use schemas::rollup::{Distinct, Measure, Number};

/// The state of an aggregate function.
pub(crate) enum Accumulator {
    /// A count, a sum, a minimum or a maximum.
    Number(i64),
    /// Hashes of the values seen.
    Distinct(HashSet<u64>),
}

impl Accumulator {
    /// The state before the first event.
    pub(crate) fn new(measure: &Measure) -> Self {
        match measure {
            Measure::Count | Measure::CountOf(_) | Measure::Sum(_) => Self::Number(0),
            Measure::Min(_) => Self::Number(i64::MAX),
            Measure::Max(_) => Self::Number(i64::MIN),
            Measure::UniqExact(_) => Self::Distinct(HashSet::new()),
        }
    }

    /// Adds an event.
    pub(crate) fn add(&mut self, measure: &Measure, event: &Event<'_>) {
        let number = |of: &Number| match of {
            Number::ParamInt => event.param_int,
            Number::Sequence => i64::try_from(event.sequence).expect("the load sends small sequences"),
            Number::Field(_) => unreachable!("no rollup of a run measures a field of `props`"),
        };
        match measure {
            Measure::Count => *self.number() += 1,
            Measure::CountOf(_) => unreachable!("no rollup of a run measures a field of `props`"),
            Measure::Sum(of) => *self.number() += number(of),
            Measure::Min(of) => *self.number() = number(of).min(*self.number()),
            Measure::Max(of) => *self.number() = number(of).max(*self.number()),
            Measure::UniqExact(of) => {
                let value = match of {
                    Distinct::User => event.user().unwrap_or_default(),
                    Distinct::Session => &event.session,
                    Distinct::DeviceId => &event.device_id,
                };
                if !value.is_empty() {
                    self.distinct().insert(BuildHasherDefault::<DefaultHasher>::default().hash_one(value));
                }
            }
        }
    }

    fn number(&mut self) -> &mut i64 {
        match self {
            Self::Number(number) => number,
            Self::Distinct(_) => unreachable!("the accumulator was made for another measure"),
        }
    }

    fn distinct(&mut self) -> &mut HashSet<u64> {
        match self {
            Self::Distinct(seen) => seen,
            Self::Number(_) => unreachable!("the accumulator was made for another measure"),
        }
    }

    /// The value of the measure over the events that were added.
    pub(crate) fn value(&self) -> i64 {
        match self {
            Self::Number(number) => *number,
            Self::Distinct(seen) => seen.len() as i64,
        }
    }
}

/// The ClickHouse function that merges the stored values of a measure.
pub(crate) fn merge_function(measure: &Measure) -> &'static str {
    match measure {
        Measure::Count | Measure::CountOf(_) | Measure::Sum(_) => "sum",
        Measure::Min(_) => "min",
        Measure::Max(_) => "max",
        Measure::UniqExact(_) => "uniqExactMerge",
    }
}
