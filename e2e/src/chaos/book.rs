//! What was sent, when, and what became of it: a few bytes a request, however long the run.
//!
//! Invariant: a request stands in the book from before its first byte is sent, as unanswered,
//! until an answer says better. Pure.

use schemas::time::UnixMillis;

use crate::chaos::load::{Load, Request};

/// What a client knows of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It was told that its good lines are stored: they count exactly once.
    Acked,
    /// It was told that nothing is: nothing counts.
    Refused,
    /// It was told nothing, or that nobody knows: all of it counts once, or nothing.
    Unanswered,
}

impl Fate {
    /// For a person.
    pub fn name(self) -> &'static str {
        match self {
            Self::Acked => "acked",
            Self::Refused => "refused",
            Self::Unanswered => "unanswered",
        }
    }
}

/// A request in the book.
#[derive(Debug, Clone, Copy)]
struct Entry {
    made: UnixMillis,
    fate: Fate,
}

/// All requests of a run.
pub struct Book {
    seed: u64,
    event_ids: bool,
    load: Load,
    entries: Vec<Entry>,
    /// From this many requests on none has event_ids.
    turned: Option<usize>,
}

impl Book {
    /// An empty book for the requests of this seed.
    pub fn new(seed: u64, event_ids: bool) -> Self {
        Self { seed, event_ids, load: Load::new(seed, event_ids), entries: Vec::new(), turned: None }
    }

    /// Makes the next request.
    pub fn next(&mut self, now: UnixMillis) -> Request {
        self.entries.push(Entry { made: now, fate: Fate::Unanswered });
        self.load.next(now)
    }

    /// From the next request on none has event_ids, so none is sent again.
    pub fn turn(&mut self) {
        self.turned = Some(self.entries.len());
        self.load.stop_event_ids();
    }

    /// Notes what became of a request.
    pub fn tell(&mut self, number: u32, fate: Fate) {
        self.entries[number as usize - 1].fate = fate;
    }

    /// All requests once more, in their order, each with its fate and its time.
    pub fn replay(&self) -> impl Iterator<Item = (Request, Fate, UnixMillis)> {
        let mut load = Load::new(self.seed, self.event_ids);
        self.entries.iter().enumerate().map(move |(at, entry)| {
            if Some(at) == self.turned {
                load.stop_event_ids();
            }
            (load.next(entry.made), entry.fate, entry.made)
        })
    }

    /// How many requests there are of this fate.
    pub fn count(&self, fate: Fate) -> usize {
        self.entries.iter().filter(|entry| entry.fate == fate).count()
    }

    /// How many requests there are.
    pub fn requests(&self) -> usize {
        self.entries.len()
    }
}
