//! Turns dead letters into cells of `dead_letters`, one for each day on which Kafka appended their records.

use std::collections::BTreeMap;
use std::iter::once;

use schemas::tables::DEAD_LETTER_DAYS;
use schemas::time::DAY;

use super::{Cell, Marker, Source, append_interned, only_marker, repeated};
use crate::protocol::progress::NextOffset;
use crate::rows::columns::RowId;
use crate::rows::dead_letters::DeadLetters;
use crate::rows::native::BlockBuilder;

/// The cells of the dead letters, one for each day on which Kafka appended their records.
pub(super) fn cells(letters: &DeadLetters, source: Source, applied_end: NextOffset) -> Vec<Cell> {
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
    append_interned(&mut block, "tenant", &letters.tenant, order);
    append_interned(&mut block, "reason", &letters.reason, order);
    repeated(&mut block, "g", "UInt16", source.log_generation.to_le_bytes(), count);
    repeated(&mut block, "kp", "UInt16", source.partition.to_le_bytes(), count);
    block.fixed("ko", "UInt64", once(0).chain(at().map(|row| letters.ko[row])).map(u64::to_le_bytes));
    block.fixed("line", "UInt32", once(0).chain(at().map(|row| letters.line[row])).map(u32::to_le_bytes));
    block.text("text", "String", once("").chain(order.iter().map(|row| letters.text.get(*row))));
    let times = once(start).chain(at().map(|row| letters.kafka_time[row]));
    block.fixed("kafka_time", "DateTime64(3, 'UTC')", times.map(|time| time.0.to_le_bytes()));
    repeated(&mut block, "cfg", "UInt64", source.declaration_hash.to_le_bytes(), count);
    only_marker(&mut block, "hwm", "UInt64", applied_end.to_u64().to_le_bytes(), count);
    marker.daily("dead_letters", DEAD_LETTER_DAYS, count, block)
}
