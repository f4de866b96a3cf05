//! The media types and the encodings in which the edge reads a body.
//!
//! A response that refuses a media type or an encoding lists the supported ones from this file. A test compares
//! docs/events.md with this file.

/// The media types that the edge reads as JSON, in addition to `application/*+json`. With each of them, a body may be
/// one object, an array or lines. The last entry is what curl sends by default.
pub const MEDIA_TYPES: [&str; 8] = [
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl",
    "application/jsonlines",
    "application/json",
    "text/json",
    "text/plain",
    "application/x-www-form-urlencoded",
];

/// The encodings of a body (`Content-Encoding`) that the edge reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// The gzip format of RFC 1952.
    Gzip,
    /// The Zstandard format of RFC 8878.
    Zstd,
    /// Not compressed.
    Identity,
}

impl Encoding {
    /// All encodings, in the order in which responses list them.
    pub const ALL: [Self; 3] = [Self::Gzip, Self::Zstd, Self::Identity];

    /// The name in `Content-Encoding` and `Accept-Encoding`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Identity => "identity",
        }
    }

    /// The magic number: the first bytes of a body in this encoding, except of a Zstandard body that begins with a
    /// skippable frame. No JSON text begins with a magic number. `None` if the encoding has no magic number.
    pub fn magic(self) -> Option<&'static [u8]> {
        match self {
            Self::Gzip => Some(&[0x1f, 0x8b]),
            Self::Zstd => Some(&[0x28, 0xb5, 0x2f, 0xfd]),
            Self::Identity => None,
        }
    }

    /// The encoding with this name, ignoring case; `x-gzip` is another name of gzip.
    pub fn named(name: &str) -> Option<Self> {
        let name = if name.eq_ignore_ascii_case("x-gzip") { "gzip" } else { name };
        Self::ALL.into_iter().find(|encoding| encoding.as_str().eq_ignore_ascii_case(name))
    }
}
