use std::borrow::Cow;

use proptest::prelude::*;

use super::*;
use crate::time::UnixMillis;

#[track_caller]
fn good(line: &str) -> Event<'_> {
    parse::<()>(line).unwrap_or_else(|fault| panic!("{line}: {fault:?}")).event
}

#[track_caller]
fn bad(line: &str, code: Code, field: impl Into<Option<&'static str>>) {
    let fault = parse::<()>(line).map(|parsed| parsed.event).expect_err(line);
    assert_eq!(fault, Fault { code, field: field.into() }, "{line}");
}

#[test]
fn every_known_field_is_read() {
    let event = good(
        r#"{"client_time":"2020-12-01 23:59:00","device_id":"d","device_os":"iOS 13.5.1","session":"s","sequence":1,"event":"app_start","param_int":-5,"param_str":"t\n","country":"de","event_id":"0192f0c1-0000-7000-8000-000000000001","user_id":"u"}"#,
    );
    assert_eq!((&*event.event, &*event.device_id, &*event.device_os), ("app_start", "d", "iOS 13.5.1"));
    assert_eq!((&*event.session, event.sequence, event.param_int, &*event.param_str), ("s", 1, -5, "t\n"));
    assert_eq!((event.country.as_str(), event.user()), ("DE", Some("u")));
    assert_eq!(event.client_time, Some(UnixMillis(1_606_867_140_000)));
    assert!(event.event_id.is_some());
}

#[test]
fn null_and_the_empty_string_count_as_absent() {
    let event = good(
        r#"{"event":"a","device_id":null,"user_id":"","sequence":null,"client_time":"","event_id":null,"country":""}"#,
    );
    assert_eq!(event, good(r#"{"event":"a"}"#));
    assert_eq!(event.user(), None);
    bad(r#"{"event":null}"#, Code::MissingField, "event");
    bad(r#"{"event":""}"#, Code::MissingField, "event");
    bad("{}", Code::MissingField, "event");
}

#[test]
fn a_known_field_of_another_type_is_named() {
    bad(r#"{"event":1}"#, Code::BadType, "event");
    bad(r#"{"event":["a",{"b":1}]}"#, Code::BadType, "event");
    bad(r#"{"event":"a","sequence":-1}"#, Code::BadType, "sequence");
    bad(r#"{"event":"a","sequence":1.0}"#, Code::BadType, "sequence");
    bad(r#"{"event":"a","sequence":18446744073709551616}"#, Code::BadType, "sequence");
    bad(r#"{"event":"a","param_int":9223372036854775808}"#, Code::BadType, "param_int");
    bad(r#"{"event":"a","param_int":1e999}"#, Code::BadType, "param_int");
    bad(r#"{"event":"a","param_int":-0}"#, Code::BadType, "param_int");
    bad(r#"{"event":"a","user_id":{}}"#, Code::BadType, "user_id");
    bad(r#"{"event":"a","event_id":"none"}"#, Code::BadType, "event_id");
}

#[track_caller]
fn left_out(label: &str, code: Code, field: &'static str) {
    let line = format!(r#"{{"event":"a",{label},"x":1}}"#);
    let parsed = parse::<()>(&line).unwrap();
    assert_eq!(parsed.left_out.faults().collect::<Vec<_>>(), [Fault::field(code, field)], "{line}");
    assert_eq!(parsed.event, good(r#"{"event":"a"}"#), "{line}");
}

#[test]
fn a_label_that_cannot_be_read_is_left_out_and_its_event_is_kept() {
    left_out(r#""client_time":true"#, Code::BadType, "client_time");
    left_out(r#""client_time":"yesterday""#, Code::BadTime, "client_time");
    left_out(r#""client_time":99999999999999"#, Code::BadTime, "client_time");
    left_out(r#""client_time":1e30"#, Code::BadTime, "client_time");
    for country in [r#""D""#, r#""T1""#, r#""A1""#, r#""--""#, r#""GB ""#, "49", "[]"] {
        left_out(&format!(r#""country":{country}"#), Code::BadCountry, "country");
    }
    left_out(r#""device_os":13.5"#, Code::BadType, "device_os");
    left_out(r#""device_os":{"name":"iOS"}"#, Code::BadType, "device_os");
    let all = parse::<()>(r#"{"country":1,"device_os":2,"event":"a","client_time":""}"#).unwrap();
    assert_eq!(all.left_out.faults().count(), 2, "an empty label counts as absent");
    // The whole line is still rejected if `device_os` is too long, or if a label is repeated.
    bad(&format!(r#"{{"event":"a","device_os":"{}"}}"#, "a".repeat(201)), Code::TooLong, "device_os");
    bad(r#"{"event":"a","country":"D1","country":"DE"}"#, Code::DuplicateKey, "country");
    // A label that is left out stays in the line, so it must not have numbers or nesting that a reader cannot parse.
    bad(r#"{"event":"a","client_time":-1e999}"#, Code::BadJson, None);
    bad(r#"{"event":"a","country":{"x":[1e400]}}"#, Code::BadJson, None);
    bad(&format!(r#"{{"event":"a","device_os":{}{}}}"#, "[".repeat(16), "]".repeat(16)), Code::TooDeep, None);
}

#[test]
fn fractions_of_a_millisecond_are_rounded_down() {
    for time in ["1700000000000.5", "1700000000000.999", "1.7e12", "17000000000005E-1"] {
        let line = format!(r#"{{"event":"a","client_time":{time}}}"#);
        assert_eq!(good(&line).client_time, Some(UnixMillis(1_700_000_000_000)), "{time}");
    }
}

#[test]
fn limits_are_in_bytes_and_inclusive() {
    let line = |field: &str, n: usize| format!(r#"{{"event":"a","{field}":"{}"}}"#, "ä".repeat(n / 2));
    for (field, limit) in
        [("user_id", 200), ("device_id", 200), ("session", 200), ("device_os", 200), ("param_str", 8192)]
    {
        good(&line(field, limit));
        assert_eq!(parse::<()>(&line(field, limit + 2)).unwrap_err().code, Code::TooLong, "{field}");
    }
    bad(&format!(r#"{{"event":"{}"}}"#, "a".repeat(201)), Code::TooLong, "event");
    bad(&format!(r#"{{"event":"a","x":"{}"}}"#, "a".repeat(MAX_LINE_BYTES)), Code::LineTooLong, None);
}

#[test]
fn nesting_is_counted_with_the_events_own_object() {
    let nested = |n: usize| format!(r#"{{"event":"a","x":{}{}}}"#, "[".repeat(n), "]".repeat(n));
    good(&nested(MAX_DEPTH - 1));
    bad(&nested(MAX_DEPTH), Code::TooDeep, None);
    bad(&nested(20_000), Code::TooDeep, None);
    good(r#"{"event":"a","x":["[[[[[[[[[[[[[[[[[[[[ \" [[[[[[[[[[[[",{}]}"#);
}

#[test]
fn a_number_beyond_a_double_is_refused_wherever_it_is() {
    let line = |number: &str| {
        [r#""x":N"#, r#""x":[1,N]"#, r#""x":{"y":"1e400","z":[{"n":N}]}"#]
            .map(|fields| format!(r#"{{"event":"a",{}}}"#, fields.replace('N', number)))
    };
    let (long, longer) = ("9".repeat(308), "9".repeat(309));
    for number in ["1.7976931348623157e308", "-1E+308", "5e-324", "1e-999", "0e999", "-0.0", &long] {
        line(number).iter().for_each(|line| _ = good(line));
    }
    for number in ["1.7976931348623159e308", "1e309", "-1E+400", "0.1e999", &longer] {
        line(number).iter().for_each(|line| bad(line, Code::BadJson, None));
    }
}

#[test]
fn a_repeated_known_key_is_rejected_and_a_repeated_unknown_key_is_not() {
    bad(r#"{"event":"a","event":"a"}"#, Code::DuplicateKey, "event");
    bad(r#"{"event":"a","\u0065vent":"a"}"#, Code::DuplicateKey, "event");
    good(r#"{"event":"a","x":1,"x":2}"#);
}

#[test]
fn a_line_that_is_not_one_json_object_gets_the_code_of_its_fault() {
    for line in ["1", "\"a\"", "[]", "null", " [1] "] {
        bad(line, Code::NotAnObject, None);
    }
    for line in [
        "",
        "x",
        "{",
        r#"{"event":"a"}}"#,
        r#"{"event":"a",}"#,
        r#"{"event":"a"} {}"#,
        r#"{"event":"\ud800"}"#,
        "{\"event\":\"a\nb\"}",
    ] {
        bad(line, Code::BadJson, None);
    }
}

#[test]
fn reserved_and_unknown_fields_are_kept_apart() {
    let parsed =
        parse::<Vec<_>>(r#" {"ip":"1.1.1.1","event":"a","plan":{"id": 7},"\u0074enant":1,"ip":2} "#).unwrap();
    assert_eq!(parsed.reserved.ip.unwrap(), r#""1.1.1.1""#);
    assert_eq!(parsed.reserved.tenant.unwrap(), "1");
    assert!(parsed.reserved.server_time.is_none() && parsed.reserved.any());
    let props: Vec<_> = parsed.props.iter().map(|(name, value)| (&**name, *value)).collect();
    assert_eq!(props, [("plan", r#"{"id": 7}"#)]);
}

proptest! {
    #[test]
    fn no_line_panics_and_the_edge_and_the_aggregator_agree(line in r#"[{}\[\]":,a-z0-9\\ ]{0,80}|\{"event":"[a-z]{1,9}"(,"[a-z_]{1,11}":[-0-9a-z"{}\[\]]{0,12}){0,5}\}"#) {
        let edge = parse::<()>(&line).map(|parsed| parsed.event);
        let aggregator = parse::<Vec<_>>(&line).map(|parsed| parsed.event);
        prop_assert_eq!(edge, aggregator);
    }

    #[test]
    fn whatever_plain_serde_reads_as_an_object_with_an_event_is_never_bad_json(
        map in proptest::collection::hash_map("[a-z]{1,4}", any::<(i64, String, bool)>(), 0..6)
    ) {
        let mut object = serde_json::json!(map);
        object["event"] = "a".into();
        prop_assert!(parse::<()>(&object.to_string()).is_ok());
    }
}

/// Texts that look like JSON: valid, or slightly wrong.
pub(crate) fn nearly_json() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        Just(r#""event""#),
        Just(r#""sequence""#),
        Just(r#""param_int""#),
        Just(r#""country""#),
        Just(r#""tenant""#),
        Just(r#""x""#),
        Just(r#""\u0065vent""#),
        Just("x"),
    ];
    let leaf = prop_oneof![
        "[-+]?[0-9]{0,20}([.][0-9]{0,2})?([eE][-+]?[0-9]{0,2})?",
        "\"([a-z ä{}\\[\\],:\\x00-\\x1f\\x7f]|\\\\[nu\"0]){0,20}\"",
        prop_oneof![Just("null"), Just("true"), Just("false"), Just("nul"), Just("{}"), Just("[]"), Just("")]
            .prop_map(str::to_owned),
    ];
    let space = || prop_oneof![8 => Just(""), 1 => Just(" "), 1 => Just("\r\n\t"), 1 => Just("\x0c")];
    let value = leaf.prop_recursive(18, 40, 3, move |inner| {
        let elements = proptest::collection::vec((space(), inner), 0..3);
        elements.prop_flat_map(|elements| {
            let list: Vec<_> =
                elements.iter().map(|(space, value)| format!("{space}{value}{space}")).collect();
            let fields: Vec<_> = list.iter().map(|value| format!("\"a\":{value}")).collect();
            prop_oneof![Just(format!("[{}]", list.join(","))), Just(format!("{{{}}}", fields.join(",")))]
        })
    });
    let field = (name, space(), value)
        .prop_map(|(name, space, value)| format!("{space}{name}{space}:{value}{space}"));
    let fields = proptest::collection::vec(field, 0..4);
    let first = prop_oneof![4 => Just(r#"{"event":"e","#), 1 => Just("{"), 1 => Just(" {"), 1 => Just("")];
    let last =
        prop_oneof![6 => Just("}"), 1 => Just("} \n"), 1 => Just(",}"), 1 => Just("}}"), 1 => Just("")];
    (first, fields, last).prop_map(|(first, fields, last)| format!("{first}{}{last}", fields.join(",")))
}

proptest! {
    /// The result must not depend on whether the fast path or the careful path reads a line.
    #[test]
    fn the_careful_path_gives_the_same_result_as_the_fast_path(line in nearly_json()) {
        type Props<'a> = Vec<(Cow<'a, str>, &'a str)>;
        if let Some(short) = plain::parse::<Props<'_>>(&line) {
            let long = read::parse::<Props<'_>>(&line).map_err(|fault| TestCaseError::fail(format!("{fault:?}")))?;
            prop_assert_eq!(short.event, long.event);
            prop_assert_eq!(short.props, long.props);
            prop_assert_eq!(format!("{:?}", short.reserved), format!("{:?}", long.reserved));
        }
    }
}

#[test]
fn the_fast_path_reads_only_json() {
    for value in
        ["01", "1.", "-", "1e", "tru", "\"\u{1}\"", "\"\n\"", "\"", "[1,]", "{\"a\"}", "{a:1}", "1}}", "1,"]
    {
        let line = format!(r#"{{"event":"e","x":{value}}}"#);
        assert!(plain::parse::<()>(&line).is_none(), "{line}");
    }
    for value in ["007", "-0", "1.0", "1e2", "1234567890123456789", "true", "[]"] {
        let line = format!(r#"{{"event":"e","param_int":{value}}}"#);
        assert!(plain::parse::<()>(&line).is_none(), "{line}");
    }
}

#[test]
fn bytes_that_need_an_escape_are_found_at_every_position() {
    for before in (0..200).map(|length| "x".repeat(length)) {
        let line = |byte: char| format!(r#"{{"event":"e","x":"{before}{byte}","sequence":7}}"#);
        for bad in ['"', '\\', '\0', '\n', '\x1f'] {
            assert!(plain::parse::<()>(&line(bad)).is_none(), "{bad:?} after {}", before.len());
        }
        for good in [' ', '!', '\x7f', 'ä', '\u{ffff}'] {
            let parsed = plain::parse::<()>(&line(good)).map(|parsed| parsed.event.sequence);
            assert_eq!(parsed, Some(7), "{good:?} after {}", before.len());
        }
    }
}

#[test]
fn usual_lines_are_read_by_the_fast_path() {
    let long = "0123456789abcdef".repeat(4);
    for value in ["\"ä\"", "-7", "0", "null", "[1.5,-2e9,{\"b\":[]}]", "{ }", &format!("\"{long}\"")] {
        let line = format!(r#" {{"event":"e", "sequence":12 ,"param_int":-5,"x":{value}}} "#);
        assert!(plain::parse::<()>(&line).is_some(), "{line}");
    }
    let deepest = |depth: usize| format!(r#"{{"event":"e","x":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    assert!(plain::parse::<()>(&deepest(MAX_DEPTH - 1)).is_some());
    assert!(plain::parse::<()>(&deepest(MAX_DEPTH)).is_none());
    assert!(plain::parse::<()>(&deepest(60_000)).is_none());
}
