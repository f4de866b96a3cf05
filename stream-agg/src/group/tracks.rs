//! How far the partitions of this process are.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::pipeline::track::Track;

/// How far the partitions of this process are.
#[derive(Default)]
pub struct Tracks(Mutex<BTreeMap<i32, Arc<Track>>>);

impl Tracks {
    /// All of the moment, by partition.
    pub fn all(&self) -> BTreeMap<i32, Arc<Track>> {
        self.lock().clone()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, BTreeMap<i32, Arc<Track>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
