use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn read<'a>(lines: &[&'a str]) -> Votes<'a> {
    let lines: Vec<_> = lines
        .iter()
        .zip(1..)
        .map(|(text, number)| Line { number, bytes: text.as_bytes(), text: Ok(text) })
        .collect();
    Votes::read(&lines)
}

#[track_caller]
fn check(line: &str, event: Value) {
    let votes = read(&[line]);
    let text = votes.lines()[0].text.unwrap();
    assert_eq!(serde_json::from_str::<Value>(text).unwrap(), event);
    assert!(event::parse::<()>(text).is_ok(), "{text}");
}

#[track_caller]
fn check_fault(line: &str, code: Code, field: Option<&'static str>) {
    assert_eq!(read(&[line]).lines()[0].text, Err(Fault { code, field }), "{line}");
}

#[test]
fn a_vote_becomes_an_event_of_its_voter() {
    check(
        r#"{"poll":"p","option":"a","voter":"u1"}"#,
        json!({"event": "vote", "poll": "p", "option": "a", "user_id": "u1"}),
    );
    check(r#" {"option":"a","poll":"p"} "#, json!({"event": "vote", "poll": "p", "option": "a"}));
    check(
        r#"{"event":"vote","poll":"p","option":"\"\n","client_time":0,"why":{"a":[1]}}"#,
        json!({"event": "vote", "poll": "p", "option": "\"\n", "client_time": 0, "why": {"a": [1]}}),
    );
}

#[test]
fn a_field_name_with_json_escapes_is_recognized() {
    check(
        r#"{"p\u006fll":"p","option":"a","v\u006fter":"u"}"#,
        json!({"event": "vote", "poll": "p", "option": "a", "user_id": "u"}),
    );
}

#[test]
fn an_invalid_vote_is_reported_with_its_code_and_field() {
    check_fault(r#"{"option":"a"}"#, Code::MissingField, Some("poll"));
    check_fault(r#"{"poll":"","option":"a"}"#, Code::MissingField, Some("poll"));
    check_fault(r#"{"poll":"p","option":null}"#, Code::MissingField, Some("option"));
    check_fault(r#"{"poll":7,"option":"a"}"#, Code::BadType, Some("poll"));
    check_fault(r#"{"poll":"p","option":"a","voter":["u"]}"#, Code::BadType, Some("voter"));
    check_fault(r#"{"poll":"p","poll":"q","option":"a"}"#, Code::DuplicateKey, Some("poll"));
    check_fault(r#"{"poll":"p","option":"a","event":"click"}"#, Code::UnknownEvent, Some("event"));
    for name in ["poll", "option", "voter"] {
        let mut vote = json!({"poll": "p", "option": "a", "voter": "u"});
        vote[name] = json!("x".repeat(201));
        check_fault(&vote.to_string(), Code::TooLong, Some(name));
    }
    check_fault("[1]", Code::NotAnObject, None);
    check_fault(r#"{"poll":"#, Code::BadJson, None);
    check_fault(&" ".repeat(MAX_LINE_BYTES + 1), Code::LineTooLong, None);
}

#[test]
fn the_poll_of_a_request_is_the_one_that_all_its_votes_name() {
    let [p, q] = [r#"{"poll":"p","option":"a"}"#, r#"{"poll":"q","option":"a"}"#];
    assert_eq!(read(&[p, "x", p]).into_poll().as_deref(), Some("p"));
    assert_eq!(read(&[p, q, p]).into_poll(), None);
    assert_eq!(read(&["x"]).into_poll(), None);
}

proptest! {
    /// The invariant of the module, for lines with these fields in any order, perhaps repeated.
    #[test]
    fn a_line_without_a_fault_is_a_vote_with_a_poll_and_an_option(
        names in prop::collection::vec("poll|option|voter|event|user_id|other", 0..6),
        values in prop::collection::vec(r#"null|7|"[a-zé\\"]{0,3}"|"vote"|\{"a":\[\]\}"#, 6),
    ) {
        let fields: Vec<_> =
            names.iter().zip(&values).map(|(name, value)| format!("\"{name}\":{value}")).collect();
        let line = format!("{{{}}}", fields.join(","));
        let votes = read(&[&line]);
        if let Ok(text) = votes.lines()[0].text {
            let event: Value = serde_json::from_str(text).unwrap();
            prop_assert_eq!(&event["event"], "vote");
            let poll = votes.into_poll();
            prop_assert!(poll.is_some_and(|poll| !poll.is_empty() && event["poll"] == poll));
            prop_assert!(event["option"].as_str().is_some_and(|option| !option.is_empty()));
        }
    }
}
