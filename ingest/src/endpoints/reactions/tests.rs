use schemas::event;

use super::*;

fn times() -> Times {
    UnixMillis(-1)..=UnixMillis(1_700_000_000_000)
}

fn by_path(path: &str) -> Result<String, Refusal> {
    super::by_path(path, times())
}

fn by_query(query: &str) -> Result<String, Refusal> {
    super::by_query(query, times())
}

#[track_caller]
fn good(line: Result<String, Refusal>, event: &str, user: &str, time: i64) {
    let line = line.unwrap();
    let parsed = event::parse::<()>(&line).unwrap().event;
    assert_eq!((&*parsed.event, &*parsed.user_id), (event, user), "{line}");
    assert_eq!(parsed.client_time, Some(UnixMillis(time)));
}

#[track_caller]
fn bad(line: Result<String, Refusal>, reason: &str) {
    match line {
        Err(Refusal::BadQuery(message)) => assert!(message.contains(reason), "{message}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_path_and_the_query_form_give_the_same_event() {
    good(by_path("1606867140000/u1/click"), "click", "u1", 1_606_867_140_000);
    good(by_query("timestamp=1606867140000&user=u1&click"), "click", "u1", 1_606_867_140_000);
    good(by_query("impression=&x=y&user=u1&timestamp=-1"), "impression", "u1", -1);
}

#[test]
fn a_user_may_contain_any_text_once_percent_decoded() {
    good(by_path("0/a%2Fb%22%0A+%C3%A4/click"), "click", "a/b\"\n+ä", 0);
    good(by_query("timestamp=0&user=a%26+%2B%22&click"), "click", "a& +\"", 0);
    good(by_path(&format!("0/{}/click", "%C3%A4".repeat(100))), "click", &"ä".repeat(100), 0);
    bad(by_path(&format!("0/{}/click", "u".repeat(201))), "`user`");
    bad(by_path("0/%FF/click"), "UTF-8");
    bad(by_path("0//click"), "`user`");
}

#[test]
fn a_path_of_another_shape_or_reaction_is_not_found() {
    for path in ["", "0", "0/u1", "0/u1/like", "0/u1/Click", "0/u1/click/", "0/u1/click/x", "x/u1/like"] {
        assert_eq!(by_path(path), Err(Refusal::NotFound), "{path}");
    }
}

#[test]
fn a_timestamp_that_is_malformed_or_not_accepted_is_refused_with_the_range() {
    for time in ["x", "", "1.5", "2020-12-01", "99999999999999999", "-2", "1700000000001"] {
        let refused = Err(Refusal::BadTime(UnixMillis(-1), UnixMillis(1_700_000_000_000)));
        assert_eq!(by_path(&format!("{time}/u1/click")), refused, "{time}");
        assert_eq!(by_query(&format!("timestamp={time}&user=u1&click")), refused, "{time}");
    }
}

#[test]
fn missing_repeated_and_contradicting_parameters_are_named() {
    bad(by_query(""), "`click`");
    bad(by_query("user=u1&click"), "`timestamp` is missing");
    bad(by_query("timestamp=0&click"), "`user` is missing");
    bad(by_query("timestamp=0&user=u1"), "`click` and `impression`");
    bad(by_query("timestamp=0&user=u1&click&impression"), "`impression` is repeated");
    bad(by_query("timestamp=0&user=u1&user=u2&click"), "`user` is repeated");
    bad(by_query("timestamp=0&user=u1&click=1"), "must not have a value");
}
