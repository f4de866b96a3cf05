//! The deduplication window: the latest records of one partition, to recognize repeats.
//!
//! The window is a queue of records, oldest first. Each entry has the record's own id and the ids of its stored
//! lines. A record without any id is not added to the queue: the window could not recognize a repeat of it, and the
//! limit on the number of ids would not limit the number of such records. Let `W` be the offset of the oldest record in
//! the window, and `F` the committed offset. Invariant: the content depends only on the records `[W, F)`. So appending
//! the ledger rows of these records in order restores the content exactly, and the digest verifies this. Pure: ages are
//! computed only from the times that Kafka gave the records.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;

use hashbrown::{HashMap, HashSet};
use schemas::line::MAX_TENANT_BYTES;
use schemas::time::{DAY, UnixMillis};
use uuid::Uuid;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::protocol::progress::{NextOffset, Offset};

/// How far back repeats are recognized. The limits affect which rows are stored, so they are part of the declaration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowLimits {
    /// Maximum age of a record in the window, in milliseconds. The age is the time from this record to the record that
    /// is being decoded.
    pub age_ms: i64,
    /// Maximum number of ids in the window.
    pub max_ids: usize,
}

impl Default for WindowLimits {
    fn default() -> Self {
        Self { age_ms: DAY, max_ids: 1_000_000 }
    }
}

/// The id of a line: a hash of its tenant and the client's event id.
///
/// # Panics
/// If `tenant` is longer than [`MAX_TENANT_BYTES`].
pub fn line_id(tenant: &str, event_id: Uuid) -> u64 {
    const SEPARATOR: u8 = b'/';
    let mut key = [0; MAX_TENANT_BYTES + 17];
    let length = tenant.len();
    key[..length].copy_from_slice(tenant.as_bytes());
    key[length] = SEPARATOR;
    key[length + 1..length + 17].copy_from_slice(event_id.as_bytes());
    xxh3_64(&key[..length + 17])
}

/// The id of a record in the window; `None` if the record's UUID is nil.
pub fn record_id(id: Uuid) -> Option<u64> {
    // No tenant begins with this character, so the key of a record never equals the key of a line.
    const PREFIX: u8 = b'#';
    let mut key = [PREFIX; 17];
    key[1..].copy_from_slice(id.as_bytes());
    (!id.is_nil()).then(|| xxh3_64(&key))
}

/// The window of one partition.
#[derive(Debug, Default)]
pub struct Window {
    records: VecDeque<Remembered>,
    /// The ids of all entries of `records`, concatenated: for each record, its own id and the ids of its stored lines.
    ids: VecDeque<u64>,
    set: HashSet<u64>,
    /// For each id that `ids` contains more than once: the number of its copies without the first. Only a record's own
    /// id can occur more than once, if the record is repeated; a repeated line is not stored, so its id is not added.
    extra_copies: HashMap<u64, u32>,
    sum: u128,
}

#[derive(Debug)]
struct Remembered {
    offset: Offset,
    kafka_time: UnixMillis,
    ids: u32,
}

impl Window {
    /// An empty window.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets the oldest record as long as its age at the time `now` is more than `limits.age_ms`. Repeats of
    /// forgotten records are no longer recognized. The decoder calls this before each record, with the record's time as
    /// `now`.
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

    /// Remembers a record with the ids of its stored lines, then forgets the oldest records until there are at most
    /// `limits.max_ids` ids. The decoder calls this after each record.
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

    /// Remembers a record and forgets no other record, whatever the limits are. To restore a window, the caller appends
    /// the rows of the ledger one by one, from offset `W` on.
    pub fn append(&mut self, offset: Offset, kafka_time: UnixMillis, record: Uuid, line_ids: &[u64]) {
        let before = self.ids.len();
        for id in record_id(record).into_iter().chain(line_ids.iter().copied()) {
            self.ids.push_back(id);
            self.sum = self.sum.wrapping_add(summand(offset, id));
            if !self.set.insert(id) {
                *self.extra_copies.entry(id).or_default() += 1;
            }
        }
        let ids = (self.ids.len() - before) as u32;
        if ids > 0 {
            self.records.push_back(Remembered { offset, kafka_time, ids });
        }
    }

    /// `W`: the offset of the oldest record in the window.
    pub fn floor(&self) -> Option<Offset> {
        self.records.front().map(|record| record.offset)
    }

    /// When Kafka appended the newest record in the window.
    pub fn newest(&self) -> Option<UnixMillis> {
        self.records.back().map(|record| record.kafka_time)
    }

    /// The digest of the content. Two windows with the same digest are treated as equal.
    pub fn digest(&self) -> Digest {
        Digest { count: self.ids.len() as u64, sum: self.sum }
    }

    /// The mark to commit at the offset `next`. All records below `next`, and no later record, must have been pushed.
    pub fn mark(&self, next: NextOffset) -> WindowMark {
        WindowMark { floor: self.floor().map_or(next, Offset::as_next), digest: self.digest() }
    }

    /// Returns this restored window if its digest equals the digest in the commit.
    ///
    /// # Errors
    /// The digest of the restored window, if the two digests differ: the ledger lacks records, or contains records that
    /// were not in the window.
    pub fn verified(self, committed: &WindowMark) -> Result<Self, Digest> {
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
            match self.extra_copies.get_mut(&id) {
                None => {
                    self.set.remove(&id);
                }
                Some(1) => {
                    self.extra_copies.remove(&id);
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

/// The number of ids in a window, and a sum of hashes: one hash for each id, computed from the id and the offset of its
/// record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Digest {
    /// Number of ids.
    pub count: u64,
    /// Sum of the hashes modulo 2^128.
    pub sum: u128,
}

/// Describes a window in the metadata of a commit. The next owner uses this description to restore the window and to
/// verify that the restored window is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowMark {
    /// The lowest offset of a record in the window; the offset of the commit if the window is empty.
    pub floor: NextOffset,
    /// Digest of the window.
    pub digest: Digest,
}

/// The text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("read a window's digest: `{0}` is not two hexadecimal numbers joined by -")]
pub struct DigestError(String);

/// The form is `<count>-<sum>`; both numbers are hexadecimal.
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
