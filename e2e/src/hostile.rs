//! Fields and lines that are valid JSON, but that a database may reject, change or misread.
//!
//! The generator uses few names, so that the same path is often a number in one line and an object in another. Pure.

use std::iter::repeat_with;

use fastrand::Rng;
use schemas::event;

/// Maximum depth of a value that the edge accepts in a line. The object of the line itself does not count.
const MAX_DEPTH: usize = 15;
/// Number of fields in a line with many fields.
const MANY_FIELDS: usize = 500;
/// Maximum length of the generated fields in bytes, so that a line still has room for other fields.
const MOST_BYTES: usize = 32 * 1024;
/// Number of letters in a long text. Each letter has two bytes.
const LONG_TEXT_LETTERS: usize = 10_000;

/// Fields as a line contains them. A database once stored each of them wrongly or rejected it, or might easily do so.
const FIELDS: [&str; 27] = [
    // Arrays with elements of several types, and empty arrays.
    r#""a":[1,"two",null,true,{"three":3}]"#,
    r#""a":[-1,18446744073709551615]"#,
    r#""a":[0.5,9223372036854775808,-9223372036854775808]"#,
    r#""a":[[1],["x"],[[]]]"#,
    r#""a":[{"k":1},{"k":"x"},{"k":[1]}]"#,
    r#""a":[],"b":{},"c":[null],"e":[{}]"#,
    // The same name twice, also with different escapes, and a dotted name together with nesting.
    r#""d":1,"d":"two""#,
    r#""d":1,"\u0064":2"#,
    r#""o":{"p":1},"o":{"p":2,"q":3}"#,
    r#""o.p":1,"o":{"p":"x"}"#,
    r#""o":{"p":{"q":1}},"o.p":2"#,
    // Escaped lone surrogates, which are not valid Unicode. Characters at which some databases truncate a text. Texts
    // that look like SQL or like a value of another type.
    r#""t":"\ud800""#,
    r#""t":"\udc00\ud800""#,
    r#""t":{"\udc00":["\ud83d"]}"#,
    r#""t":"\ud83d\ude00 \u2028 \/""#,
    r#""t":"a\u0000b""#,
    r#""t":"'; DROP TABLE events; --\\""#,
    r#""t":"2026-01-01","u":["2026-01-01 00:00:00","2026-13-45","1e5"]"#,
    // Unusual names, and null values.
    r#""":1"#,
    r#""":{"":{"":1}},".":2,"a.":3,".a":4,"a..b":5"#,
    r#""naïve key · ключ":"ü","😀":"😀""#,
    r#""quote\"back\\slash`":1,"nul\u0000":2,"line\nbreak":3"#,
    r#""null":null"#,
    r#""o":{"p":null,"q":{"r":null}}"#,
    // Fields that only the edge may set, and which it therefore replaces with its own values. Names that a database
    // might use for its own columns.
    r#""tenant":"somebody","ip":"::1""#,
    r#""server_time":"1970-01-01 00:00:00","tenant":{"of":["nobody"]}"#,
    r#""_time":0,"events":{"tenant":""}"#,
];
/// Numbers in all notations of JSON, most of them at or near the limits of a numeric type.
const NUMBERS: [&str; 32] = [
    "0",
    "-0",
    "-0.0",
    "0e0",
    "1E+2",
    "-1",
    "1.5",
    "255",
    "-129",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "9223372036854775809",
    "13835058055282163712",
    "18446744073709551615",
    "18446744073709551616",
    "18446744073709551617",
    "-9223372036854775808",
    "-9223372036854775809",
    "-18446744073709551615",
    "-18446744073709551616",
    "340282366920938463463374607431768211456",
    "115792089237316195423570985008687907853269984665640564039457584007913129639936",
    "123456789012345678.5",
    "18446744073709551615.0",
    "1e19",
    "1e308",
    "1.7976931348623157e308",
    "5e-324",
    "-1e-400",
    "0e999999999999",
    "-1E-18446744073709551616",
];

/// Numbers beyond the range of a double, which the edge rejects.
const TOO_LARGE: [&str; 4] = ["1.7976931348623159e308", "1e309", "-1e400", "1e18446744073709551616"];

/// JSON strings without their quotes. Some look like another type, and some escape a lone surrogate, which is not valid
/// Unicode.
const TEXTS: [&str; 30] = [
    "",
    " ",
    "a",
    "0",
    "-1",
    "18446744073709551616",
    "1e400",
    "true",
    "null",
    "nan",
    "-inf",
    "2026-11-21",
    "2026-11-21 04:00:00.123",
    "1969-12-31T23:59:59Z",
    "0192f0c1-0000-7000-8000-000000000000",
    "203.0.113.7",
    r#"{\"a\":1}"#,
    "[1,2]",
    r"\u0000",
    r"a\u0000b",
    r"\ud800",
    r"\udc00\ud800",
    r"\ud83d\ude00",
    r"\uD83D\\ude00",
    r"\uffff\u2028\u0085",
    r#"\"\\\/\b\f\n\r\t"#,
    "\u{10ffff}\u{fffd}\u{202e}",
    "ß\u{7f}",
    "'); DROP TABLE events; --",
    r"\\N",
];

/// JSON names of fields, without their quotes. None is a known field.
const NAMES: [&str; 30] = [
    "a",
    "b",
    "c",
    "a.b",
    "a.b.c",
    "a.c",
    "b.a",
    r"\u0061",
    r"a\u002eb",
    "",
    ".",
    "..",
    "a.",
    ".a",
    "a..b",
    r"\u0000",
    r"a\u0000",
    " ",
    "a b",
    "`a`",
    r#"\""#,
    r"\\",
    "ä",
    "a[]",
    "a.:`Int64`",
    "^a",
    "null",
    "props",
    "_part",
    "1",
];

/// Returns one or more random fields to insert into a line. The edge accepts all of them, and none of them is a known
/// field. A line is therefore counted in the same way with them as without them.
pub fn fields(rng: &mut Rng) -> String {
    loop {
        let fields = unknown(rng).join(",");
        let fits = (1..=MOST_BYTES).contains(&fields.len());
        if fits && event::parse::<()>(&format!(r#"{{"event":"e",{fields}}}"#)).is_ok() {
            return fields;
        }
    }
}

/// A line with the event name `e`. The edge rejects a few of these lines, for example because a line is nested too
/// deeply, because a number is beyond the range of a double, or because the text of a known field is too long or
/// escapes a lone surrogate.
pub fn line(rng: &mut Rng) -> String {
    let mut fields = vec![r#""event":"e""#.to_owned()];
    if rng.u8(..4) == 0 {
        fields.extend(known(rng));
    }
    fields.extend(unknown(rng));
    rng.shuffle(&mut fields);
    format!("{{{}}}", fields.join(","))
}

fn unknown(rng: &mut Rng) -> Vec<String> {
    match rng.u8(..40) {
        0 => repeat_with(|| format!(r#""{}":{}"#, name(rng), scalar(rng))).take(MANY_FIELDS).collect(),
        1 => vec![format!(r#""{}":{}"#, name(rng), deep(rng))],
        2 => vec![format!(r#""long":"{}""#, "ä".repeat(LONG_TEXT_LETTERS))],
        3..20 => vec![pick(rng, &FIELDS).to_owned()],
        _ => nested(rng, 3),
    }
}

/// Known fields. Many of the numbers and times are at the limits of what the edge accepts.
fn known(rng: &mut Rng) -> Vec<String> {
    let mut texts = ["user_id", "device_id", "session", "device_os", "param_str"];
    rng.shuffle(&mut texts);
    let mut fields: Vec<_> =
        texts[..rng.usize(..5)].iter().map(|name| format!(r#""{name}":{}"#, text(rng))).collect();
    let sequence = pick(rng, &["0", "1", "9223372036854775808", "18446744073709551615", "null"]);
    let param_int = pick(rng, &["-9223372036854775808", "9223372036854775807", "-1", "null"]);
    let time = pick(rng, &["1900-01-01 00:00:00", "1969-12-31T23:59:59.999Z", "2299-12-31 23:59:59.999"]);
    fields.push(format!(r#""sequence":{sequence}"#));
    fields.push(format!(r#""param_int":{param_int}"#));
    fields.push(format!(r#""client_time":"{time}""#));
    fields
}

fn pick<'a>(rng: &mut Rng, of: &[&'a str]) -> &'a str {
    of[rng.usize(..of.len())]
}

/// Any JSON value. If `depth` is 0, it is a scalar; otherwise it is nested at most one level deeper than `depth`.
fn value(rng: &mut Rng, depth: usize) -> String {
    match rng.u8(..10) {
        0..4 if depth > 0 => array(rng, depth - 1),
        4..7 if depth > 0 => format!("{{{}}}", nested(rng, depth - 1).join(",")),
        _ => scalar(rng),
    }
}

fn nested(rng: &mut Rng, depth: usize) -> Vec<String> {
    let count = rng.usize(..5);
    repeat_with(|| format!(r#""{}":{}"#, name(rng), value(rng, depth))).take(count).collect()
}

/// An array with elements of all kinds or of one kind. From elements of one kind, a database might infer a type.
fn array(rng: &mut Rng, depth: usize) -> String {
    let count = rng.usize(..5);
    let kind = rng.u8(..6);
    let element = || match kind {
        0 => number(rng),
        1 => text(rng),
        2 => array_of(rng, depth),
        3 => format!("{{{}}}", nested(rng, depth.saturating_sub(1)).join(",")),
        _ => value(rng, depth),
    };
    format!("[{}]", repeat_with(element).take(count).collect::<Vec<_>>().join(","))
}

fn array_of(rng: &mut Rng, depth: usize) -> String {
    if depth == 0 { "[]".to_owned() } else { array(rng, depth - 1) }
}

/// A value that is nested as deeply as the edge accepts, or one level deeper.
fn deep(rng: &mut Rng) -> String {
    let levels = MAX_DEPTH + usize::from(rng.u8(..8) == 0);
    (0..levels).fold(scalar(rng), |inner, _| match rng.u8(..3) {
        0 => format!("[{inner}]"),
        1 => format!(r#"[{},{inner}]"#, scalar(rng)),
        _ => format!(r#"{{"{}":{inner}}}"#, name(rng)),
    })
}

fn scalar(rng: &mut Rng) -> String {
    match rng.u8(..8) {
        0 => pick(rng, &["null", "true", "false"]).to_owned(),
        1..5 => number(rng),
        _ => text(rng),
    }
}

fn number(rng: &mut Rng) -> String {
    match rng.u8(..160) {
        0 => pick(rng, &TOO_LARGE).to_owned(),
        // From 2^63 to below 2^64: these numbers fit into an unsigned 64-bit integer, but not into a signed one.
        1..20 => rng.u64(1 << 63..).to_string(),
        20..40 => rng.i64(..).to_string(),
        40..60 => rng.u128(..).to_string(),
        60..80 => format!("{}.{:03}e{}", rng.i8(..), rng.u16(..1000), rng.i16(-400..300)),
        _ => pick(rng, &NUMBERS).to_owned(),
    }
}

fn text(rng: &mut Rng) -> String {
    let times = if rng.u8(..50) == 0 { 100 } else { 1 };
    format!(r#""{}""#, pick(rng, &TEXTS).repeat(times))
}

fn name(rng: &mut Rng) -> String {
    match rng.u8(..40) {
        0 => "n".repeat(rng.usize(1..2000)),
        1 => rng.u16(..).to_string(),
        _ => pick(rng, &NAMES).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use schemas::event::Code;

    use super::*;

    /// Generates lines from a fixed seed. Returns the lines that the edge accepts, and the codes with which it rejects
    /// the others.
    fn lines() -> (Vec<String>, Vec<Code>) {
        let mut rng = Rng::with_seed(1);
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        for line in repeat_with(|| line(&mut rng)).take(4000) {
            match event::parse::<()>(&line) {
                Ok(_) => good.push(line),
                Err(fault) => bad.push(fault.code),
            }
        }
        (good, bad)
    }

    #[test]
    fn the_edge_accepts_most_lines_and_they_contain_every_hostile_element() {
        let (good, bad) = lines();
        assert!(good.len() > bad.len() * 5, "{} accepted, {} rejected", good.len(), bad.len());
        for reason in [Code::TooDeep, Code::BadJson] {
            assert!(bad.contains(&reason), "no line is rejected with {reason:?}");
        }
        let holds = |what: &str| good.iter().any(|line| line.contains(what));
        let texts = TEXTS.iter().chain(&NUMBERS).copied();
        texts.for_each(|text| assert!(holds(text), "no accepted line contains `{text}`"));
        for name in NAMES {
            assert!(holds(&format!(r#""{name}":"#)), "no accepted line has a field `{name}`");
        }
        let deep = "]".repeat(4);
        assert!(holds(&deep) && holds("[[") && holds("[{") && holds(r#""a":"#) && holds(r#""a.b":"#));
        let has_many_fields = |line: &String| line.matches(',').count() >= MANY_FIELDS;
        assert!(good.iter().any(has_many_fields), "no accepted line has many fields");
    }

    #[test]
    fn the_edge_accepts_every_field_and_reads_the_same_event_name() {
        let mut rng = Rng::with_seed(2);
        for fields in FIELDS.map(str::to_owned).into_iter().chain(repeat_with(|| fields(&mut rng)).take(2000))
        {
            let line = format!(r#"{{"event":"play",{fields}}}"#);
            let parsed = event::parse::<()>(&line).unwrap_or_else(|fault| panic!("{line}: {fault:?}"));
            assert_eq!(parsed.event.event, "play", "{line}");
        }
    }

    #[test]
    fn some_array_has_negative_numbers_and_numbers_beyond_63_bits() {
        let mixed = |line: &String| {
            let arrays = line.split('[').skip(1).filter_map(|rest| rest.split([']', '[', '{', '"']).next());
            let numbers = arrays
                .map(|array| array.split(',').filter_map(|n| n.parse::<i128>().ok()).collect::<Vec<_>>());
            numbers.into_iter().any(|all| {
                let large = |n: &i128| (1 << 63..1 << 64).contains(n);
                all.iter().any(|n| *n < 0) && all.iter().any(large)
            })
        };
        assert!(lines().0.iter().any(mixed));
    }
}
