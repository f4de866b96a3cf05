//! What the side of a pipeline that collects gives the side that applies.

use schemas::time::UnixMillis;

use crate::apply::insert::Work;
use crate::metrics::Counts;
use crate::pipeline::budget::Place;
use crate::protocol::intent::Intent;

/// What the other side is handed.
pub(crate) enum Handed {
    /// A batch to declare and insert.
    Batch(Box<Closed>),
    /// Nothing came for long: to commit once all before is applied.
    Quiet(Box<Intent>),
}

/// A closed batch on its way to Kafka and ClickHouse.
pub(crate) struct Closed {
    pub(crate) work: Work,
    /// Commits it; already committed if it was rebuilt.
    pub(crate) intent: Intent,
    /// Commits that nothing follows it; absent if more of what was declared does.
    pub(crate) after: Option<Intent>,
    /// What it counts for.
    pub(crate) counts: Counts,
    /// Everything that Kafka took before this moment is in it, or was before.
    pub(crate) as_of: Option<UnixMillis>,
    /// Held until it is applied, if it is large.
    pub(crate) place: Option<Place>,
}
