use ::http::Request;
use runtime::keys::{KeySet, generate};

use super::*;

const SECRET: &str = "mr_secret";
/// The SHA-256 of the secret.
const HASH: &str = "159739cf09bc51e57bb7e7ecb5aa22d440cd25cd83f2aee69c77bb3c31124fbd";

/// A key file with one key; `more` has further lines of this key.
fn declared(more: &str) -> String {
    format!("[[key]]\nid = \"web\"\ntenant = \"acme\"\nsha256 = \"{HASH}\"\n{more}")
}

fn parse(text: &str, before: &KeySet<Key>) -> Result<KeySet<Key>, String> {
    KeySet::parse::<DeclaredKey>(text, before).map_err(|error| error.to_string())
}

fn set(text: &str) -> KeySet<Key> {
    parse(text, &KeySet::default()).unwrap()
}

fn admitted(mode: AuthMode, more: &str, headers: &[(&str, &str)], uri: &str) -> Result<Caller, Refusal> {
    let request =
        headers.iter().fold(Request::post(uri), |request, (name, value)| request.header(*name, *value));
    let (head, ()) = request.body(()).unwrap().into_parts();
    let keys = set(&declared(more));
    let find = |token: &[u8]| keys.find(token).cloned();
    authenticate(mode, find, &head, "203.0.113.7".parse().unwrap())
}

#[track_caller]
fn check(mode: AuthMode, headers: &[(&str, &str)], uri: &str, expected: Result<&str, Refusal>) {
    let found = admitted(mode, "", headers, uri).map(|caller| caller.tenant().to_owned());
    assert_eq!(found, expected.map(str::to_owned), "{headers:?} {uri}");
}

#[test]
fn a_key_is_found_in_each_header_and_in_the_query() {
    let bearer = format!("bearer {SECRET}");
    check(AuthMode::Required, &[("authorization", &bearer)], "/v1/events", Ok("acme"));
    check(AuthMode::Required, &[("x-write-key", SECRET)], "/v1/events", Ok("acme"));
    check(AuthMode::Required, &[], "/v1/events?x=1&key=mr%5Fsecret", Ok("acme"));
    check(AuthMode::Required, &[("authorization", "Basic x"), ("x-write-key", SECRET)], "/", Ok("acme"));
}

#[test]
fn auth_decides_whether_a_key_is_needed_and_a_wrong_key_is_never_accepted() {
    check(AuthMode::None, &[("x-write-key", "wrong")], "/", Ok("default"));
    check(AuthMode::Optional, &[], "/", Ok("default"));
    check(AuthMode::Optional, &[("x-write-key", "wrong")], "/", Err(Refusal::UnknownKey));
    check(AuthMode::Required, &[], "/", Err(Refusal::NoKey));
    check(AuthMode::Required, &[("x-write-key", "")], "/", Err(Refusal::UnknownKey));
    check(AuthMode::Required, &[("x-write-key", HASH)], "/", Err(Refusal::UnknownKey));
}

#[test]
fn a_key_is_valid_only_while_enabled_and_for_its_origins_and_addresses() {
    let found = |more: &str, headers: &[(&str, &str)]| {
        let headers = [headers, &[("x-write-key", SECRET)]].concat();
        admitted(AuthMode::Required, more, &headers, "/").map(|caller| caller.identity()).err()
    };
    assert_eq!(found("enabled = false", &[]), Some(Refusal::KeyDisabled));
    let page = "origins = [\"https://a.example\"]";
    assert_eq!(found(page, &[("origin", "https://a.example")]), None);
    assert_eq!(found(page, &[("origin", "https://b.example")]), Some(Refusal::OriginDenied));
    assert_eq!(found(page, &[]), Some(Refusal::OriginDenied));
    assert_eq!(found("allow_ip = [\"203.0.113.0/24\"]", &[]), None);
    assert_eq!(found("allow_ip = [\"10.0.0.0/8\", \"::1\"]", &[]), Some(Refusal::IpDenied));
}

#[test]
fn a_key_declares_what_identifies_its_events() {
    let headers = [("x-write-key", SECRET)];
    let caller = admitted(AuthMode::Required, "identity = \"device_sequence\"", &headers, "/").unwrap();
    assert_eq!(caller.identity(), KeyIdentity::DeviceSequence);
    assert_eq!(Caller::default().identity(), KeyIdentity::None);
}

#[test]
fn a_rate_is_charged_in_two_steps_and_refuses_more_events_than_the_burst() {
    let headers = [("x-write-key", SECRET)];
    let more = "events_per_second = 1\nburst = 10";
    let caller = admitted(AuthMode::Required, more, &headers, "/").unwrap();
    assert_eq!((caller.charge(Charge::First), caller.charge(Charge::Rest(9))), (Ok(()), Ok(())));
    assert_eq!((caller.charge(Charge::First), caller.charge(Charge::Rest(1))), (Ok(()), Ok(())));
    // The burst is used up, but each second allows one more event. On a slow machine, a few charges may still succeed
    // before a charge is refused.
    let refused = (0..100).find_map(|_| caller.charge(Charge::First).err());
    let Some(Refusal::RateLimited(seconds)) = refused else { panic!("{refused:?}") };
    assert!((1..=2).contains(&seconds), "{seconds}");
    assert_eq!(caller.charge(Charge::Rest(11)), Err(Refusal::TooManyEvents(10)));
}

#[test]
fn the_used_part_of_a_rate_survives_a_reload_of_the_key_file() {
    let limited = declared("events_per_second = 1");
    let before = set(&limited);
    let rate = |set: &KeySet<Key>| Arc::clone(set.find(SECRET.as_bytes()).unwrap().rate.as_ref().unwrap());
    rate::charge(&rate(&before), Charge::First).unwrap();
    let after = parse(&format!("{limited}\norigins = []"), &before).unwrap();
    assert!(Arc::ptr_eq(&rate(&before), &rate(&after)));
    let faster = parse(&declared("events_per_second = 2"), &before).unwrap();
    assert_eq!(rate::charge(&rate(&faster), Charge::First), Ok(()));
}

#[test]
fn an_invalid_key_entry_is_named() {
    let error = |text: &str| parse(text, &KeySet::default()).unwrap_err();
    assert!(error(&declared("colour = 1")).contains("colour"));
    assert!(error(&declared("burst = 1")).contains("key `web`: it has a burst"));
    assert!(error(&declared("allow_ip = [\"x\"]")).contains("key `web`: `x` is not a network"));
    assert!(error(&declared("").replace("acme", "Acme")).contains("its tenant must be"));
}

#[test]
fn a_generated_key_matches_its_generated_entry() {
    let (token, toml) = generate("a \"b\"", "acme");
    assert_eq!(set(&toml).find(token.as_bytes()).unwrap().tenant, "acme");
}
