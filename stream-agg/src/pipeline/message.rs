//! What the collector sends to the applier.

use schemas::time::UnixMillis;

use crate::apply::insert::DeclaredBatch;
use crate::metrics::Counts;
use crate::pipeline::budget::Permit;
use crate::protocol::intent::Intent;

/// What the collector sends to the applier.
pub(crate) enum PipelineMessage {
    /// A batch to insert. Unless it was rebuilt, it must be declared first.
    Batch(Box<ReadyBatch>),
    /// The partition is idle. The applier commits this intent, whose deduplication window is empty, once every earlier
    /// batch is applied and if no other batch follows.
    Idle(Box<Intent>),
}

/// A closed batch with its cells and intents.
pub(crate) struct ReadyBatch {
    pub(crate) declared: DeclaredBatch,
    /// The intent that declares the batch. It is not committed if the batch was rebuilt, because a rebuilt batch is
    /// declared already.
    pub(crate) intent: Intent,
    /// The intent to commit if no other batch follows; `None` if more parts of the declared batch follow.
    pub(crate) after: Option<Intent>,
    /// The counts that the batch adds to the metrics.
    pub(crate) counts: Counts,
    /// Every record that Kafka appended before this moment is in this batch or in an earlier one; `None` if producers
    /// set the times.
    pub(crate) as_of: Option<UnixMillis>,
    /// A large batch holds its permit until it is applied.
    pub(crate) permit: Option<Permit>,
}
