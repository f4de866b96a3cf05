//! The destination of a record: Kafka, or the spool while Kafka is unreachable or overloaded.

use std::sync::Arc;

use super::admission::Admission;
use super::cluster::Cluster;
use super::config::Ack;
use crate::outcome::Refusal;
use crate::spool::{Spool, SpoolState};

/// If there is a spool, records go to it once the waiting bytes exceed this percentage of `UNACKED_BYTES`.
const OVERFLOW_PERCENT: usize = 80;

/// The destination of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Destination {
    /// Kafka. If there is a spool, a record that Kafka does not acknowledge then goes to the spool.
    Kafka,
    /// The spool, without an attempt to send the record to Kafka.
    Spool,
}

/// Chooses the destination of records.
pub(super) struct Router {
    pub(super) cluster: Arc<Cluster>,
    pub(super) spool: Option<Spool>,
}

impl Router {
    /// The destination of a record that is sent now: the spool, if the spool accepts records and either Kafka is
    /// unreachable or the waiting bytes exceed [`OVERFLOW_PERCENT`]. Refused if Kafka is unreachable and there is a
    /// spool that does not accept records. In all other cases, the destination is Kafka.
    pub(super) fn destination(&self, waiting: &Admission) -> Result<Destination, Refusal> {
        let Some(spool) = &self.spool else { return Ok(Destination::Kafka) };
        let is_down = self.cluster.is_down();
        if !is_down && waiting.is_at_most_percent(OVERFLOW_PERCENT) {
            return Ok(Destination::Kafka);
        }
        match spool.state() {
            SpoolState::On => Ok(Destination::Spool),
            SpoolState::Full(_) if is_down => Err(Refusal::SpoolFull),
            SpoolState::Off(_) if is_down => Err(Refusal::NotDurable),
            SpoolState::Full(_) | SpoolState::Off(_) => Ok(Destination::Kafka),
        }
    }

    /// The destination of the lines of a request. A client that is answered early does not learn of a later failure, so
    /// while Kafka is known to be unreachable and there is no spool, its request is refused and not sent to Kafka.
    pub(super) fn destination_for(&self, ack: Ack, waiting: &Admission) -> Result<Destination, Refusal> {
        match (self.destination(waiting)?, ack) {
            (Destination::Kafka, Ack::Accepted) if self.cluster.is_down() => Err(Refusal::NotDurable),
            (destination, _) => Ok(destination),
        }
    }
}
