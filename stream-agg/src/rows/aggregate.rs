//! Aggregates rows into groups: the measures of a rollup for each combination of tenant, bucket and dimensions.
//!
//! The steps: `units` selects the rows that the rollup counts, `dimensions` turns their dimensions into numbers,
//! `groups` puts rows with equal tenants, buckets and dimensions into one group, and `measures` computes the measures
//! of each group.
//!
//! Pure, and the same code for every declared rollup. Groups are in the order of their first rows, so equal batches
//! give equal groups. If a rollup has dimensions, its groups beyond a limit are folded: for each tenant and bucket,
//! they become one group whose dimensions are all [`OTHER`]. A row is left out if the retention of its bucket had ended
//! when the row was received, because no reader would see the row's count.

use std::collections::BTreeMap;

use schemas::rollup::Rollup;
use schemas::rollup::layout::{Expiry, MeasureColumn};
use schemas::time::UnixMillis;

use crate::rows::columns::{RowId, Rows};
use crate::rows::strata::Strata;

mod units;

mod dimensions;

mod groups;

mod measures;

use dimensions::dictionary_column;
use groups::{Groups, group};
use measures::{Members, values};
use units::Units;

pub use dimensions::DictionaryColumn;
pub use measures::{Sets, Values};

/// The value of each dimension in a group of folded rows.
pub const OTHER: &str = "(other)";

/// Index of a group in the columns of an [`Aggregate`].
pub type GroupId = u32;

/// What a batch adds to one rollup. Each column (all fields but `cells` and `folded_rows`) has one value for each
/// group.
pub struct Aggregate<'r> {
    /// The number of the tenant in the interned texts of [`Rows::tenant`].
    pub tenants: Vec<u32>,
    /// The start of the bucket.
    pub buckets: Vec<UnixMillis>,
    /// The dimensions of the rollup.
    pub dimensions: Vec<DictionaryColumn<'r>>,
    /// The number of events.
    pub counts: Vec<u64>,
    /// The other measures of the rollup, each with the column that stores it.
    pub measures: Vec<(MeasureColumn, Values)>,
    /// The groups of each table partition, by the day on which the table partition expires. No list is empty.
    pub cells: BTreeMap<Expiry, Vec<GroupId>>,
    /// Number of rows in groups beyond the limit, which are folded into `(other)`.
    pub folded_rows: u64,
}

/// Aggregates the rows of `strata` for `rollup`. Groups beyond the first `max_groups` are folded, unless the rollup has
/// no dimensions.
pub fn aggregate<'r>(rollup: &Rollup, strata: &Strata<'r>, max_groups: usize) -> Aggregate<'r> {
    let rows = strata.rows;
    let units = Units::of(rollup, strata);
    let mut dimensions: Vec<_> =
        rollup.dimensions.iter().map(|d| dictionary_column(d, rows, &units.rows)).collect();
    let Groups { firsts, of_unit, folded, folded_rows } =
        group(rollup, rows, &units, &dimensions, max_groups);
    let buckets: Vec<_> = firsts.iter().map(|at| bucket(rollup, rows, units.rows[*at])).collect();
    let mut cells = BTreeMap::<_, Vec<GroupId>>::new();
    for (group, bucket) in (0..).zip(&buckets) {
        cells.entry(rollup.expires(*bucket)).or_default().push(group);
    }
    for dimension in &mut dimensions {
        dimension.numbers = firsts.iter().map(|at| dimension.numbers[*at]).collect();
        if !folded.is_empty() {
            let other = dimension.intern(OTHER);
            folded.iter().for_each(|group| dimension.numbers[*group as usize] = other);
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

/// The start of the bucket in which the rollup counts the row.
fn bucket(rollup: &Rollup, rows: &Rows, row: RowId) -> UnixMillis {
    rollup.grain.bucket(rows.event_time[row as usize])
}

#[cfg(test)]
mod tests;
