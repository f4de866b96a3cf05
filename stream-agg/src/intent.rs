//! What a commit says besides its offset: the metadata that makes a batch final.
//!
//! With offset `F`, an intent says that `[F..last]` is one batch, for ever: whoever
//! takes the partition over inserts these rows and no others. Invariant: what is
//! written is read back equal, within Kafka's default of 4096 bytes.
//!
//! ```text
//! v1 L=<last>|idle cfg=<hex> g=<n> S=<start> W=<floor> h=<digest> [T=<newest>] [A=<adopted>]
//! ```

use std::fmt;
use std::str::FromStr;

use schemas::time::UnixMillis;

use crate::progress::{NextOffset, Offset};
use crate::window::Digest;

/// The version that is written here; others are not read.
const VERSION: &str = "v1";

/// What is committed beside an offset `F`, below which every cell has everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// Last record of the declared batch; `None` if nothing is declared.
    pub last: Option<Offset>,
    /// Hash of the declaration under which its rows are made.
    pub cfg: u64,
    /// Generation of the Kafka log.
    pub g: u16,
    /// Where counting began: nothing below was ever inserted in this generation.
    pub start: NextOffset,
    /// The deduplication window as it stood before `F`.
    pub window: WindowMark,
    /// Kafka's time of the newest record below `F`, if there was one.
    pub newest: Option<UnixMillis>,
    /// Markers up to here are no surprise: `stream-agg adopt` found them.
    pub adopted: Option<NextOffset>,
}

/// What proves that a window was restored as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowMark {
    /// The records of the window lie in `[floor, F)`.
    pub floor: NextOffset,
    /// Of everything in it.
    pub digest: Digest,
}

/// Why metadata is not an intent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IntentError {
    /// Written by a later release.
    #[error("its intent has version `{0}`, this release reads `{VERSION}`; run the later release")]
    Version(String),
    /// Not written by the aggregator.
    #[error("its commit metadata is not an intent: `{0}`")]
    Garbled(String),
}

impl fmt::Display for Intent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.last {
            Some(last) => write!(f, "{VERSION} L={last}")?,
            None => write!(f, "{VERSION} idle")?,
        }
        let WindowMark { floor, digest } = self.window;
        let Self { cfg, g, start, .. } = self;
        write!(f, " cfg={cfg:016x} g={g} S={start} W={floor} h={digest}")?;
        if let Some(newest) = self.newest {
            write!(f, " T={}", newest.0)?;
        }
        if let Some(adopted) = self.adopted {
            write!(f, " A={adopted}")?;
        }
        Ok(())
    }
}

impl FromStr for Intent {
    type Err = IntentError;

    fn from_str(text: &str) -> Result<Self, IntentError> {
        let mut words = text.split(' ');
        match words.next() {
            Some(VERSION) => {}
            Some(other) if is_version(other) => return Err(IntentError::Version(other.to_owned())),
            _ => return Err(garbled(text)),
        }
        let last = match words.next() {
            Some("idle") => None,
            Some(word) => Some(word.strip_prefix("L=").and_then(offset).ok_or_else(|| garbled(text))?),
            None => return Err(garbled(text)),
        };
        read(last, words).ok_or_else(|| garbled(text))
    }
}

/// The fields after the first two words; each exactly once, no others.
fn read<'t>(last: Option<Offset>, words: impl Iterator<Item = &'t str>) -> Option<Intent> {
    let (mut cfg, mut g, mut start, mut floor) = (None, None, None, None);
    let (mut digest, mut newest, mut adopted) = (None, None, None);
    for word in words {
        let (name, value) = word.split_once('=')?;
        let twice = match name {
            "cfg" => cfg.replace(u64::from_str_radix(value, 16).ok()?).is_some(),
            "g" => g.replace(value.parse().ok()?).is_some(),
            "S" => start.replace(next_offset(value)?).is_some(),
            "W" => floor.replace(next_offset(value)?).is_some(),
            "h" => digest.replace(value.parse().ok()?).is_some(),
            "T" => newest.replace(UnixMillis(value.parse().ok()?)).is_some(),
            "A" => adopted.replace(next_offset(value)?).is_some(),
            _ => true,
        };
        if twice {
            return None;
        }
    }
    let window = WindowMark { floor: floor?, digest: digest? };
    Some(Intent { last, cfg: cfg?, g: g?, start: start?, window, newest, adopted })
}

fn is_version(word: &str) -> bool {
    word.strip_prefix('v').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

fn garbled(text: &str) -> IntentError {
    const SHOWN: usize = 80;
    IntentError::Garbled(text.chars().take(SHOWN).collect())
}

fn offset(text: &str) -> Option<Offset> {
    text.parse().ok().filter(|offset| *offset >= 0).map(Offset::new)
}

fn next_offset(text: &str) -> Option<NextOffset> {
    text.parse().ok().filter(|offset| *offset >= 0).map(NextOffset::new)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "v1 L=12 cfg=00000000000000ab g=1 S=3 W=7 h=0-0 T=1700000000000 A=20";

    #[track_caller]
    fn check_garbled(text: &str) {
        assert!(matches!(text.parse::<Intent>(), Err(IntentError::Garbled(_))), "{text}");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            last in proptest::option::of(0..i64::MAX),
            numbers in (any::<u64>(), any::<u16>(), 0..i64::MAX, 0..i64::MAX),
            newest in proptest::option::of(any::<i64>()),
            adopted in proptest::option::of(0..i64::MAX),
        ) {
            let (cfg, g, start, floor) = numbers;
            let intent = Intent {
                last: last.map(Offset::new),
                cfg,
                g,
                start: NextOffset::new(start),
                window: WindowMark { floor: NextOffset::new(floor), digest: Digest::default() },
                newest: newest.map(UnixMillis),
                adopted: adopted.map(NextOffset::new),
            };
            let text = intent.to_string();
            prop_assert!(text.len() < 4096);
            prop_assert_eq!(text.parse(), Ok(intent));
        }
    }

    #[test]
    fn a_later_release_is_told_from_garbage() {
        assert_eq!(TEXT.parse::<Intent>().unwrap().to_string(), TEXT);
        let later = TEXT.replacen("v1", "v2", 1);
        assert_eq!(later.parse::<Intent>(), Err(IntentError::Version("v2".to_owned())));
        for text in ["", "something of a tool", "v1", "v1 L=x", "v1 idle"] {
            check_garbled(text);
        }
    }

    #[test]
    fn every_field_stands_there_once() {
        for part in [" cfg=00000000000000ab", " g=1", " S=3", " W=7", " h=0-0"] {
            check_garbled(&TEXT.replacen(part, "", 1));
            check_garbled(&format!("{TEXT}{part}"));
        }
        check_garbled(&format!("{TEXT} new=1"));
        check_garbled(&TEXT.replace("L=12", "L=-12"));
    }
}
