//! Kafka's group coordinator: what is committed, and commits on their way.

/// An offset and the last record of the batch that is declared there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Commit {
    pub(crate) from: i64,
    pub(crate) last: Option<i64>,
}

/// A commit that has not reached Kafka.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Sent {
    pub(crate) process: usize,
    pub(crate) commit: Commit,
    /// Whether the call still runs: it uses the current generation of its process. Otherwise it is in a socket,
    /// with the generation of the time when it was sent.
    pub(crate) under_way: bool,
}

/// The group and its one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Kafka {
    pub(crate) committed: Option<Commit>,
    pub(crate) owner: Option<usize>,
    pub(crate) wire: Vec<Sent>,
    /// Whether something declared was changed, or taken back.
    pub(crate) changed: bool,
}

impl Kafka {
    /// A member gets the partition: a new generation, in which older commits are refused.
    pub(crate) fn assign(&mut self, process: usize) {
        self.owner = Some(process);
        self.wire.retain(|sent| sent.under_way);
    }

    /// The process no longer owns the partition.
    pub(crate) fn release(&mut self, process: usize) {
        self.owner = self.owner.filter(|owner| *owner != process);
    }

    /// The calls of `process` no longer run; what they sent may still arrive.
    pub(crate) fn end_calls(&mut self, process: usize) {
        self.wire.iter_mut().filter(|s| s.process == process).for_each(|s| s.under_way = false);
    }

    pub(crate) fn has_call(&self, process: usize) -> bool {
        self.wire.iter().any(|sent| sent.process == process && sent.under_way)
    }

    /// Whether its running call commits that no batch follows.
    pub(crate) fn has_idle_call(&self, process: usize) -> bool {
        let idle = |sent: &Sent| sent.process == process && sent.under_way && sent.commit.last.is_none();
        self.wire.iter().any(idle)
    }

    pub(crate) fn take(&mut self, commit: Commit) {
        if let Some(before) = self.committed {
            let redeclared = before.last.is_some() && before.from == commit.from && before != commit;
            self.changed |= redeclared || commit.from < before.from;
        }
        self.committed = Some(commit);
    }
}
