//! A client's other fields as one JSON object that ClickHouse takes, always.
//!
//! One refused line would stop a partition, so what ClickHouse refuses is mended
//! here: of several values at one dotted path the first counts, integers outside 64
//! bits and numbers beyond a double become strings, half surrogate pairs become
//! U+FFFD, and `null` in an object is absence. Pure. What needs no mending is copied.

use std::borrow::Cow;
use std::fmt;

use hashbrown::HashSet;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Appends `fields` as one object.
pub fn write(fields: &[(Cow<'_, str>, &RawValue)], out: &mut String) {
    if fields.iter().all(|(name, value)| is_plain(name, value.get())) && all_differ(fields) {
        copy(fields, out);
    } else {
        let mut paths = Paths::default();
        object(fields.iter().map(|(name, value)| (&**name, value.get())), &mut paths, out);
    }
}

/// The text at a path of an object that [`write`] wrote: a string as it is, a number or truth
/// value as its JSON; empty for anything else, and for nothing. Dots in names are steps too.
pub fn scalar<'j>(json: &'j str, steps: &[String]) -> Cow<'j, str> {
    find(json, &steps.join(".")).unwrap_or_default()
}

fn find<'j>(json: &'j str, path: &str) -> Option<Cow<'j, str>> {
    fields(json).into_iter().find_map(|(name, value)| {
        let json = value.get();
        match (path.strip_prefix(&*name)?, json.as_bytes()[0]) {
            ("", b'"') => serde_json::from_str::<String>(json).ok().map(Cow::Owned),
            ("", b't' | b'f' | b'-' | b'0'..=b'9') => Some(Cow::Borrowed(json)),
            (rest, b'{') => find(json, rest.strip_prefix('.')?),
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

fn all_differ(fields: &[(Cow<'_, str>, &RawValue)]) -> bool {
    const FEW: usize = 12;
    if fields.len() <= FEW {
        fields.iter().enumerate().all(|(at, (name, _))| fields[..at].iter().all(|(other, _)| other != name))
    } else {
        let mut seen = HashSet::with_capacity(fields.len());
        fields.iter().all(|(name, _)| seen.insert(name))
    }
}

fn copy(fields: &[(Cow<'_, str>, &RawValue)], out: &mut String) {
    out.push('{');
    for (at, (name, value)) in fields.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        text(name, out);
        out.push(':');
        out.push_str(value.get());
    }
    out.push('}');
}

/// The dotted paths met in one object, and where in them we are.
#[derive(Default)]
struct Paths {
    seen: HashSet<Box<str>>,
    here: String,
}

/// Appends an object, its fields in order, without those whose path was met before.
fn object<'f>(fields: impl Iterator<Item = (&'f str, &'f str)>, paths: &mut Paths, out: &mut String) {
    out.push('{');
    let mut separator = "";
    for (name, json) in fields {
        let (parent, before) = (paths.here.len(), out.len());
        paths.here.push('.');
        paths.here.push_str(name);
        out.push_str(separator);
        text(name, out);
        out.push(':');
        if member(json, paths, out) {
            separator = ",";
        } else {
            out.truncate(before);
        }
        paths.here.truncate(parent);
    }
    out.push('}');
}

/// Appends the value at the current path. Returns false if there is none to append.
fn member(json: &str, paths: &mut Paths, out: &mut String) -> bool {
    match json.as_bytes()[0] {
        b'n' => false,
        b'{' => {
            let start = out.len();
            let mended = mend_surrogates(json);
            object(fields(&mended).iter().map(|(name, value)| (&**name, value.get())), paths, out);
            // An object without a value is absence too.
            &out[start..] != "{}"
        }
        _ => {
            let first = paths.seen.insert(paths.here.as_str().into());
            if first {
                value(json, out);
            }
            first
        }
    }
}

/// Appends a value to which no path leads from outside: what is in it begins anew.
fn value(json: &str, out: &mut String) {
    match json.as_bytes()[0] {
        b'{' => {
            let mended = mend_surrogates(json);
            let mut paths = Paths::default();
            object(fields(&mended).iter().map(|(name, value)| (&**name, value.get())), &mut paths, out);
        }
        b'[' => {
            out.push('[');
            for (at, element) in elements(json).into_iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                value(element.get(), out);
            }
            out.push(']');
        }
        b'"' => out.push_str(&mend_surrogates(json)),
        b'-' | b'0'..=b'9' => number(json, out),
        _ => out.push_str(json),
    }
}

/// Appends a number, as a string if ClickHouse could not hold it as a number.
fn number(json: &str, out: &mut String) {
    let integer = !json.contains(['.', 'e', 'E']);
    let fits = if integer {
        json.parse::<i64>().is_ok() || json.parse::<u64>().is_ok()
    } else {
        json.parse::<f64>().is_ok_and(f64::is_finite)
    };
    if fits {
        out.push_str(json);
    } else {
        out.push('"');
        out.push_str(json);
        out.push('"');
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
fn fields(json: &str) -> Vec<(Cow<'_, str>, &RawValue)> {
    serde_json::from_str::<Fields<'_>>(json).expect("the line was read, and half pairs are mended").0
}

fn elements(json: &str) -> Vec<&RawValue> {
    serde_json::from_str(json).expect("the line was read")
}

struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Deserialize<'a> for Fields<'a> {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'a> Visitor<'a> for Collect {
            type Value = Fields<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

#[cfg(test)]
mod tests;
