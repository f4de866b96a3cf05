//! Counters of the services that show whether a run tested what it should. All must grow during a run, except
//! [`Counter::SkippedCells`] and, without a spool, [`Counter::SpooledEvents`]; otherwise the run proves nothing. Pure.

use crate::chaos::schedule::Kind;

/// A counter of one kind of process. It starts at 0 with each start of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counter {
    /// Batches that one process declared and another process finished, or the same process after a restart.
    RecoveredIntents,
    /// Cells that a process did not insert, because their markers showed that an earlier owner had inserted them.
    SkippedCells,
    /// Events that a rollup counts under `(other)`, because it reached its limit of groups in a batch.
    FoldedRows,
    /// Events that went into the spool.
    SpooledEvents,
}

impl Counter {
    /// All counters.
    pub const ALL: [Self; 4] =
        [Self::RecoveredIntents, Self::SkippedCells, Self::FoldedRows, Self::SpooledEvents];

    /// The counters of a kind of process.
    pub fn of(kind: Kind) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |counter| counter.kind() == kind)
    }

    /// The kind of process that has this counter.
    pub fn kind(self) -> Kind {
        match self {
            Self::RecoveredIntents | Self::SkippedCells | Self::FoldedRows => Kind::Aggregator,
            Self::SpooledEvents => Kind::Edge,
        }
    }

    /// The name of the metric.
    pub fn metric(self) -> &'static str {
        match self {
            Self::RecoveredIntents => "stream_agg_recovered_intents_total",
            Self::SkippedCells => "stream_agg_cells_skipped_total",
            Self::FoldedRows => "stream_agg_rows_folded_total",
            Self::SpooledEvents => "ingest_events_spooled_total",
        }
    }
}
