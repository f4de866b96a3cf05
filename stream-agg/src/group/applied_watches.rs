//! The progress of each partition that has a pipeline in this process, for the tasks that publish progress and run
//! audits.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::pipeline::applied_watch::AppliedWatch;

/// The progress of each partition that has a pipeline in this process.
#[derive(Default)]
pub struct AppliedWatches(Mutex<BTreeMap<i32, Arc<AppliedWatch>>>);

impl AppliedWatches {
    /// The watch of each partition that has a pipeline in this process now.
    pub fn all(&self) -> BTreeMap<i32, Arc<AppliedWatch>> {
        self.lock().clone()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, BTreeMap<i32, Arc<AppliedWatch>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
