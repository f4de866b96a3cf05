//! How far the pipeline of a partition is, for those who only look.

use schemas::time::UnixMillis;
use tokio::sync::watch;

use crate::protocol::progress::NextOffset;

/// How far a partition is, for those who only look.
pub struct Track {
    applied: watch::Sender<Applied>,
}

/// What is in every cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// Generation of the Kafka log.
    pub g: u16,
    /// Everything below; nothing is known before the partition was recovered.
    pub next: Option<NextOffset>,
    /// Everything that Kafka took before this moment, if it is Kafka that sets times.
    pub until: Option<UnixMillis>,
}

impl Track {
    pub(crate) fn new() -> Self {
        Self { applied: watch::Sender::new(Applied { g: 0, next: None, until: None }) }
    }

    /// What is in every cell now.
    pub fn applied(&self) -> Applied {
        *self.applied.borrow()
    }

    pub(crate) fn advance(&self, g: u16, next: NextOffset, until: Option<UnixMillis>) {
        self.applied.send_modify(|applied| {
            *applied = Applied { g, next: Some(next), until: until.max(applied.until) };
        });
    }

    /// Returns once everything below `next` is in every cell.
    pub(crate) async fn reaches(&self, next: NextOffset) {
        // The sender lives as long as `self`.
        let _ = self.applied.subscribe().wait_for(|applied| applied.next >= Some(next)).await;
    }
}
