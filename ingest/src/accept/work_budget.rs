//! The budget for CPU work on long bodies.
//!
//! While a long body is decompressed, or its lines are enriched, the input and the output are both in memory. The
//! budget bounds this extra memory: work on a long body waits until enough of the budget is free.

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Semaphore;
use tokio::task;

use crate::content::Encoding;

/// The size of the budget, in bytes; the budget is a part of `IN_FLIGHT_BYTES`. Work on a body that is longer than the
/// budget takes all of the budget.
pub const CPU_WORK_BYTES: usize = 64 << 20;
/// How much of the budget the decompression of one long body takes: half, so that at most two long bodies are
/// decompressed at once, on any number of cores.
const DECOMPRESSION_BYTES: usize = CPU_WORK_BYTES / 2;
/// A body of this length or more counts as long: work on it takes milliseconds.
const LONG_BYTES: usize = 256 * 1024;
/// How many times longer a typical body of events becomes when it is decompressed.
const TYPICAL_RATIO: usize = 8;

/// Bounds the memory that CPU work on long bodies takes; shared by all requests.
pub struct CpuWorkBudget {
    /// One permit for each byte.
    bytes: Semaphore,
}

impl Default for CpuWorkBudget {
    fn default() -> Self {
        Self { bytes: Semaphore::new(CPU_WORK_BYTES) }
    }
}

impl CpuWorkBudget {
    /// Runs `work`, which takes `bytes` of the budget. Work that takes less than `LONG_BYTES` runs immediately, outside
    /// the budget. Other work first waits for the budget, and then runs in [`task::block_in_place`]: the thread hands
    /// its other tasks over to another thread, so the work does not delay other requests. A runtime with a single
    /// thread, as in a test, has no other thread, so the work delays other requests there.
    pub async fn run<T>(&self, bytes: usize, work: impl FnOnce() -> T) -> T {
        if bytes < LONG_BYTES {
            return work();
        }
        let cost = bytes.min(CPU_WORK_BYTES) as u32;
        let _permit = self.bytes.acquire_many(cost).await.expect("the semaphore is never closed");
        match Handle::current().runtime_flavor() {
            RuntimeFlavor::MultiThread => task::block_in_place(work),
            _ => work(),
        }
    }
}

/// How much of the budget the decompression of a body of `sent` bytes takes; 0 if the body is short or not compressed.
pub fn decompression_cost(encoding: Encoding, sent: usize) -> usize {
    match encoding {
        Encoding::Gzip | Encoding::Zstd if TYPICAL_RATIO * sent >= LONG_BYTES => DECOMPRESSION_BYTES,
        Encoding::Gzip | Encoding::Zstd | Encoding::Identity => 0,
    }
}
