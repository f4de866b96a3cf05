//! ClickHouse: cells with their rows, markers and tokens, and statements that run.

use std::collections::BTreeSet;

use schemas::time::UnixMillis;
use stream_agg::apply::verdict::{EXECUTION, Target};
use stream_agg::protocol::progress::NextOffset;

/// A table partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Cell {
    /// How often each record is in it.
    pub(crate) counts: Vec<u8>,
    pub(crate) marker: NextOffset,
    /// The tokens that it remembers.
    pub(crate) tokens: BTreeSet<String>,
}

/// An insert that was sent and has not ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Statement {
    /// The process that waits for its answer.
    pub(crate) process: Option<usize>,
    pub(crate) cell: usize,
    pub(crate) target: Target,
    pub(crate) deadline: UnixMillis,
    pub(crate) token: String,
    /// Its condition was checked, and held.
    pub(crate) admitted: bool,
}

impl Statement {
    /// Whether ClickHouse no longer works on it.
    pub(crate) fn over(&self, now: UnixMillis) -> bool {
        self.admitted && self.deadline.0 + EXECUTION <= now.0
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

    /// Remembers a token; without one, nothing tells two statements from one.
    pub(crate) fn record(&mut self, token: &str) {
        if !token.is_empty() {
            self.tokens.insert(token.to_owned());
        }
    }

    /// The part of a statement: its rows and its marker.
    pub(crate) fn write(&mut self, target: &Target) {
        let range = target.start.to_i64()..target.end.to_i64();
        for offset in range {
            self.counts[usize::try_from(offset).unwrap()] += 1;
        }
        self.marker = self.marker.max(target.end);
    }
}
