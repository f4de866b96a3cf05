//! Counts of the faults of a run so far, notes for the progress lines, and problems, which fail the run.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::counter::Counter;
use crate::chaos::schedule::{Kind, LONG_PAUSE_SECONDS, OUTAGE_SECONDS, Target};

/// Maximum number of notes between two progress lines, and of problems in a run. Further notes and problems are
/// dropped.
const MOST_TEXTS: usize = 50;

/// The counts of a run, shared by all tasks.
#[derive(Debug, Default)]
pub(crate) struct RunStats {
    kills: [AtomicU64; 4],
    pauses: AtomicU64,
    long_pauses: AtomicU64,
    clickhouse_outages: AtomicU64,
    counters: [AtomicU64; Counter::ALL.len()],
    notes: Mutex<Vec<String>>,
    problems: Mutex<Vec<String>>,
}

impl RunStats {
    pub(crate) fn add_kill(&self, kind: Kind) {
        self.kills[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add_pause(&self, target: Target, lasts: Duration) {
        self.pauses.fetch_add(1, Ordering::Relaxed);
        if lasts.as_secs() >= LONG_PAUSE_SECONDS[0] {
            self.long_pauses.fetch_add(1, Ordering::Relaxed);
        }
        self.count_clickhouse_outage(target, lasts);
    }

    /// Counts an outage if `target` is ClickHouse and is paused or down for at least [`OUTAGE_SECONDS`].
    pub(crate) fn count_clickhouse_outage(&self, target: Target, lasts: Duration) {
        if target == Target::ClickHouse && lasts.as_secs() >= OUTAGE_SECONDS {
            self.clickhouse_outages.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn long_pauses(&self) -> u64 {
        self.long_pauses.load(Ordering::Relaxed)
    }

    pub(crate) fn clickhouse_outages(&self) -> u64 {
        self.clickhouse_outages.load(Ordering::Relaxed)
    }

    /// Adds the final counters of a process to the sums. They are final when the process exits or the run ends.
    pub(crate) fn add_counters(&self, counted: [u64; Counter::ALL.len()]) {
        for (sum, counted) in self.counters.iter().zip(counted) {
            sum.fetch_add(counted, Ordering::Relaxed);
        }
    }

    /// Adds a note to the next progress line.
    pub(crate) fn note(&self, text: String) {
        push(&self.notes, text);
    }

    /// Adds a problem, which fails the run.
    pub(crate) fn problem(&self, text: String) {
        push(&self.problems, text);
    }

    pub(crate) fn take_notes(&self) -> Vec<String> {
        take(&self.notes)
    }

    pub(crate) fn take_problems(&self) -> Vec<String> {
        take(&self.problems)
    }

    pub(crate) fn kills(&self) -> [u64; 4] {
        self.kills.each_ref().map(|kills| kills.load(Ordering::Relaxed))
    }

    pub(crate) fn pauses(&self) -> u64 {
        self.pauses.load(Ordering::Relaxed)
    }

    /// The sum of a counter over all processes whose counters were added.
    pub(crate) fn counter(&self, counter: Counter) -> u64 {
        self.counters[counter as usize].load(Ordering::Relaxed)
    }
}

fn push(texts: &Mutex<Vec<String>>, text: String) {
    let mut texts = texts.lock().unwrap_or_else(PoisonError::into_inner);
    if texts.len() < MOST_TEXTS {
        texts.push(text);
    }
}

fn take(texts: &Mutex<Vec<String>>) -> Vec<String> {
    std::mem::take(&mut *texts.lock().unwrap_or_else(PoisonError::into_inner))
}
