//! Turns a batch into cells: one block of rows for each table and each of its table partitions.
//!
//! Pure. Invariants:
//! - Every block begins with a marker row. The marker says that the table partition holds all of its rows that come
//!   from records of the Kafka partition below the offset `applied_end`.
//! - All rows of a block belong to one table partition.
//! - Equal batches give equal bytes.

use std::iter::{once, repeat_n};

use schemas::rollup::layout;
use schemas::tables;
use schemas::time::UnixMillis;

use crate::protocol::declaration::Declaration;
use crate::protocol::progress::NextOffset;
use crate::rows::batch::Batch;
use crate::rows::columns::{Interned, Interner, RowId};
use crate::rows::decode::DecodedLines;
use crate::rows::native::{BlockBuilder, NativeBlock};
use crate::rows::strata::Strata;

mod ledger;

mod events;

mod fields;

mod dead_letters;

mod rollups;

pub use rollups::rollup_cells;

/// Which Kafka partition the rows come from, and under which declaration they are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// Generation of the Kafka log: a number that grows when the log of the topic begins again.
    pub log_generation: u16,
    /// Kafka partition.
    pub partition: u16,
    /// Hash of the [`Declaration`] (rollups, fields and limits) under which the rows are stored.
    pub declaration_hash: u64,
}

/// The rows that one insert adds to one table partition of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// Name of the table.
    pub table: &'static str,
    /// In a cell of a backfill: the name of the rollup that the backfill fills, which the marker row also contains.
    /// `None` in the cells of a batch.
    pub backfill: Option<String>,
    /// Id of the table partition, which ClickHouse calls `_partition_id`.
    pub partition_id: String,
    /// When ClickHouse may drop the table partition together with its marker; `None` means never.
    pub expires_at: Option<UnixMillis>,
    /// Number of rows in the block, including the marker.
    pub rows: usize,
    /// The rows, as one block in ClickHouse's Native format.
    pub block: NativeBlock,
}

/// The cells of a batch, or of one rollup that a backfill fills.
#[derive(Debug)]
pub struct Cells {
    /// The cells. A batch always has at least one cell, because the ledger gets a row for each record.
    pub all: Vec<Cell>,
    /// Number of rows that rollups folded into `(other)`, summed over the rollups.
    pub folded_rows: u64,
    /// Number of scalar values whose type is not the declared type of their field, summed over the fields.
    pub mistyped: u64,
}

/// All cells of `batch` under `declaration`.
pub fn cells(batch: &Batch, declaration: &Declaration, source: Source) -> Cells {
    let applied_end = batch.end;
    let DecodedLines { rows, dead_letters: dead, .. } = &batch.decoded;
    let mut cells = ledger::cells(batch, source, applied_end);
    let (of_events, mistyped) = events::cells(rows, declaration, source, applied_end);
    cells.extend(of_events);
    cells.extend(dead_letters::cells(dead, source, applied_end));
    let of_rollups = rollup_cells(
        declaration.rollups.iter(),
        &Strata::of(rows),
        source,
        applied_end,
        declaration.max_groups,
        None,
    );
    cells.extend(of_rollups.all);
    Cells { all: cells, mistyped, ..of_rollups }
}

impl Cell {
    /// The SQL condition for the marker rows of `source` in the table. The caller must also select the table partition.
    pub fn marker_rows(&self, source: Source) -> String {
        marker_rows(self.table, self.backfill.as_deref(), source.partition)
            + &format!(" AND g = {}", source.log_generation)
    }
}

/// The SQL condition for the marker rows of a Kafka partition in `table`, in any generation of the Kafka log. In a
/// table of rollups, it selects only the markers of the backfill that fills the rollup `backfill`, or only the markers
/// of batches if `backfill` is `None`.
pub fn marker_rows(table: &str, backfill: Option<&str>, partition: u16) -> String {
    let is_of_rollups = layout::Table::ALL.iter().any(|rollups| rollups.name() == table);
    let rollup = if is_of_rollups {
        format!(" AND rollup = '{}'", backfill.unwrap_or_default())
    } else {
        String::new()
    };
    format!("tenant = ''{rollup} AND kp = {partition}")
}

/// The values of the marker row of a cell.
#[derive(Clone, Copy)]
struct Marker {
    source: Source,
    applied_end: NextOffset,
    /// Start of the table partition.
    start: UnixMillis,
}

impl Marker {
    /// A cell of a table that has a table partition for each day and keeps rows for `days` days.
    fn daily(self, table: &'static str, days: u32, rows: usize, block: BlockBuilder) -> Cell {
        let (partition_id, ends) =
            (tables::partition_id(self.start), tables::partition_droppable_from(self.start, days));
        Cell { table, backfill: None, partition_id, expires_at: Some(ends), rows, block: block.finish() }
    }
}

fn append_interned(block: &mut BlockBuilder, name: &str, column: &Interned, order: &[RowId]) {
    append_low_cardinality(block, name, &column.texts, order.iter().map(|row| column.numbers[*row as usize]));
}

/// Appends a column of interned texts: first the empty text of the marker row, then `numbers`. The dictionary of the
/// column has only texts that occur in the column.
fn append_low_cardinality(
    block: &mut BlockBuilder,
    name: &str,
    texts: &Interner,
    numbers: impl Iterator<Item = u32>,
) {
    const UNSEEN: u32 = u32::MAX;
    let mut places = vec![UNSEEN; texts.count()];
    let mut keys = vec![""];
    let mut values = vec![0];
    for number in numbers {
        let place = &mut places[number as usize];
        if *place == UNSEEN {
            *place = match texts.get(number) {
                "" => 0,
                text => {
                    keys.push(text);
                    keys.len() as u32 - 1
                }
            };
        }
        values.push(*place);
    }
    block.low_cardinality(name, &keys, values);
}

fn repeated<const N: usize>(block: &mut BlockBuilder, name: &str, kind: &str, value: [u8; N], count: usize) {
    block.fixed(name, kind, repeat_n(value, count));
}

/// Appends a column in which only the marker row has a value other than zero.
fn only_marker<const N: usize>(
    block: &mut BlockBuilder,
    name: &str,
    kind: &str,
    value: [u8; N],
    count: usize,
) {
    block.fixed(name, kind, once(value).chain(repeat_n([0; N], count - 1)));
}

#[cfg(test)]
mod tests {
    use schemas::line::Prefix;
    use schemas::record::{Head, Kind};
    use schemas::{event, line};
    use uuid::Uuid;

    use super::*;
    use crate::protocol::limits::DecodeLimits;
    use crate::protocol::progress::Offset;
    use crate::protocol::window::Window;
    use crate::rows::decode::{Record, decode};

    /// A batch of one record with these lines.
    fn batch(lines: &[&str]) -> Batch {
        let prefix = Prefix::new("default", "203.0.113.7".parse().unwrap(), UnixMillis(0));
        let mut value = Vec::new();
        for client in lines {
            line::write(&prefix, client, &event::parse::<()>(client).unwrap(), &mut value);
            value.push(b'\n');
        }
        value.pop();
        let head = Head { lines: 0, id: Uuid::nil(), spooled: false, kind: Kind::Events, trace: None };
        let record = Record {
            offset: Offset::new(0),
            kafka_time: UnixMillis(0),
            head: &Ok(head),
            known: false,
            skipped: false,
            value: &value,
        };
        let mut decoded = DecodedLines::default();
        let entry = decode(&record, &DecodeLimits::default(), &mut Window::new(), &mut decoded).unwrap();
        Batch { start: NextOffset::ZERO, end: NextOffset::new(1), decoded, entries: vec![entry] }
    }

    #[test]
    fn markers_of_a_backfill_name_its_rollup_and_markers_of_a_batch_name_none() {
        let batch = batch(&[r#"{"event":"a"}"#]);
        let (declaration, source) =
            (Declaration::built_in(), Source { log_generation: 7, partition: 3, declaration_hash: 1 });
        let of_batch = cells(&batch, &declaration, source).all;
        for Cell { table, .. } in of_batch.iter().filter(|cell| cell.table.starts_with("rollup")) {
            let expected = "tenant = '' AND rollup = '' AND kp = 3";
            assert_eq!(marker_rows(table, None, 3), expected);
        }
        let strata = Strata::of(&batch.decoded.rows);
        let filled = declaration.rollups.get("users_daily").unwrap();
        let cells = rollup_cells(once(filled), &strata, source, batch.end, 10, Some("users_daily")).all;
        let marker = "tenant = '' AND rollup = 'users_daily' AND kp = 3 AND g = 7";
        assert_eq!(cells.iter().map(|cell| cell.marker_rows(source)).collect::<Vec<_>>(), [marker]);
    }

    #[test]
    fn a_value_of_another_type_than_its_field_declares_is_counted() {
        let text = "[[field]]\nname = \"plan\"\npath = \"plan\"\ntype = \"string\"\n\
                    [[field]]\nname = \"age\"\npath = \"who.age\"\ntype = \"int\"\n";
        let rollups = schemas::rollup::Rollups::parse("test", text).unwrap();
        let declaration = Declaration { rollups, ..Declaration::built_in() };
        let lines = [
            r#"{"event":"a","plan":"pro","who":{"age":7}}"#,
            r#"{"event":"a","plan":7,"who":{"age":"7"}}"#,
            r#"{"event":"a","plan":null,"who.age":1.5}"#,
            r#"{"event":"a"}"#,
        ];
        let made = cells(
            &batch(&lines),
            &declaration,
            Source { log_generation: 0, partition: 0, declaration_hash: 1 },
        );
        assert_eq!(made.mistyped, 3, "7 is no text, and neither \"7\" nor 1.5 is a whole number");
    }

    #[test]
    fn a_batch_folds_at_the_limit_that_it_was_declared_with() {
        let batch = batch(&[r#"{"event":"a"}"#, r#"{"event":"b"}"#, r#"{"event":"c"}"#]);
        let folded = |max_groups| {
            let declaration = Declaration { max_groups, ..Declaration::built_in() };
            cells(&batch, &declaration, Source { log_generation: 0, partition: 0, declaration_hash: 1 })
                .folded_rows
        };
        assert_eq!(folded(3), 0);
        assert!(folded(2) > 0);
    }
}
