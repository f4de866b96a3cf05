//! The accumulators of all partitions.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::accumulator::RecordAccumulator;
use super::routing::Destination;

/// The accumulators of one partition. There is one for each destination, so that records that wait for Kafka do not
/// delay records that go to the spool.
#[derive(Default)]
pub(super) struct PartitionAccumulators {
    kafka: Mutex<RecordAccumulator>,
    spool: Mutex<RecordAccumulator>,
}

impl PartitionAccumulators {
    /// Locks the accumulator of one destination. Ignores that the lock is poisoned: a panic that occurs while the lock
    /// is held is a bug, but it must fail only one request, not every later request of the partition.
    pub(super) fn lock(&self, destination: Destination) -> MutexGuard<'_, RecordAccumulator> {
        let accumulator = match destination {
            Destination::Kafka => &self.kafka,
            Destination::Spool => &self.spool,
        };
        accumulator.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The accumulators of all partitions, by partition.
#[derive(Default)]
pub(super) struct Accumulators(RwLock<Vec<Arc<PartitionAccumulators>>>);

impl Accumulators {
    /// The accumulators of `partition`, which are created when they are first used.
    pub(super) fn of(&self, partition: u32) -> Arc<PartitionAccumulators> {
        let at = partition as usize;
        if let Some(accumulators) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(at) {
            return Arc::clone(accumulators);
        }
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        while all.len() <= at {
            all.push(Arc::default());
        }
        Arc::clone(&all[at])
    }

    /// All accumulators that exist, with their partitions.
    pub(super) fn all(&self) -> Vec<(u32, Arc<PartitionAccumulators>)> {
        (0..).zip(self.0.read().unwrap_or_else(PoisonError::into_inner).iter().cloned()).collect()
    }
}
