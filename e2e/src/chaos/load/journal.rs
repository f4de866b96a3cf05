//! A journal of all requests: when each was made, and its outcome. The journal needs only a few bytes per request,
//! because [`RequestStream`] generates the requests again from the seed and the times.
//!
//! Invariant: a request is recorded as unanswered before its first byte is sent, and the record stays unchanged until
//! the outcome is known. Pure.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use schemas::time::UnixMillis;

use super::requests::{Request, RequestStream};

/// The outcome of a request, as its client knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The edge answered that the good lines are stored. Each of these lines must count exactly once.
    Acked,
    /// The edge answered that it stored nothing, or no attempt reached the edge. No line may count.
    Refused,
    /// There was no answer, or the answer does not say whether the good lines are stored. Either each good line must
    /// count exactly once, or none may count.
    Unanswered,
}

impl Outcome {
    /// The name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Acked => "acked",
            Self::Refused => "refused",
            Self::Unanswered => "unanswered",
        }
    }
}

/// A request in the journal.
#[derive(Debug, Clone, Copy)]
struct Entry {
    made: UnixMillis,
    outcome: Outcome,
}

/// All requests of a run.
pub struct Journal {
    seed: u64,
    event_ids: bool,
    stream: RequestStream,
    entries: Vec<Entry>,
    /// The number of requests that were made before retries were forbidden; `None` while retries are allowed.
    retries_end: Option<usize>,
    /// Requests that may be retried and have no outcome yet.
    retried: BTreeSet<u32>,
}

impl Journal {
    /// An empty journal for the requests of this seed.
    pub fn new(seed: u64, event_ids: bool) -> Self {
        let stream = RequestStream::new(seed, event_ids);
        Self { seed, event_ids, stream, entries: Vec::new(), retries_end: None, retried: BTreeSet::new() }
    }

    /// Generates the next request and records it as unanswered.
    pub fn next(&mut self, now: UnixMillis) -> Request {
        self.entries.push(Entry { made: now, outcome: Outcome::Unanswered });
        let request = self.stream.next(now);
        if request.repeatable {
            self.retried.insert(request.number);
        }
        request
    }

    /// Forbids retries of all later requests, also of those whose events have ids.
    pub fn stop_retries(&mut self) {
        self.retries_end = Some(self.entries.len());
        self.stream.stop_retries();
    }

    /// Number of requests that may be retried and have no outcome yet.
    pub fn retries_under_way(&self) -> usize {
        self.retried.len()
    }

    /// Records the outcome of a request.
    pub fn record(&mut self, number: u32, outcome: Outcome) {
        self.entries[number as usize - 1].outcome = outcome;
        self.retried.remove(&number);
    }

    /// Generates all requests again, in order, each with its outcome and its time.
    pub fn replay(&self) -> impl Iterator<Item = (Request, Outcome, UnixMillis)> {
        let mut stream = RequestStream::new(self.seed, self.event_ids);
        self.entries.iter().enumerate().map(move |(at, entry)| {
            if Some(at) == self.retries_end {
                stream.stop_retries();
            }
            (stream.next(entry.made), entry.outcome, entry.made)
        })
    }

    /// Number of requests with this outcome.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.entries.iter().filter(|entry| entry.outcome == outcome).count()
    }

    /// Number of requests.
    pub fn requests(&self) -> usize {
        self.entries.len()
    }
}

/// A journal that several tasks write to.
pub(crate) type SharedJournal = Arc<Mutex<Journal>>;

/// Locks the journal, even if a task panicked while it held the lock.
pub(crate) fn lock(journal: &SharedJournal) -> MutexGuard<'_, Journal> {
    journal.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_gives_the_same_requests_before_and_after_the_end_of_retries() {
        let mut journal = Journal::new(1, true);
        let mut made: Vec<_> = (0..200).map(|now| journal.next(UnixMillis(now))).collect();
        assert!(journal.retries_under_way() > 50);
        journal.stop_retries();
        made.extend((200..400).map(|now| journal.next(UnixMillis(now))));
        for request in &made {
            journal.record(request.number, Outcome::Acked);
        }
        assert_eq!(journal.retries_under_way(), 0);
        let with_ids = |request: &Request| request.body.contains("event_id");
        assert!(made[200..].iter().all(|request| !request.repeatable) && made[200..].iter().any(with_ids));
        let replayed: Vec<_> = journal.replay().map(|(request, ..)| request).collect();
        assert!(replayed == made);
    }
}
