//! Classifies failed inserts, and writes the messages that tell an operator what to do about them. Pure.

use std::time::Duration;

use crate::apply::insert::DeclaredBatch;
use crate::apply::store::{Failure, StoreError};
use crate::apply::verdict::StopCause;
use crate::protocol::generation::FIRST_BACKFILL_GENERATION;
use crate::protocol::progress::{NextOffset, Offset};
use crate::protocol::recover;
use crate::rows::cells::{Cell, Source};

/// How long attempts may fail for lack of memory before the insert counts as refused. Until then the failures count as
/// transient, because other statements may be using the memory. After that the insert is probably too large for the
/// server: by default a batch has up to 64 MiB of records, and its insert needs several times as much memory.
const MAX_MEMORY_SHORTAGE: Duration = Duration::from_secs(60);
/// Pause between attempts while ClickHouse refuses an insert. The insert is retried until ClickHouse accepts it,
/// because an operator may raise a limit, drop a constraint or grant a right at any moment, and should not have to
/// restart the aggregator after that. The pause is this long because each attempt sends all rows.
pub(super) const REFUSED_RETRY_INTERVAL: Duration = Duration::from_secs(15);

/// How an attempt failed. The variants are ordered from the least to the most severe failure, because the derived `Ord`
/// compares them by this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FailedAttempt {
    /// The condition in the statement did not hold: the marker is above the start of the batch, the deadline has
    /// passed, or another server answered.
    ConditionFailed,
    /// The same insert may succeed later.
    Transient,
    /// ClickHouse refuses the insert until an operator acts.
    Refused,
}

impl FailedAttempt {
    /// Classifies a `failure`. `short_of_memory` is how long the server has lacked memory for the cell.
    pub(super) fn of(failure: Failure, short_of_memory: Duration) -> Self {
        match failure {
            Failure::ConditionFailed => Self::ConditionFailed,
            Failure::Transient => Self::Transient,
            Failure::OutOfMemory if short_of_memory < MAX_MEMORY_SHORTAGE => Self::Transient,
            Failure::OutOfMemory | Failure::Refused => Self::Refused,
        }
    }
}

/// Identifies a batch in messages to an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BatchDescription {
    source: Source,
    start: NextOffset,
    end: NextOffset,
}

impl BatchDescription {
    pub(super) fn of(DeclaredBatch { source, start, end, .. }: &DeclaredBatch) -> Self {
        Self { source: *source, start: *start, end: *end }
    }

    /// The message while ClickHouse refuses `cell`.
    pub(super) fn refused(&self, cell: &Cell, error: &StoreError) -> String {
        let Cell { table, partition_id, .. } = cell;
        let every = REFUSED_RETRY_INTERVAL.as_secs();
        if self.of_a_backfill() {
            return format!(
                "`{table}` {partition_id}: {error}; the insert is retried every {every} s. Check the limits, constraints and \
                 rights of clickhouse; the backfill may be stopped and run again"
            );
        }
        let (offsets, partition) = (self.offsets(), self.source.partition);
        format!(
            "`{table}` {partition_id}, offsets {offsets}: {error}; the insert is retried every {every} s. If limits, \
             constraints and rights of clickhouse cannot be changed, stop all aggregators and run \
             `stream-agg split {partition}`, which inserts offsets {offsets} in smaller pieces, or `stream-agg skip {partition} \
             --offset <N>`, which makes the record at offset N a dead letter"
        )
    }

    /// The message while the rows of `cell` are missing although ClickHouse accepted them.
    pub(super) fn awaited(&self, cell: &Cell) -> String {
        let Cell { table, partition_id, .. } = cell;
        format!(
            "`{table}` {partition_id}, {}: clickhouse acknowledged the rows and does not have them, as can \
             happen when it is killed; the rows are sent again within two minutes, once no earlier insert of them can be \
             under way",
            self.span()
        )
    }

    /// The report of a cell whose rows are not sent any more.
    pub(super) fn stopped(&self, cell: &Cell, cause: StopCause) -> StoppedBatch {
        let Cell { table, partition_id, .. } = cell;
        let partition = self.source.partition;
        let help = match cause {
            _ if self.of_a_backfill() => "; repair clickhouse, then run the backfill again".to_owned(),
            StopCause::ForeignMarker(_) => recover::help(partition),
            // A restart does not help: it would send the rows under the same tokens. ClickHouse remembers a token for
            // thousands of inserts, and would skip the rows as repeats.
            StopCause::LostParts if self.is_one_offset() => format!(
                "; nothing more of partition {partition} is inserted: find out why clickhouse loses parts, stop all \
                 aggregators and run `stream-agg skip {partition} --offset {}`, which makes the record a dead letter",
                self.start
            ),
            StopCause::LostParts => format!(
                "; nothing more of partition {partition} is inserted: find out why clickhouse loses parts, stop all \
                 aggregators and run `stream-agg split {partition}`, which inserts offsets {} in smaller pieces under new \
                 tokens",
                self.offsets()
            ),
        };
        StoppedBatch { table, partition_id: partition_id.clone(), span: self.span(), cause, help }
    }

    /// Where the rows come from, for messages. A batch of a backfill has positions within a day of raw rows instead of
    /// offsets.
    fn span(&self) -> String {
        format!("{} {}", if self.of_a_backfill() { "positions" } else { "offsets" }, self.offsets())
    }

    /// The first and the last offset of the batch, or the first and the last position.
    fn offsets(&self) -> String {
        format!("{}..{}", self.start, Offset::new(self.end.to_i64() - 1))
    }

    fn is_one_offset(&self) -> bool {
        self.end.to_i64() - self.start.to_i64() == 1
    }

    /// Whether the rows come from a backfill. `stream-agg split` and `stream-agg skip` cannot help then, because they
    /// change an intent and a backfill has none.
    fn of_a_backfill(&self) -> bool {
        self.source.log_generation >= FIRST_BACKFILL_GENERATION
    }
}

/// A batch whose inserts were stopped, and what an operator can do.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{table}` {partition_id}, {span}: {cause}{help}")]
pub struct StoppedBatch {
    table: &'static str,
    partition_id: String,
    span: String,
    cause: StopCause,
    help: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::native::BlockBuilder;

    #[test]
    fn lack_of_memory_is_transient_for_a_minute_and_other_transient_errors_always() {
        for (failure, seconds, expected) in [
            (Failure::OutOfMemory, 0.0, FailedAttempt::Transient),
            (Failure::OutOfMemory, 59.999, FailedAttempt::Transient),
            (Failure::OutOfMemory, 60.0, FailedAttempt::Refused),
            (Failure::OutOfMemory, 1e6, FailedAttempt::Refused),
            (Failure::Transient, 1e6, FailedAttempt::Transient),
            (Failure::ConditionFailed, 1e6, FailedAttempt::ConditionFailed),
            (Failure::Refused, 0.0, FailedAttempt::Refused),
        ] {
            let failed = FailedAttempt::of(failure, Duration::from_secs_f64(seconds));
            assert_eq!(failed, expected, "{failure:?} for {seconds} s");
        }
    }

    #[test]
    fn refused_outweighs_transient_and_transient_outweighs_condition_failed() {
        assert!(
            FailedAttempt::Refused > FailedAttempt::Transient
                && FailedAttempt::Transient > FailedAttempt::ConditionFailed
        );
    }

    fn batch(log_generation: u16) -> BatchDescription {
        let source = Source { log_generation, partition: 3, declaration_hash: 1 };
        BatchDescription { source, start: NextOffset::new(5), end: NextOffset::new(10) }
    }

    fn cell() -> Cell {
        Cell {
            table: "events",
            backfill: None,
            partition_id: "20261121".to_owned(),
            expires_at: None,
            rows: 1,
            block: BlockBuilder::new(0, 0).finish(),
        }
    }

    #[test]
    fn a_refusal_names_the_offsets_and_the_commands_that_resolve_it() {
        let error = StoreError::Refused { code: 241, message: "Code: 241.".to_owned() };
        assert_eq!(
            batch(0).refused(&cell(), &error),
            "`events` 20261121, offsets 5..9: clickhouse refused: Code: 241.; the insert is retried every 15 s. \
             If limits, constraints and rights of clickhouse cannot be changed, stop all aggregators and run \
             `stream-agg split 3`, which inserts offsets 5..9 in smaller pieces, or `stream-agg skip 3 --offset \
             <N>`, which makes the record at offset N a dead letter"
        );
        assert_eq!(
            batch(FIRST_BACKFILL_GENERATION).refused(&cell(), &error),
            "`events` 20261121: clickhouse refused: Code: 241.; the insert is retried every 15 s. Check the limits, \
             constraints and rights of clickhouse; the backfill may be stopped and run again"
        );
    }

    #[test]
    fn a_stopped_batch_says_why_and_what_to_do() {
        let foreign = StopCause::ForeignMarker(NextOffset::new(7));
        for (log_generation, cause, expected) in [
            (
                0,
                foreign,
                "its marker is 7, which is inside the declared batch; stop all aggregators and run \
                 `stream-agg adopt 3`",
            ),
            (
                0,
                StopCause::LostParts,
                "clickhouse acknowledged its rows three times and does not have them; nothing more of partition 3 is \
                 inserted: find out why clickhouse loses parts, stop all aggregators and run `stream-agg split 3`, \
                 which inserts offsets 5..9 in smaller pieces under new tokens",
            ),
            (
                FIRST_BACKFILL_GENERATION,
                StopCause::LostParts,
                "clickhouse acknowledged its rows three times and does not have them; repair clickhouse, then run the backfill again",
            ),
        ] {
            let stopped = batch(log_generation).stopped(&cell(), cause);
            let span = if log_generation == 0 { "offsets 5..9" } else { "positions 5..9" };
            assert_eq!(stopped.to_string(), format!("`events` 20261121, {span}: {expected}"));
        }
        let single = BatchDescription { end: NextOffset::new(6), ..batch(0) };
        assert_eq!(
            single.stopped(&cell(), StopCause::LostParts).to_string(),
            "`events` 20261121, offsets 5..5: clickhouse acknowledged its rows three times and does not have them; nothing \
             more of partition 3 is inserted: find out why clickhouse loses parts, stop all aggregators and run \
             `stream-agg skip 3 --offset 5`, which makes the record a dead letter"
        );
    }
}
