//! A batch becomes cells: for each table and each of its table partitions one block.
//!
//! Invariants: every block begins with its marker row, which says that the table
//! partition now holds the Kafka partition below `hwm`; the rows of a block all
//! belong to one table partition; equal batches give equal bytes. Pure.

use std::collections::BTreeMap;
use std::hash::BuildHasher as _;
use std::iter::once;

use hashbrown::DefaultHashBuilder;
use schemas::rollup::{Measure, PartitionBy, Rollup};
use schemas::row;
use schemas::tables::{DEAD_LETTER_DAYS, LEDGER_DAYS, RAW_DAYS};
use schemas::time::{HOUR, UnixMillis};

use crate::aggregate::{Aggregate, GroupId, Values, aggregate_strata};
use crate::batch::Batch;
use crate::dead_letters::DeadLetters;
use crate::declaration::Declaration;
use crate::decode::{Decoded, Entry};
use crate::native::{self, Block, Finished};
use crate::order;
use crate::progress::NextOffset;
use crate::rows::{Interned, Interner, RowId, Rows};
use crate::strata::Strata;

/// Where the records of a pipeline come from, and how they are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// Generation of the Kafka log.
    pub g: u16,
    /// Kafka partition.
    pub kp: u16,
    /// Hash of the declaration under which rows are stored.
    pub cfg: u64,
}

/// What one insert brings to one table partition of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// The table.
    pub table: String,
    /// Id of the table partition, as `_partition_id` has it.
    pub partition: String,
    /// When ClickHouse may drop the table partition, and its marker; never if absent.
    pub ends: Option<UnixMillis>,
    /// Rows of the block, the marker included.
    pub rows: usize,
    /// Its columns, one block of ClickHouse's Native format.
    pub block: Finished,
}

/// What a batch, or rows for one rollup, become.
#[derive(Debug)]
pub struct Cells {
    /// Those of a batch are never none, for the ledger always has one.
    pub all: Vec<Cell>,
    /// Rows of rollups whose groups were folded, summed over the rollups.
    pub folded_rows: u64,
}

/// All cells of `batch`, whose rows are made as `declaration` says.
pub fn cells(batch: &Batch, declaration: &Declaration, source: Source) -> Cells {
    let hwm = batch.hwm;
    let Decoded { rows, dead_letters: dead, .. } = &batch.decoded;
    let mut cells = ledger(batch, source, hwm);
    cells.extend(events(rows, source, hwm));
    cells.extend(dead_letters(dead, source, hwm));
    let mut folded_rows = 0;
    let strata = Strata::of(rows);
    for rollup in declaration.rollups.iter() {
        let of_rollup = rollup_cells(rollup, &strata, source, hwm, declaration.max_groups);
        folded_rows += of_rollup.folded_rows;
        cells.extend(of_rollup.all);
    }
    Cells { all: cells, folded_rows }
}

/// The cells that rows become in one rollup: none if none of them counts there.
pub fn rollup_cells(
    rollup: &Rollup,
    strata: &Strata<'_>,
    source: Source,
    hwm: NextOffset,
    max_groups: usize,
) -> Cells {
    let aggregate = aggregate_strata(rollup, strata, max_groups);
    let groups = aggregate.cells.iter();
    let all = groups.map(|(start, groups)| {
        let marker = Marker { source, hwm, start: *start };
        rollup_cell(rollup, &strata.rows.tenant.texts, &aggregate, groups, marker)
    });
    Cells { all: all.collect(), folded_rows: aggregate.folded_rows }
}

/// What the marker row of a cell holds.
#[derive(Clone, Copy)]
struct Marker {
    source: Source,
    hwm: NextOffset,
    /// Start of the table partition.
    start: UnixMillis,
}

impl Marker {
    /// A cell of a table that is cut by the day and keeps its rows for so many.
    fn daily(self, table: &str, days: u32, rows: usize, block: Block) -> Cell {
        let (partition, ends) = (PartitionBy::Day.id(self.start), PartitionBy::Day.ends(self.start, days));
        Cell { table: table.to_owned(), partition, ends, rows, block: block.finish() }
    }
}

/// The raw rows, cut by the day of their arrival.
fn events(rows: &Rows, source: Source, hwm: NextOffset) -> impl Iterator<Item = Cell> {
    let mut days = BTreeMap::<_, Vec<RowId>>::new();
    for row in in_order(rows) {
        days.entry(PartitionBy::Day.start(rows.server_time[row as usize])).or_default().push(row);
    }
    days.into_iter().map(move |(start, order)| events_cell(rows, &order, Marker { source, hwm, start }))
}

/// The rows in the order of the table's key, and of offset and line where that is equal.
fn in_order(rows: &Rows) -> Vec<RowId> {
    let all: Vec<_> = (0..rows.len() as RowId).collect();
    let devices = order::ranked_texts(&rows.device_id);
    let by_device = order::by_rank(&all, devices.keys.len(), |row| devices.ranks[row as usize]);
    let (tenants, events) = (rows.tenant.texts.ranks(), rows.event.texts.ranks());
    let coarse = all.iter().map(|row| {
        let at = *row as usize;
        let tenant = tenants[rows.tenant.numbers[at] as usize];
        let event = events[rows.event.numbers[at] as usize];
        (tenant, event, rows.client_time[at].floor(HOUR))
    });
    let hasher = DefaultHashBuilder::default();
    let coarse = order::ranked(coarse, |key| hasher.hash_one(key));
    order::by_rank(&by_device, coarse.keys.len(), |row| coarse.ranks[row as usize])
}

/// What a row without other fields has for `props`.
const NO_PROPS: &str = "{}";

/// Rows in the order of the table's key, after their marker, which is the least.
fn events_cell(rows: &Rows, order: &[RowId], marker: Marker) -> Cell {
    let Marker { source, hwm, start } = marker;
    let count = order.len() + 1;
    // Without the column each row has its default, which is the same.
    let has_props = order.iter().any(|row| rows.props.get(*row) != NO_PROPS);
    let columns = row::COLUMNS.into_iter().filter(|(name, _)| has_props || *name != "props");
    let mut block = Block::new(columns.clone().count(), count);
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
            "cfg" => repeated(&mut block, name, kind, source.cfg.to_le_bytes(), count),
            "g" => repeated(&mut block, name, kind, source.g.to_le_bytes(), count),
            "kp" => repeated(&mut block, name, kind, source.kp.to_le_bytes(), count),
            "ko" => {
                let values = once(0).chain(at().map(|row| rows.ko[row]));
                block.fixed(name, kind, values.map(u64::to_le_bytes));
            }
            "line" => {
                let values = once(0).chain(at().map(|row| rows.line[row]));
                block.fixed(name, kind, values.map(u16::to_le_bytes));
            }
            "hwm" => only_marker(&mut block, name, kind, hwm.to_u64(), count),
            other => unreachable!("`{other}` is a column of the raw table that is not written"),
        }
    }
    marker.daily("events", RAW_DAYS, count, block)
}

/// The ledger's rows, cut by the day on which Kafka took the record.
fn ledger(batch: &Batch, source: Source, hwm: NextOffset) -> Vec<Cell> {
    let mut days = BTreeMap::<_, Vec<&Entry>>::new();
    for entry in &batch.entries {
        days.entry(PartitionBy::Day.start(entry.kafka_time)).or_default().push(entry);
    }
    days.into_iter().map(|(start, entries)| ledger_cell(&entries, Marker { source, hwm, start })).collect()
}

/// Those that are not at their defaults.
const LEDGER_COLUMNS: usize = 13;

fn ledger_cell(entries: &[&Entry], marker: Marker) -> Cell {
    let count = entries.len() + 1;
    let mut block = Block::new(LEDGER_COLUMNS, count);
    let numbers = |block: &mut Block, name, value: fn(&Entry) -> u32| {
        let values = once(0).chain(entries.iter().map(|entry| value(entry)));
        block.fixed(name, "UInt32", values.map(u32::to_le_bytes));
    };
    block.low_cardinality("tenant", &["", "*"], once(0).chain(entries.iter().map(|_| 1)));
    repeated(&mut block, "g", "UInt16", marker.source.g.to_le_bytes(), count);
    repeated(&mut block, "kp", "UInt16", marker.source.kp.to_le_bytes(), count);
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
    only_marker(&mut block, "hwm", "UInt64", marker.hwm.to_u64(), count);
    marker.daily("ledger", LEDGER_DAYS, count, block)
}

/// Lines that became no rows, cut by the day on which Kafka took their record.
fn dead_letters(letters: &DeadLetters, source: Source, hwm: NextOffset) -> Vec<Cell> {
    let mut days = BTreeMap::<_, Vec<RowId>>::new();
    for (row, time) in (0..).zip(&letters.kafka_time) {
        days.entry(PartitionBy::Day.start(*time)).or_default().push(row);
    }
    let days = days.into_iter();
    days.map(|(start, order)| dead_letters_cell(letters, &order, Marker { source, hwm, start })).collect()
}

fn dead_letters_cell(letters: &DeadLetters, order: &[RowId], marker: Marker) -> Cell {
    const COLUMNS: usize = 10;
    let Marker { source, hwm, start } = marker;
    let count = order.len() + 1;
    let mut block = Block::new(COLUMNS, count);
    let at = || order.iter().map(|row| *row as usize);
    coded(&mut block, "tenant", &letters.tenant, order);
    coded(&mut block, "reason", &letters.reason, order);
    repeated(&mut block, "g", "UInt16", source.g.to_le_bytes(), count);
    repeated(&mut block, "kp", "UInt16", source.kp.to_le_bytes(), count);
    block.fixed("ko", "UInt64", once(0).chain(at().map(|row| letters.ko[row])).map(u64::to_le_bytes));
    block.fixed("line", "UInt32", once(0).chain(at().map(|row| letters.line[row])).map(u32::to_le_bytes));
    block.text("text", "String", once("").chain(order.iter().map(|row| letters.text.get(*row))));
    let times = once(start).chain(at().map(|row| letters.kafka_time[row]));
    block.fixed("kafka_time", "DateTime64(3, 'UTC')", times.map(|time| time.0.to_le_bytes()));
    repeated(&mut block, "cfg", "UInt64", source.cfg.to_le_bytes(), count);
    only_marker(&mut block, "hwm", "UInt64", hwm.to_u64(), count);
    marker.daily("dead_letters", DEAD_LETTER_DAYS, count, block)
}

fn rollup_cell(
    rollup: &Rollup,
    tenants: &Interner,
    aggregate: &Aggregate<'_>,
    groups: &[GroupId],
    marker: Marker,
) -> Cell {
    let count = groups.len() + 1;
    let mut block = Block::new(rollup.columns().len(), count);
    let at = || groups.iter().map(|group| *group as usize);
    keys(&mut block, "tenant", tenants, at().map(|group| aggregate.tenants[group]));
    if rollup.grain.length().is_some() {
        let values = once(marker.start).chain(at().map(|group| aggregate.buckets[group]));
        block.fixed("bucket", "DateTime('UTC')", values.map(|time| seconds(time).to_le_bytes()));
    }
    for (dimension, numbered) in rollup.dimensions.iter().zip(&aggregate.dimensions) {
        let (name, texts) = (dimension.column_name(), numbered.texts());
        let values = at().map(|group| numbered.numbers[group]);
        if dimension.column_type().starts_with("LowCardinality") {
            keys(&mut block, &name, texts, values);
        } else {
            block.text(&name, "String", once("").chain(values.map(|number| texts.get(number))));
        }
    }
    // Which Kafka partition a sum came from is nobody's question: only markers tell theirs.
    only_marker(&mut block, "g", "UInt16", marker.source.g, count);
    only_marker(&mut block, "kp", "UInt16", marker.source.kp, count);
    for ((name, measure), values) in rollup.measures_with_count().zip(&aggregate.measures) {
        match values {
            Values::Unsigned(values) => {
                // A count of 1, so that no marker is a row of zeros, which would vanish.
                let marker = u64::from(measure == Measure::Count);
                let values = once(marker).chain(at().map(|group| values[group]));
                block.fixed(name, "UInt64", values.map(u64::to_le_bytes));
            }
            Values::Signed(values) => {
                let values = once(0).chain(at().map(|group| values[group]));
                block.fixed(name, "Int64", values.map(i64::to_le_bytes));
            }
            Values::Distinct(sets) => {
                let values = groups.iter().map(|group| sets.get(*group));
                block.unique_states(name, once(&[][..]).chain(values));
            }
        }
    }
    only_marker(&mut block, "hwm", "UInt64", marker.hwm.to_u64(), count);
    let partition = rollup.partition_by().id(marker.start);
    Cell {
        table: rollup.name.clone(),
        partition,
        ends: rollup.ends(marker.start),
        rows: count,
        block: block.finish(),
    }
}

/// Seconds since the epoch, as near as `DateTime` comes.
fn seconds(time: UnixMillis) -> u32 {
    u32::try_from(time.0.max(0) / 1000).unwrap_or(u32::MAX)
}

fn coded(block: &mut Block, name: &str, column: &Interned, order: &[RowId]) {
    keys(block, name, &column.texts, order.iter().map(|row| column.numbers[*row as usize]));
}

/// A column of numbers of texts after the marker's empty text; only texts that occur are sent.
fn keys(block: &mut Block, name: &str, texts: &Interner, numbers: impl Iterator<Item = u32>) {
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

fn repeated<const N: usize>(block: &mut Block, name: &str, kind: &str, value: [u8; N], count: usize) {
    block.fixed(name, kind, std::iter::repeat_n(value, count));
}

/// A column in which only the marker has a value.
fn only_marker<T: Into<u64>>(block: &mut Block, name: &str, kind: &str, value: T, count: usize) {
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
    use crate::decode::{Limits, Record, decode};
    use crate::progress::Offset;
    use crate::window::Window;

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
        let mut decoded = Decoded::default();
        let entry = decode(&record, &Limits::default(), &mut Window::new(), &mut decoded).unwrap();
        Batch { lo: NextOffset::ZERO, hwm: NextOffset::new(1), decoded, entries: vec![entry] }
    }

    #[test]
    fn a_batch_folds_at_the_limit_that_it_was_declared_with() {
        let batch = batch(&[r#"{"event":"a"}"#, r#"{"event":"b"}"#, r#"{"event":"c"}"#]);
        let folded = |max_groups| {
            let declaration = Declaration { max_groups, ..Declaration::built_in() };
            cells(&batch, &declaration, Source { g: 0, kp: 0, cfg: 1 }).folded_rows
        };
        assert_eq!(folded(3), 0);
        assert!(folded(2) > 0);
    }
}
