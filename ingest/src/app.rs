//! The parts that all requests share, in the order in which a request uses them.

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
    /// Authenticates senders, and limits how much they may send.
    pub auth: Auth,
    /// The limits on the `timestamp` of a reaction: an event whose fields are in the URL of `POST /analytics`.
    pub times: TimeLimits,
    /// Turns a body into enriched lines.
    pub acceptor: Acceptor,
    /// Sends enriched lines to Kafka or to the spool.
    pub publisher: Publisher,
    /// Whether a response waits until the events are durable. A request with `Prefer: respond-async` never waits.
    pub ack: Ack,
    /// The poll results, for responses to votes.
    pub poll_results: LatestResults,
    /// Whether the edge is stopping.
    pub drain: DrainFlag,
    /// All metrics of the edge.
    pub metrics: Arc<Metrics>,
}

/// Whether the edge is stopping. While the edge is stopping, it closes each HTTP/1 connection after the next response.
///
/// The flag is not a `CancellationToken`, because every response reads it, and reading a token takes a lock.
#[derive(Debug, Default)]
pub struct DrainFlag(AtomicBool);

impl DrainFlag {
    /// Marks the edge as stopping.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the edge is stopping.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
