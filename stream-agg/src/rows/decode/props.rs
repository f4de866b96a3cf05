//! Writes the unknown fields of an event as one JSON object, for the column `props`, and reads values of such an
//! object. Unknown are all fields that Millrace does not define; it defines, for example, `event` and `user_id`. Pure.
//!
//! Values are written as the client sent them, except values that simdjson cannot read: unpaired surrogates become
//! U+FFFD, and integers outside 64 bits get an exponent. The reason is that ClickHouse's JSON functions use simdjson:
//! if simdjson cannot read one value of a JSON text, these functions find no value in the whole text. If a name is
//! repeated, only its last value is kept, as in `JSON.parse`. White space outside strings is removed.

use std::borrow::Cow;

use hashbrown::HashMap;
use schemas::object;
use schemas::time::UnixMillis;
use serde_json::value::RawValue;

/// Appends `fields` as one object.
pub fn write(fields: &[(Cow<'_, str>, &str)], out: &mut String) {
    object(fields, |json, out| value(&replace_unpaired_surrogates(json), out), out);
}

/// The text at a path of an object that [`write`] wrote: the text of a string, or a number, `true` or `false` as JSON.
/// Empty for any other value, and if there is no value.
///
/// A dot may separate steps or be part of a name. The longest name is tried first: `a.b` is the field `a.b` of the
/// object; if that field is absent or not a scalar, it is the field `b` of the object's field `a`.
pub fn scalar<'j>(json: &'j str, steps: &[String]) -> Cow<'j, str> {
    match find(json, steps) {
        Some(text) if text.starts_with('"') => Cow::Owned(string(text).unwrap_or_default()),
        Some(json) => Cow::Borrowed(json),
        None => Cow::Borrowed(""),
    }
}

/// The JSON of the scalar at a path: a string, a number, `true` or `false`; `None` if there is none.
pub fn find<'j>(json: &'j str, steps: &[String]) -> Option<&'j str> {
    let fields = parsed(json);
    (1..=steps.len()).rev().find_map(|named| {
        let (name, rest) = (steps[..named].join("."), &steps[named..]);
        let value = fields.iter().find(|(found, _)| *found == name)?.1;
        match (rest, value.as_bytes()[0]) {
            ([], b'"' | b't' | b'f' | b'-' | b'0'..=b'9') => Some(value),
            ([_, ..], b'{') => find(value, rest),
            _ => None,
        }
    })
}

/// The text of a JSON string.
pub fn string(json: &str) -> Option<String> {
    serde_json::from_str(json).ok()
}

/// The value of a number that is whole and fits into an `i64`. A number that is written with a fraction or an exponent,
/// such as `1.0` or `1e3`, must also be between -2^53 and 2^53, because other values may not be exact.
pub fn int(json: &str) -> Option<i64> {
    /// Every whole number whose absolute value is below this number is exact as a double.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if let Ok(whole) = json.parse() {
        return Some(whole);
    }
    let number = float(json).filter(|number| number.fract() == 0.0 && number.abs() < EXACT)?;
    Some(number as i64)
}

/// The value of a number as a double; `None` if `json` is not a number.
pub fn float(json: &str) -> Option<f64> {
    json.starts_with(|first: char| first == '-' || first.is_ascii_digit()).then(|| json.parse().ok())?
}

/// The value of `true` or `false`.
pub fn boolean(json: &str) -> Option<bool> {
    json.parse().ok()
}

/// A time in one of the forms of `client_time`: milliseconds since 1970, or text.
pub fn time(json: &str) -> Option<UnixMillis> {
    match json.as_bytes()[0] {
        b'"' => UnixMillis::parse(&string(json)?),
        _ => UnixMillis::from_integer(int(json)?),
    }
}

/// If an object has at most this number of fields, repeated names are found by comparing all names. If it has more,
/// they are found by hashing the names.
const MAX_UNHASHED_FIELDS: usize = 12;

fn object(fields: &[(Cow<'_, str>, &str)], write_value: fn(&str, &mut String), out: &mut String) {
    let mut last = HashMap::new();
    if fields.len() > MAX_UNHASHED_FIELDS {
        last.extend(fields.iter().enumerate().map(|(at, (name, _))| (&**name, at)));
    }
    let is_repeated = |at: usize, name: &str| match last.get(name) {
        Some(last) => *last != at,
        None => fields[at + 1..].iter().any(|(later, _)| *later == name),
    };
    out.push('{');
    let start = out.len();
    for (at, (name, json)) in fields.iter().enumerate() {
        if is_repeated(at, name) {
            continue;
        }
        if out.len() > start {
            out.push(',');
        }
        text(name, out);
        out.push(':');
        write_value(json, out);
    }
    out.push('}');
}

fn value(json: &str, out: &mut String) {
    match json.as_bytes()[0] {
        b'{' => object(&parsed(json), value, out),
        b'[' => array(json, out),
        b'-' | b'0'..=b'9' => number(json, out),
        _ => out.push_str(json),
    }
}

fn array(json: &str, out: &mut String) {
    let elements: Vec<&RawValue> = serde_json::from_str(json).expect("the line was parsed before");
    out.push('[');
    for (at, element) in elements.into_iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        value(element.get(), out);
    }
    out.push(']');
}

/// Every integer of at most this many characters fits into 64 bits.
const SAFE_DIGITS: usize = 18;

/// Appends a number. An integer outside 64 bits gets the exponent `e0`: without an exponent, simdjson refuses such an
/// integer; with an exponent, simdjson reads a double.
fn number(json: &str, out: &mut String) {
    out.push_str(json);
    let is_integer = || !json.contains(['.', 'e', 'E']);
    let fits = || json.parse::<i64>().is_ok() || json.parse::<u64>().is_ok();
    if json.len() > SAFE_DIGITS && is_integer() && !fits() {
        out.push_str("e0");
    }
}

/// Appends a text, such as a name, as a JSON string.
fn text(text: &str, out: &mut String) {
    let needs_escape = |byte| byte < b' ' || matches!(byte, b'"' | b'\\');
    if text.bytes().any(needs_escape) {
        out.push_str(&serde_json::to_string(text).expect("text is written to memory"));
    } else {
        out.extend(["\"", text, "\""]);
    }
}

/// Replaces each `\u` escape of an unpaired surrogate with `\ufffd`, in strings and names.
fn replace_unpaired_surrogates(json: &str) -> Cow<'_, str> {
    if !json.contains("\\ud") && !json.contains("\\uD") {
        return Cow::Borrowed(json);
    }
    let mut replaced = String::with_capacity(json.len());
    let mut rest = json;
    // Each backslash that is found here starts an escape: JSON has no backslash outside strings, and `rest` begins
    // after the previous escape.
    while let Some(at) = rest.find('\\') {
        replaced.push_str(&rest[..at]);
        let escape = &rest[at..];
        let length = match (code_unit(escape), escape.get(6..).and_then(code_unit)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (Some(0xd800..=0xdfff), _) => 0,
            (Some(_), _) => 6,
            (None, _) => 2,
        };
        if length == 0 {
            replaced.push_str("\\ufffd");
            rest = &escape[6..];
        } else {
            replaced.push_str(&escape[..length]);
            rest = &escape[length..];
        }
    }
    replaced.push_str(rest);
    Cow::Owned(replaced)
}

/// The UTF-16 code unit of the escape `\uXXXX` with which `text` begins.
fn code_unit(text: &str) -> Option<u16> {
    u16::from_str_radix(text.strip_prefix("\\u")?.get(..4)?, 16).ok()
}

/// Every field of an object, in the order of the object. A repeated name is returned each time.
fn parsed(json: &str) -> Vec<(Cow<'_, str>, &str)> {
    let fields = object::fields(json).expect("the line was parsed before, and has no unpaired surrogates");
    fields.into_iter().map(|(name, value)| (name, value.get())).collect()
}

#[cfg(test)]
mod tests;
