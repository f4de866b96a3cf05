//! The progress of each partition that this process owns, for tasks outside the group.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::pipeline::applied_watch::AppliedWatch;

/// The progress of each partition that this process owns.
#[derive(Default)]
pub struct AppliedWatches(Mutex<BTreeMap<i32, Arc<AppliedWatch>>>);

impl AppliedWatches {
    /// The watches of the partitions that this process owns now.
    pub fn all(&self) -> BTreeMap<i32, Arc<AppliedWatch>> {
        self.lock().clone()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, BTreeMap<i32, Arc<AppliedWatch>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
