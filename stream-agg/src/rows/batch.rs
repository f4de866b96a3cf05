//! A batch: the records of one partition that are inserted together.

use crate::metrics::Counts;
use crate::protocol::progress::NextOffset;
use crate::rows::decode::{DecodedLines, LedgerEntry};

/// Records `[start..end)` of one partition that are inserted together.
#[derive(Debug)]
pub struct Batch {
    /// Where the previous batch ended. The first record of this batch may have a higher offset, because offsets in
    /// Kafka can have gaps.
    pub start: NextOffset,
    /// The batch holds every record from `start` up to this offset (exclusive). The markers of the batch contain this
    /// offset.
    pub end: NextOffset,
    /// The lines of the records, in the order of offset and line.
    pub decoded: DecodedLines,
    /// One row of the ledger for each record, in the order of offsets; never empty.
    pub entries: Vec<LedgerEntry>,
}

impl Batch {
    /// The counts that the batch adds to the metrics. `folded_rows` and `mistyped` are 0, because they are known only
    /// after the cells of the batch have been made.
    pub fn counts(&self) -> Counts {
        self.entries.iter().fold(Counts::default(), |sum, entry| Counts {
            records: sum.records + 1,
            lines: sum.lines + u64::from(entry.lines),
            rows: sum.rows + u64::from(entry.stored),
            rejected: sum.rejected + u64::from(entry.rejected),
            duplicates: sum.duplicates + u64::from(entry.duplicates),
            time_replaced: sum.time_replaced + u64::from(entry.time_replaced),
            arrival_replaced: sum.arrival_replaced + u64::from(entry.arrival_replaced),
            folded_rows: 0,
            mistyped: 0,
        })
    }
}
