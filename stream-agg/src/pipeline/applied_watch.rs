//! The progress of a pipeline, for its collector and for tasks outside the pipeline.

use schemas::time::UnixMillis;
use tokio::sync::watch;

use crate::protocol::progress::NextOffset;

/// The progress of a pipeline. The pipeline writes it; its collector and tasks outside the pipeline read it.
pub struct AppliedWatch {
    applied: watch::Sender<Applied>,
}

/// Which records are applied: every cell of their batches is in ClickHouse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// Generation of the Kafka log.
    pub log_generation: u16,
    /// Every record below this offset is applied; `None` until the partition is restored.
    pub next: Option<NextOffset>,
    /// Every record that Kafka appended before this moment is applied; `None` before the first batch of this pipeline
    /// is applied, or if producers set the times of the records.
    pub until: Option<UnixMillis>,
}

impl AppliedWatch {
    pub(crate) fn new() -> Self {
        Self { applied: watch::Sender::new(Applied { log_generation: 0, next: None, until: None }) }
    }

    /// Which records are applied now.
    pub fn applied(&self) -> Applied {
        *self.applied.borrow()
    }

    pub(crate) fn advance(&self, log_generation: u16, next: NextOffset, until: Option<UnixMillis>) {
        self.applied.send_modify(|applied| {
            *applied = Applied { log_generation, next: Some(next), until: until.max(applied.until) };
        });
    }

    /// Returns once every record below `next` is applied.
    pub(crate) async fn wait_until_applied(&self, next: NextOffset) {
        // Waiting cannot fail, because the sender lives as long as `self`.
        let _ = self.applied.subscribe().wait_for(|applied| applied.next >= Some(next)).await;
    }
}
