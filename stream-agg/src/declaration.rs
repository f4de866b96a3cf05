//! What decides which rows a record becomes, besides the record: all of it, as one value.
//!
//! A batch is declared under a declaration's hash and finished under the same one, by
//! whichever process and release; so it is stored whole in the table `configs` before
//! its hash is used.

use schemas::rollup::Rollups;
use schemas::row::TimeLimits;
use schemas::time::UnixMillis;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::aggregate::MAX_GROUPS;
use crate::decode::Limits;
use crate::window::WindowLimits;

/// Raised when the same record and settings give other rows: a golden test says so.
/// This release reads and finishes batches of this version only.
const DECODE_VERSION: u32 = 1;

/// What decides which rows a record becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declaration {
    /// What is aggregated.
    pub rollups: Rollups,
    /// Where client clocks are believed, and how far back repeats are known.
    pub limits: Limits,
    /// Groups of a rollup that a batch may have before the others fold into `(other)`.
    pub max_groups: usize,
}

/// As it is stored; the names are the format.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    decode_version: u32,
    earliest_ms: i64,
    ahead_ms: i64,
    window_age_ms: i64,
    window_ids: usize,
    /// Absent in what releases wrote that knew no other limit.
    #[serde(default = "default_max_groups")]
    max_groups: usize,
    rollups: String,
}

fn default_max_groups() -> usize {
    MAX_GROUPS
}

/// Why a stored declaration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeclarationError {
    /// Another release wrote it in a way that this one does not know.
    #[error("read a declaration: {0}")]
    Format(String),
    /// It decodes in another way.
    #[error("read a declaration: its decode version is {0}, this release has {DECODE_VERSION}")]
    Version(u32),
}

impl Declaration {
    /// What a process declares whose variables say nothing of it.
    pub fn built_in() -> Self {
        Self { rollups: Rollups::built_in(), limits: Limits::default(), max_groups: MAX_GROUPS }
    }

    /// Its hash, by which intents and rows name it.
    pub fn cfg(&self) -> u64 {
        let Self { rollups, limits, max_groups } = self;
        xxh3_64(format!("{DECODE_VERSION} {:x} {limits:?} {max_groups}", rollups.hash()).as_bytes())
    }

    /// All of it, as JSON.
    pub fn text(&self) -> String {
        let stored = Stored {
            decode_version: DECODE_VERSION,
            earliest_ms: self.limits.time.earliest.0,
            ahead_ms: self.limits.time.ahead,
            window_age_ms: self.limits.window.age_ms,
            window_ids: self.limits.window.max_ids,
            max_groups: self.max_groups,
            rollups: self.rollups.source().to_owned(),
        };
        serde_json::to_string(&stored).expect("numbers and texts become JSON")
    }

    /// Reads what [`Self::text`] wrote.
    ///
    /// # Errors
    /// It was written by a release that makes other rows.
    pub fn parse(text: &str) -> Result<Self, DeclarationError> {
        let format = |error: &dyn std::fmt::Display| DeclarationError::Format(error.to_string());
        let stored: Stored = serde_json::from_str(text).map_err(|error| format(&error))?;
        if stored.decode_version != DECODE_VERSION {
            return Err(DeclarationError::Version(stored.decode_version));
        }
        let rollups = Rollups::parse("configs", &stored.rollups).map_err(|error| format(&error))?;
        Ok(Self {
            rollups,
            limits: Limits {
                time: TimeLimits { earliest: UnixMillis(stored.earliest_ms), ahead: stored.ahead_ms },
                window: WindowLimits { age_ms: stored.window_age_ms, max_ids: stored.window_ids },
            },
            max_groups: stored.max_groups,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_read_back_under_the_same_hash() {
        let declaration = Declaration::built_in();
        let read = Declaration::parse(&declaration.text()).unwrap();
        assert_eq!((read.cfg(), &read), (declaration.cfg(), &declaration));
    }

    #[test]
    fn whatever_changes_rows_changes_the_hash() {
        let was = Declaration::built_in();
        let limits = Limits { window: WindowLimits { max_ids: 7, ..was.limits.window }, ..was.limits };
        assert_ne!(Declaration { limits, ..was.clone() }.cfg(), was.cfg());
        let limits = Limits { time: TimeLimits { ahead: 7, ..was.limits.time }, ..was.limits };
        assert_ne!(Declaration { limits, ..was.clone() }.cfg(), was.cfg());
        let rollups = Rollups::parse(
            "test",
            "[[rollup]]\nname = \"a\"\ngrain = \"day\"\ndimensions = []\nmeasures = { n = \"count\" }\n",
        );
        assert_ne!(Declaration { rollups: rollups.unwrap(), ..was.clone() }.cfg(), was.cfg());
        assert_ne!(Declaration { max_groups: 7, ..was.clone() }.cfg(), was.cfg());
    }

    #[test]
    fn a_declaration_of_another_release_is_refused() {
        let text = Declaration::built_in().text();
        let later = text.replacen("\"decode_version\":1", "\"decode_version\":2", 1);
        assert!(matches!(Declaration::parse(&later), Err(DeclarationError::Version(2))));
        let unknown = text.replacen('{', "{\"new\":1,", 1);
        assert!(matches!(Declaration::parse(&unknown), Err(DeclarationError::Format(_))));
    }
}
