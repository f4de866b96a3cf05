//! Requests that wait for the next snapshot.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{self, Instant};

use crate::config::RefreshConfig;
use crate::problem::{Kind, Problem};
use crate::state::AppState;

/// The most snapshots that a request waits for: the snapshot of the running refresh, which may have begun before the
/// reader asked, and that of the next refresh.
const MOST_SNAPSHOTS: u32 = 2;

/// The wait of one request.
pub(super) struct SnapshotWait<'a> {
    state: &'a AppState,
    snapshots: watch::Receiver<u64>,
    left: u32,
    until: Instant,
}

impl<'a> SnapshotWait<'a> {
    /// A wait of at most `longest`. Begin it before looking at the latest snapshot, so that no snapshot is
    /// missed between the two.
    pub(super) fn begin(state: &'a AppState, longest: Duration) -> Self {
        Self {
            state,
            snapshots: state.snapshots.subscribe(),
            left: MOST_SNAPSHOTS,
            until: Instant::now() + longest,
        }
    }

    /// Waits for the next snapshot.
    ///
    /// # Errors
    /// The request has waited long enough.
    pub(super) async fn next(&mut self) -> Result<(), Problem> {
        self.left = self.left.checked_sub(1).ok_or(Kind::NotYet)?;
        let _waiting = self.state.metrics.waiting();
        let next = time::timeout_at(self.until, self.snapshots.changed()).await;
        Ok(next.map_err(|_| Kind::NotYet)?.map_err(|_| Kind::NotYet)?)
    }
}

/// The longest wait of a request: the time of [`MOST_SNAPSHOTS`] refreshes that each take until their deadline.
pub(super) fn patience(refresh: &RefreshConfig) -> Duration {
    2 * refresh.interval.mul_f64(1.1) + refresh.deadline
}
