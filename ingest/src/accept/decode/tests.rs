use proptest::prelude::*;

use super::*;

const BAD_UTF8: Result<&str, Fault> = Err(Fault { code: Code::BadUtf8, field: None });

#[track_caller]
fn check(body: impl AsRef<[u8]>, expected: &[(usize, Result<&str, Fault>)]) {
    let found = lines(body.as_ref(), 10).unwrap();
    let found: Vec<_> = found.iter().map(|line| (line.number, line.text)).collect();
    assert_eq!(found, expected);
}

#[test]
fn lines_end_with_lf_or_crlf_and_blank_lines_are_numbered_but_are_no_events() {
    check("\u{feff}a\r\n\n \t\r\nb\n", &[(1, Ok("a")), (4, Ok("b"))]);
    check("a\nb", &[(1, Ok("a")), (2, Ok("b"))]);
    check(" \n\r\n", &[]);
    check("", &[]);
}

#[test]
fn an_event_that_is_not_utf8_does_not_affect_others_in_any_shape() {
    check(b"a\n\xff\n\xc3\xa4", &[(1, Ok("a")), (2, BAD_UTF8), (3, Ok("ä"))]);
    check(
        b"[{\"event\":\"a\"},{\"event\":\"b\xe9\"},{\"event\":\"c\"}]",
        &[(1, Ok(r#"{"event":"a"}"#)), (2, BAD_UTF8), (3, Ok(r#"{"event":"c"}"#))],
    );
    check(b"{\n\"a\":\"\xff\"\n}", &[(1, BAD_UTF8)]);
}

#[test]
fn a_body_may_be_one_object_an_array_or_lines() {
    check(" {\"event\":1} ", &[(1, Ok(" {\"event\":1} "))]);
    check("{\n\"event\":1\n}\n", &[(1, Ok("{\n\"event\":1\n}"))]);
    check("{\n\"event\":1,\n", &[(1, Ok("{\n\"event\":1,"))]);
    check("{\"a\":\n{\"b\":2}", &[(1, Ok("{\"a\":")), (2, Ok("{\"b\":2}"))]);
    check("{\"a\":1}\n{\"b\":2}", &[(1, Ok("{\"a\":1}")), (2, Ok("{\"b\":2}"))]);
    check("{\"a\":1}\nx\n", &[(1, Ok("{\"a\":1}")), (2, Ok("x"))]);
    check(" [ {\"a\":\n1}, 2 ] ", &[(1, Ok("{\"a\":\n1}")), (2, Ok("2"))]);
    check("[]", &[]);
    // Several objects from a pretty printer.
    check("{\n\"a\":1\n}\n{\n\"a\":2\n}", &[(1, Ok("{\n\"a\":1\n}")), (2, Ok("{\n\"a\":2\n}"))]);
    check("[1]\n{\"a\":1}\n[2,3]", &[(1, Ok("1")), (2, Ok("{\"a\":1}")), (3, Ok("2")), (4, Ok("3"))]);
}

#[test]
fn nested_objects_are_no_events_and_a_bad_first_line_does_not_affect_others() {
    let cut = "{\n\"event\":\"order\",\n\"items\":[\n{\"event\":\"a\"}\n],\n}";
    check(cut, &[(1, Ok(cut))]);
    let (one, other) = ("{\n\"event\":\"a\",\n\"items\":[\n{\"id\":1}\n]\n}", "{\n\"event\":\"b\"\n}");
    check(format!("{one}\n{other}"), &[(1, Ok(one)), (2, Ok(other))]);
    check("[oops\n{\"a\":1}\n{\"a\":2}", &[(1, Ok("[oops")), (2, Ok("{\"a\":1}")), (3, Ok("{\"a\":2}"))]);
    check("[\n{\"a\":1},\n{\"a\":2}", &[(1, Ok("{\"a\":1}")), (2, Ok("{\"a\":2}"))]);
    check("{\"a\":1},\n{\"a\":2},\n", &[(1, Ok("{\"a\":1}")), (2, Ok("{\"a\":2}"))]);
    check("{\"a\":1} x\n{\"a\":2}", &[(1, Ok("{\"a\":1} x")), (2, Ok("{\"a\":2}"))]);
}

#[test]
fn brackets_commas_and_elements_of_an_array_may_be_on_lines_of_their_own() {
    let elements = [(1, Ok("{\"a\":1}")), (2, Ok("{\"a\":2}"))];
    check("[\n{\"a\":1},\n{\"a\":2}\n]", &elements);
    check("[\n{\"a\":1}\n,\n{\"a\":2}\n]\n", &elements);
    check("[{\"a\":1},{\"a\":2},]", &elements);
}

#[test]
fn a_bad_element_affects_later_ones_only_if_quotes_or_brackets_do_not_balance() {
    check("[1,,x y,{]", &[(1, Ok("1")), (2, Ok("")), (3, Ok("x y")), (4, Ok("{]"))]);
    check(
        r#"["]","\",[",{"a":[1,2]}]"#,
        &[(1, Ok(r#""]""#)), (2, Ok(r#""\",[""#)), (3, Ok(r#"{"a":[1,2]}"#))],
    );
    check(
        "[{},{\"a\":1},{\"b\":\"x},{}]",
        &[(1, Ok("{}")), (2, Ok("{\"a\":1}")), (3, Ok("{\"b\":\"x},{}]"))],
    );
    check("[{},", &[(1, Ok("{}"))]);
    check("[{},{\"a\":1}", &[(1, Ok("{}")), (2, Ok("{\"a\":1}"))]);
    check("[{}] x", &[(1, Ok("{}")), (2, Ok("x"))]);
    check(format!("[1,{}]", "[".repeat(100)), &[(1, Ok("1")), (2, Ok(&format!("{}]", "[".repeat(100))))]);
}

#[test]
fn more_events_than_allowed_are_refused() {
    let refused = Err(Refusal::TooManyEvents(2));
    for body in [&b"a\nb\nc"[..], b"a\n\xff\nc", b"[1,2,3]", b"[1,2,3"] {
        assert_eq!(lines(body, 2), refused);
    }
    assert_eq!(lines(b"[1,2]", 2).unwrap().len(), 2);
    assert_eq!(lines(b"1\n2", usize::MAX).unwrap().len(), 2);
}

proptest! {
    #[test]
    fn lines_are_split_as_by_the_standard_library(body in "[a\u{e4} \t\r\n]{0,40}") {
        let found = lines(body.as_bytes(), 100).unwrap();
        let expected: Vec<_> = body
            .split('\n')
            .map(|line| line.strip_suffix('\r').unwrap_or(line))
            .zip(1..)
            .filter(|(line, _)| !line.trim_ascii().is_empty())
            .map(|(line, number)| Line { number, bytes: line.as_bytes(), text: Ok(line) })
            .collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn array_elements_are_those_that_serde_finds(elements in prop::collection::vec(r#"[0-9]|"[a\],\[{}]{0,3}"|\{"a":[0-9]\}|\[[0-9], ?[0-9]\]"#, 0..8)) {
        let body = format!("[{}]", elements.join(" ,\n"));
        let found: Vec<_> = lines(body.as_bytes(), 100).unwrap().iter().map(|line| line.text.unwrap().to_owned()).collect();
        let expected: Vec<&serde_json::value::RawValue> = serde_json::from_str(&body).unwrap();
        prop_assert_eq!(found, expected.iter().map(|value| value.get()).collect::<Vec<_>>());
    }
}
