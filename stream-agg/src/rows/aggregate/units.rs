//! Which rows a rollup counts, and whether they are grouped row by row or stratum by stratum.

use schemas::rollup::{Column, Condition, Dimension, PropPath, Rollup};
use schemas::time::UnixMillis;

use super::bucket;
use super::dimensions::{TextColumn, prop, text_column};
use crate::rows::columns::{RowId, Rows, Texts};
use crate::rows::strata::Strata;

/// What is grouped: strata, or single rows if a dimension or condition of the rollup uses a field that can differ
/// within a stratum.
pub(super) struct Units {
    /// Whether the units are strata.
    pub(super) are_strata: bool,
    /// The first row of each unit that the rollup counts, in the order of the rows.
    pub(super) rows: Vec<RowId>,
    /// How many rows each unit has.
    pub(super) counts: Vec<u64>,
}

impl Units {
    /// The units that `rollup` counts.
    pub(super) fn of(rollup: &Rollup, strata: &Strata<'_>) -> Self {
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

/// A condition of a rollup, prepared for the texts of one batch.
enum Test<'c, 'r> {
    /// For each row, the number of its text in the dictionary; and for each number in the dictionary, whether the
    /// condition accepts the text.
    Interned(&'r [u32], Vec<bool>),
    Text(&'r Texts, &'c [String]),
    Prop(&'c PropPath, &'c [String]),
}

impl<'c, 'r> Test<'c, 'r> {
    fn new(condition: &'c Condition, rows: &'r Rows) -> Self {
        let wanted = &condition.values;
        match &condition.field {
            Dimension::Prop(path) => Self::Prop(path, wanted),
            Dimension::Column(column) => match text_column(*column, rows) {
                TextColumn::Interned(column) => {
                    let numbers = 0..column.texts.count() as u32;
                    let is_wanted = |number| wanted.iter().any(|text| text == column.texts.get(number));
                    Self::Interned(&column.numbers, numbers.map(is_wanted).collect())
                }
                TextColumn::Plain(texts) => Self::Text(texts, wanted),
            },
        }
    }

    /// Whether, in every stratum, the condition holds for all rows or for no row.
    fn is_of_strata(&self) -> bool {
        matches!(self, Self::Interned(..))
    }

    fn holds(&self, rows: &Rows, row: RowId) -> bool {
        match self {
            Self::Interned(numbers, wanted) => wanted[numbers[row as usize] as usize],
            Self::Text(texts, wanted) => wanted.iter().any(|text| text == texts.get(row)),
            Self::Prop(path, wanted) => {
                let held = prop(rows, path, row);
                wanted.iter().any(|text| *text == held)
            }
        }
    }
}

/// Whether the retention of `bucket` has ended at `now`.
fn has_ended(rollup: &Rollup, bucket: UnixMillis, now: UnixMillis) -> bool {
    rollup.kept_until(bucket).is_some_and(|until| until <= now)
}
