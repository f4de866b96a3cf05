//! The Kafka record: a value of enriched lines joined by `\n`, and headers.
//!
//! | header | value |
//! |---|---|
//! | `v` | version of this format, decimal |
//! | `n` | lines in the value, decimal |
//! | `id` | UUIDv7 of the record, hyphenated; the same when the record is sent again or through the spool |
//! | `spooled` | `1` if the record came through the spool; else absent |
//! | `kind` | `rejected` if the lines are [samples](crate::sample) of lines that the edge rejected; absent for events |
//! | `traceparent` | from the first request in the record that has a sampled [trace](crate::trace); else absent |

use uuid::Uuid;

use crate::trace::TraceParent;

/// The version of the format that this release writes. A release that raises it will also read the previous version.
pub const VERSION: u8 = 1;
/// The edge sends a record at once when its value has reached this number of bytes.
pub const TARGET_BYTES: usize = 256 * 1024;
/// Maximum number of bytes of a value: further lines of a request go into another record. The limit is below Kafka's
/// default limit of 1 MiB for a message.
pub const MAX_BYTES: usize = 512 * 1024;

/// The kind of lines in a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Events.
    Events,
    /// Samples of lines that the edge rejected.
    Rejected,
}

/// The headers of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Lines in the value.
    pub lines: u32,
    /// Identity of the record.
    pub id: Uuid,
    /// Whether the record came through the spool.
    pub spooled: bool,
    /// The kind of the lines in the value.
    pub kind: Kind,
    /// The trace of the first request in the record that has a sampled trace.
    pub trace: Option<TraceParent>,
}

/// Why a record's headers cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// A later release wrote the record.
    #[error(
        "read a record: its format version is {0}, but this release reads only versions up to {VERSION}; upgrade the \
         aggregator"
    )]
    Version(u8),
    /// A kind that only a later release knows.
    #[error("read a record: this release does not know its kind `{0}`; upgrade the aggregator")]
    Kind(String),
    /// A header that the edge always writes is absent or malformed, so another program wrote the record.
    #[error("read a record: header `{0}` is absent or malformed")]
    Header(&'static str),
}

impl Head {
    /// The headers, in the order in which they are written.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, String)> {
        let spooled = self.spooled.then(|| ("spooled", "1".to_owned()));
        let kind = match self.kind {
            Kind::Events => None,
            Kind::Rejected => Some(("kind", REJECTED.to_owned())),
        };
        [("v", VERSION.to_string()), ("n", self.lines.to_string()), ("id", self.id.to_string())]
            .into_iter()
            .chain(spooled)
            .chain(kind)
            .chain(self.trace.map(|trace| ("traceparent", trace.as_str().to_owned())))
    }

    /// Reads headers in any order; unknown headers are ignored.
    pub fn read<'a>(headers: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Result<Self, HeadError> {
        let (mut version, mut lines, mut id, mut spooled) = (None, None, None, false);
        let (mut kind, mut trace) = (None, None);
        for (name, value) in headers {
            let text = str::from_utf8(value).ok();
            match name {
                "v" => version = text.and_then(|text| text.parse().ok()),
                "n" => lines = text.and_then(|text| text.parse().ok()),
                "id" => id = text.and_then(|text| Uuid::try_parse(text).ok()),
                "spooled" => spooled = value == b"1",
                "kind" => kind = Some(String::from_utf8_lossy(value)),
                "traceparent" => trace = TraceParent::parse(value),
                _ => {}
            }
        }
        match version.ok_or(HeadError::Header("v"))? {
            VERSION => {}
            other => return Err(HeadError::Version(other)),
        }
        let kind = match kind.as_deref() {
            None => Kind::Events,
            Some(REJECTED) => Kind::Rejected,
            Some(other) => return Err(HeadError::Kind(other.to_owned())),
        };
        Ok(Self {
            lines: lines.ok_or(HeadError::Header("n"))?,
            id: id.ok_or(HeadError::Header("id"))?,
            spooled,
            kind,
            trace,
        })
    }
}

/// The value of the header `kind` for [`Kind::Rejected`].
const REJECTED: &str = "rejected";

/// The lines of a value, in order. `line::read` parses a line of kind [`Kind::Events`], and `Sample::read` parses a
/// line of kind [`Kind::Rejected`].
pub fn lines(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(value).filter(|value| !value.is_empty());
    std::iter::from_fn(move || {
        let value = rest?;
        let (line, after) = match memchr::memchr(b'\n', value) {
            Some(at) => (&value[..at], Some(&value[at + 1..])),
            None => (value, None),
        };
        rest = after;
        Some(line)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event;
    use crate::line::{self, Prefix};
    use crate::sample::Sample;
    use crate::time::UnixMillis;

    fn head() -> Head {
        let id = Uuid::from_u128(0x0192_f0c1_0000_7000_8000_0000_0000_0001);
        Head { lines: 30, id, spooled: false, kind: Kind::Events, trace: None }
    }

    #[track_caller]
    fn check_read(headers: &[(&str, &str)], expected: Result<Head, HeadError>) {
        assert_eq!(Head::read(headers.iter().map(|(name, value)| (*name, value.as_bytes()))), expected);
    }

    #[test]
    fn headers_are_read_back() {
        let trace = TraceParent::parse(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        for (spooled, kind, trace) in [
            (false, Kind::Events, None),
            (true, Kind::Events, None),
            (false, Kind::Rejected, None),
            (false, Kind::Events, trace),
        ] {
            let head = Head { spooled, kind, trace, ..head() };
            let headers: Vec<_> = head.headers().collect();
            let headers: Vec<_> = headers.iter().rev().map(|(name, value)| (*name, value.as_str())).collect();
            check_read(&headers, Ok(head));
        }
    }

    #[test]
    fn a_later_version_is_distinguished_from_a_foreign_record() {
        let id = head().id.to_string();
        check_read(&[("v", "2"), ("something", "new")], Err(HeadError::Version(2)));
        check_read(&[], Err(HeadError::Header("v")));
        check_read(&[("v", "1"), ("kind", "x")], Err(HeadError::Kind("x".to_owned())));
        check_read(&[("v", "1"), ("id", &id)], Err(HeadError::Header("n")));
        check_read(&[("v", "1"), ("n", "30"), ("id", "x")], Err(HeadError::Header("id")));
        check_read(&[("v", "1"), ("n", "30"), ("id", &id), ("traceparent", "00-…")], Ok(head()));
    }

    #[test]
    fn a_value_is_its_lines_joined() {
        let split = |value: &'static str| {
            lines(value.as_bytes()).map(|line| str::from_utf8(line).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(split("a\nb\nc"), ["a", "b", "c"]);
        assert_eq!(split("a"), ["a"]);
        assert_eq!(split("a\n\nb"), ["a", "", "b"]);
        assert!(split("").is_empty());
    }

    /// One record of a topic: headers, an empty line, the value.
    const GOLDEN: &str = include_str!("../golden/record-v1.txt");
    /// One record of samples.
    const GOLDEN_REJECTED: &str = include_str!("../golden/rejected-v1.txt");

    /// Compares the headers of a golden record with `head`. Returns its lines.
    #[track_caller]
    fn check_golden(record: &'static str, head: Head) -> Vec<&'static str> {
        let (headers, value) = record.trim_end().split_once("\n\n").unwrap();
        let headers: Vec<_> = headers.lines().map(|header| header.split_once(": ").unwrap()).collect();
        check_read(&headers, Ok(head));
        let written: Vec<_> = head.headers().collect();
        assert_eq!(written.iter().map(|(name, value)| (*name, value.as_str())).collect::<Vec<_>>(), headers);
        let lines: Vec<_> = lines(value.as_bytes()).map(|line| str::from_utf8(line).unwrap()).collect();
        assert_eq!(lines.len(), head.lines as usize);
        lines
    }

    #[test]
    fn the_golden_record_is_read_and_written_unchanged() {
        let lines = check_golden(GOLDEN, Head { lines: 4, ..head() });
        let time = UnixMillis::parse("2026-11-21 04:00:00.123").unwrap();
        let prefix = Prefix::new("default", "203.0.113.7".parse().unwrap(), time);
        for enriched in lines {
            let read = line::read::<()>(enriched).unwrap();
            assert_eq!((read.tenant, read.server_time), ("default", time));
            // The client sent everything after the three added fields.
            let own = format!("{{{}", enriched.splitn(4, ',').nth(3).unwrap());
            let mut again = Vec::new();
            line::write(&prefix, &own, &event::parse::<()>(&own).unwrap(), &mut again);
            assert_eq!(str::from_utf8(&again).unwrap(), enriched);
        }
    }

    #[test]
    fn the_golden_record_of_samples_is_read_and_written_unchanged_and_has_no_event() {
        let lines = check_golden(GOLDEN_REJECTED, Head { lines: 3, kind: Kind::Rejected, ..head() });
        let time = UnixMillis::parse("2026-11-21 04:00:00.123").unwrap();
        let sent: [(_, _, &[u8]); 3] = [
            ("bad_type", Some("sequence"), b"{\"event\":\"a\",\"sequence\":-1}\r"),
            ("bad_utf8", None, b"{\"event\":\"\xff\"}"),
            ("bad_json", None, "ö".as_bytes()),
        ];
        for (line, (code, field, text)) in lines.into_iter().zip(sent) {
            let sample = Sample::new("default", time, code, field, text);
            assert_eq!(String::from_utf8(sample.write()).unwrap(), line);
            assert_eq!(Sample::read(line.as_bytes()), Some(sample));
            // An older release that ignores the kind of a record reads these lines as events, and finds a fault in
            // each.
            assert_eq!(line::tenant_of(line.as_bytes()), Some("default"));
            let fault = event::Fault::field(event::Code::MissingField, "event");
            assert_eq!(line::read::<()>(line).unwrap_err(), line::ReadError::Event(fault));
        }
    }
}
