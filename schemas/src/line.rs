//! The enriched line: the fields that the edge adds, followed by what the client sent.
//!
//! `{"tenant":"default","ip":"203.0.113.7","server_time":"2026-11-21 04:00:00.123",` + the client's object without its
//! `{`. If the edge derives an `event_id` or a `country`, this field is also written before the client's object. This
//! file has both the writer and the reader.
//!
//! Invariants: a written line has each added field exactly once, and all other fields of the client's object; it has no
//! line break; if [`event::parse`] accepts a line, [`read`] can read the enriched line that [`write()`] makes of it.

use std::net::IpAddr;

use uuid::Uuid;

use crate::event::{self, Event, Parsed, Props, Reserved};
use crate::object;
use crate::time::UnixMillis;

/// Longest name of a tenant, in bytes.
pub const MAX_TENANT_BYTES: usize = 64;

/// The fields that the edge adds to every line of a request, rendered once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix(Box<[u8]>);

impl Prefix {
    /// The prefix for a request of `tenant` from `ip` whose headers were complete at `server_time`.
    ///
    /// # Panics
    /// If `tenant` is not `[a-z0-9_-]{1,64}`. Callers take the tenant from the configuration, never from a client.
    pub fn new(tenant: &str, ip: IpAddr, server_time: UnixMillis) -> Self {
        assert!(
            is_tenant(tenant),
            "a tenant is 1 to {MAX_TENANT_BYTES} characters of a-z, 0-9, _ and -, not `{tenant}`"
        );
        Self(
            format!(r#"{{"tenant":"{tenant}","ip":"{ip}","server_time":"{server_time}","#)
                .into_bytes()
                .into(),
        )
    }

    /// The number of bytes by which the enriched line and its line break are longer than the client's object, without a
    /// derived `event_id` or `country`. This is the length of the prefix: the line break adds one byte, and the `{` of
    /// the object, which the prefix replaces, saves one.
    pub fn bytes(&self) -> usize {
        self.0.len()
    }
}

/// Whether `name` can be a tenant: `[a-z0-9_-]{1,64}`.
pub fn is_tenant(name: &str) -> bool {
    let good = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
    (1..=MAX_TENANT_BYTES).contains(&name.len()) && name.bytes().all(good)
}

/// The tenant of a line that begins like the lines of [`write()`]; `None` for any other line. The rest of the line may
/// be broken.
pub fn tenant_of(line: &[u8]) -> Option<&str> {
    let rest = line.strip_prefix(br#"{"tenant":""#)?;
    let end = rest.iter().take(MAX_TENANT_BYTES + 1).position(|byte| *byte == b'"')?;
    str::from_utf8(&rest[..end]).ok().filter(|name| is_tenant(name))
}

/// Appends the enriched line to `out`, without a line break at its end; `parsed` was parsed from `line`.
/// Returns whether reserved fields from the client were replaced.
pub fn write<P>(prefix: &Prefix, line: &str, parsed: &Parsed<'_, P>, out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(&prefix.0);
    if let (true, Some(id)) = (parsed.derived_id, &parsed.event.event_id) {
        out.extend_from_slice(br#""event_id":""#);
        out.extend_from_slice(id.hyphenated().encode_lower(&mut Uuid::encode_buffer()).as_bytes());
        out.extend_from_slice(br#"","#);
    }
    if parsed.derived_country {
        out.extend_from_slice(br#""country":""#);
        out.extend_from_slice(parsed.event.country.as_str().as_bytes());
        out.extend_from_slice(br#"","#);
    }
    let replaced = parsed.reserved.any();
    let repeats_id = parsed.derived_id && parsed.names_event_id;
    let repeats_country = parsed.derived_country && parsed.names_country;
    if replaced || repeats_id || repeats_country {
        let repeated = [("event_id", repeats_id), ("country", repeats_country)];
        let repeated = repeated.into_iter().filter(|(_, repeats)| *repeats).map(|(name, _)| name);
        write_without(&Reserved::NAMES.into_iter().chain(repeated).collect::<Vec<_>>(), line, out);
    } else {
        let object = line.trim_ascii();
        let start = out.len();
        out.extend_from_slice(&object.as_bytes()[1..]);
        // In JSON, a line break can only be white space between tokens. Each line break is replaced by a space,
        // because it would split the line in a record.
        for at in memchr::memchr2_iter(b'\n', b'\r', &object.as_bytes()[1..]) {
            out[start + at] = b' ';
        }
    }
    replaced
}

/// Writes the object field by field, without the fields that `omitted` names. This is slower than copying the object,
/// but few lines have such fields.
fn write_without(omitted: &[&str], line: &str, out: &mut Vec<u8>) {
    let fields = object::fields(line).expect("the line was parsed before");
    let mut separator = "";
    for (name, value) in fields.iter().filter(|(name, _)| !omitted.contains(&&**name)) {
        out.extend_from_slice(separator.as_bytes());
        serde_json::to_writer(&mut *out, name).expect("text is written to memory");
        out.push(b':');
        out.extend(value.get().bytes().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }));
        separator = ",";
    }
    out.push(b'}');
}

/// A parsed enriched line.
#[derive(Debug)]
pub struct Enriched<'a, P> {
    /// The tenant that owns the event.
    pub tenant: &'a str,
    /// The client's address.
    pub ip: IpAddr,
    /// When the request's headers were complete.
    pub server_time: UnixMillis,
    /// The known fields: those that the client sent, and those that the edge derived.
    pub event: Event<'a>,
    /// The other fields.
    pub props: P,
}

/// Why a line of a record cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The client's part has a fault for which the edge would have rejected the line.
    #[error("read a line: {}{}", .0.code.as_str(), .0.field.map(|f| format!(" in `{f}`")).unwrap_or_default())]
    Event(event::Fault),
    /// A field that the edge adds is absent or malformed.
    #[error("read a line: `{0}`, which the edge adds, is absent or malformed")]
    Added(&'static str),
}

/// Reads one enriched line.
pub fn read<'a, P: Props<'a>>(line: &'a str) -> Result<Enriched<'a, P>, ReadError> {
    Reader::default().read(line)
}

/// Reads enriched lines. Consecutive lines of one request have the same tenant, address and server's time, so these
/// three fields are parsed only once.
#[derive(Debug, Default)]
pub struct Reader<'a> {
    last: Option<(Reserved<'a>, Added<'a>)>,
}

#[derive(Debug, Clone, Copy)]
struct Added<'a> {
    tenant: &'a str,
    ip: IpAddr,
    server_time: UnixMillis,
}

impl<'a> Reader<'a> {
    /// Reads one line.
    ///
    /// # Errors
    /// The line cannot be read; the next one may be readable.
    pub fn read<P: Props<'a>>(&mut self, line: &'a str) -> Result<Enriched<'a, P>, ReadError> {
        let Parsed { event, reserved, props, .. } = event::parse_enriched(line).map_err(ReadError::Event)?;
        let added = match self.last {
            Some((last, added)) if last == reserved => added,
            _ => {
                let added = Added::read(reserved)?;
                self.last = Some((reserved, added));
                added
            }
        };
        let Added { tenant, ip, server_time } = added;
        Ok(Enriched { tenant, ip, server_time, event, props })
    }
}

impl<'a> Added<'a> {
    fn read(reserved: Reserved<'a>) -> Result<Self, ReadError> {
        let tenant =
            text(reserved.tenant).filter(|name| is_tenant(name)).ok_or(ReadError::Added("tenant"))?;
        let ip = text(reserved.ip).and_then(|ip| ip.parse().ok()).ok_or(ReadError::Added("ip"))?;
        let server_time =
            text(reserved.server_time).and_then(UnixMillis::parse).ok_or(ReadError::Added("server_time"))?;
        Ok(Self { tenant, ip, server_time })
    }
}

/// The text of a JSON string that has no escapes. The values of the added fields never have escapes.
fn text(value: Option<&str>) -> Option<&str> {
    value?.strip_prefix('"')?.strip_suffix('"')
}

#[cfg(test)]
mod tests;
