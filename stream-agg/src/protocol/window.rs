//! What one partition remembers of its latest records, to know repeats.
//!
//! A queue of records, oldest first, with the ids of each: the record's own and those
//! of its stored lines. A record without ids is not in it: it repeats nothing, and the
//! limit on ids would not bound their number. Invariant: the content is a function of the
//! records `[W, F)` alone, so ledger rows appended in their order restore it exactly; the
//! digest proves it. Pure: the time is that of the records.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;

use hashbrown::{HashMap, HashSet};
use schemas::line::MAX_TENANT_BYTES;
use schemas::time::{DAY, UnixMillis};
use uuid::Uuid;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::protocol::progress::{NextOffset, Offset};

/// How far back repeats are known; decides about rows, hence part of the declaration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowLimits {
    /// Oldest record, in milliseconds before the current one.
    pub age_ms: i64,
    /// Most ids.
    pub max_ids: usize,
}

impl Default for WindowLimits {
    fn default() -> Self {
        Self { age_ms: DAY, max_ids: 1_000_000 }
    }
}

/// The id of a line: of its tenant and what the client calls it.
///
/// # Panics
/// If `tenant` is longer than a tenant is.
pub fn line_id(tenant: &str, event_id: Uuid) -> u64 {
    const SEPARATOR: u8 = b'/';
    let mut key = [0; MAX_TENANT_BYTES + 17];
    let length = tenant.len();
    key[..length].copy_from_slice(tenant.as_bytes());
    key[length] = SEPARATOR;
    key[length + 1..length + 17].copy_from_slice(event_id.as_bytes());
    xxh3_64(&key[..length + 17])
}

/// The id of a record. None if it has no identity.
pub fn record_id(id: Uuid) -> Option<u64> {
    // No tenant begins so.
    const PREFIX: u8 = b'#';
    let mut key = [PREFIX; 17];
    key[1..].copy_from_slice(id.as_bytes());
    (!id.is_nil()).then(|| xxh3_64(&key))
}

/// The window of one partition.
#[derive(Debug, Default)]
pub struct Window {
    records: VecDeque<Remembered>,
    /// Those of all records, end to end.
    ids: VecDeque<u64>,
    set: HashSet<u64>,
    /// How many times more than once an id is in `ids`; only the id of a repeated record is.
    again: HashMap<u64, u32>,
    sum: u128,
}

#[derive(Debug)]
struct Remembered {
    offset: Offset,
    kafka_time: UnixMillis,
    ids: u32,
}

impl Window {
    /// Nothing remembered.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets what is too old for a record of the time `now`; called before each record.
    pub fn expire(&mut self, now: UnixMillis, limits: &WindowLimits) {
        let earliest = UnixMillis(now.0.saturating_sub(limits.age_ms));
        while self.records.front().is_some_and(|front| front.kafka_time < earliest) {
            self.pop();
        }
    }

    /// Whether a remembered record or stored line has this id.
    pub fn contains(&self, id: u64) -> bool {
        self.set.contains(&id)
    }

    /// Remembers a record, with `line_ids` of its stored lines, then forgets the oldest beyond
    /// the limit; called after each record.
    pub fn push(
        &mut self,
        offset: Offset,
        kafka_time: UnixMillis,
        record: Uuid,
        line_ids: &[u64],
        limits: &WindowLimits,
    ) {
        self.append(offset, kafka_time, record, line_ids);
        while self.ids.len() > limits.max_ids {
            self.pop();
        }
    }

    /// Remembers a record and forgets nothing: restores, row by row of the ledger from `W` on.
    pub fn append(&mut self, offset: Offset, kafka_time: UnixMillis, record: Uuid, line_ids: &[u64]) {
        let before = self.ids.len();
        for id in record_id(record).into_iter().chain(line_ids.iter().copied()) {
            self.ids.push_back(id);
            self.sum = self.sum.wrapping_add(summand(offset, id));
            if !self.set.insert(id) {
                *self.again.entry(id).or_default() += 1;
            }
        }
        let ids = (self.ids.len() - before) as u32;
        if ids > 0 {
            self.records.push_back(Remembered { offset, kafka_time, ids });
        }
    }

    /// `W`: the oldest record remembered.
    pub fn floor(&self) -> Option<Offset> {
        self.records.front().map(|record| record.offset)
    }

    /// When Kafka took the newest record that is remembered.
    pub fn newest(&self) -> Option<UnixMillis> {
        self.records.back().map(|record| record.kafka_time)
    }

    /// What proves that two windows are equal.
    pub fn digest(&self) -> Digest {
        Digest { count: self.ids.len() as u64, sum: self.sum }
    }

    /// What a commit at `next` says of the window, which the records below left.
    pub fn mark(&self, next: NextOffset) -> WindowMark {
        WindowMark { floor: self.floor().map_or(next, Offset::as_next), digest: self.digest() }
    }

    /// The restored window, if it is the one that was `committed`.
    ///
    /// # Errors
    /// The digest of what was restored: the ledger has lost records, or got others.
    pub fn proved(self, committed: &WindowMark) -> Result<Self, Digest> {
        let found = self.digest();
        if found == committed.digest { Ok(self) } else { Err(found) }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::new();
    }

    fn pop(&mut self) {
        let Some(record) = self.records.pop_front() else { return };
        for id in self.ids.drain(..record.ids as usize) {
            self.sum = self.sum.wrapping_sub(summand(record.offset, id));
            match self.again.get_mut(&id) {
                None => {
                    self.set.remove(&id);
                }
                Some(1) => {
                    self.again.remove(&id);
                }
                Some(more) => *more -= 1,
            }
        }
    }
}

fn summand(offset: Offset, id: u64) -> u128 {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&offset.to_u64().to_le_bytes());
    key[8..].copy_from_slice(&id.to_le_bytes());
    xxh3_128(&key)
}

/// How many ids a window holds, and the sum of a hash of each with its offset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Digest {
    /// Ids.
    pub count: u64,
    /// Sum modulo 2^128.
    pub sum: u128,
}

/// What proves that a window was restored as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowMark {
    /// The records of the window lie in `[floor, F)`.
    pub floor: NextOffset,
    /// Of everything in it.
    pub digest: Digest,
}

/// Why a text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("read a window's digest: `{0}` is not two hexadecimal numbers joined by -")]
pub struct DigestError(String);

/// `<count>-<sum>`, hexadecimal.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}", self.count, self.sum)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let (count, sum) = text.split_once('-')?;
            Some(Self {
                count: u64::from_str_radix(count, 16).ok()?,
                sum: u128::from_str_radix(sum, 16).ok()?,
            })
        };
        read().ok_or_else(|| DigestError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests;
