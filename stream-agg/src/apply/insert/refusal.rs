//! What follows when ClickHouse does not take rows, and what an operator does about it. Pure.

use std::time::Duration;

use crate::apply::insert::Work;
use crate::apply::store::{Failure, StoreError};
use crate::apply::verdict::Lost;
use crate::protocol::generation::BACKFILL_G;
use crate::protocol::progress::{NextOffset, Offset};
use crate::protocol::recover;
use crate::rows::cells::{Cell, Source};

/// How long a server without memory is taken for busy: after that the insert is too large for
/// it. A batch has up to 64 MiB of records and needs several times as much.
const MEMORY_PATIENCE: Duration = Duration::from_secs(60);
/// Between tries of what ClickHouse refuses. It is tried for as long as it is refused, for a
/// limit may be raised, a constraint dropped or a right granted at any moment, and nothing is
/// gained by waiting for a restart as well; not more often, for each try sends all rows.
pub(super) const REFUSED_WAIT: Duration = Duration::from_secs(15);

/// How a try failed; what is worse is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Failed {
    /// Its condition did not hold.
    Doubt,
    /// It may be taken later.
    Passing,
    /// An operator must help.
    Refused,
}

impl Failed {
    /// What the failure of a cell means that the server has had no memory for, for so long.
    pub(super) fn of(failure: Failure, short_of_memory: Duration) -> Self {
        match failure {
            Failure::Doubt => Self::Doubt,
            Failure::Passing => Self::Passing,
            Failure::Memory if short_of_memory < MEMORY_PATIENCE => Self::Passing,
            Failure::Memory | Failure::Refused => Self::Refused,
        }
    }
}

/// What names the rows of a batch to an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rows {
    source: Source,
    lo: NextOffset,
    hwm: NextOffset,
}

impl Rows {
    pub(super) fn of(Work { source, lo, hwm, .. }: &Work) -> Self {
        Self { source: *source, lo: *lo, hwm: *hwm }
    }

    /// What is said while `cell` is refused, and tried again.
    pub(super) fn refused(&self, cell: &Cell, error: &StoreError) -> String {
        let Cell { table, partition, .. } = cell;
        let every = REFUSED_WAIT.as_secs();
        if self.of_a_backfill() {
            return format!(
                "`{table}` {partition}: {error}; it is tried again every {every} s. Look at the limits, \
                 constraints and rights of clickhouse; the backfill may be stopped and run again"
            );
        }
        let (offsets, kp) = (self.offsets(), self.source.kp);
        format!(
            "`{table}` {partition}, offsets {offsets}: {error}; it is tried again every {every} s. If limits, \
             constraints and rights of clickhouse must stay as they are, stop all aggregators and run \
             `stream-agg split {kp}`, which inserts offsets {offsets} in smaller pieces, or `stream-agg skip {kp} \
             --offset <N>`, which makes the record at offset N a dead letter"
        )
    }

    /// What is said while the rows of `cell` are waited for, which ClickHouse took and does not have.
    pub(super) fn awaited(&self, cell: &Cell) -> String {
        let Cell { table, partition, .. } = cell;
        format!(
            "`{table}` {partition}, offsets {}: clickhouse took the rows and does not have them, as after a kill; they \
             are sent again once no earlier insert of them can be under way, within two minutes",
            self.offsets()
        )
    }

    /// Why nothing more of `cell` is sent.
    pub(super) fn stopped(&self, cell: &Cell, lost: Lost) -> Stopped {
        let Cell { table, partition, .. } = cell;
        let kp = self.source.kp;
        let help = match lost {
            _ if self.of_a_backfill() => "; mend clickhouse, then run this again".to_owned(),
            Lost::Foreign(_) => recover::help(kp),
            // A restart would send the rows under the same tokens, which ClickHouse keeps for thousands of inserts.
            Lost::Parts if self.is_one_offset() => format!(
                "; nothing more of partition {kp} is inserted: mend what loses parts in clickhouse, stop all \
                 aggregators and run `stream-agg skip {kp} --offset {}`, which makes the record a dead letter",
                self.lo
            ),
            Lost::Parts => format!(
                "; nothing more of partition {kp} is inserted: mend what loses parts in clickhouse, stop all \
                 aggregators and run `stream-agg split {kp}`, which inserts offsets {} in smaller pieces under new \
                 tokens",
                self.offsets()
            ),
        };
        Stopped { table, partition: partition.clone(), offsets: self.offsets(), lost, help }
    }

    /// First and last, as declared; those of a backfill are numbers of its lane.
    fn offsets(&self) -> String {
        format!("{}..{}", self.lo, Offset::new(self.hwm.to_i64() - 1))
    }

    fn is_one_offset(&self) -> bool {
        self.hwm.to_i64() - self.lo.to_i64() == 1
    }

    /// A backfill has no intent that a command could change.
    fn of_a_backfill(&self) -> bool {
        self.source.g >= BACKFILL_G
    }
}

/// A batch that is not inserted any further, with what an operator does about it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{table}` {partition}, offsets {offsets}: {lost}{help}")]
pub struct Stopped {
    table: &'static str,
    partition: String,
    offsets: String,
    lost: Lost,
    help: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::native::Block;

    #[test]
    fn memory_is_waited_for_a_minute_and_what_ends_by_itself_for_ever() {
        for (failure, seconds, expected) in [
            (Failure::Memory, 0.0, Failed::Passing),
            (Failure::Memory, 59.999, Failed::Passing),
            (Failure::Memory, 60.0, Failed::Refused),
            (Failure::Memory, 1e6, Failed::Refused),
            (Failure::Passing, 1e6, Failed::Passing),
            (Failure::Doubt, 1e6, Failed::Doubt),
            (Failure::Refused, 0.0, Failed::Refused),
        ] {
            let failed = Failed::of(failure, Duration::from_secs_f64(seconds));
            assert_eq!(failed, expected, "{failure:?} for {seconds} s");
        }
    }

    #[test]
    fn a_cell_that_is_refused_for_good_outweighs_one_that_passes() {
        assert!(Failed::Refused > Failed::Passing && Failed::Passing > Failed::Doubt);
    }

    fn rows(g: u16) -> Rows {
        let source = Source { g, kp: 3, cfg: 1 };
        Rows { source, lo: NextOffset::new(5), hwm: NextOffset::new(10) }
    }

    fn cell() -> Cell {
        Cell {
            table: "events",
            backfill: None,
            partition: "20261121".to_owned(),
            ends: None,
            rows: 1,
            block: Block::new(0, 0).finish(),
        }
    }

    #[test]
    fn a_refusal_names_the_offsets_and_the_commands_that_resolve_it() {
        let error = StoreError::Refused { code: 241, message: "Code: 241.".to_owned() };
        assert_eq!(
            rows(0).refused(&cell(), &error),
            "`events` 20261121, offsets 5..9: clickhouse refused: Code: 241.; it is tried again every 15 s. If \
             limits, constraints and rights of clickhouse must stay as they are, stop all aggregators and run \
             `stream-agg split 3`, which inserts offsets 5..9 in smaller pieces, or `stream-agg skip 3 --offset \
             <N>`, which makes the record at offset N a dead letter"
        );
        assert_eq!(
            rows(BACKFILL_G).refused(&cell(), &error),
            "`events` 20261121: clickhouse refused: Code: 241.; it is tried again every 15 s. Look at the limits, \
             constraints and rights of clickhouse; the backfill may be stopped and run again"
        );
    }

    #[test]
    fn a_stopped_batch_says_why_and_what_to_do() {
        let foreign = Lost::Foreign(NextOffset::new(7));
        for (g, lost, said) in [
            (
                0,
                foreign,
                "its marker says 7, which is inside the declared batch; stop all aggregators and run \
                 `stream-agg adopt 3`",
            ),
            (
                0,
                Lost::Parts,
                "clickhouse took its rows three times and does not have them; nothing more of partition 3 is \
                 inserted: mend what loses parts in clickhouse, stop all aggregators and run `stream-agg split 3`, \
                 which inserts offsets 5..9 in smaller pieces under new tokens",
            ),
            (
                BACKFILL_G,
                Lost::Parts,
                "clickhouse took its rows three times and does not have them; mend clickhouse, then run this again",
            ),
        ] {
            let stopped = rows(g).stopped(&cell(), lost);
            assert_eq!(stopped.to_string(), format!("`events` 20261121, offsets 5..9: {said}"));
        }
        let single = Rows { hwm: NextOffset::new(6), ..rows(0) };
        assert_eq!(
            single.stopped(&cell(), Lost::Parts).to_string(),
            "`events` 20261121, offsets 5..5: clickhouse took its rows three times and does not have them; nothing \
             more of partition 3 is inserted: mend what loses parts in clickhouse, stop all aggregators and run \
             `stream-agg skip 3 --offset 5`, which makes the record a dead letter"
        );
    }
}
