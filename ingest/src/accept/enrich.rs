//! Checks lines, adds the fields that only the edge knows, and groups the lines by partition.
//!
//! Invariants: each line is either in exactly one [`Chunk`] or counted as rejected; the lines of a chunk are in the
//! order of the request. No I/O and no clock.

use std::num::NonZeroU32;

use schemas::event::{self, Country, Event, Parsed};
use schemas::line::{self, Prefix};
use schemas::record::TARGET_BYTES;
use xxhash_rust::xxh3::xxh3_64;

use super::hot_keys::HotKeyCounts;
use super::identity::Identity;
use super::report::Report;
use crate::endpoints::counters::AllowedEvents;
use crate::line::Line;
use crate::warnings::{self, LookAlikes};

/// The partitions to which the lines of one request may go.
#[derive(Clone, Copy)]
pub struct Partitions<'a> {
    /// The number of partitions of the topic.
    pub count: NonZeroU32,
    /// The partition for events that have no `event_id` and whose user is absent or hot (see `partition`). All these
    /// events of a request go to the same partition, so their lines form one chunk.
    pub spare: u32,
    /// Counts the events of each user, to find the users who send so many that their events are spread over all
    /// partitions. `None`: no events are spread.
    pub hot_keys: Option<HotKeyCounts<'a>>,
}

/// Enriched lines of one request for one partition, each followed by `\n`.
#[derive(Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The partition of the lines.
    pub partition: u32,
    /// The number of lines.
    pub lines: u32,
    /// The text of the lines.
    pub value: Vec<u8>,
}

/// Checks the lines of one request of `tenant`, adds `prefix` to each valid line, and groups the valid lines by
/// partition. `country` is the country of the client's address, if known. An event without a country gets this country
/// before `allowed` checks the event.
pub fn enrich(
    lines: &[Line<'_>],
    allowed: AllowedEvents,
    tenant: &str,
    identity: Identity<'_>,
    country: Option<Country>,
    prefix: &Prefix,
    partitions: Partitions<'_>,
) -> (Vec<Chunk>, Report) {
    let mut chunks = Vec::new();
    let mut report = Report::default();
    let mut users = UserHasher::of(tenant);
    for (ordinal, line) in (1..).zip(lines) {
        // The parsed event is large, so this closure does everything with it and does not return it.
        let written = line.text.and_then(|text| {
            let mut parsed = event::parse::<LookAlikes>(text)?;
            if let Some(country) = country.filter(|_| parsed.event.country == Country::default()) {
                parsed.set_derived_country(country);
            }
            allowed.check(&parsed)?;
            // From here on, the event is accepted. Warnings come before `set_derived_id`, because they depend on
            // whether the client itself sent an `event_id`.
            if warnings::may_apply(&parsed) {
                report.warn(line.number, &parsed);
            }
            if parsed.event.event_id.is_none()
                && let Some(id) = identity.id(tenant, ordinal, &parsed)
            {
                parsed.set_derived_id(id);
            }
            let (partition, spread) = partition(&mut users, &parsed.event, partitions);
            let replaced = chunk(&mut chunks, partition, lines, prefix).push(prefix, text, &parsed);
            Ok((replaced, spread))
        });
        match written {
            Ok((replaced, spread)) => {
                report.accepted += 1;
                report.reserved_replaced += u32::from(replaced);
                report.spread += u32::from(spread);
            }
            Err(fault) => report.reject(line.number, fault),
        }
    }
    (chunks, report)
}

/// The partition of an event: xxh3-64 (seed 0) of the tenant, a zero byte and the key of the event, modulo the number
/// of partitions. The key is the text of the user, which is `user_id`, else `device_id`, else `session`. If an event
/// has no user, its key is the 16 bytes of `event_id`. An event that has no user and no `event_id` goes to the spare
/// partition of the request. While a user is hot (see [`super::hot_keys`]), the events of the user are spread: they are
/// treated as if they had no user. The second value returned says whether the event is spread.
///
/// This rule must never change: deduplication recognizes a repeated event only within its partition.
fn partition(users: &mut UserHasher, event: &Event<'_>, partitions: Partitions<'_>) -> (u32, bool) {
    let user = [&event.user_id, &event.device_id, &event.session].into_iter().find(|id| !id.is_empty());
    let user = user.map(|user| users.hash(user.as_bytes()));
    let is_hot = |user| partitions.hot_keys.is_some_and(|counts| counts.is_hot(user));
    let (user, spread) = match user {
        Some(user) if is_hot(user) => (None, true),
        user => (user, false),
    };
    let chosen = user.or_else(|| event.event_id.map(|id| users.hash(id.as_bytes())));
    let partition = chosen.map_or(partitions.spare, |hash| (hash % u64::from(partitions.count.get())) as u32);
    (partition, spread)
}

/// Hashes the keys of events of one tenant.
struct UserHasher {
    /// The tenant, a zero byte, and the key that was last hashed: a user or the bytes of an `event_id`.
    key: Vec<u8>,
    /// The length of the tenant and the zero byte.
    prefix_len: usize,
}

impl UserHasher {
    fn of(tenant: &str) -> Self {
        let mut key = Vec::with_capacity(tenant.len() + 1 + event::MAX_ID_BYTES);
        key.extend_from_slice(tenant.as_bytes());
        key.push(0);
        Self { prefix_len: key.len(), key }
    }

    fn hash(&mut self, identity: &[u8]) -> u64 {
        self.key.truncate(self.prefix_len);
        self.key.extend_from_slice(identity);
        xxh3_64(&self.key)
    }
}

/// The request's chunk for `partition`. Most requests have a single chunk, so the first one gets the capacity for all
/// `lines`, up to the target size of a record.
fn chunk<'c>(
    chunks: &'c mut Vec<Chunk>,
    partition: u32,
    lines: &[Line<'_>],
    prefix: &Prefix,
) -> &'c mut Chunk {
    let at = chunks.iter().position(|chunk| chunk.partition == partition).unwrap_or_else(|| {
        let mut value = Vec::new();
        if chunks.is_empty() {
            let written = |line: &Line<'_>| prefix.bytes() + line.text.map_or(0, str::len);
            value.reserve(lines.iter().map(written).sum::<usize>().min(TARGET_BYTES));
        }
        chunks.push(Chunk { partition, lines: 0, value });
        chunks.len() - 1
    });
    &mut chunks[at]
}

impl Chunk {
    fn push(&mut self, prefix: &Prefix, text: &str, parsed: &Parsed<'_, LookAlikes>) -> bool {
        self.lines += 1;
        let replaced = line::write(prefix, text, parsed, &mut self.value);
        self.value.push(b'\n');
        replaced
    }
}

#[cfg(test)]
mod tests;
