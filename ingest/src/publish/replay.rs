//! Replays the spool to Kafka: oldest records first, with lower priority than new records.
//!
//! A thread works in rounds. In each round, it sends a few records, waits for their results, removes the acknowledged
//! records from the spool, and pauses.
//!
//! If the process is killed after the acknowledgement of a record and before the fsync that removes the record from the
//! spool, the record is sent again; the aggregator counts it once, by its id.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use uuid::Uuid;

use super::delivery::Delivery;
use super::kafka::Producer;
use crate::metrics::Metrics;
use crate::spool::Spool;
use crate::spool::store::SpooledRecord;

/// Maximum number of records and bytes that are sent in one round. With the pause after each round, the replay sends at
/// most 20 MiB per second.
const ROUND_LIMITS: (usize, usize) = (200, 1 << 20);
/// The pause after a round in which Kafka has acknowledged all records, and the pause between two attempts while no
/// record can be sent.
const PAUSE: Duration = Duration::from_millis(50);
/// The pause after Kafka did not accept some records; these records stay in the spool and are sent again.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(1);
/// Nothing is replayed while the lines that wait for Kafka or the spool take more than this percentage of
/// `UNACKED_BYTES`.
const BUSY_PERCENT: usize = 50;

/// Stops the replay thread on drop, and joins it.
pub(super) struct Replay {
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Replay {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ended = thread.join();
        }
    }
}

/// Starts the thread that sends spooled records to Kafka.
pub(super) fn start(
    producer: &Arc<Producer>,
    delivery: &Arc<Delivery>,
    metrics: &Arc<Metrics>,
) -> io::Result<Replay> {
    let stopped = Arc::new(AtomicBool::new(false));
    let replayer = Replayer {
        producer: Arc::clone(producer),
        delivery: Arc::clone(delivery),
        metrics: Arc::clone(metrics),
        stopped: Arc::clone(&stopped),
        last: Uuid::nil(),
    };
    let thread = thread::Builder::new().name("spool-replay".to_owned()).spawn(move || replayer.run())?;
    Ok(Replay { stopped, thread: Some(thread) })
}

struct Replayer {
    producer: Arc<Producer>,
    delivery: Arc<Delivery>,
    metrics: Arc<Metrics>,
    stopped: Arc<AtomicBool>,
    /// The id of the record after which the current pass over the spool continues. A pass tries to send all records,
    /// oldest first.
    last: Uuid,
}

impl Replayer {
    fn run(mut self) {
        let delivery = Arc::clone(&self.delivery);
        let Some(spool) = &delivery.router.spool else { return };
        while !self.stopped.load(Ordering::Acquire) {
            self.sync_partitions(spool);
            let may_send = spool.records() > 0
                && delivery.router.cluster.is_up()
                && delivery.admission.is_at_most_percent(BUSY_PERCENT);
            let pause = if may_send { self.send_oldest(spool) } else { PAUSE };
            thread::park_timeout(pause);
        }
    }

    /// Keeps the number of the topic's partitions in the spool. Until Kafka has reported the number, the edge uses the
    /// number from the spool; after that, the spool stores the number that Kafka reports.
    fn sync_partitions(&self, spool: &Spool) {
        let cluster = &self.delivery.router.cluster;
        cluster.restore_partitions(spool.partitions());
        if cluster.is_up() && cluster.partitions() != spool.partitions() && spool.accepts_records() {
            spool.set_partitions(cluster.partitions());
        }
    }

    /// Sends the next records, at most [`ROUND_LIMITS`]. Returns how long to pause afterwards.
    fn send_oldest(&mut self, spool: &Spool) -> Duration {
        let records = spool.oldest(self.last, ROUND_LIMITS.0, ROUND_LIMITS.1);
        let Some(last) = records.last().map(|record| record.id) else {
            // The pass has ended: the spool has no record with an id larger than `last`, or cannot be read. The next
            // pass sends the records that are still in the spool: records that Kafka did not accept, and records that
            // came into the spool when `last` was already larger than their ids.
            self.last = Uuid::nil();
            return PAUSE;
        };
        let Some(delivered) = self.deliver(&records) else { return Duration::ZERO };
        let lines = |record: &SpooledRecord| u64::from(record.lines);
        let events = records.iter().filter(|record| delivered.contains(&record.id)).map(lines).sum();
        let failed = records.len() - delivered.len();
        if failed > 0 {
            let all = records.len();
            tracing::warn!(
                "kafka did not accept {failed} of {all} spooled records; they stay in the spool and are sent again"
            );
        }
        // If Kafka counts as reachable, the failed records may be the cause, for example because they are too large.
        // The pass then continues after them, so that they do not block later records. If Kafka is not reachable, the
        // next round sends the failed records again.
        if failed == 0 || self.delivery.router.cluster.is_up() {
            self.last = last;
        }
        spool.remove(delivered);
        self.metrics.spool_replayed.inc_by(events);
        if failed == 0 { PAUSE } else { PAUSE_AFTER_FAILURE }
    }

    /// Sends `records` and waits for the result of each. Returns the ids of the records that Kafka has acknowledged, or
    /// `None` if the thread must stop before all results are known.
    fn deliver(&self, records: &[SpooledRecord]) -> Option<Vec<Uuid>> {
        let (sender, results) = mpsc::channel();
        for record in records {
            self.delivery.send_spooled(&self.producer, record, &sender);
        }
        drop(sender);
        let mut delivered = Vec::with_capacity(records.len());
        loop {
            match results.recv_timeout(PAUSE) {
                Ok((id, true)) => delivered.push(id),
                Ok((_, false)) => {}
                Err(RecvTimeoutError::Disconnected) => return Some(delivered),
                Err(RecvTimeoutError::Timeout) if self.stopped.load(Ordering::Acquire) => return None,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}
