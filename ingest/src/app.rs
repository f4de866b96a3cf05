//! The parts that all requests share, in the order in which a request meets them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use schemas::row::TimeLimits;

use crate::accept::Acceptor;
use crate::auth::Auth;
use crate::endpoints::votes::refresh::LatestResults;
use crate::metrics::Metrics;
use crate::publish::{Ack, Publisher};

/// The parts that all requests share.
pub struct App {
    /// Finds out who sends a request, and how much they may send.
    pub auth: Auth,
    /// The times that a reaction may have.
    pub times: TimeLimits,
    /// Turns a body into enriched lines.
    pub acceptor: Acceptor,
    /// Takes enriched lines to Kafka or into the spool.
    pub publisher: Publisher,
    /// When a request is answered, unless it prefers otherwise.
    pub ack: Ack,
    /// The results of the polls, for responses to votes.
    pub poll_results: LatestResults,
    /// Whether the edge is stopping.
    pub drain: DrainFlag,
    /// Everything that is counted.
    pub metrics: Arc<Metrics>,
}

/// Whether the edge is stopping, so that a connection ends with its next response.
///
/// Not a `CancellationToken`, which takes a lock to read; every response reads this.
#[derive(Debug, Default)]
pub struct DrainFlag(AtomicBool);

impl DrainFlag {
    /// From now on a connection ends with its next response.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether a connection ends with its next response.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
