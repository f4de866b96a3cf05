//! The progress of a partition: what is in every cell, what is declared, and what may follow.
//!
//! Invariants: a declared batch never changes; the next batch is declared only when every cell has this one; a
//! partition is released only when nothing of it is on its way to Kafka or ClickHouse. No I/O and no clock: the
//! pipeline reports what happened and asks what may be done next, and so does the model in `tests/model.rs`.

use std::fmt;

/// The place of a record in its partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(i64);

/// The next offset to read. Kafka stores it in a commit, and a marker has it too: both stand for every record
/// below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextOffset(i64);

impl Offset {
    /// The offset that Kafka gave a record.
    ///
    /// # Panics
    /// If it is negative: librdkafka uses negative numbers as special values, never as a record's offset.
    pub const fn new(offset: i64) -> Self {
        assert!(offset >= 0, "a record's offset is not negative");
        Self(offset)
    }

    /// Everything up to and including this record.
    pub const fn next(self) -> NextOffset {
        NextOffset(self.0 + 1)
    }

    /// Everything below this record.
    pub fn as_next(self) -> NextOffset {
        NextOffset(self.0)
    }

    /// As ClickHouse stores it.
    pub fn to_u64(self) -> u64 {
        self.0.unsigned_abs()
    }
}

impl NextOffset {
    /// No record is below.
    pub const ZERO: Self = Self(0);

    /// Every record below `offset`.
    ///
    /// # Panics
    /// If it is negative.
    pub const fn new(offset: i64) -> Self {
        assert!(offset >= 0, "an offset to read is not negative");
        Self(offset)
    }

    /// Whether a record at `offset` is not below it.
    pub fn is_at_or_below(self, offset: Offset) -> bool {
        self.0 <= offset.0
    }

    /// As Kafka stores it.
    pub fn to_i64(self) -> i64 {
        self.0
    }

    /// As ClickHouse stores it.
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

/// A batch that is final, but not in every cell yet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Declared {
    last: Offset,
    cells_left: usize,
}

impl Progress {
    /// A partition that was just assigned: every record below `applied` is in every cell.
    pub fn new(applied: NextOffset) -> Self {
        Self { applied, declared: None }
    }

    /// Every record below this offset is in every cell.
    pub fn applied(&self) -> NextOffset {
        self.applied
    }

    /// Whether a batch may be declared: no batch is declared, or every cell has it. An earlier declaration would
    /// lose rows, because it overwrites the intent of the batch before.
    pub fn may_declare(&self) -> bool {
        self.declared.is_none()
    }

    /// Declares that `[applied..=last]` is final, and how many cells must get it.
    ///
    /// # Panics
    /// If no batch may be declared, or the batch is empty. Going on could lose or duplicate events.
    pub fn declare(&mut self, last: Offset, cells: usize) {
        assert!(self.may_declare(), "a batch up to {last} is declared while another one is open");
        assert!(cells > 0 && self.applied.is_at_or_below(last), "a batch holds a record and has a cell");
        self.declared = Some(Declared { last, cells_left: cells });
    }

    /// One more cell has the declared batch.
    ///
    /// # Panics
    /// If no batch is declared.
    pub fn cell_applied(&mut self) {
        let declared = self.declared.as_mut().expect("a cell is applied of a declared batch");
        declared.cells_left -= 1;
        if declared.cells_left == 0 {
            self.applied = declared.last.next();
            self.declared = None;
        }
    }
}

/// Whether a revoked partition may be released, so that another member gets it. A commit under way can reach Kafka
/// after the next owner's commit, and Kafka would accept it: it checks that a member lives, not that the member
/// owns the partition.
pub fn may_release(pipeline_has_ended: bool, commit_under_way: bool) -> bool {
    pipeline_has_ended && !commit_under_way
}

/// The outcome of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CommitOutcome {
    /// Kafka stored it.
    Accepted,
    /// Kafka did not store it and will not: another generation of the group has begun or is beginning, with this
    /// member in it.
    Refused,
    /// Kafka did not store it and will not: the group has removed this member.
    Removed,
    /// Kafka did not store it, and stores none until an operator helps: an authorization or a setting is missing.
    Denied,
    /// The outcome is unknown, and the commit may arrive later.
    Unknown,
    /// Another process has taken this one's place for good.
    Fenced,
}

/// What to do after a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AfterCommit {
    /// Insert the batch that it declares.
    Proceed,
    /// Read what is committed. Commit the same again if that is unchanged, else join the group again.
    ReadBack,
    /// Leave the group, so that Kafka refuses a commit under way, and join it again.
    Rejoin,
    /// End the process.
    Shutdown,
}

/// The rule: only a commit that is known to have failed may be retried in place.
///
/// Kafka answers with error 22 when the generation of the commit is over, which does not come back, and with 27
/// while this generation is being assigned, before anything is stored. librdkafka reports one result for each
/// commit: a commit that it holds back while there is no coordinator (`rd_kafka_cgrp_defer_offset_commit`) is the
/// same commit, sent later in the generation of that moment, and its result is the one reported. So a refused
/// commit is not on its way. Over a broken connection librdkafka sends the same bytes again, up to twice, and an
/// earlier copy might be accepted after a 27, as it might after a commit that was accepted. Such a copy says the
/// same as the commit that is retried. If it arrived after a later commit, the committed offset would go back until
/// the next commit, and the checks at a start would find markers ahead of it. Joining the group again would not
/// prevent that. It also causes a rebalance, in which Kafka refuses the commits of other members.
///
/// After a 25, or under another member id, a commit is never retried: the group has removed the member, so its
/// partitions may have another owner. A static member that is removed while it joins is admitted at once under
/// another id. librdkafka (2.12.1, `rd_kafka_cgrp_handle_JoinGroup`) considers its partitions neither lost nor
/// revoked until the answer to its SyncGroup, and meanwhile Kafka would accept its commits over the owner's. As
/// long as the member id is the same, the member was in each generation, and none of its partitions has another
/// owner before it is unassigned.
///
/// In the model (`tests/model`), Kafka refuses the commits of an owner that was replaced meanwhile, and the owner
/// retries them in place. The model has neither the copies nor a 27 for the owner itself.
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
