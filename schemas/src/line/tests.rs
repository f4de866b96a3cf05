use proptest::prelude::*;
use serde_json::{Map, Value};

use super::*;
use crate::event::Country;
use crate::event::tests::nearly_json;

fn prefix() -> Prefix {
    Prefix::new("acme", "203.0.113.7".parse().unwrap(), UnixMillis(1_763_697_600_123))
}

/// Returns the enriched line without a derived `event_id` or `country`. Before that, it checks the enriched line with
/// and without these derived fields.
#[track_caller]
fn enrich(line: &str) -> String {
    let parse = || event::parse::<()>(line).unwrap_or_else(|fault| panic!("{line}: {fault:?}"));
    for (derives_id, derives_country) in [(true, false), (false, true), (true, true)] {
        let mut parsed = parse();
        if derives_id && parsed.event.event_id.is_none() {
            parsed.set_derived_id(ID.parse().unwrap());
        }
        if derives_country && parsed.event.country == Country::default() {
            parsed.set_derived_country(Country::parse("DE").unwrap());
        }
        check_written(line, &parsed);
    }
    check_written(line, &parse())
}

const ID: &str = "0192f0c1-0000-7000-8000-000000000001";

/// Returns the enriched line. Checks with plain serde that the line has the client's fields, and has each field that
/// the edge adds exactly once with the edge's value. Also checks that [`read()`] reads the same event from the line.
#[track_caller]
fn check_written(line: &str, parsed: &Parsed<'_, ()>) -> String {
    let mut out = Vec::new();
    write(&prefix(), line, parsed, &mut out);
    let written = String::from_utf8(out).unwrap();

    let mut expected: Map<String, Value> = serde_json::from_str(line).unwrap();
    expected.insert("tenant".into(), "acme".into());
    expected.insert("ip".into(), "203.0.113.7".into());
    expected.insert("server_time".into(), "2025-11-21 04:00:00.123".into());
    if parsed.derived_id {
        expected.insert("event_id".into(), ID.into());
    }
    if parsed.derived_country {
        expected.insert("country".into(), parsed.event.country.as_str().into());
    }
    assert_eq!(serde_json::from_str::<Map<String, Value>>(&written).unwrap(), expected, "{written}");
    let derived = [parsed.derived_id.then_some("event_id"), parsed.derived_country.then_some("country")];
    for added in Reserved::NAMES.into_iter().chain(derived.into_iter().flatten()) {
        let fields = object::fields(&written).unwrap();
        assert_eq!(fields.iter().filter(|(name, _)| *name == added).count(), 1, "{added} in {written}");
    }
    assert!(!written.contains(['\n', '\r']), "{written:?}");

    let read = read::<()>(&written).unwrap();
    assert_eq!(
        (read.tenant, read.ip.to_string().as_str(), read.server_time.0),
        ("acme", "203.0.113.7", 1_763_697_600_123)
    );
    assert_eq!(read.event, parsed.event);
    written
}

#[test]
fn the_clients_bytes_follow_the_added_fields_untouched() {
    assert_eq!(
        enrich(r#" { "event" : "a", "x":{"y": 1.0e3} } "#),
        r#"{"tenant":"acme","ip":"203.0.113.7","server_time":"2025-11-21 04:00:00.123", "event" : "a", "x":{"y": 1.0e3} }"#
    );
}

#[test]
fn reserved_fields_of_the_client_are_replaced_however_they_are_written() {
    for line in [
        r#"{"event":"a","ip":"6.6.6.6"}"#,
        r#"{"\u0069p":"6.6.6.6","event":"a","tenant":{"x":[1,"\n"]},"server_time":null}"#,
        r#"{"ip":1,"ip":2,"event":"a","ip":3,"x":"\u00e4\ud83d\ude00"}"#,
    ] {
        enrich(line);
    }
}

#[test]
fn a_derived_id_precedes_the_clients_bytes_and_replaces_one_without_a_value() {
    let written = |line: &str| {
        let mut parsed = event::parse::<()>(line).unwrap();
        parsed.set_derived_id(ID.parse().unwrap());
        check_written(line, &parsed)
    };
    let head = r#"{"tenant":"acme","ip":"203.0.113.7","server_time":"2025-11-21 04:00:00.123","event_id":"0192f0c1-0000-7000-8000-000000000001","#;
    assert_eq!(written(r#"{ "event":"a"}"#), format!(r#"{head} "event":"a"}}"#));
    assert_eq!(written(r#"{"event_id":null,"event":"a"}"#), format!(r#"{head}"event":"a"}}"#));
    assert_eq!(written(r#"{"event":"a","event\u005fid":"","ip":1}"#), format!(r#"{head}"event":"a"}}"#));
}

#[test]
fn a_derived_country_precedes_the_clients_bytes_and_replaces_one_without_a_value() {
    let written = |line: &str| {
        let mut parsed = event::parse::<()>(line).unwrap();
        parsed.set_derived_country(Country::parse("DE").unwrap());
        check_written(line, &parsed)
    };
    let head =
        r#"{"tenant":"acme","ip":"203.0.113.7","server_time":"2025-11-21 04:00:00.123","country":"DE","#;
    assert_eq!(written(r#"{ "event":"a"}"#), format!(r#"{head} "event":"a"}}"#));
    assert_eq!(written(r#"{"country":null,"event":"a"}"#), format!(r#"{head}"event":"a"}}"#));
    assert_eq!(written(r#"{"event":"a","c\u006funtry":"","ip":1}"#), format!(r#"{head}"event":"a"}}"#));
}

#[test]
fn a_pretty_printed_object_becomes_one_line() {
    enrich("{\r\n  \"event\": \"a\",\r\n  \"x\": [\n1\n]\n}\r");
    enrich("{\n\"event\": \"a\",\n\"ip\":\n1, \"x\": [\n1\n]}");
}

#[test]
fn a_line_at_the_limit_is_still_read_after_it_grew() {
    let line = |n: usize| format!(r#"{{"event":"a","x":"{}"}}"#, "y".repeat(n));
    enrich(&line(event::MAX_LINE_BYTES - line(0).len()));
}

#[test]
fn a_read_error_names_the_field_that_is_absent_or_malformed() {
    let error = read::<()>(
        r#"{"tenant":"acme","ip":"1.2.3.4.5","server_time":"2025-11-21 04:00:00.123","event":"a"}"#,
    );
    assert_eq!(error.unwrap_err(), ReadError::Added("ip"));
    assert_eq!(read::<()>(r#"{"event":"a"}"#).unwrap_err(), ReadError::Added("tenant"));
    let error = read::<()>(r#"{"tenant":"acme"}"#).unwrap_err();
    assert_eq!(error.to_string(), "read a line: missing_field in `event`");
}

proptest! {
    #[test]
    fn every_line_that_the_edge_accepts_is_enriched_and_read_back(
        fields in proptest::collection::btree_map("[a-z]{1,3}|ip|tenant|server_time|\\PC{0,5}", any::<(Option<i32>, String, bool)>(), 0..8),
        ends in "[ \t\r\n]{0,3}",
        no_id: bool,
        country in proptest::option::of(prop_oneof![Just(Value::Null), Just("".into()), Just("fr".into())]),
    ) {
        let mut object = serde_json::json!(fields);
        object["event"] = "a".into();
        if no_id {
            object["event_id"] = Value::Null;
        }
        if let Some(country) = country {
            object["country"] = country;
        }
        enrich(&format!("{ends}{object:#}{ends}"));
    }
}

proptest! {
    /// The lines include repeated keys, and numbers that an `f64` cannot represent exactly.
    #[test]
    fn every_field_of_the_client_keeps_its_bytes_and_its_position(line in nearly_json(), derived: bool) {
        let Ok(mut parsed) = event::parse::<()>(&line) else { return Ok(()) };
        let mut replaced = Reserved::NAMES.to_vec();
        if derived {
            parsed.set_derived_id(ID.parse().unwrap());
            replaced.push("event_id");
        }
        let mut out = Vec::new();
        write(&prefix(), &line, &parsed, &mut out);
        let written = String::from_utf8(out).unwrap();
        let of_client = |json: &str| -> Vec<_> {
            let fields = object::fields(json).unwrap().into_iter();
            let fields = fields.filter(|(name, _)| !replaced.contains(&&**name));
            fields.map(|(name, value)| (name.into_owned(), value.get().replace(['\n', '\r'], " "))).collect()
        };
        prop_assert_eq!(of_client(&written), of_client(&line));
        prop_assert!(read::<()>(&written).is_ok() && !written.contains('\n'));
    }
}

#[test]
fn the_tenant_of_a_written_line_is_read_even_when_the_rest_is_broken() {
    let longest = "t".repeat(MAX_TENANT_BYTES);
    for tenant in ["default", &longest] {
        let prefix = Prefix::new(tenant, "203.0.113.7".parse().unwrap(), UnixMillis(0));
        assert_eq!(tenant_of(&[&prefix.0, b"\xff".as_slice()].concat()), Some(tenant));
    }
    let longer = format!(r#"{{"tenant":"{longest}t","#);
    for line in
        ["", r#"{"tenant":""#, r#"{"tenant":"","#, r#"{"tenant":"A","#, r#"{"x":1,"tenant":"a""#, &longer]
    {
        assert_eq!(tenant_of(line.as_bytes()), None, "{line}");
    }
}

#[test]
fn lines_of_two_requests_are_each_read_with_their_own_added_fields() {
    let line = |tenant: &str, ip: &str, time: &str| {
        format!(r#"{{"tenant":"{tenant}","ip":"{ip}","server_time":"{time}","event":"e"}}"#)
    };
    let (one, other) = ("2026-11-21 04:00:00.123", "2026-11-21 04:00:00.124");
    let lines = [
        line("a", "203.0.113.7", one),
        line("a", "203.0.113.7", one),
        line("b", "203.0.113.7", one),
        line("b", "203.0.113.8", one),
        line("b", "203.0.113.8", other),
        line("b", "nowhere", other),
        line("a", "203.0.113.7", one),
    ];
    let mut reader = Reader::default();
    for text in &lines {
        let (together, alone) = (reader.read::<()>(text), read::<()>(text));
        let added = |read: Result<Enriched<'_, ()>, ReadError>| {
            read.map(|read| (read.tenant.to_owned(), read.ip, read.server_time))
        };
        assert_eq!(added(together), added(alone), "{text}");
    }
}
