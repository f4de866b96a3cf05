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
    /// Read the committed offset and its metadata from Kafka. If they are still those of the previous commit, send the
    /// refused commit again, but only for a limited time; otherwise rejoin the group.
    ReadBack,
    /// Leave the group, so that Kafka refuses a commit in flight, and join it again.
    Rejoin,
    /// Shut the process down.
    Shutdown,
}

/// Decides what to do after a commit. The rule: only a commit that is known to have failed may be retried without
/// rejoining the group.
///
/// A commit names a generation of the group; each rebalance begins a new generation. Two errors of Kafka's classic
/// protocol mean that the commit has failed and that this process is still a member of the group. `ILLEGAL_GENERATION`
/// (22): the generation of the commit has ended; an ended generation never comes back, so Kafka never accepts this
/// commit. `REBALANCE_IN_PROGRESS` (27): Kafka is assigning partitions in the generation of the commit and did not
/// store the commit. librdkafka reports one result for each commit. While there is no coordinator,
/// librdkafka holds a commit back (`rd_kafka_cgrp_defer_offset_commit`) and sends it later, with the generation that is
/// current at that time; the reported result is the result of that later request. So after librdkafka has reported 22
/// or 27, it does not send the commit any more.
///
/// But an earlier copy of the commit may still be in flight: when a connection breaks, librdkafka sends the same bytes
/// again, up to twice. The earlier copy may reach Kafka after Kafka has answered the later copy, whether with 27 or
/// with success, and Kafka may accept the earlier copy. The earlier copy has the same offset and metadata as the later
/// copy, so it does no harm unless Kafka has already stored the next commit. In that case the earlier copy sets the
/// committed offset back until the pipeline commits again. A pipeline that starts in the meantime may find markers
/// ahead of the committed offset and refuse to start. Rejoining the group after error 27 would not end this danger,
/// because the danger also exists after a success. Rejoining would also cause a rebalance, in which Kafka refuses the
/// commits of other members.
///
/// After `UNKNOWN_MEMBER_ID` (25), or when the member id has changed, a commit is never retried: the group has removed
/// the member, so the member's partitions may have another owner. If the group removes a static member while that
/// member joins, Kafka admits the member again at once under another id. Until the member gets the answer to its
/// SyncGroup request, librdkafka (2.12.1, `rd_kafka_cgrp_handle_JoinGroup`) does not report the member's partitions as
/// lost or revoked, and Kafka would let the member's commits overwrite the commits of the new owner. As long as the
/// member id stays the same, the group has not removed the member, and no partition of the member gets another owner
/// before the member unassigns the partition.
///
/// The model (`tests/model`) covers an owner that has been replaced: Kafka refuses its commits, and the owner retries
/// them. The model does not cover copies of a commit, or the error 27 for the current owner.
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
