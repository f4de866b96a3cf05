//! Whether a Kafka log was truncated below records that were read or declared. Pure.

use crate::protocol::progress::{NextOffset, Offset};

/// Whether the log, which begins at `low`, was truncated below `next`, given that Kafka's client cannot read at `next`
/// although every record below `next` was read before. If the log begins after `next`, retention has deleted the record
/// at `next`. Otherwise the log was truncated: in a log that was not truncated, `next` would be at or before the end of
/// the log, and the client could read there. The end of the log is not compared with `next`, because a truncated log
/// may have grown beyond `next` again.
pub(crate) fn was_truncated(next: NextOffset, low: NextOffset) -> bool {
    low <= next
}

/// Whether the log was truncated inside the declared batch, and the record at `offset` with this leader `epoch` was
/// then written in place of a record of the batch. `declared` is the offset and the leader epoch of the last record of
/// the batch. Epochs never decrease in a log, and every record that is written after a truncation has a later epoch
/// than the records that were removed. So a record at or before the declared offset that has a later epoch than the
/// declared epoch has replaced a record of the batch.
pub(crate) fn was_written_after_truncation(
    declared: (Offset, i32),
    offset: Offset,
    epoch: Option<i32>,
) -> bool {
    let (last, last_epoch) = declared;
    offset <= last && epoch.is_some_and(|epoch| epoch > last_epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_begins_at_or_below_the_unreadable_offset_was_truncated() {
        let (low, next) = (NextOffset::new(5), NextOffset::new);
        assert!(was_truncated(next(100), low) && was_truncated(next(5), low));
        assert!(!was_truncated(next(4), low), "retention deleted the record");
    }

    #[test]
    fn a_later_leader_epoch_inside_the_declared_batch_shows_a_truncation() {
        let declared = (Offset::new(14), 3);
        let check = |offset, epoch, expected| {
            assert_eq!(
                was_written_after_truncation(declared, Offset::new(offset), epoch),
                expected,
                "{offset} {epoch:?}"
            );
        };
        for epoch in [None, Some(2), Some(3)] {
            check(14, epoch, false);
        }
        check(12, Some(4), true);
        check(14, Some(4), true);
        check(15, Some(4), false);
    }
}
