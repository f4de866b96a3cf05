//! The way out of the spool: oldest records first, behind live traffic.
//!
//! A thread of its own sends a few records, waits until Kafka has acknowledged them,
//! lets the spool forget them, and rests. Between the acknowledgement and the spool's
//! fsync a kill leaves a record in both: the aggregator counts it once, by its id.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use uuid::Uuid;

use super::delivery::{Outbox, Producer};
use crate::metrics::Metrics;
use crate::spool::Spool;
use crate::spool::store::Stored;

/// Records and bytes that are sent together; with the rest between them at most 20 MiB a second.
const TOGETHER: (usize, usize) = (200, 1 << 20);
/// Rest after that, and between looks whether there is something.
const REST: Duration = Duration::from_millis(50);
/// Rest after Kafka has refused records, which it may do for as long as they are there.
const REST_AFTER_REFUSAL: Duration = Duration::from_secs(1);
/// Live traffic has filled the queue to this many hundredths: then the spool waits.
const BUSY_PERCENT: usize = 50;

/// Ends the thread, when dropped.
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

/// Starts the thread.
pub(super) fn start(
    producer: Weak<Producer>,
    outbox: &Arc<Outbox>,
    metrics: &Arc<Metrics>,
) -> io::Result<Replay> {
    let stopped = Arc::new(AtomicBool::new(false));
    let replayer = Replayer {
        producer,
        outbox: Arc::clone(outbox),
        metrics: Arc::clone(metrics),
        stopped: Arc::clone(&stopped),
        last: Uuid::nil(),
    };
    let thread = thread::Builder::new().name("spool-replay".to_owned()).spawn(move || replayer.run())?;
    Ok(Replay { stopped, thread: Some(thread) })
}

struct Replayer {
    producer: Weak<Producer>,
    outbox: Arc<Outbox>,
    metrics: Arc<Metrics>,
    stopped: Arc<AtomicBool>,
    /// The records up to this one were sent, and Kafka has them or does not take them.
    last: Uuid,
}

impl Replayer {
    fn run(mut self) {
        let outbox = Arc::clone(&self.outbox);
        let Some(spool) = &outbox.spool else { return };
        while !self.stopped.load(Ordering::Acquire) {
            self.exchange_partitions(spool);
            let may_send = spool.records() > 0 && outbox.cluster.is_up() && outbox.is_filled_to(BUSY_PERCENT);
            let rest = if may_send { self.send_oldest(spool) } else { REST };
            thread::park_timeout(rest);
        }
    }

    /// The spool remembers what Kafka says, and says it while Kafka does not.
    fn exchange_partitions(&self, spool: &Spool) {
        let cluster = &self.outbox.cluster;
        cluster.remembered(spool.partitions());
        if cluster.is_up() && cluster.partitions() != spool.partitions() && spool.is_on() {
            spool.remember(cluster.partitions());
        }
    }

    /// Sends a few records. Returns how long to rest then.
    fn send_oldest(&mut self, spool: &Spool) -> Duration {
        let records = spool.oldest(self.last, TOGETHER.0, TOGETHER.1);
        let Some(last) = records.last().map(|record| record.id) else {
            // Those that Kafka did not take, and those that came late, have their turn again.
            self.last = Uuid::nil();
            return REST;
        };
        let Some(delivered) = self.deliver(&records) else { return Duration::ZERO };
        let lines = |record: &Stored| u64::from(record.lines);
        let events = records.iter().filter(|record| delivered.contains(&record.id)).map(lines).sum();
        let refused = records.len() - delivered.len();
        if refused > 0 {
            tracing::warn!(records = refused, "kafka has not taken records of the spool: they stay there");
        }
        // What Kafka does not take for a reason of its own must not hold up all that follows.
        if refused == 0 || self.outbox.cluster.is_up() {
            self.last = last;
        }
        spool.remove(delivered);
        self.metrics.spool_replayed.inc_by(events);
        if refused == 0 { REST } else { REST_AFTER_REFUSAL }
    }

    /// Sends records and waits for their ends. Returns the ids of those that Kafka has;
    /// `None` when it is time to stop.
    fn deliver(&self, records: &[Stored]) -> Option<Vec<Uuid>> {
        let producer = self.producer.upgrade()?;
        let (tell, told) = mpsc::channel();
        for record in records {
            self.outbox.replay(&producer, record, &tell);
        }
        drop((producer, tell));
        let mut delivered = Vec::with_capacity(records.len());
        loop {
            match told.recv_timeout(REST) {
                Ok((id, true)) => delivered.push(id),
                Ok((_, false)) => {}
                Err(RecvTimeoutError::Disconnected) => return Some(delivered),
                Err(RecvTimeoutError::Timeout) if self.stopped.load(Ordering::Acquire) => return None,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}
