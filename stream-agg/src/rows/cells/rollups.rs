//! Turns the rows of all rollups into cells: one for each of the two tables of rollups and each day of expiry.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::{once, repeat_n};

use schemas::rollup::Rollup;
use schemas::rollup::layout::{Expiry, MeasureColumn, Table};
use schemas::time::UnixMillis;

use super::{Cell, Cells, Source, append_low_cardinality, only_marker};
use crate::protocol::progress::NextOffset;
use crate::rows::aggregate::{Aggregate, GroupId, Sets, Values, aggregate};
use crate::rows::columns::Interner;
use crate::rows::native::BlockBuilder;
use crate::rows::strata::Strata;

/// The cells that the rows in `strata` add to the tables of `rollups`. If the rollups count no row, there are no cells.
/// For a backfill, `backfill` is the name of the rollup that it fills, and the marker rows have this name.
pub fn rollup_cells<'r>(
    rollups: impl Iterator<Item = &'r Rollup>,
    strata: &Strata<'_>,
    source: Source,
    applied_end: NextOffset,
    max_groups: usize,
    backfill: Option<&str>,
) -> Cells {
    let aggregates: Vec<_> = rollups.map(|rollup| (rollup, aggregate(rollup, strata, max_groups))).collect();
    let mut cells = BTreeMap::<(Table, Expiry), Vec<RollupRows<'_, '_>>>::new();
    for (rollup, aggregate) in &aggregates {
        for (expires, groups) in &aggregate.cells {
            let parts = cells.entry((rollup.table(), *expires)).or_default();
            parts.push(RollupRows { rollup, aggregate, groups });
        }
    }
    let tenants = &strata.rows.tenant.texts;
    let marker = |expires| Marker { source, applied_end, expires, backfill };
    let all =
        cells.into_iter().map(|((table, expires), parts)| cell(table, &parts, tenants, marker(expires)));
    let folded_rows = aggregates.iter().map(|(_, aggregate)| aggregate.folded_rows).sum();
    Cells { all: all.collect(), folded_rows, mistyped: 0 }
}

/// The groups of one rollup in a cell.
struct RollupRows<'a, 'r> {
    rollup: &'a Rollup,
    aggregate: &'a Aggregate<'r>,
    groups: &'a [GroupId],
}

impl<'a> RollupRows<'a, '_> {
    /// The values in this column; `None` if the rollup does not use the column.
    fn values(&self, column: MeasureColumn) -> Option<&'a Values> {
        self.aggregate.measures.iter().find(|(at, _)| *at == column).map(|(_, values)| values)
    }

    fn number(&self, column: MeasureColumn, group: usize) -> i128 {
        match self.values(column) {
            Some(Values::Numbers(values)) => values[group],
            Some(Values::Distinct(_)) | None => 0,
        }
    }

    fn set(&self, column: MeasureColumn, group: usize) -> &'a [u64] {
        match self.values(column) {
            Some(Values::Distinct(sets)) => sets.get(group as GroupId),
            Some(Values::Numbers(_)) | None => &[],
        }
    }
}

/// The values of the marker row.
#[derive(Clone, Copy)]
struct Marker<'b> {
    source: Source,
    applied_end: NextOffset,
    expires: Expiry,
    backfill: Option<&'b str>,
}

/// A cell: the marker row, then the rows of each rollup in the order of `parts`. If no rollup in `parts` uses a column
/// of a dimension or measure, the block lacks this column, and ClickHouse fills it with the default.
fn cell(table: Table, parts: &[RollupRows<'_, '_>], tenants: &Interner, marker: Marker<'_>) -> Cell {
    let Marker { source, applied_end, expires, backfill } = marker;
    let count = 1 + parts.iter().map(|part| part.groups.len()).sum::<usize>();
    let dimensions = parts.iter().map(|part| part.rollup.dimensions.len()).max().unwrap_or_default();
    let measures = columns(parts);
    let width = measures.iter().map(width).sum::<usize>();
    let mut block = BlockBuilder::new(FIXED_COLUMNS + dimensions + width, count);
    let groups =
        || parts.iter().flat_map(|part| part.groups.iter().map(move |group| (part, *group as usize)));
    append_low_cardinality(
        &mut block,
        "tenant",
        tenants,
        groups().map(|(part, group)| part.aggregate.tenants[group]),
    );
    names(&mut block, parts, backfill);
    let buckets = groups().map(|(part, group)| part.aggregate.buckets[group]);
    let buckets = once(UnixMillis(0)).chain(buckets).map(|time| seconds(time).to_le_bytes());
    block.fixed("bucket", "DateTime('UTC')", buckets);
    for at in 0..dimensions {
        let texts = groups().map(|(part, group)| {
            let column = part.aggregate.dimensions.get(at);
            column.map_or("", |column| column.texts().get(column.numbers[group]))
        });
        block.text(&Rollup::dimension_column(at), "String", once("").chain(texts));
    }
    // Log generation (`g`), Kafka partition (`kp`) and offset (`hwm`) are set only in the marker row: no query asks
    // which Kafka partition a sum came from.
    only_marker(&mut block, "g", "UInt16", source.log_generation.to_le_bytes(), count);
    only_marker(&mut block, "kp", "UInt16", source.partition.to_le_bytes(), count);
    block.fixed("expires", "Date", repeat_n(expires.days().to_le_bytes(), count));
    only_marker(&mut block, "hwm", "UInt64", applied_end.to_u64().to_le_bytes(), count);
    // The marker has a count of 1, because a SummingMergeTree deletes rows in which all sums are zero.
    let counts = once(1).chain(groups().map(|(part, group)| part.aggregate.counts[group]));
    block.fixed("rows", "UInt64", counts.map(u64::to_le_bytes));
    for column in measures {
        match column {
            MeasureColumn::Rows => {}
            MeasureColumn::Sum(_) | MeasureColumn::Min(_) | MeasureColumn::Max(_) => {
                let values = once(0).chain(groups().map(|(part, group)| part.number(column, group)));
                block.fixed(&column.name(), "Int128", values.map(i128::to_le_bytes));
            }
            MeasureColumn::Uniq(n) => {
                let sets = || once(&[][..]).chain(groups().map(|(part, group)| part.set(column, group)));
                block.unique_states(&column.name(), sets());
                block.unique_states(&format!("sample{n}"), sets().map(Sets::sample));
            }
        }
    }
    Cell {
        table: table.name(),
        backfill: backfill.map(str::to_owned),
        partition_id: expires.partition_id(),
        expires_at: expires.droppable_from(),
        rows: count,
        block: block.finish(),
    }
}

/// The number of columns that every block has: tenant, rollup, bucket, g, kp, expires, hwm, rows.
const FIXED_COLUMNS: usize = 8;

/// The measure columns that at least one of `parts` uses, except `rows`, in the order of the table.
fn columns(parts: &[RollupRows<'_, '_>]) -> Vec<MeasureColumn> {
    let used = parts.iter().flat_map(|part| part.aggregate.measures.iter().map(|(column, _)| *column));
    used.filter(|column| *column != MeasureColumn::Rows).collect::<BTreeSet<_>>().into_iter().collect()
}

/// The number of table columns that a measure column fills, in addition to the [`FIXED_COLUMNS`].
fn width(column: &MeasureColumn) -> usize {
    match column {
        MeasureColumn::Rows => 0,
        MeasureColumn::Sum(_) | MeasureColumn::Min(_) | MeasureColumn::Max(_) => 1,
        // One column for the set of hashes, and one for the sample of the set.
        MeasureColumn::Uniq(_) => 2,
    }
}

/// Appends the column `rollup` with the names of the rollups. In the marker row, the name is empty, or the name of the
/// rollup that a backfill fills.
fn names(block: &mut BlockBuilder, parts: &[RollupRows<'_, '_>], backfill: Option<&str>) {
    let texts: Vec<_> = once("").chain(parts.iter().map(|part| part.rollup.name.as_str())).collect();
    let of_marker = backfill.and_then(|name| texts.iter().position(|text| *text == name)).unwrap_or_default();
    let numbers = (1..).zip(parts).flat_map(|(number, part)| repeat_n(number, part.groups.len()));
    block.low_cardinality("rollup", &texts, once(of_marker as u32).chain(numbers));
}

/// Seconds since the epoch, limited to the range of `DateTime`.
fn seconds(time: UnixMillis) -> u32 {
    u32::try_from(time.0.max(0) / 1000).unwrap_or(u32::MAX)
}
