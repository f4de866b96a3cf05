//! Hostile bodies, each with the response that it must get.
//!
//! The bodies are built in code, because most are too long or too unreadable for a file. A body that makes a fuzz
//! target fail becomes a case here. A test of this crate sends the bodies to the edge's service, and a test of the
//! crate `e2e` sends them through all of Millrace.

use std::io::Write as _;
use std::iter;

use flate2::write::GzEncoder;
use flate2::{Compression, GzBuilder};

/// Length of the longest line that the edge accepts, in bytes.
const LONGEST: usize = 64 * 1024;
/// Length of the longest body that the edge accepts, in bytes as sent.
const LARGEST: usize = 8 << 20;
const MIB: usize = 1 << 20;
/// The simplest valid line.
const GOOD: &[u8] = br#"{"event":"a"}"#;

/// A body and the response that it must get.
pub(crate) struct Case {
    /// What is hostile about the body.
    pub(crate) name: String,
    /// The value of the header `Content-Type`. The edge treats an empty value like a missing header.
    pub(crate) content_type: &'static str,
    /// The value of the header `Content-Encoding`. The edge treats an empty value like a missing header.
    pub(crate) encoding: &'static str,
    /// The body as sent.
    pub(crate) body: Vec<u8>,
    /// The response that the body must get.
    pub(crate) expected: Expected,
}

/// The response that a body must get.
pub(crate) enum Expected {
    /// A report on these lines: with `200`, or with `400 all_lines_invalid` if no line is valid.
    Lines(Vec<Line>),
    /// This status with this `code`; nothing of the body is stored.
    Refused(u16, &'static str),
}

/// A non-blank line of a body, an element of an array or an object over several lines, and what the edge must do with
/// this text.
pub(crate) struct Line {
    /// The number of the line in the decoded body, from 1. In an array, or if objects span several lines: the position
    /// of the element or object, from 1.
    pub(crate) number: usize,
    /// The text as sent, if the edge must store it, or the fault that the report must list.
    pub(crate) verdict: Result<String, Fault>,
}

/// `code` and `field` of an invalid line.
pub(crate) type Fault = (&'static str, Option<&'static str>);

/// All cases.
pub(crate) fn cases() -> Vec<Case> {
    [values(), keys(), texts(), breaks(), lengths(), arrays(), gzips(), zstds()]
        .into_iter()
        .flatten()
        .collect()
}

const BAD_JSON: Result<(), Fault> = Err(("bad_json", None));
const BAD_UTF8: Result<(), Fault> = Err(("bad_utf8", None));
const TOO_DEEP: Result<(), Fault> = Err(("too_deep", None));
const TOO_LONG: Result<(), Fault> = Err(("line_too_long", None));
const NO_OBJECT: Result<(), Fault> = Err(("not_an_object", None));

fn bad(code: &'static str, field: &'static str) -> Result<(), Fault> {
    Err((code, Some(field)))
}

/// A case whose body has these lines, joined by line breaks. The second item of a pair says whether the line is valid.
fn lines(name: &str, lines: &[(&[u8], Result<(), Fault>)]) -> Case {
    let body = lines.iter().map(|(text, _)| *text).collect::<Vec<_>>().join(&b'\n');
    plain(name, body, reported(lines))
}

fn reported(lines: &[(&[u8], Result<(), Fault>)]) -> Expected {
    let line = |(number, (text, verdict)): (usize, &(&[u8], Result<(), Fault>))| Line {
        number,
        verdict: verdict.map(|()| {
            let text = text.strip_suffix(b"\r").unwrap_or(text);
            String::from_utf8(text.to_vec()).expect("a valid line is UTF-8")
        }),
    };
    Expected::Lines((1..).zip(lines).map(line).collect())
}

fn plain(name: &str, body: impl Into<Vec<u8>>, expected: Expected) -> Case {
    Case { name: name.to_owned(), content_type: "", encoding: "", body: body.into(), expected }
}

fn json(name: &str, body: impl Into<Vec<u8>>, expected: Expected) -> Case {
    Case { content_type: "application/json", ..plain(name, body, expected) }
}

/// A report of one valid line, for a body whose other lines are all blank.
fn good(number: usize, text: &[u8]) -> Expected {
    let text = String::from_utf8(text.to_vec()).expect("a valid line is UTF-8");
    Expected::Lines(vec![Line { number, verdict: Ok(text) }])
}

/// A report of two lines: line 1 is a valid event, and line 2 is the text that follows the event and is not JSON.
fn then_bad(text: &[u8]) -> Expected {
    let text = String::from_utf8(text.to_vec()).expect("a valid line is UTF-8");
    let bad = Line { number: 2, verdict: Err(("bad_json", None)) };
    Expected::Lines(vec![Line { number: 1, verdict: Ok(text) }, bad])
}

fn one_bad(fault: Fault) -> Expected {
    Expected::Lines(vec![Line { number: 1, verdict: Err(fault) }])
}

const EMPTY: Expected = Expected::Refused(400, "empty_body");
const BAD_ENCODING: Expected = Expected::Refused(400, "bad_encoding");
const TOO_LARGE_DECODED: Expected = Expected::Refused(413, "decoded_too_large");

/// The event [`GOOD`] with one more field.
fn with(field: &str, value: &str) -> Vec<u8> {
    format!(r#"{{"event":"a","{field}":{value}}}"#).into_bytes()
}

fn nested(open: &str, inner: &str, close: &str, depth: usize) -> String {
    format!("{}{inner}{}", open.repeat(depth), close.repeat(depth))
}

/// Cases with deeply nested values and with huge or malformed numbers.
fn values() -> Vec<Case> {
    let arrays = |depth| nested("[", "1", "]", depth);
    let objects = |depth| nested(r#"{"a":"#, "{}", "}", depth);
    let digits = "9".repeat(60_000);
    vec![
        lines(
            "deep nesting, in unknown, known and reserved fields",
            &[
                (&with("x", &arrays(15)), Ok(())),
                (&with("x", &arrays(16)), TOO_DEEP),
                (&with("x", &objects(14)), Ok(())),
                (&with("x", &objects(15)), TOO_DEEP),
                (&with("x", &nested(r#"[{"a":"#, "1", "}]", 7)), Ok(())),
                (&with("x", &nested(r#"[{"a":"#, "1", "}]", 8)), TOO_DEEP),
                (&with("x", &arrays(30_000)), TOO_DEEP),
                (&with("x", &objects(10_000)), TOO_DEEP),
                (&with("x", &"[".repeat(60_000)), BAD_JSON),
                (&with("user_id", &arrays(30_000)), bad("bad_type", "user_id")),
                (&with("sequence", &objects(10_000)), bad("bad_type", "sequence")),
                (&with("ip", &arrays(30_000)), Ok(())),
                (&with("x", r#""[[[[[[[[[[[[[[[[[[[[{{{{{{{{{{{{{{{{{{{{""#), Ok(())),
                (arrays(30_000).as_bytes(), NO_OBJECT),
            ],
        ),
        lines(
            "huge numbers in unknown fields",
            &[
                (&with("x", "1e999"), BAD_JSON),
                (&with("x", "-1e-999"), Ok(())),
                (&with("x", "[-0,0e0,0.0,1E+2]"), Ok(())),
                (&with("x", "12345678901234567890"), Ok(())),
                (&with("x", "-99999999999999999999"), Ok(())),
                (&with("x", &digits), BAD_JSON),
                (&with("x", &format!("0.{digits}e-{digits}")[..60_000]), Ok(())),
                (&with("x", "9".repeat(1_000_000).as_str()), TOO_LONG),
                (&with("x", "01"), BAD_JSON),
                (&with("x", "+1"), BAD_JSON),
                (&with("x", "1."), BAD_JSON),
                (&with("x", ".5"), BAD_JSON),
                (&with("x", "0x10"), BAD_JSON),
                (&with("x", "NaN"), BAD_JSON),
                (&with("x", "-Infinity"), BAD_JSON),
                (&with("x", "--1"), BAD_JSON),
                (&with("x", "1e"), BAD_JSON),
            ],
        ),
        lines(
            "huge numbers in known fields",
            &[
                (&with("sequence", "18446744073709551615"), Ok(())),
                (&with("sequence", "18446744073709551616"), bad("bad_type", "sequence")),
                (&with("param_int", "-9223372036854775808"), Ok(())),
                (&with("param_int", "-9223372036854775809"), bad("bad_type", "param_int")),
                (&with("param_int", "9223372036854775808"), bad("bad_type", "param_int")),
                (&with("param_int", "12345678901234567890"), bad("bad_type", "param_int")),
                (&with("sequence", "-0"), bad("bad_type", "sequence")),
                (&with("param_int", "-0"), bad("bad_type", "param_int")),
                (&with("param_int", "1e2"), bad("bad_type", "param_int")),
                (&with("param_int", "1e999"), bad("bad_type", "param_int")),
                (&with("client_time", "-1e999"), BAD_JSON),
                (&with("param_int", &digits), bad("bad_type", "param_int")),
                (&with("client_time", "99999999999999999999"), Ok(())),
                (&with("client_time", "9223372036854775807"), Ok(())),
                (&with("param_int", "00"), BAD_JSON),
            ],
        ),
    ]
}

/// Cases with keys that are duplicate, escaped, reserved or long.
fn keys() -> Vec<Case> {
    let longest = |name: &str| {
        let rest = LONGEST - with(name, "1").len();
        with(&format!("{name}{}", "k".repeat(rest)), "1")
    };
    let many = (0..6000).map(|n| format!("{n:04}")).collect::<Vec<_>>().join(r#"":1,""#);
    vec![
        lines(
            "duplicate keys",
            &[
                (br#"{"event":"a","event":"a"}"#, bad("duplicate_key", "event")),
                (br#"{"event":"a","\u0065vent":"b"}"#, bad("duplicate_key", "event")),
                (br#"{"\u0065\u0076\u0065\u006e\u0074":"a","event":null}"#, bad("duplicate_key", "event")),
                (br#"{"event":"a","user_id":null,"user_id":"u"}"#, bad("duplicate_key", "user_id")),
                (br#"{"event":"a","x":1,"x":{"y":2},"x":3}"#, Ok(())),
                (br#"{"event":"a","x":1,"\u0078":2}"#, Ok(())),
                (br#"{"event":"a","x":{"y":1,"y":2}}"#, Ok(())),
                (br#"{"Event":"a"}"#, bad("missing_field", "event")),
                (br#"{"event\u0000":"a"}"#, bad("missing_field", "event")),
            ],
        ),
        lines(
            "reserved keys",
            &[
                (br#"{"event":"a","ip":"6.6.6.6","tenant":"other","server_time":"2000-01-01 00:00:00.000"}"#, Ok(())),
                (br#"{"\u0069p":"6.6.6.6","event":"a","\u0074enant":null}"#, Ok(())),
                (br#"{"ip":1,"ip":2,"i\u0070":3,"event":"a","IP":4,"x":"\ud83d\ude00"}"#, Ok(())),
                (br#"{"tenant":"","event":"a","server_time":{"tenant":"x"},"x":{"tenant":"stays"}}"#, Ok(())),
                (br#"{"ip":"\ud800","event":"a"}"#, Ok(())),
                (br#"{"ip":[}],"event":"a"}"#, BAD_JSON),
                (br#"{"event":"a","props":{},"hwm":1,"g":2,"kp":3,"ko":4,"_part":"x","cfg":0}"#, Ok(())),
                (br#"{"event":"a","__proto__":{},"constructor":1,"":0,"\\":1,"\"":2,"/":3,"\/":4}"#, Ok(())),
            ],
        ),
        lines(
            "keys that fill a line",
            &[
                (&longest("x"), Ok(())),
                (&longest(r"\u0078"), Ok(())),
                (&with(&many, "1"), Ok(())),
                (&longest(r#"ip":0,"x"#), Ok(())),
            ],
        ),
    ]
}

/// Cases with surrogates, control characters and bytes that are not UTF-8.
fn texts() -> Vec<Case> {
    let raw = |bytes: &[u8]| [b"{\"event\":\"a\",\"x\":\"".as_slice(), bytes, b"\"}"].concat();
    let bad_utf8: [&[u8]; 12] = [
        b"\xc0\xaf",                 // overlong: `/` in two bytes
        b"\xe0\x80\xaf",             // overlong: `/` in three bytes
        b"\xf0\x80\x80\xaf",         // overlong: `/` in four bytes
        b"\xc0\x80",                 // overlong: NUL, as Java's modified UTF-8 has it
        b"\xed\xa0\x80",             // an encoded surrogate without its pair
        b"\xed\xa0\xbd\xed\xb8\x80", // an encoded surrogate pair
        b"\xf4\x90\x80\x80",         // beyond U+10FFFF
        b"\xf8\x88\x80\x80\x80",     // a sequence of five bytes
        b"\x80",                     // a continuation byte without a first byte
        b"\xe2\x82",                 // the first two bytes of three
        b"\xff",
        b"\xfe",
    ];
    let bad_utf8: Vec<_> = bad_utf8.iter().map(|bytes| raw(bytes)).collect();
    let bad_utf8: Vec<(&[u8], _)> =
        bad_utf8.iter().flat_map(|line| [(line.as_slice(), BAD_UTF8), (GOOD, Ok(()))]).collect();
    vec![
        lines(
            "halves of surrogate pairs",
            &[
                (&with("x", r#""\ud800""#), Ok(())),
                (&with("x", r#"{"\udc00":["\ud83d\ud83d"]}"#), Ok(())),
                (&with("x", r#""\ud83d\ude00""#), Ok(())),
                (&with("user_id", r#""\ud800""#), BAD_JSON),
                (&with("user_id", r#""\ude00\ud83d""#), BAD_JSON),
                (br#"{"event":"\udfff"}"#, BAD_JSON),
                (br#"{"event":"a","\ud800":1}"#, BAD_JSON),
                (br#"{"event":"\ud83d\ude00"}"#, Ok(())),
                (&with("x", r#""\u12""#), BAD_JSON),
                (&with("x", r#""\x41""#), BAD_JSON),
                (&with("x", r#""\"#), BAD_JSON),
            ],
        ),
        lines(
            "NUL and other control characters",
            &[
                (br#"{"event":"\u0000","user_id":"a\u0000b","x":"\u0000","\u0000":0}"#, Ok(())),
                (&raw(b"\0"), BAD_JSON),
                (&raw(b"\x1f"), BAD_JSON),
                (&raw(b"\t"), BAD_JSON),
                (&raw(b"\x7f"), Ok(())),
                (b"\0", BAD_JSON),
                (b"{\"event\":\"a\"}\0", BAD_JSON),
                (b"{\"event\":\0\"a\"}", BAD_JSON),
                (b"\x0c{\"event\":\"a\"}", BAD_JSON),
                (b"{\"event\":\"a\"}\x0c", BAD_JSON),
                (b"{\x0b\"event\":\"a\"}", BAD_JSON),
            ],
        ),
        lines("bytes that are not UTF-8", &bad_utf8),
        lines(
            "a character cut by a line break",
            &[
                (GOOD, Ok(())),
                (b"{\"event\":\"a\xc3", BAD_UTF8),
                (b"\xa4\"}", BAD_UTF8),
                ("{\"event\":\"ä\"}".as_bytes(), Ok(())),
                (b"\xe2\x82", BAD_UTF8),
            ],
        ),
        lines(
            "characters that some parsers treat as line breaks",
            &[
                ("{\"event\":\"a\u{2028}b\u{2029}c\u{85}d\",\"x\":\"\u{2028}\"}".as_bytes(), Ok(())),
                ("{\"event\":\"a\"}\u{2028}{\"event\":\"b\"}".as_bytes(), BAD_JSON),
                ("\u{a0}".as_bytes(), BAD_JSON),
                ("\u{feff}\u{ffff}\u{10ffff}".as_bytes(), BAD_JSON),
                ("{\"event\":\"\u{fffd}\u{ffff}\u{10ffff}\u{202e}\"}".as_bytes(), Ok(())),
            ],
        ),
        plain("UTF-16", b"\xff\xfe{\0\"\0e\0\"\0:\x001\0}\0".to_vec(), one_bad(("bad_utf8", None))),
    ]
}

/// Cases about where lines begin and end.
fn breaks() -> Vec<Case> {
    let two = |first: usize, second: usize| {
        let line = |number| Line { number, verdict: Ok(r#"{"event":"a"}"#.to_owned()) };
        Expected::Lines(vec![line(first), line(second)])
    };
    let join = |parts: &[&[u8]]| parts.concat();
    vec![
        plain("CRLF", join(&[GOOD, b"\r\n", GOOD, b"\r\n"]), two(1, 2)),
        plain("two CRs before the LF", join(&[GOOD, b"\r\r\n", GOOD]), two(1, 2)),
        plain("CR alone", join(&[GOOD, b"\r", GOOD]), one_bad(("bad_json", None))),
        plain(
            "CR within a line",
            &b"{\r\"event\"\r:\"a\",\"ip\":\r1,\"x\":[\r]}"[..],
            good(1, b"{\r\"event\"\r:\"a\",\"ip\":\r1,\"x\":[\r]}"),
        ),
        plain("a byte-order mark", join(&["\u{feff}".as_bytes(), GOOD]), good(1, GOOD)),
        plain(
            "two byte-order marks",
            join(&["\u{feff}\u{feff}".as_bytes(), GOOD]),
            one_bad(("bad_json", None)),
        ),
        lines(
            "a byte-order mark in a later line",
            &[(GOOD, Ok(())), (&join(&["\u{feff}".as_bytes(), GOOD]), BAD_JSON)],
        ),
        plain("a byte-order mark alone", "\u{feff}", EMPTY),
        plain("half of a byte-order mark", b"\xef\xbb".to_vec(), one_bad(("bad_utf8", None))),
        plain("nothing", "", EMPTY),
        plain("blank lines only", " \n\r\n\t\n\r\n\n".repeat(1000), EMPTY),
        plain("eight MiB of line breaks", vec![b'\n'; LARGEST], EMPTY),
        plain("no line break at the end", join(&[GOOD, b"\n\n", GOOD]), two(1, 3)),
        plain(
            "a million blank lines before an event",
            join(&[&vec![b'\n'; 1_000_000], GOOD]),
            good(1_000_001, GOOD),
        ),
        plain("an object and garbage", join(&[GOOD, b" garbage"]), one_bad(("bad_json", None))),
        plain("objects without a line break", join(&[GOOD, GOOD]), one_bad(("bad_json", None))),
        plain("objects with commas", join(&[GOOD, b",\n", GOOD]), two(1, 2)),
        lines(
            "beginnings of JSON",
            &[
                (b"{", BAD_JSON),
                (b"[", BAD_JSON),
                (b"\"", BAD_JSON),
                (b"}", BAD_JSON),
                (b"-", BAD_JSON),
                (b"{}", bad("missing_field", "event")),
                (b"nul", BAD_JSON),
                (b"null", NO_OBJECT),
                (b"{\"event\"", BAD_JSON),
                (b"{\"event\":", BAD_JSON),
                (b"{\"event\":\"a\"", BAD_JSON),
                (b"{\"event\":\"a\",", BAD_JSON),
                (b"{\"event\":\"a\",}", BAD_JSON),
                (b"{'event':'a'}", BAD_JSON),
                (b"{event:\"a\"}", BAD_JSON),
                (b"// {}", BAD_JSON),
                (b"{\"event\":\"a\"} // x", BAD_JSON),
            ],
        ),
        plain(
            "the first 1, 2, 3, … bytes of a line as lines",
            {
                let line = br#"{"event":"a","x":[1,{"y":"\u00e4"}]}"#;
                (1..line.len()).take(20).flat_map(|end| [&line[..end], b"\n"]).collect::<Vec<_>>().concat()
            },
            // The edge treats this body as one truncated object over several lines, so it reports one invalid line.
            one_bad(("bad_json", None)),
        ),
    ]
}

/// Cases with long lines, long bodies and many events.
fn lengths() -> Vec<Case> {
    let fits = |line: usize| with("x", &format!("\"{}\"", "y".repeat(line - with("x", "\"\"").len())));
    let (longest, longer) = (fits(LONGEST), fits(LONGEST + 1));
    let times = |line: &[u8], count: usize| [line, b"\n"].concat().repeat(count);
    let all_good = |count: usize| {
        let line = |number| Line { number, verdict: Ok(r#"{"event":"a"}"#.to_owned()) };
        Expected::Lines((1..=count).map(line).collect())
    };
    let too_many = || Expected::Refused(413, "too_many_events");
    vec![
        lines(
            "a line of 64 KiB and one of a byte more",
            &[
                (&longest, Ok(())),
                (&longer, TOO_LONG),
                (&[&longest[..], b"\r"].concat(), Ok(())),
                (&[b" ", &longest[..]].concat(), TOO_LONG),
                (GOOD, Ok(())),
            ],
        ),
        plain("ten thousand events", times(GOOD, 10_000), all_good(10_000)),
        plain("ten thousand and one events", times(GOOD, 10_001), too_many()),
        plain(
            "ten thousand events and an invalid one",
            [times(GOOD, 10_000), b"x".to_vec()].concat(),
            too_many(),
        ),
        json("ten thousand and one elements", format!("[0{}]", ",0".repeat(10_000)), too_many()),
        plain("a million commas", vec![b','; 1_000_000], one_bad(("line_too_long", None))),
        plain("half a million lines of one comma", b",\n".repeat(500_000), too_many()),
        plain("eight MiB in one line", vec![b'{'; LARGEST], one_bad(("line_too_long", None))),
        plain(
            "a byte more than eight MiB",
            vec![b' '; LARGEST + 1],
            Expected::Refused(413, "body_too_large"),
        ),
    ]
}

/// Cases with arrays, and with objects over several lines.
fn arrays() -> Vec<Case> {
    let number = |number, verdict: Result<&str, Fault>| Line { number, verdict: verdict.map(str::to_owned) };
    let no_object = || Err(("not_an_object", None));
    vec![
        json(
            "an array of values of all types",
            r#"[{"event":"a"}, 1, "x", null, true, [], [[{"event":"b"}]], {}, {"event":"c",
"x":[
1]}, -0, 1e999]"#,
            Expected::Lines(vec![
                number(1, Ok(r#"{"event":"a"}"#)),
                number(2, no_object()),
                number(3, no_object()),
                number(4, no_object()),
                number(5, no_object()),
                number(6, no_object()),
                number(7, no_object()),
                number(8, Err(("missing_field", Some("event")))),
                number(9, Ok("{\"event\":\"c\",\n\"x\":[\n1]}")),
                number(10, no_object()),
                number(11, no_object()),
            ]),
        ),
        json("an array in an array", r#"[[{"event":"a"}]]"#, one_bad(("not_an_object", None))),
        json("an empty array", "[]", EMPTY),
        json("blanks", " \r\n ", EMPTY),
        json("an array that is cut off", r#"[{"event":"a"},"#, good(1, GOOD)),
        json("an array that is cut off in an element", r#"[{"event":"a"},{"event":"#, then_bad(GOOD)),
        json("an array and garbage", r#"[{"event":"a"}]]"#, then_bad(GOOD)),
        json(
            "two arrays",
            r#"[{"event":"a"}][{"event":"a"}]"#,
            Expected::Lines(vec![number(1, Ok(r#"{"event":"a"}"#)), number(2, Ok(r#"{"event":"a"}"#))]),
        ),
        json("an array without commas", r#"[{"event":"a"} {"event":"a"}]"#, one_bad(("bad_json", None))),
        json(
            "a million commas in an array",
            [b"[", &[b','; 1_000_000][..], b"]"].concat(),
            Expected::Refused(413, "too_many_events"),
        ),
        json("an array eight million deep", vec![b'['; LARGEST], one_bad(("line_too_long", None))),
        json(
            "an element thirty thousand deep",
            format!("[{}]", nested("[", "", "]", 30_000)),
            one_bad(("not_an_object", None)),
        ),
        json(
            "an element too long",
            format!("[{}]", nested("[", "", "]", 40_000)),
            one_bad(("line_too_long", None)),
        ),
        json(
            "an object over several lines",
            "\u{feff}{\r\n\"event\":\"a\",\"ip\":\r\n1\r\n}\r\n",
            good(1, b"{\r\n\"event\":\"a\",\"ip\":\r\n1\r\n}"),
        ),
        json(
            "an object and garbage in the next line",
            "{\n\"event\":\"a\"}\n}",
            then_bad(b"{\n\"event\":\"a\"}"),
        ),
        json(
            "an array with bytes that are not UTF-8",
            b"[{\"event\":\"\xff\"}]".to_vec(),
            one_bad(("bad_utf8", None)),
        ),
        json(
            "an array with one element that is not UTF-8",
            b"[{\"event\":\"a\"},{\"event\":\"b\xe9\"},{\"event\":\"a\"}]".to_vec(),
            Expected::Lines(vec![
                number(1, Ok(r#"{"event":"a"}"#)),
                number(2, Err(("bad_utf8", None))),
                number(3, Ok(r#"{"event":"a"}"#)),
            ]),
        ),
        plain("an array in a body without a content type", r#"[{"event":"a"}]"#, good(1, GOOD)),
    ]
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(plain).expect("write to memory");
    encoder.finish().expect("write to memory")
}

fn zstd(plain: &[u8]) -> Vec<u8> {
    zstd::encode_all(plain, 1).expect("write to memory")
}

fn encoded(encoding: &'static str, name: &str, body: Vec<u8>, expected: Expected) -> Case {
    Case { encoding, ..plain(&format!("{encoding}: {name}"), body, expected) }
}

/// The cases that gzip and zstd share. A gzip member and a zstd frame are both called a member here.
fn compressed(encoding: &'static str, compress: fn(&[u8]) -> Vec<u8>) -> Vec<Case> {
    let case = |name, body, expected| encoded(encoding, name, body, expected);
    let whole = compress(GOOD);
    let two = [compress(&[GOOD, b"\n{\"ev"].concat()), compress(b"ent\":\"a\"}")].concat();
    // 40 MiB that compress to about a tenth, as events do. So the body exceeds the limit of 32 MiB for decompressed
    // bodies, but not the limit for the ratio of decompressed to compressed bytes.
    let honest: String = (0..40 * MIB / 32).map(|n| format!("{n:031}\n")).collect();
    vec![
        case("a bomb", compress(&vec![b' '; 64 * MIB]), TOO_LARGE_DECODED),
        case("a bomb in many members", compress(&vec![b'['; MIB]).repeat(64), TOO_LARGE_DECODED),
        case("too many bytes at a low ratio", compress(honest.as_bytes()), TOO_LARGE_DECODED),
        case("one MiB at a high ratio", compress(&vec![b'\n'; MIB]), EMPTY),
        case(
            "a line in two members",
            two,
            Expected::Lines(vec![
                Line { number: 1, verdict: Ok(r#"{"event":"a"}"#.to_owned()) },
                Line { number: 2, verdict: Ok(r#"{"event":"a"}"#.to_owned()) },
            ]),
        ),
        case("a hundred thousand empty members", compress(b"").repeat(100_000), EMPTY),
        case("an empty member", compress(b""), EMPTY),
        case("no byte", Vec::new(), BAD_ENCODING),
        case("cut off", whole[..whole.len() - 1].to_vec(), BAD_ENCODING),
        case("only the first bytes", whole[..3].to_vec(), BAD_ENCODING),
        case("garbage after the member", [&whole[..], b"x"].concat(), BAD_ENCODING),
        case("zeros after the member", [&whole[..], &[0; 64]].concat(), BAD_ENCODING),
        case("a truncated member after the member", [&whole[..], &whole[..7]].concat(), BAD_ENCODING),
        case("not compressed", GOOD.to_vec(), BAD_ENCODING),
        case("compressed twice", compress(&gzip(GOOD)), one_bad(("bad_utf8", None))),
        case("zeros", vec![0; 1000], BAD_ENCODING),
    ]
}

fn gzips() -> Vec<Case> {
    let named = |name: &str| {
        let encoder = GzBuilder::new().filename(name).comment(name).extra(vec![7; 60_000]);
        let mut encoder = encoder.write(Vec::new(), Compression::fast());
        encoder.write_all(GOOD).expect("write to memory");
        encoder.finish().expect("write to memory")
    };
    let damaged = |from_end: usize| {
        let mut sent = gzip(GOOD);
        let at = sent.len() - from_end;
        sent[at] ^= 1;
        sent
    };
    // A gzip member whose header has a file name without the zero byte that must end it.
    let endless = [&[0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 3][..], &vec![b'n'; MIB]].concat();
    let case = |name, body, expected| encoded("gzip", name, body, expected);
    let mut cases = compressed("gzip", gzip);
    cases.extend([
        case("a long file name in the header", named(&"n".repeat(60_000)), good(1, GOOD)),
        case("a file name without an end", endless, BAD_ENCODING),
        case("a wrong checksum", damaged(8), BAD_ENCODING),
        case("a wrong length", damaged(4), BAD_ENCODING),
        case("deflate without a header", gzip(GOOD)[10..].to_vec(), BAD_ENCODING),
    ]);
    cases
}

fn zstds() -> Vec<Case> {
    let with_window = |log: u32| {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("create an encoder");
        encoder.window_log(log).expect("set the window");
        encoder.write_all(GOOD).expect("write to memory");
        encoder.finish().expect("write to memory")
    };
    let skippable = |bytes: u32| -> Vec<u8> {
        let head = [0x50, 0x2a, 0x4d, 0x18].into_iter().chain(bytes.to_le_bytes());
        head.chain(iter::repeat_n(b's', bytes as usize)).collect()
    };
    let promised = [&[0x50, 0x2a, 0x4d, 0x18][..], &u32::MAX.to_le_bytes()].concat();
    // The header of the frame names dictionary 7. One raw block of 13 bytes follows.
    let dictionary = [&[0x28, 0xb5, 0x2f, 0xfd, 0x21, 7, 13, 0x69, 0, 0][..], GOOD].concat();
    let case = |name, body, expected| encoded("zstd", name, body, expected);
    let mut cases = compressed("zstd", zstd);
    cases.extend([
        case("the largest allowed window", with_window(23), good(1, GOOD)),
        case("a window that is too large", with_window(24), BAD_ENCODING),
        case("a window of 128 MiB", with_window(27), BAD_ENCODING),
        case("skippable frames", [skippable(1000), zstd(GOOD), skippable(0)].concat(), good(1, GOOD)),
        case("only a skippable frame", skippable(1000), EMPTY),
        case("a skippable frame that is cut off", promised, BAD_ENCODING),
        case("a dictionary", dictionary, BAD_ENCODING),
    ]);
    cases
}
