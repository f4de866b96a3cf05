use proptest::prelude::*;
use schemas::event;
use serde_json::Value;

use super::*;

/// The column `props` of a line that a client sends.
fn written(line: &str) -> String {
    let parsed = event::parse::<Vec<_>>(line).unwrap();
    let mut out = String::new();
    write(&parsed.props, &mut out);
    out
}

#[track_caller]
fn check(fields: &str, expected: &str) {
    assert_eq!(written(&format!(r#"{{"event":"e",{fields}}}"#)), expected);
}

#[test]
fn fields_come_back_as_they_were_sent() {
    check(
        r#""a" : 1.50, "b":"x\ny\u00e9","c":null,"d":true"#,
        r#"{"a":1.50,"b":"x\ny\u00e9","c":null,"d":true}"#,
    );
    let fields = r#""error":true,"error.type":"t","ids":[9007199254740993,0.5],"n":1.50,"z":null,"e":{}"#;
    check(fields, &format!("{{{fields}}}"));
    let fields = r#""mixed":[1,"two",null,{"three":[3]},[[]]],"":{"":-0.0},"a.":1E+2,"\"":"\u0000""#;
    check(fields, &format!("{{{fields}}}"));
    check("\"a\": [ 1 ,\t{ \"b c\" : \" d \" } ]", r#"{"a":[1,{"b c":" d "}]}"#);
    assert_eq!(written(r#"{"event":"e"}"#), "{}");
}

#[test]
fn the_last_value_of_a_repeated_name_is_kept_at_any_depth() {
    check(r#""a":1,"b":2,"a":3"#, r#"{"b":2,"a":3}"#);
    check(r#""a":{"b":1,"b":{"c":1,"c":2}},"a.b":2"#, r#"{"a":{"b":{"c":2}},"a.b":2}"#);
    check(r#""a\u002eb":1,"a.b":2"#, r#"{"a.b":2}"#);
    check(r#""l":[{"x":1,"x":2},{"x":3}]"#, r#"{"l":[{"x":2},{"x":3}]}"#);
    let many = |each: fn(u8) -> String| (0..20).map(each).collect::<Vec<_>>().join(",");
    let (first, second) = (many(|n| format!(r#""f{n}":1"#)), many(|n| format!(r#""f{n}":2"#)));
    check(&format!("{first},{second}"), &format!("{{{second}}}"));
}

#[test]
fn an_integer_outside_64_bits_gets_an_exponent() {
    check(
        r#""a":18446744073709551615,"b":18446744073709551616"#,
        r#"{"a":18446744073709551615,"b":18446744073709551616e0}"#,
    );
    check(
        r#""a":-9223372036854775808,"b":[-9223372036854775809,{"c":[-18446744073709551615]}]"#,
        r#"{"a":-9223372036854775808,"b":[-9223372036854775809e0,{"c":[-18446744073709551615e0]}]}"#,
    );
    check(r#""a":123456789012345678901.5,"b":1e308"#, r#"{"a":123456789012345678901.5,"b":1e308}"#);
}

#[test]
fn an_unpaired_surrogate_becomes_a_replacement_character() {
    check(r#""o":"\ud83d\ude00""#, r#"{"o":"\ud83d\ude00"}"#);
    check(r#""o":"\ud83d","p":"\uDE00x\\ud83d""#, r#"{"o":"\ufffd","p":"\ufffdx\\ud83d"}"#);
    check(r#""o":{"\ud800":["\ud800\ud83d\ude00"]}"#, "{\"o\":{\"\u{fffd}\":[\"\\ufffd\\ud83d\\ude00\"]}}");
}

#[test]
fn a_scalar_is_found_however_its_path_is_written() {
    let find = |json: &str, path: &str| {
        scalar(json, &path.split('.').map(str::to_owned).collect::<Vec<_>>()).into_owned()
    };
    for json in [r#"{"a":{"b":{"c":"x"}}}"#, r#"{"a.b":{"c":"x"}}"#, r#"{"a":{"z":1},"a.b.c":"\u0078"}"#] {
        assert_eq!(find(json, "a.b.c"), "x", "{json}");
        assert_eq!(find(json, "a.b"), "", "{json}");
    }
    assert_eq!(find(r#"{"ab":1,"a":-2.50}"#, "a"), "-2.50");
    assert_eq!(find(r#"{"a":true,"b":null,"c":[1]}"#, "a"), "true");
    assert_eq!(find(r#"{"a":true,"b":null,"c":[1]}"#, "b"), "");
    assert_eq!(find(r#"{"a":true,"b":null,"c":[1]}"#, "c"), "");
}

#[test]
fn the_longest_name_is_tried_first_and_non_scalars_are_passed_over() {
    let find = |json: &str| scalar(json, &["a".to_owned(), "b".to_owned()]).into_owned();
    assert_eq!(find(r#"{"a":{"b":1},"a.b":2}"#), "2");
    assert_eq!(find(r#"{"a.b":2,"a":{"b":1}}"#), "2");
    for other in ["null", "[3]", "{}"] {
        assert_eq!(find(&format!(r#"{{"a.b":{other},"a":{{"b":1}}}}"#)), "1");
    }
}

fn json() -> impl Strategy<Value = String> {
    let name = prop_oneof![Just("a"), Just("b"), Just("a.b"), Just(""), Just(r"\ud800"), Just(".")];
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<u128>().prop_map(|n| n.to_string()),
        "-?[1-9]\\.[0-9]{1,4}e-?[0-9]{1,3}",
        r#""(\\u[dD][89a-fA-F][0-9a-f]{2}|[a-z]|\\\\){0,3}""#,
    ];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        let field = (name.clone(), inner.clone()).prop_map(|(name, value)| format!("\"{name}\":{value}"));
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(|all| format!("[{}]", all.join(","))),
            prop::collection::vec(field, 0..4).prop_map(|all| format!("{{{}}}", all.join(","))),
        ]
    })
}

proptest! {
    /// A JSON parser reads the same values from the written text as from the line that was sent, except that U+FFFD
    /// replaces unpaired surrogates. From both, the parser reads an integer outside 64 bits as a double, and the last
    /// value of a repeated name.
    #[test]
    fn written_props_parse_to_the_values_that_were_sent(fields in prop::collection::vec((0..3_u8, json()), 0..4)) {
        let fields: String = fields.iter().map(|(name, value)| format!(r#","{name}":{value}"#)).collect();
        let line = format!(r#"{{"event":"e"{fields}}}"#);
        prop_assume!(event::parse::<()>(&line).is_ok());
        let mut sent: Value = serde_json::from_str(&replace_unpaired_surrogates(&line)).unwrap();
        sent.as_object_mut().unwrap().remove("event");
        prop_assert_eq!(serde_json::from_str::<Value>(&written(&line)).unwrap(), sent);
    }
}

#[test]
fn a_number_with_a_whole_value_is_an_integer_in_any_notation() {
    for (json, expected) in [
        ("1", Some(1)),
        ("1.0", Some(1)),
        ("1e3", Some(1000)),
        ("-0", Some(0)),
        ("9223372036854775807", Some(i64::MAX)),
        ("9223372036854775808", None),
        ("1.5", None),
        ("1e300", None),
        ("\"5\"", None),
        ("true", None),
    ] {
        assert_eq!(int(json), expected, "{json}");
    }
}

#[test]
fn a_value_of_a_declared_type_is_read_and_one_of_another_type_is_none() {
    assert_eq!((float("1.50"), float("\"1\""), float("true")), (Some(1.5), None, None));
    assert_eq!((boolean("true"), boolean("\"true\""), boolean("1")), (Some(true), None, None));
    assert_eq!(time("\"2026-11-21 04:00:00\""), UnixMillis::parse("2026-11-21 04:00:00"));
    assert_eq!((time("1000"), time("true"), time("\"soon\"")), (Some(UnixMillis(1000)), None, None));
}
