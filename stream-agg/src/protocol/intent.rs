//! The intent: the metadata of a commit. It declares the next batch, if there is one.
//!
//! Let `F` be the committed offset. If the intent names an offset `last`, it declares that the records `[F..=last]` are
//! one batch. A declared batch never changes: every later owner of the partition inserts exactly the rows of this
//! batch. Invariant: parsing the text of an intent returns an equal intent, and the text fits into Kafka's default
//! limit of 4096 bytes.
//!
//! In the text, `cfg` is the hash of the declaration, `g` is the generation of the log, and `W` and `h` are the floor
//! and the digest of the deduplication window:
//!
//! ```text
//! v2 L=<last>|idle cfg=<hex> g=<n> S=<start> W=<floor> h=<digest> [T=<newest>] [A=<adopted>]
//!    [n=<nonce, hex>] [t=<topic id, hex>] [e=<leader epoch>] [E=<leader epoch of last>]
//!    [P=<split point>,…] [X=<skipped offset>,…]
//! ```
//!
//! Version 1 had only the fields of the first line.

use std::fmt;
use std::str::FromStr;

use schemas::time::UnixMillis;

use crate::protocol::progress::{NextOffset, Offset};
use crate::protocol::window::{Digest, WindowMark};

/// The version that this release writes.
const VERSION: &str = "v2";
/// The previous version, which this release reads too.
const PREVIOUS_VERSION: &str = "v1";
/// Maximum number of split points, so that the metadata stays within Kafka's limit.
pub const MAX_SPLIT_POINTS: usize = 63;
/// Maximum number of skipped offsets, so that the metadata stays within Kafka's limit.
pub const MAX_SKIPPED: usize = 63;

/// The metadata of a commit at an offset `F`. Every record below `F` is applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// Offset of the last record of the declared batch; `None` if no batch is declared.
    pub last: Option<Offset>,
    /// Leader epoch of `last`; `None` if it is not known.
    pub last_epoch: Option<i32>,
    /// A random number that is chosen when the batch is declared, and that is part of the tokens of its inserts; 0 if
    /// no batch is declared.
    pub nonce: u64,
    /// Hash of the declaration that determines the rows of the declared batch and of adopted records. If there are
    /// neither, the hash of the declaration that the committing process uses.
    pub declaration_hash: u64,
    /// Generation of the Kafka log.
    pub log_generation: u16,
    /// The first offset that was read in this generation of the log or, if `stream-agg adopt` was run later, the offset
    /// at which it continued the partition. If `F` is above this offset, a batch that ends at `F` was inserted.
    pub start: NextOffset,
    /// Floor and digest of the deduplication window, as it is when every record below `F` was decoded.
    pub window: WindowMark,
    /// Kafka's time of the newest record below `F`; `None` if there was none.
    pub newest: Option<UnixMillis>,
    /// Offset of the highest marker that `stream-agg adopt` found above `F`; `None` if there is none. Tables may have
    /// markers up to this offset, and the records below this offset get their rows from the declaration
    /// `declaration_hash`.
    pub adopted: Option<NextOffset>,
    /// The log that the committed offset belongs to.
    pub log: LogMark,
    /// The offsets, ascending, at which `stream-agg split` has divided the declared batch into smaller inserts.
    pub split: Vec<NextOffset>,
    /// The offsets, ascending and none below `F`, of the records that `stream-agg skip` turns into dead letters.
    pub skipped: Vec<Offset>,
}

/// The id that Kafka gave the topic when it was created. A topic that is deleted and created again has another id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicId(pub u128);

/// Identifies a log: the topic id changes if the topic is deleted and created again under the same name, and the
/// leader epoch changes if the log is truncated and written again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogMark {
    /// Id of the topic; `None` if the brokers do not support topic ids, or if the release that committed did not ask
    /// for the id.
    pub topic: Option<TopicId>,
    /// Leader epoch of the newest record below the committed offset; `None` if it is not known.
    pub epoch: Option<i32>,
}

/// Why the metadata of a commit cannot be read as an intent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IntentError {
    /// A later release wrote the intent.
    #[error(
        "the intent of the commit has version `{0}`, but this release reads only up to `{VERSION}`; run the later release"
    )]
    Version(String),
    /// The metadata is not a valid intent. For example, another program committed the offset.
    #[error("the metadata of the commit is not an intent: `{0}`")]
    Garbled(String),
}

impl Intent {
    /// The intent to commit at `from` if the partition starts there, or if `stream-agg adopt` continues it there. It
    /// declares no batch, and its window is empty.
    pub fn fresh(from: NextOffset, declaration_hash: u64, log_generation: u16, log: LogMark) -> Self {
        Self {
            last: None,
            last_epoch: None,
            nonce: 0,
            declaration_hash,
            log_generation,
            start: from,
            window: WindowMark { floor: from, digest: Digest::default() },
            newest: None,
            adopted: None,
            log,
            split: Vec::new(),
            skipped: Vec::new(),
        }
    }

    /// Where the declared batch ends; if no batch is declared, the committed offset `from`. Records below the returned
    /// offset may be in tables.
    pub fn reached(&self, from: NextOffset) -> NextOffset {
        self.last.map_or(from, Offset::next)
    }

    /// The newest record below [`Self::reached`] whose leader epoch is known: the offset after the record, and the
    /// epoch.
    pub fn newest_epoch(&self, from: NextOffset) -> Option<(NextOffset, i32)> {
        let declared = self.last.zip(self.last_epoch).map(|(last, epoch)| (last.next(), epoch));
        declared.or_else(|| self.log.epoch.map(|epoch| (from, epoch)))
    }

    /// Where the inserts of the declared batch end, ascending: its split points, then its end.
    ///
    /// # Panics
    /// If no batch is declared.
    pub fn ends(&self) -> Vec<NextOffset> {
        let end = self.last.expect("a batch is declared").next();
        self.split.iter().copied().filter(|point| *point < end).chain([end]).collect()
    }
}

impl fmt::Display for Intent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.last {
            Some(last) => write!(f, "{VERSION} L={last}")?,
            None => write!(f, "{VERSION} idle")?,
        }
        let WindowMark { floor, digest } = self.window;
        let Self { declaration_hash, log_generation, start, .. } = self;
        write!(f, " cfg={declaration_hash:016x} g={log_generation} S={start} W={floor} h={digest}")?;
        if let Some(newest) = self.newest {
            write!(f, " T={}", newest.0)?;
        }
        if let Some(adopted) = self.adopted {
            write!(f, " A={adopted}")?;
        }
        if self.nonce != 0 {
            write!(f, " n={:x}", self.nonce)?;
        }
        if let Some(topic) = self.log.topic {
            write!(f, " t={topic}")?;
        }
        if let Some(epoch) = self.log.epoch {
            write!(f, " e={epoch}")?;
        }
        if let Some(epoch) = self.last_epoch {
            write!(f, " E={epoch}")?;
        }
        list(f, " P=", &self.split)?;
        list(f, " X=", &self.skipped)
    }
}

/// Writes `name` and then the items, separated by commas. Writes nothing for an empty list.
fn list(f: &mut fmt::Formatter<'_>, name: &str, items: &[impl fmt::Display]) -> fmt::Result {
    for (at, item) in items.iter().enumerate() {
        write!(f, "{}{item}", if at == 0 { name } else { "," })?;
    }
    Ok(())
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for Intent {
    type Err = IntentError;

    fn from_str(text: &str) -> Result<Self, IntentError> {
        let mut words = text.split(' ');
        match words.next() {
            Some(VERSION | PREVIOUS_VERSION) => {}
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

/// Reads the fields after the first two words. `None` if a required field is missing, or if a field is malformed,
/// repeated or unknown.
fn read<'t>(last: Option<Offset>, words: impl Iterator<Item = &'t str>) -> Option<Intent> {
    let (mut declaration_hash, mut log_generation, mut start, mut floor) = (None, None, None, None);
    let (mut digest, mut newest, mut adopted, mut nonce) = (None, None, None, None);
    let (mut topic, mut epoch, mut last_epoch, mut split, mut skipped) = (None, None, None, None, None);
    for word in words {
        let (name, value) = word.split_once('=')?;
        let twice = match name {
            "cfg" => declaration_hash.replace(u64::from_str_radix(value, 16).ok()?).is_some(),
            "g" => log_generation.replace(value.parse().ok()?).is_some(),
            "S" => start.replace(next_offset(value)?).is_some(),
            "W" => floor.replace(next_offset(value)?).is_some(),
            "h" => digest.replace(value.parse().ok()?).is_some(),
            "T" => newest.replace(UnixMillis(value.parse().ok()?)).is_some(),
            "A" => adopted.replace(next_offset(value)?).is_some(),
            "n" => nonce.replace(u64::from_str_radix(value, 16).ok()?).is_some(),
            "t" => topic.replace(TopicId(u128::from_str_radix(value, 16).ok()?)).is_some(),
            "e" => epoch.replace(value.parse().ok()?).is_some(),
            "E" => last_epoch.replace(value.parse().ok()?).is_some(),
            "P" => split.replace(ascending(value, next_offset)?).is_some(),
            "X" => skipped.replace(ascending(value, offset)?).is_some(),
            _ => true,
        };
        if twice {
            return None;
        }
    }
    let window = WindowMark { floor: floor?, digest: digest? };
    let log = LogMark { topic, epoch };
    let (split, skipped) = (split.unwrap_or_default(), skipped.unwrap_or_default());
    let (declaration_hash, log_generation, start, nonce) =
        (declaration_hash?, log_generation?, start?, nonce.unwrap_or_default());
    Some(Intent {
        last,
        last_epoch,
        nonce,
        declaration_hash,
        log_generation,
        start,
        window,
        newest,
        adopted,
        log,
        split,
        skipped,
    })
}

/// Reads numbers separated by commas; `None` if one of them is malformed or if they are not strictly ascending.
fn ascending<T: PartialOrd>(text: &str, read: fn(&str) -> Option<T>) -> Option<Vec<T>> {
    let numbers = text.split(',').map(read).collect::<Option<Vec<_>>>()?;
    numbers.is_sorted_by(|one, next| one < next).then_some(numbers)
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

    const TEXT: &str = "v2 L=12 cfg=00000000000000ab g=1 S=3 W=7 h=0-0 T=1700000000000 A=20 n=5eed \
                        t=0000000000000000000000000000cafe e=4 E=5 P=9,11 X=8,12";
    /// An intent as the previous release wrote it.
    const PREVIOUS_TEXT: &str = "v1 L=12 cfg=00000000000000ab g=1 S=3 W=7 h=0-0 T=1700000000000 A=20";

    #[track_caller]
    fn check_garbled(text: &str) {
        assert!(matches!(text.parse::<Intent>(), Err(IntentError::Garbled(_))), "{text}");
    }

    proptest! {
        #[test]
        fn an_intent_is_read_back_as_written_and_fits_into_kafkas_limit(
            last in proptest::option::of(0..i64::MAX),
            numbers in (any::<u64>(), any::<u16>(), 0..i64::MAX, 0..i64::MAX),
            newest in proptest::option::of(any::<i64>()),
            adopted in proptest::option::of(0..i64::MAX),
            log in (proptest::option::of(any::<u128>()), proptest::option::of(any::<i32>())),
            last_epoch in proptest::option::of(any::<i32>()),
            nonce in any::<u64>(),
            split in proptest::collection::btree_set(0..i64::MAX, 0..=MAX_SPLIT_POINTS),
            skipped in proptest::collection::btree_set(0..i64::MAX, 0..=MAX_SKIPPED),
        ) {
            let (declaration_hash, log_generation, start, floor) = numbers;
            let intent = Intent {
                last: last.map(Offset::new),
                last_epoch,
                nonce,
                declaration_hash,
                log_generation,
                start: NextOffset::new(start),
                window: WindowMark { floor: NextOffset::new(floor), digest: Digest::default() },
                newest: newest.map(UnixMillis),
                adopted: adopted.map(NextOffset::new),
                log: LogMark { topic: log.0.map(TopicId), epoch: log.1 },
                split: split.into_iter().map(NextOffset::new).collect(),
                skipped: skipped.into_iter().map(Offset::new).collect(),
            };
            let text = intent.to_string();
            // Kafka's default of offset.metadata.max.bytes.
            prop_assert!(text.len() <= 4096);
            prop_assert_eq!(text.parse(), Ok(intent));
        }
    }

    #[test]
    fn an_intent_of_a_later_release_is_distinguished_from_other_metadata() {
        assert_eq!(TEXT.parse::<Intent>().unwrap().to_string(), TEXT);
        let later = TEXT.replacen("v2", "v3", 1);
        assert_eq!(later.parse::<Intent>(), Err(IntentError::Version("v3".to_owned())));
        for text in ["", "something of a tool", "v2", "v2 L=x", "v2 idle"] {
            check_garbled(text);
        }
    }

    #[test]
    fn an_intent_of_the_previous_release_is_read() {
        let intent: Intent = PREVIOUS_TEXT.parse().unwrap();
        assert_eq!(intent.to_string(), PREVIOUS_TEXT.replacen("v1", "v2", 1));
    }

    #[test]
    fn split_points_and_skipped_offsets_must_ascend() {
        for (right, wrong) in
            [("P=9,11", "P=11,9"), ("P=9,11", "P="), ("X=8,12", "X=8,8"), ("X=8,12", "X=8,")]
        {
            check_garbled(&TEXT.replacen(right, wrong, 1));
        }
    }

    #[test]
    fn a_missing_or_repeated_field_is_refused() {
        for part in [" cfg=00000000000000ab", " g=1", " S=3", " W=7", " h=0-0"] {
            check_garbled(&TEXT.replacen(part, "", 1));
        }
        for part in TEXT.split(' ').skip(2) {
            check_garbled(&format!("{TEXT} {part}"));
        }
        check_garbled(&format!("{TEXT} new=1"));
        check_garbled(&TEXT.replace("L=12", "L=-12"));
    }
}
