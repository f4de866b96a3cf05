//! A modelled process with a pipeline for the partition. The pipeline behaves like `pipeline/applier.rs` and
//! `apply/insert.rs`.

use schemas::time::UnixMillis;
use stream_agg::apply::verdict::{Attempts, Target};
use stream_agg::protocol::intent::{Intent, LogMark};
use stream_agg::protocol::progress::{NextOffset, Offset, Progress};
use stream_agg::protocol::recover::{KafkaState, Marker, RecoverError, resume};

use super::clickhouse::Cell;
use super::kafka::Commit;

/// The hash of the only declaration.
pub(crate) const CFG: u64 = 1;

/// A process, which may have a pipeline.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Process {
    pub(crate) pipeline: Option<Pipeline>,
    /// Whether Kafka has revoked the partition.
    pub(crate) revoked: bool,
    /// Whether Kafka considers the process dead and may assign its partition to another process.
    pub(crate) lost: bool,
}

/// The pipeline of the partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Pipeline {
    pub(crate) progress: Progress,
    /// The last commit that the pipeline has read from Kafka or that Kafka has confirmed.
    pub(crate) known: Option<Commit>,
    /// A commit that was sent but not answered yet.
    pub(crate) committing: Option<Commit>,
    /// The declared batch, and the next step for each cell.
    pub(crate) batch: Option<Batch>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Batch {
    pub(crate) commit: Commit,
    pub(crate) cells: [Open; 2],
}

/// How far the pipeline is with the insert of one cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Open {
    pub(crate) attempts: Attempts,
    pub(crate) step: Step,
}

/// What the pipeline does next, or waits for, to insert the rows of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    Send,
    InsertAnswer,
    ReadMarkerFrom(UnixMillis),
    Applied,
    Stopped,
}

impl Pipeline {
    /// Starts the pipeline of a partition that was just assigned.
    pub(crate) fn start(
        committed: Option<Commit>,
        cells: &[Cell; 2],
        now: UnixMillis,
    ) -> Result<Self, RecoverError> {
        let text = committed.map(|c| (NextOffset::new(c.from), intent(c).to_string()));
        let found = found(text, cells[0].counts.len());
        let resume = resume(&found, &markers(cells.each_ref().map(|cell| cell.marker)), now, CFG)?;
        let mut pipeline =
            Self { progress: Progress::new(resume.from), known: committed, committing: None, batch: None };
        if let Some(last) = resume.rebuild {
            let last = Some(last.next().to_i64() - 1);
            // The markers are read before an insert, because another process may have inserted rows of the batch.
            pipeline.open(
                Commit { from: resume.from.to_i64(), last },
                Attempts::of(true),
                Step::ReadMarkerFrom(now),
            );
        }
        Ok(pipeline)
    }

    /// Begins to insert the batch that `commit` declares: `step` is the first step of each cell. Does nothing if
    /// `commit` declares no batch.
    pub(crate) fn open(&mut self, commit: Commit, attempts: Attempts, step: Step) {
        let Some(last) = commit.last else { return };
        let cells = [Open { attempts, step }; 2];
        self.progress.declare(Offset::new(last), cells.len());
        self.batch = Some(Batch { commit, cells });
    }

    /// The possible next commits in a log of `records` records: each declares a batch of some length, or no batch.
    /// After Kafka has revoked the partition, no commit declares a batch.
    pub(crate) fn commits(&self, records: i64, revoked: bool) -> Vec<Commit> {
        if self.committing.is_some() || !self.progress.may_declare() {
            return Vec::new();
        }
        let from = self.progress.applied().to_i64();
        let ends = if revoked { from..from } else { from..records };
        let settled = self.known.is_none_or(|known| known.from == from);
        let idle = (!settled).then_some(Commit { from, last: None });
        ends.map(|last| Commit { from, last: Some(last) }).chain(idle).collect()
    }
}

impl Batch {
    pub(crate) fn target(&self) -> Target {
        let end = self.last().next();
        Target { start: NextOffset::new(self.commit.from), end, expires_at: None }
    }

    pub(crate) fn last(&self) -> Offset {
        Offset::new(self.commit.last.expect("a batch was declared"))
    }
}

/// The state that Kafka reports for a partition with this number of records.
pub(crate) fn found(committed: Option<(NextOffset, String)>, records: usize) -> KafkaState {
    let end = NextOffset::new(i64::try_from(records).unwrap());
    KafkaState { committed, low: NextOffset::ZERO, end, topic: None }
}

/// The markers of the two cells: first the marker of the ledger, then the marker of `events`.
pub(crate) fn markers(of_cells: [NextOffset; 2]) -> Vec<Marker> {
    let cells = ["ledger", "events"].into_iter().zip(of_cells);
    cells
        .map(|(table, applied_end)| Marker {
            table: table.to_owned(),
            partition_id: String::new(),
            applied_end,
        })
        .collect()
}

/// The intent of a commit, without the fields that the model does not cover.
fn intent(commit: Commit) -> Intent {
    let last = commit.last.map(Offset::new);
    Intent { last, ..Intent::fresh(NextOffset::ZERO, CFG, 0, LogMark::default()) }
}
