//! Fields that are legal JSON, that the edge accepts, and that a store may trip over.
//!
//! Invariant: no field here is one of the event's own, so what is counted stays the same. Pure.

use fastrand::Rng;

/// Each as it stands in a line.
const FIELDS: [&str; 22] = [
    // Integers at and beyond the ends of 64 bits.
    r#""n":9223372036854775807"#,
    r#""n":9223372036854775808"#,
    r#""n":18446744073709551615"#,
    r#""n":-9223372036854775808"#,
    r#""n":170141183460469231731687303715884105727"#,
    // Numbers that are no integers.
    r#""f":1e308"#,
    r#""f":-0.0"#,
    r#""f":4.9e-324"#,
    // Arrays whose elements are of several types.
    r#""a":[1,"two",null,true,{"three":3}]"#,
    r#""a":[-1,18446744073709551615]"#,
    r#""a":[[1],["x"],[[]]]"#,
    r#""a":[{"k":1},{"k":"x"},{"k":[1]}]"#,
    // One name twice, and a dotted name beside nesting.
    r#""d":1,"d":"two""#,
    r#""o.p":1,"o":{"p":"x"}"#,
    r#""o":{"p":{"q":1}},"o.p":2"#,
    // Texts that are no Unicode, and characters that some stores end a text at.
    r#""t":"\ud800""#,
    r#""t":"\udc00\ud800""#,
    r#""t":"a\u0000b""#,
    r#""t":"'; DROP TABLE events; --\\""#,
    // Names that are no names.
    r#""":1"#,
    r#""naïve key · ключ":"ü""#,
    r#""null":null"#,
];
/// Nested as deep as the edge takes it, the line included.
const DEPTH: usize = 15;
/// Fields of a line that has many.
const MANY: usize = 300;

/// A field, or some fields, for a line.
pub fn fields(rng: &mut Rng) -> String {
    match rng.usize(..FIELDS.len() + 3) {
        0 => format!(r#""deep":{}1{}"#, r#"{"d":"#.repeat(DEPTH - 1), "}".repeat(DEPTH - 1)),
        1 => (0..MANY).map(|at| format!(r#""f{at}":{at}"#)).collect::<Vec<_>>().join(","),
        2 => format!(r#""long":"{}""#, "ä".repeat(2000)),
        other => FIELDS[other - 3].to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use schemas::event;

    use super::*;

    #[test]
    fn the_edge_takes_every_field_and_counts_the_same_event() {
        let mut rng = Rng::with_seed(1);
        for _ in 0..500 {
            let line = format!(r#"{{"event":"play",{}}}"#, fields(&mut rng));
            let parsed = event::parse::<()>(&line).unwrap_or_else(|fault| panic!("{line}: {fault:?}"));
            assert_eq!(parsed.event.event, "play", "{line}");
        }
    }
}
