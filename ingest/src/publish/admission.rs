//! Counts the lines that wait for Kafka or the spool, and decides whether more lines are admitted.
//!
//! A line *ends* when its record ends (see `delivery`) or when its request is refused.
//!
//! Invariant: each line is counted once, from [`Admission::enter`] to [`Admission::leave`], so that a stopping edge
//! knows when all lines have ended. The counts are atomics; there is no lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::metrics::Metrics;
use crate::outcome::{Bound, Refusal};

/// Counts the lines that wait for Kafka or the spool, and bounds their bytes; shared by all requests.
pub(super) struct Admission {
    events: AtomicU64,
    bytes: AtomicUsize,
    max_bytes: usize,
    closed: AtomicBool,
    /// Notified when `events` reaches zero.
    drained: Notify,
    metrics: Arc<Metrics>,
}

impl Admission {
    pub(super) fn new(max_bytes: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            events: AtomicU64::new(0),
            bytes: AtomicUsize::new(0),
            max_bytes,
            closed: AtomicBool::new(false),
            drained: Notify::new(),
            metrics,
        }
    }

    /// Counts lines that begin to wait, and returns a refusal if they are not admitted. In either case, the caller must
    /// call [`Admission::release`] and [`Admission::leave`] once the lines have ended.
    pub(super) fn enter(&self, events: u64, bytes: usize) -> Result<(), Refusal> {
        self.metrics.accepted(events, bytes);
        self.events.fetch_add(events, Ordering::SeqCst);
        let waiting = self.bytes.fetch_add(bytes, Ordering::AcqRel) + bytes;
        // This thread counts the lines and then reads `closed`. A thread that stops the edge sets `closed` and then
        // reads the count. So either this thread sees `closed` and refuses the lines, or the other thread sees the
        // lines in the count and waits for them.
        if self.is_closed() {
            Err(Refusal::Draining)
        } else if waiting <= self.max_bytes {
            Ok(())
        } else {
            Err(Refusal::Overloaded(Bound::UnackedBytes))
        }
    }

    /// Releases the bytes of lines that have ended. The caller then calls [`Admission::leave`] for the same lines.
    pub(super) fn release(&self, events: u64, bytes: usize) {
        self.metrics.settled(events, bytes);
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
    }

    /// Stops counting lines that have ended, so a stopping edge no longer waits for them. If the lines were sent, the
    /// caller has already set the receipt of their record.
    pub(super) fn leave(&self, events: u64) {
        if self.events.fetch_sub(events, Ordering::AcqRel) == events {
            self.drained.notify_waiters();
        }
    }

    /// Whether the waiting bytes are at most this percentage of the limit.
    pub(super) fn is_at_most_percent(&self, percent: usize) -> bool {
        self.bytes.load(Ordering::Acquire).saturating_mul(100) <= self.max_bytes.saturating_mul(percent)
    }

    /// Makes [`Admission::enter`] refuse all lines from now on.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// The number of events that have not ended.
    pub(super) fn events(&self) -> u64 {
        self.events.load(Ordering::SeqCst)
    }

    /// Waits until all lines that were counted have ended.
    pub(super) async fn drained(&self) {
        loop {
            let drained = self.drained.notified();
            tokio::pin!(drained);
            // Registers for the notification before the count is read, so that no notification is missed.
            drained.as_mut().enable();
            if self.events() == 0 {
                return;
            }
            drained.await;
        }
    }
}
