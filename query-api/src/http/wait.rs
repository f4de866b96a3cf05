//! Requests that wait for the next snapshot.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{self, Instant};

use crate::config::RefreshConfig;
use crate::problem::{Kind, Problem};
use crate::state::AppState;

/// Maximum number of snapshots that a request waits for: the snapshot of the running refresh, which may have begun
/// before the reader asked, and the snapshot of the refresh after it.
const MAX_SNAPSHOTS: u32 = 2;

/// The wait of one request.
pub(super) struct SnapshotWait<'a> {
    state: &'a AppState,
    snapshots: watch::Receiver<u64>,
    left: u32,
    until: Instant,
}

impl<'a> SnapshotWait<'a> {
    /// A wait of at most `longest`. Callers must look at the latest snapshot after this call and before
    /// [`SnapshotWait::next`]; otherwise they could miss a snapshot that was published in between.
    pub(super) fn begin(state: &'a AppState, longest: Duration) -> Self {
        Self {
            state,
            snapshots: state.snapshots.subscribe(),
            left: MAX_SNAPSHOTS,
            until: Instant::now() + longest,
        }
    }

    /// Waits for the next snapshot.
    ///
    /// # Errors
    /// The request has waited for `longest` or for [`MAX_SNAPSHOTS`] snapshots, or there will be no more snapshots.
    pub(super) async fn next(&mut self) -> Result<(), Problem> {
        self.left = self.left.checked_sub(1).ok_or(Kind::NotYet)?;
        let _waiting = self.state.metrics.waiting();
        let next = time::timeout_at(self.until, self.snapshots.changed()).await;
        Ok(next.map_err(|_| Kind::NotYet)?.map_err(|_| Kind::NotYet)?)
    }
}

/// The longest wait of a request: two intervals and the deadline of one refresh. Jitter makes an interval at most 10 %
/// longer than configured.
pub(super) fn longest_wait(refresh: &RefreshConfig) -> Duration {
    2 * refresh.interval.mul_f64(1.1) + refresh.deadline
}
