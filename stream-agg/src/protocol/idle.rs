//! Decides when a partition has been idle for so long that no later record can be a repeat.
//!
//! The deduplication window of an idle partition is emptied and committed as empty, so that it need not be restored.
//! Invariant: a partition is never treated as idle only because its queue is empty. The first fetch after a long stop
//! may be slow, and its records may repeat records in the window. So the partition is idle only if it was also read up
//! to the end of the log. Pure: the caller asks Kafka for this end, and passes the end and the time.

use schemas::time::{HOUR, UnixMillis};

use crate::protocol::progress::NextOffset;

/// What a pipeline is doing when its queue is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkState {
    /// The pipeline rebuilds a declared batch.
    Rebuilding,
    /// A batch is open.
    OpenBatch,
    /// Every record that was read is in a closed batch.
    NoBatch,
}

/// A partition whose queue is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdleCheck {
    /// What its pipeline is doing.
    pub state: WorkState,
    /// Every record below this offset was read.
    pub read: NextOffset,
    /// Every record below this offset is applied.
    pub applied: NextOffset,
    /// Kafka's time of the newest record in the window.
    pub newest: UnixMillis,
    /// How long repeats are recognized, in milliseconds.
    pub window_age_ms: i64,
}

impl IdleCheck {
    /// Whether the partition is idle, provided that the log has no unread records: no batch is open or unfinished, and
    /// the age of the newest record in the window is at least the maximum age of the window plus an hour.
    ///
    /// The hour allows for differences between clocks: `now` is the time of this machine, and records have Kafka's
    /// time.
    pub fn may_be_idle(&self, now: UnixMillis) -> bool {
        let age = now.0.saturating_sub(self.newest.0);
        self.state == WorkState::NoBatch
            && self.applied >= self.read
            && age >= self.window_age_ms.saturating_add(HOUR)
    }

    /// Whether the partition is idle, given that the log ended at `end`. The caller must ask Kafka for `end` after it
    /// has found the queue empty.
    pub fn is_idle(&self, now: UnixMillis, end: NextOffset) -> bool {
        self.may_be_idle(now) && self.read >= end
    }
}

#[cfg(test)]
mod tests {
    use schemas::time::MINUTE;

    use super::*;

    const READ: NextOffset = NextOffset::new(7);
    /// 70 minutes after the newest record.
    const NOW: UnixMillis = UnixMillis(70 * MINUTE);
    const IDLE: IdleCheck = IdleCheck {
        state: WorkState::NoBatch,
        read: READ,
        applied: READ,
        newest: UnixMillis(0),
        window_age_ms: 10 * MINUTE,
    };

    #[test]
    fn a_partition_is_idle_once_its_newest_record_is_an_hour_older_than_the_window() {
        assert!(IDLE.is_idle(NOW, READ));
        assert!(!IDLE.is_idle(UnixMillis(NOW.0 - 1), READ));
        let by_default = IdleCheck { window_age_ms: 24 * HOUR, ..IDLE };
        assert!(!by_default.is_idle(UnixMillis(25 * HOUR - 1), READ));
        assert!(by_default.is_idle(UnixMillis(25 * HOUR), READ));
    }

    #[test]
    fn a_partition_with_unread_records_is_not_idle_however_late_they_arrive() {
        assert!(!IDLE.is_idle(NOW, NextOffset::new(8)));
        // An end below the offset up to which the pipeline has read also means that no record is unread. Kafka answers
        // with the last stable offset, which is below the end of the log while a transaction is open.
        assert!(IDLE.is_idle(NOW, NextOffset::new(6)));
    }

    #[test]
    fn a_partition_with_work_is_not_idle() {
        for state in [WorkState::Rebuilding, WorkState::OpenBatch] {
            assert!(!IdleCheck { state, ..IDLE }.is_idle(NOW, READ), "{state:?}");
        }
        let declared = IdleCheck { applied: NextOffset::new(6), ..IDLE };
        assert!(!declared.is_idle(NOW, READ));
    }

    #[test]
    fn extreme_clocks_and_window_ages_do_not_make_a_partition_idle() {
        assert!(!IDLE.is_idle(UnixMillis(i64::MIN), READ));
        assert!(!IdleCheck { window_age_ms: i64::MAX, ..IDLE }.is_idle(NOW, READ));
    }
}
