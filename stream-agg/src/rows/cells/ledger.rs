//! Turns the records of a batch into cells of `ledger`, one for each day on which Kafka appended them.

use std::collections::BTreeMap;
use std::iter::once;

use schemas::tables::LEDGER_DAYS;
use schemas::time::DAY;

use super::{Cell, Marker, Source, only_marker, repeated};
use crate::protocol::progress::NextOffset;
use crate::rows::batch::Batch;
use crate::rows::decode::LedgerEntry;
use crate::rows::native::{self, BlockBuilder};

/// The cells of the ledger, one for each day on which Kafka appended the records.
pub(super) fn cells(batch: &Batch, source: Source, applied_end: NextOffset) -> Vec<Cell> {
    let mut days = BTreeMap::<_, Vec<&LedgerEntry>>::new();
    for entry in &batch.entries {
        days.entry(entry.kafka_time.floor(DAY)).or_default().push(entry);
    }
    days.into_iter()
        .map(|(start, entries)| ledger_cell(&entries, Marker { source, applied_end, start }))
        .collect()
}

/// The number of columns in a block. The other columns of the table get their defaults.
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
    only_marker(&mut block, "hwm", "UInt64", marker.applied_end.to_u64().to_le_bytes(), count);
    marker.daily("ledger", LEDGER_DAYS, count, block)
}
