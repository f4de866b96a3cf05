//! Where a record goes: to Kafka, or into the spool while Kafka is unreachable.

use std::sync::Arc;

use super::admission::Admission;
use super::cluster::Cluster;
use super::config::Ack;
use crate::outcome::Refusal;
use crate::spool::{Spool, SpoolState};

/// Records go to the spool, if there is one, once the bytes that wait for Kafka exceed this percentage of their limit.
const OVERFLOW_PERCENT: usize = 80;

/// Where a record goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Destination {
    /// To Kafka, and into the spool if that fails.
    Kafka,
    /// Into the spool at once.
    Spool,
}

/// Chooses the destination of records.
pub(super) struct Router {
    pub(super) cluster: Arc<Cluster>,
    pub(super) spool: Option<Spool>,
}

impl Router {
    /// Where a record goes now: to the spool while Kafka is unreachable, and while so many bytes wait for Kafka that
    /// the limit will soon be reached. Refused when neither would accept the record.
    pub(super) fn destination(&self, waiting: &Admission) -> Result<Destination, Refusal> {
        let Some(spool) = &self.spool else { return Ok(Destination::Kafka) };
        let is_down = self.cluster.is_down();
        if !is_down && waiting.is_filled_to(OVERFLOW_PERCENT) {
            return Ok(Destination::Kafka);
        }
        match spool.state() {
            SpoolState::On => Ok(Destination::Spool),
            SpoolState::Full(_) if is_down => Err(Refusal::SpoolFull),
            SpoolState::Off(_) if is_down => Err(Refusal::NotDurable),
            SpoolState::Full(_) | SpoolState::Off(_) => Ok(Destination::Kafka),
        }
    }

    /// Where the lines of a request go now. A request that is answered early would not learn of a failure, so while
    /// Kafka is known to be unreachable, it is refused rather than sent to Kafka.
    pub(super) fn destination_for(&self, ack: Ack, waiting: &Admission) -> Result<Destination, Refusal> {
        match (self.destination(waiting)?, ack) {
            (Destination::Kafka, Ack::Accepted) if self.cluster.is_down() => Err(Refusal::NotDurable),
            (destination, _) => Ok(destination),
        }
    }
}
