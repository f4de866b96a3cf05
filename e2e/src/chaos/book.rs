//! What was sent, when, and what became of it: a few bytes a request, however long the run.
//!
//! Invariant: a request stands in the book from before its first byte is sent, as unanswered,
//! until an answer says better. Pure.

use std::collections::BTreeSet;

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
    /// From this many requests on none may be sent again.
    repeats_end: Option<usize>,
    /// Requests without an end yet that may be sent again.
    repeats: BTreeSet<u32>,
}

impl Book {
    /// An empty book for the requests of this seed.
    pub fn new(seed: u64, event_ids: bool) -> Self {
        let load = Load::new(seed, event_ids);
        Self { seed, event_ids, load, entries: Vec::new(), repeats_end: None, repeats: BTreeSet::new() }
    }

    /// Makes the next request.
    pub fn next(&mut self, now: UnixMillis) -> Request {
        self.entries.push(Entry { made: now, fate: Fate::Unanswered });
        let request = self.load.next(now);
        if request.repeatable {
            self.repeats.insert(request.number);
        }
        request
    }

    /// From the next request on none may be sent again, though its events have ids.
    pub fn stop_repeats(&mut self) {
        self.repeats_end = Some(self.entries.len());
        self.load.stop_repeats();
    }

    /// How many requests have no end yet and may be sent again.
    pub fn repeats_under_way(&self) -> usize {
        self.repeats.len()
    }

    /// Notes what became of a request.
    pub fn tell(&mut self, number: u32, fate: Fate) {
        self.entries[number as usize - 1].fate = fate;
        self.repeats.remove(&number);
    }

    /// All requests once more, in their order, each with its fate and its time.
    pub fn replay(&self) -> impl Iterator<Item = (Request, Fate, UnixMillis)> {
        let mut load = Load::new(self.seed, self.event_ids);
        self.entries.iter().enumerate().map(move |(at, entry)| {
            if Some(at) == self.repeats_end {
                load.stop_repeats();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_gives_the_same_requests_and_no_repeat_after_the_last_one() {
        let mut book = Book::new(1, true);
        let mut made: Vec<_> = (0..200).map(|now| book.next(UnixMillis(now))).collect();
        assert!(book.repeats_under_way() > 50);
        book.stop_repeats();
        made.extend((200..400).map(|now| book.next(UnixMillis(now))));
        for request in &made {
            book.tell(request.number, Fate::Acked);
        }
        assert_eq!(book.repeats_under_way(), 0);
        let with_ids = |request: &Request| request.body.contains("event_id");
        assert!(made[200..].iter().all(|request| !request.repeatable) && made[200..].iter().any(with_ids));
        let replayed: Vec<_> = book.replay().map(|(request, ..)| request).collect();
        assert!(replayed == made);
    }
}
