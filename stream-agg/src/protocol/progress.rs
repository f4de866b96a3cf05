//! How far a partition is: what is in every cell, what is declared, what may follow.
//!
//! Invariants: a declared batch never changes; the next one is declared only when
//! every cell has this one; a partition is let go only when nothing of it is on the
//! way to Kafka or ClickHouse. No I/O and no clock in here: the pipeline reports what
//! happened and asks what may be done then, and so does the model in `tests/model.rs`.

use std::fmt;

/// Where a record stands in its partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(i64);

/// The next offset to read, which is what Kafka stores when we commit, and what a
/// marker says: everything below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextOffset(i64);

impl Offset {
    /// The offset that Kafka gave a record.
    ///
    /// # Panics
    /// If it is negative: those are librdkafka's signs, never a record's place.
    pub const fn new(offset: i64) -> Self {
        assert!(offset >= 0, "a record's offset is not negative");
        Self(offset)
    }

    /// Everything up to and with this one.
    pub const fn next(self) -> NextOffset {
        NextOffset(self.0 + 1)
    }

    /// Everything below this one.
    pub fn as_next(self) -> NextOffset {
        NextOffset(self.0)
    }

    /// As ClickHouse holds it.
    pub fn to_u64(self) -> u64 {
        self.0.unsigned_abs()
    }
}

impl NextOffset {
    /// Nothing is below.
    pub const ZERO: Self = Self(0);

    /// Nothing below `offset` is missing.
    ///
    /// # Panics
    /// If it is negative.
    pub const fn new(offset: i64) -> Self {
        assert!(offset >= 0, "an offset to read is not negative");
        Self(offset)
    }

    /// Whether a record at `offset` is beyond it.
    pub fn is_at_or_below(self, offset: Offset) -> bool {
        self.0 <= offset.0
    }

    /// As Kafka holds it.
    pub fn to_i64(self) -> i64 {
        self.0
    }

    /// As ClickHouse holds it.
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

/// A batch that is final and not in every cell.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Declared {
    last: Offset,
    cells_left: usize,
}

impl Progress {
    /// An assigned partition: everything below `applied` is in every cell.
    pub fn new(applied: NextOffset) -> Self {
        Self { applied, declared: None }
    }

    /// Everything below it is in every cell.
    pub fn applied(&self) -> NextOffset {
        self.applied
    }

    /// Whether a batch may be declared: none is, or every cell has it. Earlier would lose
    /// rows, for the intent of the batch before is gone with it.
    pub fn may_declare(&self) -> bool {
        self.declared.is_none()
    }

    /// `[applied..=last]` is final, and so many cells must have it.
    ///
    /// # Panics
    /// If it may not be, or is empty. Going on then could lose or double events.
    pub fn declare(&mut self, last: Offset, cells: usize) {
        assert!(self.may_declare(), "a batch up to {last} is declared while another one is open");
        assert!(cells > 0 && self.applied.is_at_or_below(last), "a batch holds a record and has a cell");
        self.declared = Some(Declared { last, cells_left: cells });
    }

    /// One more cell has the declared batch.
    ///
    /// # Panics
    /// If none is declared.
    pub fn cell_applied(&mut self) {
        let declared = self.declared.as_mut().expect("a cell is applied of a declared batch");
        declared.cells_left -= 1;
        if declared.cells_left == 0 {
            self.applied = declared.last.next();
            self.declared = None;
        }
    }
}

/// Whether a revoked partition may be let go, so that another member gets it. A commit
/// under way can reach Kafka after the next owner's, and Kafka would take it: it checks
/// that a member lives, not that it owns the partition.
pub fn may_release(pipeline_has_ended: bool, commit_under_way: bool) -> bool {
    pipeline_has_ended && !commit_under_way
}

/// What became of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CommitOutcome {
    /// Kafka has it.
    Accepted,
    /// Kafka did not take it and will not: another generation of the group has begun, or is beginning, with
    /// this member in it.
    Refused,
    /// Kafka did not take it and will not: the group has removed this member.
    Removed,
    /// Kafka did not take it, and takes none before somebody helps: a right or a setting is missing.
    Denied,
    /// Nobody knows, and it may arrive later.
    Unknown,
    /// Another process has this one's place for good.
    Fenced,
}

/// What follows from a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AfterCommit {
    /// What it declares may be inserted.
    Proceed,
    /// Read what is committed; the same again if that is unchanged, else join anew.
    ReadBack,
    /// Leave the group, so that a commit under way is refused, and join it anew.
    Rejoin,
    /// End the process.
    Shutdown,
}

/// The rule: only a commit that is known to have failed may be tried again in place.
///
/// Kafka answers 22 when the commit's generation is over, which does not come back; 27 while its own generation
/// is being assigned, before anything is stored. librdkafka answers
/// one commit once: what it parks while the coordinator is not there (`rd_kafka_cgrp_defer_offset_commit`) is
/// the same commit, sent later in the generation of that moment, and its answer is the one that we get. So the
/// commit that was refused is not on its way. Over a broken connection librdkafka sends the same bytes again,
/// up to twice, and an earlier copy might be taken after a 27, as it might after a commit that was taken. It
/// says the same as the commit that is tried again; if it arrived after a later one, the committed offset would
/// go back until the next commit, and a starting check would find markers ahead of it. To join the group anew
/// would not prevent that, and it is itself a rebalance, which has the commits of other members refused.
///
/// After a 25, or under another member id, a commit is never tried again: the group has removed the member, so
/// its partitions may have an owner. A static member that is removed while it joins is admitted at once under
/// another id, and librdkafka (2.12.1, `rd_kafka_cgrp_handle_JoinGroup`) takes its partitions neither for lost
/// nor for revoked before the answer to its SyncGroup; meanwhile Kafka would take its commits over the owner's.
/// As long as the member id is the same, the member was in each generation, and no partition of it has an owner
/// before it is unassigned.
///
/// The model (`tests/model`) has the commits of an owner refused who was replaced meanwhile, and tried again
/// in place. It has neither the copies nor a 27 for the owner itself.
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
