use proptest::prelude::*;
use schemas::event;
use serde_json::Value;

use super::*;

/// The props of a line as its client sends it.
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
fn what_needs_no_mending_is_copied_and_objects_become_dotted_names() {
    check(
        r#""a" : 1.50, "b":"x\ny\u00e9","c":null,"d":true"#,
        r#"{"a":1.50,"b":"x\ny\u00e9","c":null,"d":true}"#,
    );
    check(r#""o":{"b":[{"c":{"d":2}}]}"#, r#"{"o.b":[{"c.d":2}]}"#);
    assert_eq!(written(r#"{"event":"e"}"#), "{}");
}

#[test]
fn of_several_values_at_one_path_the_first_counts() {
    check(r#""a":1,"a":2"#, r#"{"a":1}"#);
    check(r#""a":{"b":1},"a.b":2"#, r#"{"a.b":1}"#);
    check(r#""a.b":1,"a":{"b":2,"c":3}"#, r#"{"a.b":1,"a.c":3}"#);
    check(r#""a":{"b":1},"a":{"b":2,"c":3}"#, r#"{"a.b":1,"a.c":3}"#);
    check(r#""a\u002eb":1,"a.b":2"#, r#"{"a.b":1}"#);
    check(r#""":{"a":1},"a":2,".a":3"#, r#"{".a":1,"a":2}"#);
    check(r#""l":[{"x":1,"x":2},{"x":3}]"#, r#"{"l":[{"x":1},{"x":3}]}"#);
}

#[test]
fn null_in_an_object_is_absence() {
    check(r#""a":null,"a":1"#, r#"{"a":1}"#);
    check(r#""a":{"b":null}"#, "{}");
    check(r#""a":{"b":{}},"l":[null]"#, r#"{"l":[null]}"#);
}

#[test]
fn a_number_that_is_too_large_becomes_a_string() {
    check(
        r#""a":18446744073709551615,"b":18446744073709551616"#,
        r#"{"a":18446744073709551615,"b":"18446744073709551616"}"#,
    );
    check(
        r#""a":-9223372036854775808,"b":-9223372036854775809"#,
        r#"{"a":-9223372036854775808,"b":"-9223372036854775809"}"#,
    );
    check(r#""a":1e308,"b":1e309,"c":[-1e400]"#, r#"{"a":1e308,"b":"1e309","c":["-1e400"]}"#);
}

#[test]
fn an_array_of_several_kinds_becomes_the_text_of_its_json() {
    check(
        r#""a":[1,null,2.5],"b":["x","y"],"c":[{"d":1},{"e":2}]"#,
        r#"{"a":[1,null,2.5],"b":["x","y"],"c":[{"d":1},{"e":2}]}"#,
    );
    check(r#""a":[1,"x"],"b":[[1],[2]]"#, r#"{"a":"[1,\"x\"]","b":"[[1],[2]]"}"#);
    check(r#""a":[{"b":[true,{}]}],"c":[1,1e400]"#, r#"{"a":[{"b":"[true,{}]"}],"c":"[1,1e400]"}"#);
}

#[test]
fn half_a_surrogate_pair_becomes_a_replacement_character() {
    check(r#""o":"\ud83d\ude00""#, r#"{"o":"\ud83d\ude00"}"#);
    check(r#""o":"\ud83d","p":"\uDE00x\\ud83d""#, r#"{"o":"\ufffd","p":"\ufffdx\\ud83d"}"#);
    check(r#""o":{"\ud800":["\ud800\ud83d\ude00"]}"#, "{\"o.\u{fffd}\":[\"\\ufffd\\ud83d\\ude00\"]}");
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

/// The dotted paths of leaves, as ClickHouse makes them.
fn leaf_paths(fields: &serde_json::Map<String, Value>, path: Option<&str>, found: &mut Vec<String>) {
    for (name, value) in fields {
        let path = path.map_or_else(|| name.clone(), |path| format!("{path}.{name}"));
        match value {
            Value::Object(inner) => leaf_paths(inner, Some(&path), found),
            _ => found.push(path),
        }
    }
}

proptest! {
    /// Whatever the edge takes is written as JSON that any parser takes, once a path.
    #[test]
    fn what_is_written_is_an_object_with_each_path_once(fields in prop::collection::vec((0..3_u8, json()), 0..4)) {
        let fields: String = fields.iter().map(|(name, value)| format!(r#","{name}":{value}"#)).collect();
        let line = format!(r#"{{"event":"e"{fields}}}"#);
        prop_assume!(event::parse::<()>(&line).is_ok());
        let out = written(&line);
        let Value::Object(parsed) = serde_json::from_str(&out).unwrap() else { panic!("not an object: {out}") };
        let mut paths = Vec::new();
        leaf_paths(&parsed, None, &mut paths);
        let all = paths.len();
        paths.sort();
        paths.dedup();
        prop_assert_eq!(paths.len(), all, "{}", out);
    }
}
