use ::http::Request;

use super::*;

const SECRET: &str = "mr_secret";

fn hash(key: &str) -> String {
    Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A file with one key, which has `more` lines.
fn declared(more: &str) -> String {
    format!("[[key]]\nid = \"web\"\ntenant = \"acme\"\nsha256 = \"{}\"\n{more}", hash(SECRET))
}

fn set(text: &str) -> KeySet {
    KeySet::parse(text, &KeySet::default()).unwrap_or_else(|error| panic!("{error}"))
}

fn admitted(mode: AuthMode, more: &str, headers: &[(&str, &str)], uri: &str) -> Result<Caller, Refusal> {
    let request =
        headers.iter().fold(Request::post(uri), |request, (name, value)| request.header(*name, *value));
    let (head, ()) = request.body(()).unwrap().into_parts();
    authenticate(mode, &ArcSwap::from_pointee(set(&declared(more))), &head, "203.0.113.7".parse().unwrap())
}

#[track_caller]
fn check(mode: AuthMode, headers: &[(&str, &str)], uri: &str, expected: Result<&str, Refusal>) {
    let found = admitted(mode, "", headers, uri).map(|caller| caller.tenant().to_owned());
    assert_eq!(found, expected.map(str::to_owned), "{headers:?} {uri}");
}

#[test]
fn a_key_is_found_wherever_a_client_may_put_it() {
    let bearer = format!("bearer {SECRET}");
    check(AuthMode::Required, &[("authorization", &bearer)], "/v1/events", Ok("acme"));
    check(AuthMode::Required, &[("x-write-key", SECRET)], "/v1/events", Ok("acme"));
    check(AuthMode::Required, &[], "/v1/events?x=1&key=mr%5Fsecret", Ok("acme"));
    check(AuthMode::Required, &[("authorization", "Basic x"), ("x-write-key", SECRET)], "/", Ok("acme"));
}

#[test]
fn whether_a_key_is_needed_is_said_by_auth_and_a_wrong_one_is_never_taken() {
    check(AuthMode::None, &[("x-write-key", "wrong")], "/", Ok("default"));
    check(AuthMode::Optional, &[], "/", Ok("default"));
    check(AuthMode::Optional, &[("x-write-key", "wrong")], "/", Err(Refusal::UnknownKey));
    check(AuthMode::Required, &[], "/", Err(Refusal::NoKey));
    check(AuthMode::Required, &[("x-write-key", "")], "/", Err(Refusal::UnknownKey));
    check(AuthMode::Required, &[("x-write-key", &hash(SECRET))], "/", Err(Refusal::UnknownKey));
}

#[test]
fn a_key_is_only_for_whom_it_is_declared() {
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
fn a_key_says_what_identifies_events() {
    let headers = [("x-write-key", SECRET)];
    let caller = admitted(AuthMode::Required, "identity = \"device_sequence\"", &headers, "/").unwrap();
    assert_eq!(caller.identity(), KeyIdentity::DeviceSequence);
    assert_eq!(Caller::default().identity(), KeyIdentity::None);
}

#[test]
fn a_rate_is_taken_in_two_parts_and_refuses_what_never_fits() {
    let headers = [("x-write-key", SECRET)];
    let more = "events_per_second = 1\nburst = 10";
    let caller = admitted(AuthMode::Required, more, &headers, "/").unwrap();
    assert_eq!((caller.charge(Charge::First), caller.charge(Charge::Rest(9))), (Ok(()), Ok(())));
    assert_eq!((caller.charge(Charge::First), caller.charge(Charge::Rest(1))), (Ok(()), Ok(())));
    // On a slow machine one more event may be allowed by now.
    let refused = (0..100).find_map(|_| caller.charge(Charge::First).err());
    let Some(Refusal::RateLimited(seconds)) = refused else { panic!("{refused:?}") };
    assert!((1..=2).contains(&seconds), "{seconds}");
    assert_eq!(caller.charge(Charge::Rest(11)), Err(Refusal::TooManyEvents(10)));
}

#[test]
fn what_a_key_has_used_of_its_rate_outlives_a_change_of_the_file() {
    let limited = declared("events_per_second = 1");
    let before = set(&limited);
    let rate = |set: &KeySet| Arc::clone(set.0.values().next().unwrap().rate.as_ref().unwrap());
    rate(&before).charge(Charge::First).unwrap();
    let after = KeySet::parse(&format!("{limited}\norigins = []"), &before).unwrap();
    assert!(Arc::ptr_eq(&rate(&before), &rate(&after)));
    let faster = KeySet::parse(&declared("events_per_second = 2"), &before).unwrap();
    assert_eq!(rate(&faster).charge(Charge::First), Ok(()));
}

#[test]
fn a_bad_file_names_the_key_or_the_line() {
    let error = |text: &str| KeySet::parse(text, &KeySet::default()).unwrap_err().to_string();
    assert!(error("[[key]]\nid = 1").contains("line 2"));
    assert!(error(&declared("colour = 1")).contains("colour"));
    assert!(error(&declared("burst = 1")).starts_with("key `web`: it has a burst"));
    assert!(error(&declared("allow_ip = [\"x\"]")).starts_with("key `web`: `x` is not a network"));
    assert!(error(&format!("{0}{0}", declared(""))).contains("twice"));
    assert!(error(&declared("").replace("acme", "Acme")).contains("its tenant must be"));
    assert!(error(&declared("").replace(&hash(SECRET), "00")).contains("64 hexadecimal digits"));
}

#[test]
fn a_made_key_is_found_by_what_declares_it() {
    let (key, toml) = generate("a \"b\"", "acme");
    let keys = set(&toml);
    assert_eq!(keys.find(key.as_bytes()).unwrap().tenant, "acme");
    assert!(!toml.contains(&key));
    assert_ne!(generate("a", "acme").0, key);
}
