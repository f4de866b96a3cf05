//! Lines are checked, given what only the edge knows, and laid by partition.
//!
//! Invariants: each line is either in exactly one [`Chunk`] or counted as
//! rejected; the lines of a chunk keep their order. No I/O and no clock.

use std::num::NonZeroU32;

use schemas::event::{self, COUNTED, Code, Country, Event, Fault, Parsed};
use schemas::line::{self, Prefix};
use schemas::record::TARGET_BYTES;
use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64;

use crate::accept::decode::Line;
use crate::accept::hot_keys::Counting;
use crate::accept::identity::Identity;
use crate::route::Route;
use crate::warnings::{self, LookAlikes};

/// Rejected lines listed in a report, and warnings; more are only counted.
pub const MAX_ERRORS: usize = 20;

/// Which events an endpoint takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// Every one.
    Any,
    /// Views, plays and clicks with their country.
    Counters,
}

impl Takes {
    /// Those that a route takes.
    pub fn of(route: Route) -> Self {
        match route {
            Route::Counters => Self::Counters,
            Route::Events | Route::Votes | Route::Analytics | Route::Other => Self::Any,
        }
    }

    fn check(self, parsed: &Parsed<'_, LookAlikes>) -> Result<(), Fault> {
        let event = &parsed.event;
        match (self, parsed.left_out.faults().next()) {
            // What is counted by its labels must have them.
            (Self::Counters, Some(fault)) => return Err(fault),
            (Self::Any | Self::Counters, _) => {}
        }
        match self {
            Self::Any => Ok(()),
            Self::Counters if !COUNTED.contains(&&*event.event) => {
                Err(Fault::field(Code::UnknownEvent, "event"))
            }
            Self::Counters if event.country.as_str().is_empty() => {
                Err(Fault::field(Code::BadCountry, "country"))
            }
            Self::Counters => Ok(()),
        }
    }
}

/// Where the lines of one request may go.
#[derive(Clone, Copy)]
pub struct Partitions<'a> {
    /// How many the topic has.
    pub count: NonZeroU32,
    /// The one that takes this request's lines without identity, so that they stay together.
    pub spare: u32,
    /// Counts users, where too many events of one are spread.
    pub counting: Option<Counting<'a>>,
}

/// Enriched lines of one request for one partition, each ended by `\n`.
#[derive(Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Their partition.
    pub partition: u32,
    /// How many.
    pub lines: u32,
    /// Their text.
    pub value: Vec<u8>,
}

/// What became of the lines of a request.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Lines that were good.
    pub accepted: u32,
    /// Lines that were bad.
    pub rejected: u32,
    /// The first bad ones, at most [`MAX_ERRORS`].
    pub errors: Vec<LineError>,
    /// The bad ones by [`Code`], in the order of [`Code::ALL`].
    pub by_code: [u32; Code::ALL.len()],
    /// The first warnings about good ones, at most [`MAX_ERRORS`].
    pub warnings: Vec<LineError>,
    /// All of them by field, in the order of [`warnings::FIELDS`].
    pub warned: [u32; warnings::FIELDS.len()],
    /// Good lines whose reserved fields were replaced.
    pub reserved_replaced: u32,
    /// Good lines that did not go where their user's go, because of these there are too many.
    pub spread: u32,
    /// The poll that all votes of the request name.
    pub poll: Option<String>,
}

/// What is wrong with a line, as its sender is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LineError {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong.
    pub code: &'static str,
    /// With which known field, if with one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<&'static str>,
}

/// Checks, splices and lays out the lines of one request of `tenant`. `country` is that of its address, if
/// known; it counts where a line has none, before the line is checked.
pub fn enrich(
    lines: &[Line<'_>],
    takes: Takes,
    tenant: &str,
    identity: Identity<'_>,
    country: Option<Country>,
    prefix: &Prefix,
    to: Partitions<'_>,
) -> (Vec<Chunk>, Report) {
    let mut chunks = Vec::new();
    let mut report = Report::default();
    let mut users = Users::of(tenant);
    for (ordinal, line) in (1..).zip(lines) {
        // What was parsed is large, and stays where it is.
        let laid = line.text.and_then(|text| {
            let mut parsed = event::parse::<LookAlikes>(text)?;
            if let Some(country) = country.filter(|_| parsed.event.country == Country::default()) {
                parsed.locate(country);
            }
            takes.check(&parsed)?;
            // It is accepted, and has no identity but the client's yet.
            if warnings::may_be(&parsed) {
                report.warn(line.number, &parsed);
            }
            if parsed.event.event_id.is_none()
                && let Some(id) = identity.id(tenant, ordinal, &parsed)
            {
                parsed.identify(id);
            }
            let (partition, spread) = partition(&mut users, &parsed.event, to);
            let replaced = chunk(&mut chunks, partition, lines, prefix).push(prefix, text, &parsed);
            Ok((replaced, spread))
        });
        match laid {
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

/// The partition of an event: xxh3-64 (seed 0) of the tenant, a zero byte and what
/// identifies it, modulo the number of partitions. That is `user_id`, else
/// `device_id`, else `session`, as text; else the 16 bytes of `event_id`. An event
/// with none of these goes to the request's spare partition. So do events of a user who
/// sends too many, by their `event_id` or to the spare one; returns whether it is such an event.
///
/// Fixed for ever: repeats of an event are only found within its partition.
fn partition(users: &mut Users, event: &Event<'_>, to: Partitions<'_>) -> (u32, bool) {
    let user = [&event.user_id, &event.device_id, &event.session].into_iter().find(|id| !id.is_empty());
    let user = user.map(|user| users.hash(user.as_bytes()));
    let is_hot = |user| to.counting.is_some_and(|counting| counting.is_hot(user));
    let (user, spread) = match user {
        Some(user) if is_hot(user) => (None, true),
        user => (user, false),
    };
    let chosen = user.or_else(|| event.event_id.map(|id| users.hash(id.as_bytes())));
    let partition = chosen.map_or(to.spare, |hash| (hash % u64::from(to.count.get())) as u32);
    (partition, spread)
}

/// Who the users of a tenant are, as hashes.
struct Users {
    /// The tenant, a zero byte, and the last user that was hashed.
    key: Vec<u8>,
    tenant: usize,
}

impl Users {
    fn of(tenant: &str) -> Self {
        let mut key = Vec::with_capacity(tenant.len() + 1 + event::MAX_ID_BYTES);
        key.extend_from_slice(tenant.as_bytes());
        key.push(0);
        Self { tenant: key.len(), key }
    }

    fn hash(&mut self, identity: &[u8]) -> u64 {
        self.key.truncate(self.tenant);
        self.key.extend_from_slice(identity);
        xxh3_64(&self.key)
    }
}

/// The request's chunk for `partition`. Most requests have one, so the first is made as large as all
/// `lines` need, within the size of a record.
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

impl Report {
    /// All lines that were read.
    pub fn received(&self) -> u32 {
        self.accepted + self.rejected
    }

    /// How many warnings there are.
    pub fn warnings(&self) -> u32 {
        self.warned.iter().sum()
    }

    fn warn(&mut self, line: usize, parsed: &Parsed<'_, LookAlikes>) {
        for (code, field) in warnings::of(parsed) {
            let at = warnings::FIELDS.iter().position(|other| *other == field).expect("it is one of them");
            self.warned[at] += 1;
            if self.warnings.len() < MAX_ERRORS {
                self.warnings.push(LineError { line, code, field: Some(field) });
            }
        }
    }

    fn reject(&mut self, line: usize, Fault { code, field }: Fault) {
        self.rejected += 1;
        self.by_code[code as usize] += 1;
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(LineError { line, code: code.as_str(), field });
        }
    }
}

#[cfg(test)]
mod tests;
