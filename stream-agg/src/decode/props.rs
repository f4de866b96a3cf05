//! A client's other fields as one JSON object that ClickHouse takes, always.
//!
//! One refused line would stop a partition, so what ClickHouse refuses is mended
//! here: of several values at one dotted path the first counts, integers outside 64
//! bits and numbers beyond a double become strings, half surrogate pairs become
//! U+FFFD, arrays of mixed kinds become the text of their JSON, and `null` in an
//! object is absence. Pure. What needs no mending is copied.

use std::borrow::Cow;

use hashbrown::HashSet;
use schemas::object;
use serde_json::value::RawValue;

/// Appends `fields` as one object.
pub fn write(fields: &[(Cow<'_, str>, &str)], out: &mut String) {
    if fields.iter().all(|(name, value)| is_plain(name, value)) && all_differ(fields) {
        copy(fields, out);
    } else {
        flatten(pairs(fields), out);
    }
}

/// The text at a path of an object that [`write`] wrote: a string as it is, a number or truth
/// value as its JSON; empty for anything else, and for nothing. Dots in names are steps too.
pub fn scalar<'j>(json: &'j str, steps: &[String]) -> Cow<'j, str> {
    find(json, &steps.join(".")).unwrap_or_default()
}

fn find<'j>(json: &'j str, path: &str) -> Option<Cow<'j, str>> {
    fields(json).into_iter().find_map(|(name, value)| {
        match (path.strip_prefix(&*name)?, value.as_bytes()[0]) {
            ("", b'"') => serde_json::from_str::<String>(value).ok().map(Cow::Owned),
            ("", b't' | b'f' | b'-' | b'0'..=b'9') => Some(Cow::Borrowed(value)),
            (rest, b'{') => find(value, rest.strip_prefix('.')?),
            _ => None,
        }
    })
}

/// Longest run of digits that is certainly a number of 64 bits.
const SAFE_DIGITS: usize = 18;

/// Whether a field can be copied: a name of one step, and a value that holds no
/// object, no number that may be too large, and no half of a surrogate pair.
fn is_plain(name: &str, value: &str) -> bool {
    if name.is_empty() || name.contains('.') {
        return false;
    }
    match value.as_bytes()[0] {
        b'"' => !has_surrogate(value),
        b'{' | b'[' => false,
        b'n' | b't' | b'f' => true,
        _ => value.len() <= SAFE_DIGITS && !value.contains(['e', 'E']),
    }
}

/// Whether it may hold an escape of U+D800 to U+DFFF.
fn has_surrogate(json: &str) -> bool {
    json.contains("\\ud") || json.contains("\\uD")
}

fn all_differ(fields: &[(Cow<'_, str>, &str)]) -> bool {
    const FEW: usize = 12;
    if fields.len() <= FEW {
        fields.iter().enumerate().all(|(at, (name, _))| fields[..at].iter().all(|(other, _)| other != name))
    } else {
        let mut seen = HashSet::with_capacity(fields.len());
        fields.iter().all(|(name, _)| seen.insert(name))
    }
}

fn copy(fields: &[(Cow<'_, str>, &str)], out: &mut String) {
    out.push('{');
    for (at, (name, value)) in fields.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        text(name, out);
        out.push(':');
        out.push_str(value);
    }
    out.push('}');
}

/// Appends an object whose values all stand at its top, under dotted names: to
/// ClickHouse `{"a":{"b":1}}` and `{"a.b":1}` are one, but an object met twice is a fault.
fn flatten<'f>(fields: impl Iterator<Item = (&'f str, &'f str)>, out: &mut String) {
    out.push('{');
    leaves(None, fields, &mut HashSet::new(), out);
    out.push('}');
}

/// Appends what stands below `parent`, unless something stood at its path before.
fn leaves<'f>(
    parent: Option<&str>,
    fields: impl Iterator<Item = (&'f str, &'f str)>,
    seen: &mut HashSet<String>,
    out: &mut String,
) {
    for (name, json) in fields {
        let path = parent.map_or_else(|| name.to_owned(), |parent| format!("{parent}.{name}"));
        match json.as_bytes()[0] {
            b'n' => {}
            b'{' => {
                let mended = mend_surrogates(json);
                leaves(Some(&path), pairs(&self::fields(&mended)), seen, out);
            }
            _ if seen.contains(&path) => {}
            _ => {
                if !seen.is_empty() {
                    out.push(',');
                }
                text(&path, out);
                out.push(':');
                value(json, out);
                seen.insert(path);
            }
        }
    }
}

fn pairs<'f>(fields: &'f [(Cow<'_, str>, &str)]) -> impl Iterator<Item = (&'f str, &'f str)> {
    fields.iter().map(|(name, value)| (&**name, *value))
}

/// Appends a value to which no path leads from outside: what is in it begins anew.
fn value(json: &str, out: &mut String) {
    match json.as_bytes()[0] {
        b'{' => flatten(pairs(&fields(&mend_surrogates(json))), out),
        b'[' => array(json, out),
        b'"' => out.push_str(&mend_surrogates(json)),
        _ if is_too_large(json) => text(json, out),
        _ => out.push_str(json),
    }
}

/// Appends an array of one kind of values; any other as the text of its JSON. Arrays of
/// several kinds, and arrays in arrays, made ClickHouse 26.7 refuse whole inserts (code 173).
fn array(json: &str, out: &mut String) {
    let elements = elements(json);
    let mut kinds = elements.iter().filter_map(|element| Kind::of(element.get()));
    let first = kinds.next();
    if first == Some(Kind::Array) || kinds.any(|kind| Some(kind) != first) {
        return text(json, out);
    }
    out.push('[');
    for (at, element) in elements.into_iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        value(element.get(), out);
    }
    out.push(']');
}

/// What values of one array have in common.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Number,
    Text,
    Truth,
    Object,
    Array,
}

impl Kind {
    /// The kind as which a value is written; none for `null`.
    fn of(json: &str) -> Option<Self> {
        Some(match json.as_bytes()[0] {
            b'n' => return None,
            b'{' => Self::Object,
            b'[' => Self::Array,
            b'"' => Self::Text,
            b't' | b'f' => Self::Truth,
            _ if is_too_large(json) => Self::Text,
            _ => Self::Number,
        })
    }
}

/// Whether a number fits neither into 64 bits nor, with a fraction or exponent, into a double.
fn is_too_large(json: &str) -> bool {
    match json.as_bytes()[0] {
        b'-' | b'0'..=b'9' if json.contains(['.', 'e', 'E']) => !json.parse().is_ok_and(f64::is_finite),
        b'-' | b'0'..=b'9' => json.parse::<i64>().is_err() && json.parse::<u64>().is_err(),
        _ => false,
    }
}

fn text(text: &str, out: &mut String) {
    out.push_str(&serde_json::to_string(text).expect("text is written to memory"));
}

/// Replaces each `\u` escape that is half a surrogate pair.
fn mend_surrogates(json: &str) -> Cow<'_, str> {
    if !has_surrogate(json) {
        return Cow::Borrowed(json);
    }
    let mut mended = String::with_capacity(json.len());
    let mut rest = json;
    // Outside strings JSON has no backslash, so each one starts an escape.
    while let Some(at) = rest.find('\\') {
        mended.push_str(&rest[..at]);
        let escape = &rest[at..];
        let length = match (code_unit(escape), escape.get(6..).and_then(code_unit)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (Some(0xd800..=0xdfff), _) => 0,
            (Some(_), _) => 6,
            (None, _) => 2,
        };
        if length == 0 {
            mended.push_str("\\ufffd");
            rest = &escape[6..];
        } else {
            mended.push_str(&escape[..length]);
            rest = &escape[length..];
        }
    }
    mended.push_str(rest);
    Cow::Owned(mended)
}

/// The number of a `\uXXXX` at the start.
fn code_unit(text: &str) -> Option<u16> {
    u16::from_str_radix(text.strip_prefix("\\u")?.get(..4)?, 16).ok()
}

/// Every field of an object, in its order, repeated ones too.
fn fields(json: &str) -> Vec<(Cow<'_, str>, &str)> {
    let fields = object::fields(json).expect("the line was read, and half pairs are mended");
    fields.into_iter().map(|(name, value)| (name, value.get())).collect()
}

fn elements(json: &str) -> Vec<&RawValue> {
    serde_json::from_str(json).expect("the line was read")
}

#[cfg(test)]
mod tests;
