//! What was done so far, counted by everybody who does it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::chaos::counter::Counter;
use crate::chaos::schedule::{AWAY, Kind, LONG_PAUSES, Target};

/// More notes than this between two looks, and more complaints in all, are left out.
const MOST_NOTES: usize = 50;

/// Counts of a run, shared.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    kills: [AtomicU64; 4],
    pauses: AtomicU64,
    long_pauses: AtomicU64,
    clickhouse_away: AtomicU64,
    counted: [AtomicU64; Counter::ALL.len()],
    notes: Mutex<Vec<String>>,
    wrong: Mutex<Vec<String>>,
}

impl Tally {
    pub(crate) fn killed(&self, kind: Kind) {
        self.kills[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn paused(&self, target: Target, lasts: Duration) {
        self.pauses.fetch_add(1, Ordering::Relaxed);
        if lasts.as_secs() >= LONG_PAUSES[0] {
            self.long_pauses.fetch_add(1, Ordering::Relaxed);
        }
        self.away(target, lasts);
    }

    /// A process does nothing for so long.
    pub(crate) fn away(&self, target: Target, lasts: Duration) {
        if target == Target::ClickHouse && lasts.as_secs() >= AWAY {
            self.clickhouse_away.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn long_pauses(&self) -> u64 {
        self.long_pauses.load(Ordering::Relaxed)
    }

    pub(crate) fn clickhouse_away(&self) -> u64 {
        self.clickhouse_away.load(Ordering::Relaxed)
    }

    /// A life of a process is over: what it had counted.
    pub(crate) fn ended(&self, counted: [u64; Counter::ALL.len()]) {
        for (sum, counted) in self.counted.iter().zip(counted) {
            sum.fetch_add(counted, Ordering::Relaxed);
        }
    }

    /// Something worth a word in the next line of progress.
    pub(crate) fn note(&self, text: String) {
        push(&self.notes, text);
    }

    /// Something that fails the run.
    pub(crate) fn wrong(&self, text: String) {
        push(&self.wrong, text);
    }

    pub(crate) fn take_notes(&self) -> Vec<String> {
        take(&self.notes)
    }

    pub(crate) fn take_wrong(&self) -> Vec<String> {
        take(&self.wrong)
    }

    pub(crate) fn kills(&self) -> [u64; 4] {
        self.kills.each_ref().map(|kills| kills.load(Ordering::Relaxed))
    }

    pub(crate) fn pauses(&self) -> u64 {
        self.pauses.load(Ordering::Relaxed)
    }

    /// What all lives have counted that are over.
    pub(crate) fn counted(&self, counter: Counter) -> u64 {
        self.counted[counter as usize].load(Ordering::Relaxed)
    }
}

fn push(texts: &Mutex<Vec<String>>, text: String) {
    let mut texts = texts.lock().unwrap_or_else(PoisonError::into_inner);
    if texts.len() < MOST_NOTES {
        texts.push(text);
    }
}

fn take(texts: &Mutex<Vec<String>>) -> Vec<String> {
    std::mem::take(&mut *texts.lock().unwrap_or_else(PoisonError::into_inner))
}
