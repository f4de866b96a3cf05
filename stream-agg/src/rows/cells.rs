//! Turns a batch into cells: one block of rows for each table and each of its table partitions.
//!
//! Invariants: every block begins with its marker row, which says that the table partition now holds the records of
//! the Kafka partition below `applied_end`; all rows of a block belong to one table partition; equal batches give
//! equal bytes. Pure.

use std::collections::BTreeMap;
use std::hash::BuildHasher as _;
use std::iter::once;

use hashbrown::DefaultHashBuilder;
use schemas::field::Field;
use schemas::rollup::layout;
use schemas::row;
use schemas::tables::{self, DEAD_LETTER_DAYS, LEDGER_DAYS, RAW_DAYS};
use schemas::time::{DAY, HOUR, UnixMillis};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::protocol::declaration::Declaration;
use crate::protocol::progress::NextOffset;
use crate::rows::batch::Batch;
use crate::rows::columns::{Interned, Interner, RowId, Rows};
use crate::rows::dead_letters::DeadLetters;
use crate::rows::decode::{DecodedLines, LedgerEntry};
use crate::rows::native::{self, BlockBuilder, NativeBlock};
use crate::rows::order;
use crate::rows::strata::Strata;

mod fields;

mod rollups;

pub use rollups::rollup_cells;

/// Where rows come from, and under which declaration they are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// Generation of the Kafka log.
    pub log_generation: u16,
    /// Kafka partition.
    pub partition: u16,
    /// Hash of the declaration under which rows are stored.
    pub declaration_hash: u64,
}

/// The rows that one insert adds to one table partition of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// The table.
    pub table: &'static str,
    /// The rollup that a backfill fills; its marker row has this name. `None` in the cells of a batch.
    pub backfill: Option<String>,
    /// Id of the table partition, which ClickHouse calls `_partition_id`.
    pub partition_id: String,
    /// When ClickHouse may drop the table partition with its marker; `None` means never.
    pub expires_at: Option<UnixMillis>,
    /// Number of rows in the block, including the marker.
    pub rows: usize,
    /// The rows, as one block in ClickHouse's Native format.
    pub block: NativeBlock,
}

/// The cells of a batch, or of rows for one rollup.
#[derive(Debug)]
pub struct Cells {
    /// The cells. A batch always has at least one, because the ledger gets a row for each record.
    pub all: Vec<Cell>,
    /// Rows of rollups folded into `(other)`, summed over the rollups.
    pub folded_rows: u64,
    /// Values of declared fields that have another type, summed over the fields.
    pub mistyped: u64,
}

/// All cells of `batch`. Its rows are made as `declaration` says.
pub fn cells(batch: &Batch, declaration: &Declaration, source: Source) -> Cells {
    let applied_end = batch.end;
    let DecodedLines { rows, dead_letters: dead, .. } = &batch.decoded;
    let mut cells = ledger(batch, source, applied_end);
    let (of_events, mistyped) = events(rows, declaration, source, applied_end);
    cells.extend(of_events);
    cells.extend(dead_letters(dead, source, applied_end));
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
    /// The SQL condition for the marker rows of `source` in the table partition.
    pub fn marker_rows(&self, source: Source) -> String {
        marker_rows(self.table, self.backfill.as_deref(), source.partition)
            + &format!(" AND g = {}", source.log_generation)
    }
}

/// The SQL condition for marker rows of a Kafka partition in `table`, of any generation of its log: those of
/// batches, or those of the backfill of a rollup.
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
    /// A cell of a table that has a partition for each day and keeps rows for `days`.
    fn daily(self, table: &'static str, days: u32, rows: usize, block: BlockBuilder) -> Cell {
        let (partition_id, ends) =
            (tables::partition_id(self.start), tables::partition_ends(self.start, days));
        Cell { table, backfill: None, partition_id, expires_at: Some(ends), rows, block: block.finish() }
    }
}

/// The raw rows by the day of their arrival; and how many values of declared fields have another type.
fn events(
    rows: &Rows,
    declaration: &Declaration,
    source: Source,
    applied_end: NextOffset,
) -> (Vec<Cell>, u64) {
    let mut days = BTreeMap::<_, Vec<RowId>>::new();
    let places = places(rows, declaration.place_key);
    for row in in_order(rows, &places) {
        days.entry(rows.server_time[row as usize].floor(DAY)).or_default().push(row);
    }
    let raw = Raw { rows, places: &places, fields: declaration.rollups.fields() };
    let mut mistyped = 0;
    let cells = days.into_iter().map(|(start, order)| {
        let (cell, of_cell) = events_cell(raw, &order, Marker { source, applied_end, start });
        mistyped += of_cell;
        cell
    });
    (cells.collect(), mistyped)
}

/// The columns of raw rows.
#[derive(Clone, Copy)]
struct Raw<'r> {
    rows: &'r Rows,
    places: &'r [u16],
    fields: &'r [Field],
}

/// The place of each row: a keyed hash of user and hour. Rows of one device and hour are stored together and
/// compress well, and a place identifies nobody once ids are blanked.
fn places(rows: &Rows, key: u64) -> Vec<u16> {
    let mut last = (("", i64::MIN), 0);
    let place = |row: usize| {
        let (who, hour) = (rows.user(row as RowId), rows.client_time[row].0.div_euclid(HOUR));
        // Neighbouring rows mostly have the same user: the lines of a record come from one sender.
        if last.0 != (who, hour) {
            let hash = xxh3_64_with_seed(who.as_bytes(), key.wrapping_add(hour.cast_unsigned()));
            last = ((who, hour), hash as u16);
        }
        last.1
    };
    (0..rows.len()).map(place).collect()
}

/// The rows in the order of the table's sorting key; by offset and line where that is equal.
fn in_order(rows: &Rows, places: &[u16]) -> Vec<RowId> {
    let tenants = rows.tenant.texts.ranks();
    let keys = (0..rows.len()).map(|at| {
        let tenant = tenants[rows.tenant.numbers[at] as usize];
        (tenant, rows.client_time[at].floor(HOUR), places[at])
    });
    let hasher = DefaultHashBuilder::default();
    let keys = order::ranked(keys, |key| hasher.hash_one(key));
    let all: Vec<_> = (0..rows.len() as RowId).collect();
    order::by_rank(&all, keys.keys.len(), |row| keys.ranks[row as usize])
}

/// The value of `props` in a row without other fields.
const NO_PROPS: &str = "{}";

/// Rows in the order of the sorting key, after their marker, which comes first in it.
fn events_cell(raw: Raw<'_>, order: &[RowId], marker: Marker) -> (Cell, u64) {
    let (Raw { rows, places, fields }, Marker { source, applied_end, start }) = (raw, marker);
    let count = order.len() + 1;
    // Without the column, each row has its default, which is the same value.
    let has_props = order.iter().any(|row| rows.props.get(*row) != NO_PROPS);
    let columns = row::COLUMNS.into_iter().filter(|(name, _)| has_props || *name != "props");
    let fields = if has_props { fields } else { &[] };
    let mut block = BlockBuilder::new(columns.clone().count() + fields.len(), count);
    let at = || order.iter().map(|row| *row as usize);
    let rest = |text: fn(&Rows, RowId) -> &str| once("").chain(order.iter().map(move |row| text(rows, *row)));
    for (name, kind) in columns {
        match name {
            "tenant" => coded(&mut block, name, &rows.tenant, order),
            "event" => coded(&mut block, name, &rows.event, order),
            "client_time" => {
                let values = once(start).chain(at().map(|row| rows.client_time[row]));
                block.fixed(name, kind, values.map(|time| time.0.to_le_bytes()));
            }
            "server_time" => {
                let values = once(start).chain(at().map(|row| rows.server_time[row]));
                block.fixed(name, kind, values.map(|time| time.0.to_le_bytes()));
            }
            "ip" => block.fixed(name, kind, once([0; 16]).chain(at().map(|row| rows.ip[row]))),
            "user_id" => block.text(name, kind, rest(|rows, row| rows.user_id.get(row))),
            "device_id" => block.text(name, kind, rest(|rows, row| rows.device_id.get(row))),
            "device_os" => coded(&mut block, name, &rows.device_os, order),
            "session" => block.text(name, kind, rest(|rows, row| rows.session.get(row))),
            "sequence" => {
                let values = once(0).chain(at().map(|row| rows.sequence[row]));
                block.fixed(name, kind, values.map(u64::to_le_bytes));
            }
            "param_int" => {
                let values = once(0).chain(at().map(|row| rows.param_int[row]));
                block.fixed(name, kind, values.map(i64::to_le_bytes));
            }
            "param_str" => block.text(name, kind, rest(|rows, row| rows.param_str.get(row))),
            "country" => coded(&mut block, name, &rows.country, order),
            "event_id" => {
                let values = at().map(|row| native::uuid(rows.event_id[row]));
                block.fixed(name, kind, once([0; 16]).chain(values));
            }
            "props" => {
                let values = order.iter().map(|row| rows.props.get(*row));
                block.text(name, kind, once(NO_PROPS).chain(values));
            }
            "place" => {
                let values = once(0).chain(at().map(|row| places[row]));
                block.fixed(name, kind, values.map(u16::to_le_bytes));
            }
            "cfg" => repeated(&mut block, name, kind, source.declaration_hash.to_le_bytes(), count),
            "g" => repeated(&mut block, name, kind, source.log_generation.to_le_bytes(), count),
            "kp" => repeated(&mut block, name, kind, source.partition.to_le_bytes(), count),
            "ko" => {
                let values = once(0).chain(at().map(|row| rows.ko[row]));
                block.fixed(name, kind, values.map(u64::to_le_bytes));
            }
            "line" => {
                let values = once(0).chain(at().map(|row| rows.line[row]));
                block.fixed(name, kind, values.map(u16::to_le_bytes));
            }
            "hwm" => only_marker(&mut block, name, kind, applied_end.to_u64(), count),
            other => unreachable!("`{other}` is a column of the raw table that is not written"),
        }
    }
    let mistyped = fields.iter().map(|field| fields::column(&mut block, field, rows, order)).sum();
    (marker.daily("events", RAW_DAYS, count, block), mistyped)
}

/// The rows of the ledger by the day on which Kafka appended the record.
fn ledger(batch: &Batch, source: Source, applied_end: NextOffset) -> Vec<Cell> {
    let mut days = BTreeMap::<_, Vec<&LedgerEntry>>::new();
    for entry in &batch.entries {
        days.entry(entry.kafka_time.floor(DAY)).or_default().push(entry);
    }
    days.into_iter()
        .map(|(start, entries)| ledger_cell(&entries, Marker { source, applied_end, start }))
        .collect()
}

/// The columns that are not left at their defaults.
const LEDGER_COLUMNS: usize = 13;

fn ledger_cell(entries: &[&LedgerEntry], marker: Marker) -> Cell {
    let count = entries.len() + 1;
    let mut block = BlockBuilder::new(LEDGER_COLUMNS, count);
    let numbers = |block: &mut BlockBuilder, name, value: fn(&LedgerEntry) -> u32| {
        let values = once(0).chain(entries.iter().map(|entry| value(entry)));
        block.fixed(name, "UInt32", values.map(u32::to_le_bytes));
    };
    block.low_cardinality("tenant", &["", "*"], once(0).chain(entries.iter().map(|_| 1)));
    repeated(&mut block, "g", "UInt16", marker.source.log_generation.to_le_bytes(), count);
    repeated(&mut block, "kp", "UInt16", marker.source.partition.to_le_bytes(), count);
    let offsets = once(0).chain(entries.iter().map(|entry| entry.offset.to_u64()));
    block.fixed("ko", "UInt64", offsets.map(u64::to_le_bytes));
    let ids = entries.iter().map(|entry| native::uuid(entry.record_id));
    block.fixed("record_id", "UUID", once([0; 16]).chain(ids));
    let times = once(marker.start).chain(entries.iter().map(|entry| entry.kafka_time));
    block.fixed("kafka_time", "DateTime64(3, 'UTC')", times.map(|time| time.0.to_le_bytes()));
    numbers(&mut block, "lines", |entry| entry.lines);
    numbers(&mut block, "rejected", |entry| entry.rejected);
    numbers(&mut block, "duplicates", |entry| entry.duplicates);
    numbers(&mut block, "stored", |entry| entry.stored);
    numbers(&mut block, "time_replaced", |entry| entry.time_replaced);
    block.arrays("ids", once(&[][..]).chain(entries.iter().map(|entry| entry.ids.as_slice())));
    only_marker(&mut block, "hwm", "UInt64", marker.applied_end.to_u64(), count);
    marker.daily("ledger", LEDGER_DAYS, count, block)
}

/// The dead letters by the day on which Kafka appended the record.
fn dead_letters(letters: &DeadLetters, source: Source, applied_end: NextOffset) -> Vec<Cell> {
    let mut days = BTreeMap::<_, Vec<RowId>>::new();
    for (row, time) in (0..).zip(&letters.kafka_time) {
        days.entry(time.floor(DAY)).or_default().push(row);
    }
    let days = days.into_iter();
    days.map(|(start, order)| dead_letters_cell(letters, &order, Marker { source, applied_end, start }))
        .collect()
}

fn dead_letters_cell(letters: &DeadLetters, order: &[RowId], marker: Marker) -> Cell {
    const COLUMNS: usize = 10;
    let Marker { source, applied_end, start } = marker;
    let count = order.len() + 1;
    let mut block = BlockBuilder::new(COLUMNS, count);
    let at = || order.iter().map(|row| *row as usize);
    coded(&mut block, "tenant", &letters.tenant, order);
    coded(&mut block, "reason", &letters.reason, order);
    repeated(&mut block, "g", "UInt16", source.log_generation.to_le_bytes(), count);
    repeated(&mut block, "kp", "UInt16", source.partition.to_le_bytes(), count);
    block.fixed("ko", "UInt64", once(0).chain(at().map(|row| letters.ko[row])).map(u64::to_le_bytes));
    block.fixed("line", "UInt32", once(0).chain(at().map(|row| letters.line[row])).map(u32::to_le_bytes));
    block.text("text", "String", once("").chain(order.iter().map(|row| letters.text.get(*row))));
    let times = once(start).chain(at().map(|row| letters.kafka_time[row]));
    block.fixed("kafka_time", "DateTime64(3, 'UTC')", times.map(|time| time.0.to_le_bytes()));
    repeated(&mut block, "cfg", "UInt64", source.declaration_hash.to_le_bytes(), count);
    only_marker(&mut block, "hwm", "UInt64", applied_end.to_u64(), count);
    marker.daily("dead_letters", DEAD_LETTER_DAYS, count, block)
}

fn coded(block: &mut BlockBuilder, name: &str, column: &Interned, order: &[RowId]) {
    keys(block, name, &column.texts, order.iter().map(|row| column.numbers[*row as usize]));
}

/// A column of interned texts, after the empty text of the marker. Only texts that occur are sent.
fn keys(block: &mut BlockBuilder, name: &str, texts: &Interner, numbers: impl Iterator<Item = u32>) {
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
    block.fixed(name, kind, std::iter::repeat_n(value, count));
}

/// A column in which only the marker row has a value.
fn only_marker<T: Into<u64>>(block: &mut BlockBuilder, name: &str, kind: &str, value: T, count: usize) {
    let value = value.into();
    let values = once(value).chain(std::iter::repeat_n(0, count - 1));
    match kind {
        "UInt16" => block.fixed(name, kind, values.map(|value| (value as u16).to_le_bytes())),
        _ => block.fixed(name, kind, values.map(u64::to_le_bytes)),
    }
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
    fn a_backfills_cells_are_marked_by_the_name_of_their_rollup_and_those_of_a_batch_by_none() {
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
