//! Fields that are legal JSON, that the edge accepts, and that a store may trip over.
//!
//! Invariant: no field here is one of the event's own that the edge keeps, so what is counted stays the
//! same. Pure.

use fastrand::Rng;

/// Each as it stands in a line.
const FIELDS: [&str; 38] = [
    // Integers at and beyond the ends of 64 bits.
    r#""n":9223372036854775807"#,
    r#""n":9223372036854775808"#,
    r#""n":18446744073709551615"#,
    r#""n":18446744073709551616"#,
    r#""n":-9223372036854775808"#,
    r#""n":-9223372036854775809"#,
    r#""n":170141183460469231731687303715884105727"#,
    // Numbers that are no integers, or no doubles.
    r#""f":1e308"#,
    r#""f":-0.0,"g":-0"#,
    r#""f":4.9e-324"#,
    r#""f":1e999,"g":-1e999,"h":1e-999"#,
    // Arrays whose elements are of several types, and empty ones.
    r#""a":[1,"two",null,true,{"three":3}]"#,
    r#""a":[-1,18446744073709551615]"#,
    r#""a":[0.5,9223372036854775808,-9223372036854775808]"#,
    r#""a":[[1],["x"],[[]]]"#,
    r#""a":[{"k":1},{"k":"x"},{"k":[1]}]"#,
    r#""a":[],"b":{},"c":[null],"e":[{}]"#,
    // One name twice, written in two ways too, and a dotted name beside nesting.
    r#""d":1,"d":"two""#,
    r#""d":1,"\u0064":2"#,
    r#""o":{"p":1},"o":{"p":2,"q":3}"#,
    r#""o.p":1,"o":{"p":"x"}"#,
    r#""o":{"p":{"q":1}},"o.p":2"#,
    // Texts that are no Unicode, characters that some stores end a text at, and texts that look like
    // something else.
    r#""t":"\ud800""#,
    r#""t":"\udc00\ud800""#,
    r#""t":{"\udc00":["\ud83d"]}"#,
    r#""t":"\ud83d\ude00 \u2028 \/""#,
    r#""t":"a\u0000b""#,
    r#""t":"'; DROP TABLE events; --\\""#,
    r#""t":"2026-01-01","u":["2026-01-01 00:00:00","2026-13-45","1e5"]"#,
    // Names that are no names.
    r#""":1"#,
    r#""":{"":{"":1}},".":2,"a.":3,".a":4,"a..b":5"#,
    r#""naïve key · ключ":"ü","😀":"😀""#,
    r#""quote\"back\\slash`":1,"nul\u0000":2,"line\nbreak":3"#,
    r#""null":null"#,
    r#""o":{"p":null,"q":{"r":null}}"#,
    // What the edge alone may say: it is replaced.
    r#""tenant":"somebody","ip":"::1""#,
    r#""server_time":"1970-01-01 00:00:00","tenant":{"of":["nobody"]}"#,
    r#""_time":0,"events":{"tenant":""}"#,
];
/// Values of which random ones are made.
const SCALARS: [&str; 12] = [
    "null",
    "true",
    "0",
    "-1",
    "9223372036854775807",
    "18446744073709551615",
    "99999999999999999999",
    "0.5",
    "1e308",
    r#""""#,
    r#""x""#,
    r#""\udfff""#,
];
/// Names of random ones: few, so that one comes twice.
const NAMES: [&str; 5] = ["a", "b", "a.b", "", "é"];
/// How deep the edge takes objects and arrays, the line included.
const DEPTH: usize = 16;
/// Of random values.
const RANDOM_DEPTH: usize = 4;
/// Fields of a line that has many.
const MANY: usize = 500;
/// Letters of a long text, of two bytes each.
const LONG: usize = 10_000;

/// A field, or some fields, for a line.
pub fn fields(rng: &mut Rng) -> String {
    match rng.usize(..FIELDS.len() + 20) {
        0 => format!(r#""deep":{}1{}"#, r#"{"d":"#.repeat(DEPTH - 2), "}".repeat(DEPTH - 2)),
        1 => format!(r#""deep":{}1{}"#, "[".repeat(DEPTH - 1), "]".repeat(DEPTH - 1)),
        2 => (0..MANY).map(|at| format!(r#""f{at}":{at}"#)).collect::<Vec<_>>().join(","),
        3 => format!(r#""long":"{}""#, "ä".repeat(LONG)),
        4..20 => format!(r#""random":{}"#, random(rng, RANDOM_DEPTH)),
        other => FIELDS[other - 20].to_owned(),
    }
}

/// A value of any kind.
fn random(rng: &mut Rng, depth: usize) -> String {
    let kind = if depth == 0 { 0 } else { rng.u8(..3) };
    let length = rng.usize(..4);
    match kind {
        0 => (*rng.choice(&SCALARS).expect("there are some")).to_owned(),
        1 => format!("[{}]", (0..length).map(|_| random(rng, depth - 1)).collect::<Vec<_>>().join(",")),
        _ => {
            let field = |rng: &mut Rng| {
                let name = rng.choice(&NAMES).expect("there are some");
                format!(r#""{name}":{}"#, random(rng, depth - 1))
            };
            format!("{{{}}}", (0..length).map(|_| field(rng)).collect::<Vec<_>>().join(","))
        }
    }
}

#[cfg(test)]
mod tests {
    use schemas::event::{self, Code, MAX_DEPTH};

    use super::*;

    #[track_caller]
    fn check(fields: &str) {
        let line = format!(r#"{{"event":"play",{fields}}}"#);
        let parsed = event::parse::<()>(&line).unwrap_or_else(|fault| panic!("{line}: {fault:?}"));
        assert_eq!(parsed.event.event, "play", "{line}");
    }

    #[test]
    fn the_edge_takes_every_field_and_counts_the_same_event() {
        FIELDS.iter().for_each(|fields| check(fields));
        let mut rng = Rng::with_seed(1);
        (0..2000).for_each(|_| check(&fields(&mut rng)));
    }

    #[test]
    fn the_deepest_ones_are_as_deep_as_the_edge_takes_them() {
        assert_eq!(DEPTH, MAX_DEPTH);
        let deeper = format!(r#"{{"event":"play","deep":{}1{}}}"#, "[".repeat(DEPTH), "]".repeat(DEPTH));
        assert_eq!(event::parse::<()>(&deeper).map_err(|fault| fault.code).err(), Some(Code::TooDeep));
    }
}
