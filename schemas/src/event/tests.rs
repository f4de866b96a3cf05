use proptest::prelude::*;

use super::*;

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
fn null_and_the_empty_string_are_absence() {
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
    bad(r#"{"event":"a","user_id":{}}"#, Code::BadType, "user_id");
    bad(r#"{"event":"a","event_id":"none"}"#, Code::BadType, "event_id");
    bad(r#"{"event":"a","client_time":true}"#, Code::BadType, "client_time");
    bad(r#"{"event":"a","client_time":"yesterday"}"#, Code::BadTime, "client_time");
    bad(r#"{"event":"a","client_time":99999999999999}"#, Code::BadTime, "client_time");
    bad(r#"{"event":"a","country":"D"}"#, Code::BadCountry, "country");
    bad(r#"{"event":"a","country":"D1"}"#, Code::BadCountry, "country");
    bad(r#"{"event":"a","country":49}"#, Code::BadCountry, "country");
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
fn a_known_key_twice_is_refused_and_an_unknown_one_is_not() {
    bad(r#"{"event":"a","event":"a"}"#, Code::DuplicateKey, "event");
    bad(r#"{"event":"a","\u0065vent":"a"}"#, Code::DuplicateKey, "event");
    good(r#"{"event":"a","x":1,"x":2}"#);
}

#[test]
fn what_is_not_one_json_object_is_told_apart() {
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
    assert_eq!(parsed.reserved.ip.unwrap().get(), r#""1.1.1.1""#);
    assert_eq!(parsed.reserved.tenant.unwrap().get(), "1");
    assert!(parsed.reserved.server_time.is_none() && parsed.reserved.any());
    let props: Vec<_> = parsed.props.iter().map(|(name, value)| (&**name, value.get())).collect();
    assert_eq!(props, [("plan", r#"{"id": 7}"#)]);
}

proptest! {
    #[test]
    fn no_line_panics_and_both_ends_judge_alike(line in r#"[{}\[\]":,a-z0-9\\ ]{0,80}|\{"event":"[a-z]{1,9}"(,"[a-z_]{1,11}":[-0-9a-z"{}\[\]]{0,12}){0,5}\}"#) {
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
