use proptest::prelude::*;

use super::*;

const BAD_UTF8: Result<&str, Fault> = Err(Fault { code: Code::BadUtf8, field: None });
const BAD_JSON: Result<&str, Fault> = Err(Fault { code: Code::BadJson, field: None });

#[track_caller]
fn check(body: impl AsRef<[u8]>, format: Format, expected: &[(usize, Result<&str, Fault>)]) {
    let found = lines(body.as_ref(), format, 10).unwrap();
    let found: Vec<_> = found.iter().map(|line| (line.number, line.text)).collect();
    assert_eq!(found, expected);
}

#[test]
fn lines_end_with_or_without_a_carriage_return_and_blank_ones_only_count() {
    check("\u{feff}a\r\n\n \t\r\nb\n", Format::Ndjson, &[(1, Ok("a")), (4, Ok("b"))]);
    check("a\nb", Format::Ndjson, &[(1, Ok("a")), (2, Ok("b"))]);
    check(" \n\r\n", Format::Ndjson, &[]);
    check("", Format::Ndjson, &[]);
}

#[test]
fn a_line_that_is_not_utf8_costs_only_itself() {
    for format in [Format::Ndjson, Format::Json] {
        check(b"a\n\xff\n\xc3\xa4", format, &[(1, Ok("a")), (2, BAD_UTF8), (3, Ok("ä"))]);
    }
}

#[test]
fn json_is_one_object_or_an_array_or_lines() {
    check(" {\"event\":1} ", Format::Json, &[(1, Ok(" {\"event\":1} "))]);
    check("{\n\"event\":1\n}\n", Format::Json, &[(1, Ok("{\n\"event\":1\n}"))]);
    check("{\n\"event\":1,\n", Format::Json, &[(1, Ok("{\n\"event\":1,"))]);
    check("{\"a\":\n{\"b\":2}", Format::Json, &[(1, Ok("{\"a\":")), (2, Ok("{\"b\":2}"))]);
    check("{\"a\":1}\n{\"b\":2}", Format::Json, &[(1, Ok("{\"a\":1}")), (2, Ok("{\"b\":2}"))]);
    check(" [ {\"a\":\n1}, 2 ] ", Format::Json, &[(1, Ok("{\"a\":\n1}")), (2, Ok("2"))]);
    check("[]", Format::Json, &[]);
    check("[{},", Format::Json, &[(1, BAD_JSON)]);
    check("[{}] x", Format::Json, &[(1, BAD_JSON)]);
}

#[test]
fn more_events_than_allowed_are_refused() {
    let refused = Err(Refusal::TooManyEvents(2));
    assert_eq!(lines(b"a\nb\nc", Format::Ndjson, 2), refused);
    assert_eq!(lines(b"a\n\xff\nc", Format::Ndjson, 2), refused);
    assert_eq!(lines(b"[1,2,3]", Format::Json, 2), refused);
    assert_eq!(lines(b"[1,2,3", Format::Json, 2), refused);
    assert_eq!(lines(b"[1,2]", Format::Json, 2).unwrap().len(), 2);
}

proptest! {
    #[test]
    fn lines_are_those_of_the_standard_library(body in "[a\u{e4} \t\r\n]{0,40}") {
        let found = lines(body.as_bytes(), Format::Ndjson, 100).unwrap();
        let expected: Vec<_> = body
            .split('\n')
            .map(|line| line.strip_suffix('\r').unwrap_or(line))
            .zip(1..)
            .filter(|(line, _)| !line.trim_ascii().is_empty())
            .map(|(line, number)| Line { number, text: Ok(line) })
            .collect();
        prop_assert_eq!(found, expected);
    }
}
