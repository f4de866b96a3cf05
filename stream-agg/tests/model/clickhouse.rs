//! The modelled ClickHouse: table partitions with their rows, markers and tokens, and the inserts that have not ended.

use std::collections::BTreeSet;

use schemas::time::UnixMillis;
use stream_agg::apply::verdict::{MAX_EXECUTION_MS, Target};
use stream_agg::protocol::progress::NextOffset;

/// A table partition, into which each batch inserts one cell.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Cell {
    /// How often the table partition contains each record.
    pub(crate) counts: Vec<u8>,
    pub(crate) marker: NextOffset,
    /// The deduplication tokens that ClickHouse remembers for the table partition.
    pub(crate) tokens: BTreeSet<String>,
}

/// An insert that was sent and has not ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Statement {
    /// The process that waits for the answer, if any.
    pub(crate) process: Option<usize>,
    pub(crate) cell: usize,
    pub(crate) target: Target,
    pub(crate) deadline: UnixMillis,
    pub(crate) token: String,
    /// Whether the condition of the insert was checked and found true.
    pub(crate) admitted: bool,
}

impl Statement {
    /// Whether ClickHouse has begun to execute the statement and has certainly stopped: its time limit for a statement
    /// has passed, even if the execution began at the deadline of the statement.
    pub(crate) fn over(&self, now: UnixMillis) -> bool {
        self.admitted && self.deadline.0 + MAX_EXECUTION_MS <= now.0
    }
}

impl Cell {
    pub(crate) fn new(records: i64) -> Self {
        Self {
            counts: vec![0; usize::try_from(records).unwrap()],
            marker: NextOffset::ZERO,
            tokens: BTreeSet::new(),
        }
    }

    pub(crate) fn knows(&self, token: &str) -> bool {
        self.tokens.contains(token)
    }

    /// Remembers a token. An empty token is not remembered, because ClickHouse does not deduplicate inserts without a
    /// token.
    pub(crate) fn record(&mut self, token: &str) {
        if !token.is_empty() {
            self.tokens.insert(token.to_owned());
        }
    }

    /// Writes the part of a statement: its rows and its marker.
    pub(crate) fn write(&mut self, target: &Target) {
        let range = target.start.to_i64()..target.end.to_i64();
        for offset in range {
            self.counts[usize::try_from(offset).unwrap()] += 1;
        }
        self.marker = self.marker.max(target.end);
    }
}
