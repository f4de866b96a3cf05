//! The modelled group coordinator of Kafka: the committed offset, and commits in flight.

/// A committed offset, and the last record of the batch that the commit declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Commit {
    pub(crate) from: i64,
    pub(crate) last: Option<i64>,
}

/// A commit that has not reached Kafka yet.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Sent {
    pub(crate) process: usize,
    pub(crate) commit: Commit,
    /// Whether the process still runs the call that sends this commit. If so, Kafka's client may send the commit later,
    /// with the generation of the group that the process belongs to at that time. Otherwise the commit is in a socket
    /// buffer, with the generation that the process belonged to when the commit was sent.
    pub(crate) under_way: bool,
}

/// The group and its one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Kafka {
    pub(crate) committed: Option<Commit>,
    pub(crate) owner: Option<usize>,
    pub(crate) wire: Vec<Sent>,
    /// Whether a declared batch was changed or withdrawn, or the committed offset went back.
    pub(crate) changed: bool,
}

impl Kafka {
    /// Assigns the partition to a member. This begins a new generation of the group, in which Kafka refuses commits
    /// that were sent in an earlier generation. So the commits that are in a socket buffer are dropped.
    pub(crate) fn assign(&mut self, process: usize) {
        self.owner = Some(process);
        self.wire.retain(|sent| sent.under_way);
    }

    /// Takes the partition from `process`, if `process` owns it.
    pub(crate) fn release(&mut self, process: usize) {
        self.owner = self.owner.filter(|owner| *owner != process);
    }

    /// Ends the calls of `process`. The commits that these calls have sent may still arrive.
    pub(crate) fn end_calls(&mut self, process: usize) {
        self.wire.iter_mut().filter(|s| s.process == process).for_each(|s| s.under_way = false);
    }

    pub(crate) fn has_call(&self, process: usize) -> bool {
        self.wire.iter().any(|sent| sent.process == process && sent.under_way)
    }

    /// Whether a running call of `process` commits an offset without declaring a batch.
    pub(crate) fn has_idle_call(&self, process: usize) -> bool {
        let idle = |sent: &Sent| sent.process == process && sent.under_way && sent.commit.last.is_none();
        self.wire.iter().any(idle)
    }

    pub(crate) fn store_commit(&mut self, commit: Commit) {
        if let Some(before) = self.committed {
            let redeclared = before.last.is_some() && before.from == commit.from && before != commit;
            self.changed |= redeclared || commit.from < before.from;
        }
        self.committed = Some(commit);
    }
}
