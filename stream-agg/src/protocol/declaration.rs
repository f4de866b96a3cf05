//! The declaration: everything that determines which rows a record becomes, except the record itself.
//!
//! The intent of a batch names a declaration by its hash. Any process of any release that finishes the batch must use
//! that declaration, so the whole declaration is stored in the table `configs` before its hash is used. Invariant: a
//! declaration that this release stored has the same hash when this release or the next one reads it, or reading fails.

use std::ops::RangeInclusive;

use schemas::rollup::Rollups;
use schemas::row::TimeLimits;
use schemas::time::UnixMillis;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::protocol::limits::{DECODE_VERSION, DecodeLimits, MAX_GROUPS, READABLE_VERSIONS};
use crate::protocol::window::WindowLimits;

/// Everything that determines which rows a record becomes, except the record itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declaration {
    /// The rollups and the declared fields.
    pub rollups: Rollups,
    /// Which event times are accepted from clients, how far back repeats are recognized, and limits that are constants
    /// of a release.
    pub limits: DecodeLimits,
    /// Maximum number of groups that a batch adds to one rollup. Further groups are folded into `(other)`.
    pub max_groups: usize,
    /// Key of the hash in column `place` of raw rows. The hash is computed from this key, the user and the hour, so
    /// nobody without the key can find out which user a `place` belongs to.
    pub place_key: u64,
}

/// A declaration as it is stored. Its field names are part of the format. An absent limit has the value in [`FIRST`],
/// and an absent place key is 0.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredDeclaration {
    decode_version: u32,
    earliest_ms: i64,
    ahead_ms: i64,
    window_age_ms: i64,
    window_ids: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_groups: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spooled_days: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_letter_bytes: Option<usize>,
    #[serde(default, skip_serializing_if = "is_zero")]
    place_key: u64,
    rollups: String,
}

/// Constants that the first releases did not store.
struct Constants {
    max_groups: usize,
    spooled_days: i64,
    dead_letter_bytes: usize,
}

/// The values that the first releases used. Do not change them: stored declarations without these fields depend on
/// them. A field that has its value in `FIRST` is not stored, so that the first releases can read the text.
const FIRST: Constants = Constants { max_groups: 50_000, spooled_days: 14, dead_letter_bytes: 4096 };

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Why a stored declaration cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeclarationError {
    /// This release does not know the format of the text, for example because another release wrote the text.
    #[error("read a declaration: {0}")]
    Format(String),
    /// This release does not support the decode version of the declaration.
    #[error(
        "read a declaration: its decode version is {0}, but this release reads only {first} to {DECODE_VERSION}",
        first = READABLE_VERSIONS.start()
    )]
    Version(u32),
}

impl Declaration {
    /// The declaration that results from default settings. Its place key is 0, so the key is not secret.
    pub fn built_in() -> Self {
        Self {
            rollups: Rollups::built_in(),
            limits: DecodeLimits::default(),
            max_groups: MAX_GROUPS,
            place_key: 0,
        }
    }

    /// The hash by which intents and rows refer to the declaration.
    pub fn hash(&self) -> u64 {
        let Self { rollups, limits, max_groups, place_key } = self;
        let DecodeLimits { time, window, version, spooled_days, dead_letter_bytes } = limits;
        // The first releases hashed exactly this text. The hash of a stored declaration must not change, so newer
        // fields are appended only if they differ from the values that the first releases used.
        let mut hashed = format!(
            "{version} {:x} Limits {{ time: TimeLimits {{ earliest: UnixMillis({}), ahead: {} }}, \
             window: WindowLimits {{ age_ms: {}, max_ids: {} }} }} {max_groups}",
            rollups.hash(),
            time.earliest.0,
            time.ahead,
            window.age_ms,
            window.max_ids,
        );
        if (*spooled_days, *dead_letter_bytes) != (FIRST.spooled_days, FIRST.dead_letter_bytes) {
            hashed += &format!(" {spooled_days} {dead_letter_bytes}");
        }
        if *place_key != 0 {
            hashed += &format!(" place {place_key}");
        }
        xxh3_64(hashed.as_bytes())
    }

    /// The declaration as JSON.
    pub fn text(&self) -> String {
        let Self { rollups, limits, max_groups, place_key } = self;
        let DecodeLimits { time, window, version, spooled_days, dead_letter_bytes } = *limits;
        let stored = StoredDeclaration {
            decode_version: version,
            earliest_ms: time.earliest.0,
            ahead_ms: time.ahead,
            window_age_ms: window.age_ms,
            window_ids: window.max_ids,
            max_groups: Some(*max_groups).filter(|groups| *groups != FIRST.max_groups),
            spooled_days: Some(spooled_days).filter(|days| *days != FIRST.spooled_days),
            dead_letter_bytes: Some(dead_letter_bytes).filter(|bytes| *bytes != FIRST.dead_letter_bytes),
            place_key: *place_key,
            rollups: rollups.source().to_owned(),
        };
        serde_json::to_string(&stored).expect("numbers and strings can be written as JSON")
    }

    /// Reads a text that [`Self::text`] wrote.
    ///
    /// # Errors
    /// Another release wrote the text, and this release does not know its format or cannot produce the same rows.
    pub fn parse(text: &str) -> Result<Self, DeclarationError> {
        Self::parse_version(text, READABLE_VERSIONS)
    }

    fn parse_version(text: &str, readable: RangeInclusive<u32>) -> Result<Self, DeclarationError> {
        let format = |error: &dyn std::fmt::Display| DeclarationError::Format(error.to_string());
        let stored: StoredDeclaration = serde_json::from_str(text).map_err(|error| format(&error))?;
        if !readable.contains(&stored.decode_version) {
            return Err(DeclarationError::Version(stored.decode_version));
        }
        let rollups = Rollups::parse("configs", &stored.rollups).map_err(|error| format(&error))?;
        Ok(Self {
            rollups,
            limits: DecodeLimits {
                time: TimeLimits { earliest: UnixMillis(stored.earliest_ms), ahead: stored.ahead_ms },
                window: WindowLimits { age_ms: stored.window_age_ms, max_ids: stored.window_ids },
                version: stored.decode_version,
                spooled_days: stored.spooled_days.unwrap_or(FIRST.spooled_days),
                dead_letter_bytes: stored.dead_letter_bytes.unwrap_or(FIRST.dead_letter_bytes),
            },
            max_groups: stored.max_groups.unwrap_or(FIRST.max_groups),
            place_key: stored.place_key,
        })
    }
}

/// Why no declaration is known for a hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnknownDeclaration {
    /// The table `configs` has no row for the hash.
    #[error("`configs` does not hold declaration {declaration_hash:016x}; restore that table from a backup")]
    Missing {
        /// The hash.
        declaration_hash: u64,
    },
    /// This release cannot read the declaration.
    #[error("this release cannot read declaration {declaration_hash:016x}; run the release that declared it")]
    Unreadable {
        /// The hash.
        declaration_hash: u64,
        /// Why this release cannot read it.
        source: DeclarationError,
    },
    /// The hash of the stored declaration differs from the hash under which it is stored.
    #[error(
        "the row of declaration {declaration_hash:016x} in `configs` was changed and now has hash {found:016x}; restore that \
         table from a backup"
    )]
    Changed {
        /// The hash under which the declaration is stored.
        declaration_hash: u64,
        /// The hash of the stored declaration.
        found: u64,
    },
}

/// Returns the first declaration in `texts` that really has the hash `declaration_hash`. All of these texts are stored
/// under this hash, but some may have been changed. If no declaration has the hash, the error is about the first text,
/// or is [`UnknownDeclaration::Missing`] if there are no texts.
pub(crate) fn known(declaration_hash: u64, texts: &[String]) -> Result<Declaration, UnknownDeclaration> {
    let mut all = texts.iter().map(|text| {
        let declaration = Declaration::parse(text)
            .map_err(|source| UnknownDeclaration::Unreadable { declaration_hash, source })?;
        match declaration.hash() {
            found if found == declaration_hash => Ok(declaration),
            found => Err(UnknownDeclaration::Changed { declaration_hash, found }),
        }
    });
    let first = all.next().unwrap_or(Err(UnknownDeclaration::Missing { declaration_hash }));
    first.or_else(|why| all.find_map(Result::ok).ok_or(why))
}

#[cfg(test)]
mod tests;
