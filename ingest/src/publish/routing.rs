//! The destination of a record: Kafka, or the spool while Kafka is unreachable or overloaded.

use std::sync::Arc;

use super::admission::Admission;
use super::cluster::Cluster;
use super::config::Ack;
use crate::outcome::Refusal;
use crate::spool::{Spool, SpoolState};

/// New records go to the spool, if there is one, while the lines that wait for Kafka or the spool take more than this
/// percentage of `UNACKED_BYTES`.
const OVERFLOW_PERCENT: usize = 80;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Destination {
    /// Kafka. If Kafka does not acknowledge the record, the edge puts the record into the spool, if there is one.
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
    /// Chooses the destination of a record that is ready to be sent. `waiting` counts the bytes that wait for Kafka or
    /// the spool. The first of these rules that applies decides:
    ///
    /// - Without a spool, the destination is Kafka.
    /// - While Kafka is unreachable, the destination is the spool.
    /// - While the waiting bytes exceed [`OVERFLOW_PERCENT`], the destination is the spool if the spool accepts
    ///   records, and Kafka if not.
    /// - In all other cases, the destination is Kafka.
    ///
    /// # Errors
    ///
    /// If Kafka is unreachable and the spool does not accept records: [`Refusal::SpoolFull`] if the spool is full,
    /// [`Refusal::NotDurable`] if the spool is off.
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

    /// Chooses the destination of the lines of a request, like [`Router::destination`]. With [`Ack::Accepted`], the
    /// client is answered before the lines are stored and does not learn of a later failure. Therefore such a request
    /// is also refused if Kafka is known to be unreachable and there is no spool.
    pub(super) fn destination_for(&self, ack: Ack, waiting: &Admission) -> Result<Destination, Refusal> {
        match (self.destination(waiting)?, ack) {
            (Destination::Kafka, Ack::Accepted) if self.cluster.is_down() => Err(Refusal::NotDurable),
            (destination, _) => Ok(destination),
        }
    }
}
