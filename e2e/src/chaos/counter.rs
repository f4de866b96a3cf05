//! What processes count of themselves, and a run must have seen to prove anything. Pure.

use crate::chaos::schedule::Kind;

/// A counter of one kind of process; it starts again at 0 with each life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counter {
    /// Batches that were declared by another life or process.
    RecoveredIntents,
    /// Cells that had their batch before it came.
    SkippedCells,
    /// Rows of rollups whose groups were folded.
    FoldedRows,
    /// Events that went into the spool.
    SpooledEvents,
}

impl Counter {
    /// All.
    pub const ALL: [Self; 4] =
        [Self::RecoveredIntents, Self::SkippedCells, Self::FoldedRows, Self::SpooledEvents];

    /// Those of a kind of process.
    pub fn of(kind: Kind) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |counter| counter.kind() == kind)
    }

    /// Which processes have it.
    pub fn kind(self) -> Kind {
        match self {
            Self::RecoveredIntents | Self::SkippedCells | Self::FoldedRows => Kind::Aggregator,
            Self::SpooledEvents => Kind::Edge,
        }
    }

    /// Its metric.
    pub fn metric(self) -> &'static str {
        match self {
            Self::RecoveredIntents => "stream_agg_recovered_intents_total",
            Self::SkippedCells => "stream_agg_cells_skipped_total",
            Self::FoldedRows => "stream_agg_rows_folded_total",
            Self::SpooledEvents => "ingest_events_spooled_total",
        }
    }
}
