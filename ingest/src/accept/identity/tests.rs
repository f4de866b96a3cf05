use std::collections::HashSet;

use ::http::HeaderValue;
use schemas::event;

use super::*;

fn id(identity: Identity<'_>, tenant: &str, position: usize, line: &str) -> Option<Uuid> {
    identity.id(tenant, position, &event::parse::<()>(line).unwrap())
}

fn of(values: &[&[u8]]) -> Result<Option<String>, Refusal> {
    let values = values.iter().map(|value| (IDEMPOTENCY_KEY, HeaderValue::from_bytes(value).unwrap()));
    let mut headers = HeaderMap::new();
    values.for_each(|(name, value)| _ = headers.append(name, value));
    Identity::of(&headers, KeyIdentity::DeviceSequence).map(|identity| match identity {
        Identity::Request(key) => Some(key.to_owned()),
        other => {
            assert_eq!(other, Identity::DeviceSequence);
            None
        }
    })
}

#[test]
fn an_idempotency_key_is_used_unchanged_or_the_request_is_refused() {
    assert_eq!(of(&[]), Ok(None));
    assert_eq!(of(&[b"r 1"]), Ok(Some("r 1".to_owned())));
    assert_eq!(of(&[&[b'k'; 128]]), Ok(Some("k".repeat(128))));
    let unusable: [&[&[u8]]; 4] = [&[b""], &[&[b'k'; 129]], &[b"\xe4"], &[b"a", b"a"]];
    for bad in unusable {
        assert_eq!(of(bad), Err(Refusal::BadIdempotencyKey(128)));
    }
}

/// Golden values. If they change, an event that is sent before an upgrade and repeated after it counts twice.
#[test]
fn derived_ids_never_change() {
    let line = r#"{"event":"a","device_id":"d","session":"s","sequence":7}"#;
    let text = |identity| id(identity, "default", 3, line).map(|id| id.to_string());
    assert_eq!(text(Identity::Request("r1")).as_deref(), Some("17fd4cf5-87f4-51e3-8cd3-b780a22e98a0"));
    assert_eq!(text(Identity::DeviceSequence).as_deref(), Some("fea5e00b-0305-51ed-8c66-009acc1b49de"));
    assert_eq!(text(Identity::None), None);
}

#[test]
fn different_events_get_different_ids() {
    let line = r#"{"event":"a"}"#;
    let by_request = [("t", "k", 1), ("t", "k", 2), ("u", "k", 1), ("t", "l", 1), ("t", "k1", 1)];
    let mut all: Vec<_> =
        by_request.map(|(tenant, key, position)| id(Identity::Request(key), tenant, position, line)).into();
    for fields in [
        r#""device_id":"d","session":"s","sequence":0"#,
        r#""device_id":"d","session":"s","sequence":1"#,
        r#""device_id":"d","session":"t","sequence":1"#,
        r#""device_id":"ds","session":"t","sequence":1"#,
        r#""device_id":"d","session":"st","sequence":1"#,
        r#""device_id":"d\u0000","session":"s","sequence":1"#,
        r#""device_id":"d","session":"\u0000s","sequence":1"#,
    ] {
        all.push(id(Identity::DeviceSequence, "t", 1, &format!(r#"{{"event":"a",{fields}}}"#)));
    }
    let ids: HashSet<_> = all.iter().map(|id| id.unwrap()).collect();
    assert_eq!(ids.len(), all.len());
}

#[test]
fn an_event_without_device_session_or_sequence_gets_no_derived_id() {
    for fields in [
        r#""session":"s","sequence":1"#,
        r#""device_id":"d","sequence":1"#,
        r#""device_id":"d","session":"s""#,
        r#""device_id":"d","session":"s","sequence":null"#,
        r#""device_id":"","session":"s","sequence":1"#,
    ] {
        assert_eq!(
            id(Identity::DeviceSequence, "t", 1, &format!(r#"{{"event":"a",{fields}}}"#)),
            None,
            "{fields}"
        );
    }
}
