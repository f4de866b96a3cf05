//! The progress of a partition: which records are applied (every cell of their batches is in ClickHouse), which batch
//! is declared, and what may happen next.
//!
//! Invariants: a declared batch never changes; the next batch is declared only when the declared one is applied; a
//! partition is released only when its pipeline has ended and none of its commits is in flight. No I/O and no clock:
//! the callers, which are the pipeline and the model in `tests/model.rs`, report what happened and ask what may be done
//! next.

use std::fmt;

/// The offset of a record in its partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(i64);

/// The next offset to read. Commits in Kafka and markers in ClickHouse contain such an offset, and cover the records
/// below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextOffset(i64);

impl Offset {
    /// The offset that Kafka gave a record.
    ///
    /// # Panics
    /// If `offset` is negative: librdkafka uses negative numbers as special values, never as a record's offset.
    pub const fn new(offset: i64) -> Self {
        assert!(offset >= 0, "a record's offset is not negative");
        Self(offset)
    }

    /// The next offset to read once this record was read.
    pub const fn next(self) -> NextOffset {
        NextOffset(self.0 + 1)
    }

    /// The same offset, as the next offset to read.
    pub fn as_next(self) -> NextOffset {
        NextOffset(self.0)
    }

    /// The offset as a `UInt64`, the type of offsets in ClickHouse's tables.
    pub fn to_u64(self) -> u64 {
        self.0.unsigned_abs()
    }
}

impl NextOffset {
    /// The beginning of a partition: no record is below it.
    pub const ZERO: Self = Self(0);

    /// The record at `offset` is the next one to read.
    ///
    /// # Panics
    /// If `offset` is negative.
    pub const fn new(offset: i64) -> Self {
        assert!(offset >= 0, "an offset to read is not negative");
        Self(offset)
    }

    /// Whether the record at `offset` is still to be read.
    pub fn is_at_or_below(self, offset: Offset) -> bool {
        self.0 <= offset.0
    }

    /// The offset as an `i64`, the type of offsets in Kafka's protocol.
    pub fn to_i64(self) -> i64 {
        self.0
    }

    /// The offset as a `UInt64`, the type of offsets in ClickHouse's tables.
    pub fn to_u64(self) -> u64 {
        self.0.unsigned_abs()
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for NextOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The state of one partition, from its assignment to its revocation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Progress {
    applied: NextOffset,
    declared: Option<Declared>,
}

/// A declared batch that is not applied yet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Declared {
    last: Offset,
    cells_left: usize,
}

impl Progress {
    /// A partition that was just assigned: every record below `applied` is applied.
    pub fn new(applied: NextOffset) -> Self {
        Self { applied, declared: None }
    }

    /// Every record below this offset is applied.
    pub fn applied(&self) -> NextOffset {
        self.applied
    }

    /// Whether the next batch may be declared: no batch is declared, or the declared one is applied. Declaring the next
    /// batch earlier would lose rows, because its commit overwrites the intent of the unfinished batch.
    pub fn may_declare(&self) -> bool {
        self.declared.is_none()
    }

    /// Declares the records `[applied..=last]` as a batch that never changes. `cells` is the number of cells of the
    /// batch.
    ///
    /// # Panics
    /// If another batch is declared, if the record at `last` is already applied, or if `cells` is 0. Continuing could
    /// lose or duplicate events.
    pub fn declare(&mut self, last: Offset, cells: usize) {
        assert!(self.may_declare(), "a batch up to {last} is declared while another one is unfinished");
        assert!(cells > 0 && self.applied.is_at_or_below(last), "a batch holds a record and has a cell");
        self.declared = Some(Declared { last, cells_left: cells });
    }

    /// Notes that one more cell of the declared batch is in ClickHouse.
    ///
    /// # Panics
    /// If no batch is declared.
    pub fn cell_applied(&mut self) {
        let declared = self.declared.as_mut().expect("only cells of a declared batch are applied");
        declared.cells_left -= 1;
        if declared.cells_left == 0 {
            self.applied = declared.last.next();
            self.declared = None;
        }
    }
}

/// Whether a revoked partition may be released, so that another member gets it. A commit that is still in flight could
/// reach Kafka after the next owner's commit and overwrite it. Kafka would accept the late commit, because Kafka checks
/// only that the committer is a live member of the group, not that it owns the partition.
pub fn may_release(pipeline_has_ended: bool, commit_under_way: bool) -> bool {
    pipeline_has_ended && !commit_under_way
}

/// The outcome of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CommitOutcome {
    /// Kafka stored it.
    Accepted,
    /// Kafka did not store it and will not, because a new generation of the group has begun or is beginning. This
    /// member still belongs to the group.
    Refused,
    /// Kafka did not store it and will not, because the group has removed this member.
    Removed,
    /// Kafka did not store it. Kafka will not store any commit until an operator adds an authorization or changes a
    /// setting.
    Denied,
    /// The outcome is unknown: the commit may still reach Kafka later.
    Unknown,
    /// Another process has permanently taken over this process's membership in the group.
    Fenced,
}

/// What to do after a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AfterCommit {
    /// Continue, because Kafka has stored the commit. If it declares a batch, insert that batch.
    Proceed,
    /// Read the committed offset and metadata. If they are unchanged, send the same commit again; otherwise rejoin
    /// the group.
    ReadBack,
    /// Leave the group, so that Kafka refuses a commit in flight, and join it again.
    Rejoin,
    /// Shut the process down.
    Shutdown,
}

/// Decides what to do after a commit. The rule: only a commit that is known to have failed may be retried without
/// rejoining the group.
///
/// Kafka answers `ILLEGAL_GENERATION` (22) when the generation of the commit has ended; an ended generation never comes
/// back. Kafka answers `REBALANCE_IN_PROGRESS` (27) while it assigns partitions in the generation of the commit, and
/// does not store the commit. librdkafka reports one result for each commit. While there is no coordinator, librdkafka
/// holds a commit back (`rd_kafka_cgrp_defer_offset_commit`) and sends it later, with the generation that is then
/// current; the reported result is the result of that later request. So a refused commit is no longer in flight.
///
/// But a copy of a refused commit may still be in flight: when a connection breaks, librdkafka sends the same bytes
/// again, up to twice. The earlier copy may reach Kafka after Kafka has answered the later copy with 27, and Kafka may
/// then accept the earlier copy. The same can happen after Kafka has accepted the later copy. The earlier copy has the
/// same content as the commit that is retried. If it arrived after a later commit, the committed offset would go back
/// until the next commit. A pipeline that starts in that time would find markers ahead of the committed offset.
/// Rejoining the group would not prevent this, and would also cause a rebalance, in which Kafka refuses the commits of
/// other members.
///
/// After `UNKNOWN_MEMBER_ID` (25), or when the member id has changed, a commit is never retried: the group has removed
/// the member, so the member's partitions may have another owner. If the group removes a static member while that
/// member joins, Kafka admits the member again at once under another id. Until the member gets the answer to its
/// SyncGroup request, librdkafka (2.12.1, `rd_kafka_cgrp_handle_JoinGroup`) treats the member's partitions as neither
/// lost nor revoked, and Kafka would let the member's commits overwrite those of the new owner. While the member id
/// stays the same, the member has been in every generation, and no partition of the member gets another owner before
/// the member unassigns it.
///
/// In the model (`tests/model`), Kafka refuses the commits of an owner that has been replaced, and that owner retries
/// them. The model contains neither copies of a commit nor an error 27 for the current owner.
pub fn after_commit(end: CommitOutcome) -> AfterCommit {
    match end {
        CommitOutcome::Accepted => AfterCommit::Proceed,
        CommitOutcome::Refused => AfterCommit::ReadBack,
        CommitOutcome::Removed | CommitOutcome::Denied | CommitOutcome::Unknown => AfterCommit::Rejoin,
        CommitOutcome::Fenced => AfterCommit::Shutdown,
    }
}

#[cfg(test)]
mod tests;
