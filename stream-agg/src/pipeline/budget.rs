//! Room for large batches: one bound for the whole process, whatever number of
//! partitions it has.
//!
//! A batch needs a place once it is large, and keeps it until it is applied. Invariant:
//! nobody waits for ever, for a partition that is stuck keeps its places: after
//! [`PATIENCE`] a partition goes on with small batches, and finishes a declared one anyway.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time;

use crate::config::BatchConfig;

/// From here on a batch is large. Smaller ones are not counted.
pub const LARGE_BYTES: usize = 1 << 20;
/// Longest that a batch waits before it stays small.
const PATIENCE: Duration = Duration::from_secs(10);

/// The places of all partitions of the process.
pub struct Room(Arc<Semaphore>);

/// A place that is held until it is dropped.
#[derive(Debug)]
pub struct Place {
    _held: Option<OwnedSemaphorePermit>,
}

impl Place {
    /// A place beyond the bound, for a batch that cannot stay small.
    pub fn beyond() -> Self {
        Self { _held: None }
    }
}

impl Room {
    /// As many places as batches of the greatest size fit into the bound; at least one.
    pub fn new(config: &BatchConfig) -> Self {
        let BatchConfig { max_bytes, max_total_bytes, .. } = config;
        let places = NonZeroUsize::new(max_total_bytes.get() / max_bytes.get());
        Self(Arc::new(Semaphore::new(places.map_or(1, NonZeroUsize::get))))
    }

    /// A place, if one is free in time. Who waits longest is served first.
    pub async fn place(&self) -> Option<Place> {
        let held = time::timeout(PATIENCE, Arc::clone(&self.0).acquire_owned()).await.ok()?;
        Some(Place { _held: Some(held.expect("the semaphore is never closed")) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(max_bytes: usize, max_total_bytes: usize) -> Room {
        Room::new(&BatchConfig {
            max_rows: NonZeroUsize::MIN,
            max_bytes: max_bytes.try_into().unwrap(),
            max_total_bytes: max_total_bytes.try_into().unwrap(),
            max_age: Duration::from_secs(2),
        })
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_room_for_so_many_bytes_and_a_place_that_is_left_is_free() {
        let room = room(10, 29);
        let (first, second) = (room.place().await, room.place().await);
        assert!(first.is_some() && second.is_some());
        assert!(room.place().await.is_none(), "two batches of ten bytes fit into 29");
        drop(first);
        assert!(room.place().await.is_some());
    }

    #[tokio::test]
    async fn one_batch_always_fits() {
        assert!(room(10, 9).place().await.is_some());
    }
}
