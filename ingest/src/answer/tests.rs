use http_body_util::BodyExt as _;
use schemas::event::Code;
use uuid::Uuid;

use super::*;
use crate::outcome::Bound;

async fn rendered(said: Said) -> (StatusCode, HeaderMap, String) {
    let id = RequestId(HeaderValue::from_static("r1"));
    let response = render(&Answer::new(said), &id, false);
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (head.status, head.headers, String::from_utf8(body.to_vec()).unwrap())
}

fn report(errors: usize, rejected: u32) -> Report {
    let error = LineError { line: 17, code: Code::BadType.as_str(), field: Some("sequence") };
    Report { accepted: 29, rejected, errors: vec![error; errors], ..Report::default() }
}

#[tokio::test]
async fn a_report_lists_what_was_rejected() {
    let (status, headers, body) = rendered(Said::Stored(Ack::Durable, report(1, 1))).await;
    assert_eq!(
        body,
        r#"{"request_id":"r1","ack":"durable","received":30,"accepted":29,"rejected":1,"errors":[{"line":17,"code":"bad_type","field":"sequence"}]}"#
    );
    assert_eq!(
        (status, &headers[REQUEST_ID], &headers[CACHE_CONTROL]),
        (StatusCode::OK, &"r1".parse().unwrap(), &"no-store".parse().unwrap())
    );
    assert!(!headers.contains_key(CONNECTION));
}

#[tokio::test]
async fn a_report_that_lists_not_all_says_so() {
    let (_, _, body) = rendered(Said::Stored(Ack::Durable, report(2, 3))).await;
    assert!(body.ends_with(r#""field":"sequence"}],"errors_truncated":true}"#), "{body}");
}

#[tokio::test]
async fn a_refusal_names_its_limit_and_the_lines() {
    let (status, _, body) = rendered(Said::Refused(Refusal::BodyTooLarge(8), None)).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(
        body,
        r#"{"error":{"code":"body_too_large","message":"the body is longer than 8 bytes","limit":8},"request_id":"r1"}"#
    );
    let (status, _, body) = rendered(Said::Refused(Refusal::AllLinesInvalid, Some(report(1, 1)))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(
        body.ends_with(r#""request_id":"r1","errors":[{"line":17,"code":"bad_type","field":"sequence"}]}"#),
        "{body}"
    );
}

#[tokio::test]
async fn headers_say_what_would_be_right() {
    let headers = async |refusal| rendered(Said::Refused(refusal, None)).await.1;
    assert_eq!(headers(Refusal::MethodNotAllowed).await[ALLOW], "POST");
    assert_eq!(headers(Refusal::ContentEncoding).await[ACCEPT_ENCODING], "gzip, zstd, identity");
    for refusal in [Refusal::NotDurable, Refusal::Overloaded(Bound::Requests)] {
        let wait: u32 = headers(refusal).await[RETRY_AFTER].to_str().unwrap().parse().unwrap();
        assert!((1..=2).contains(&wait));
    }
}

#[tokio::test]
async fn what_needs_no_body_has_none() {
    for (said, status) in [
        (Said::NoContent, StatusCode::NO_CONTENT),
        (Said::StoredMinimal(Ack::Durable), StatusCode::OK),
        (Said::StoredMinimal(Ack::Accepted), StatusCode::ACCEPTED),
    ] {
        let (found, headers, body) = rendered(said).await;
        assert_eq!((found, body.as_str(), headers.contains_key(CONTENT_TYPE)), (status, "", false));
    }
}

#[test]
fn a_request_keeps_its_own_id_if_it_can_be_printed() {
    let of = |id: &'static [u8]| {
        let headers = HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_bytes(id).unwrap())]);
        RequestId::of(&headers).as_str().to_owned()
    };
    assert_eq!(of(b"abc-1"), "abc-1");
    for bad in [&b""[..], b"a b", b"\xe4", &[b'x'; 65]] {
        assert_eq!(Uuid::parse_str(&of(bad)).unwrap().get_version_num(), 7);
    }
}

#[tokio::test]
async fn an_answer_before_the_events_are_safe_says_so() {
    let (status, headers, body) = rendered(Said::Stored(Ack::Accepted, report(0, 0))).await;
    assert!(body.contains(r#""ack":"accepted""#), "{body}");
    assert_eq!((status, headers.contains_key(PREFERENCE_APPLIED)), (StatusCode::ACCEPTED, false));
}

#[test]
fn preferences_are_found_among_others_and_said_to_be_followed() {
    let check = |values: &[&'static str], minimal, respond_async, applied: Option<&'static str>| {
        let headers = values.iter().map(|value| (PREFER, HeaderValue::from_static(value)));
        let found = Preferences::of(&headers.collect());
        assert_eq!(found, Preferences { minimal, respond_async });
        let answer = Answer { follows: found, ..Answer::new(Said::NoContent) };
        let response = render(&answer, &RequestId(HeaderValue::from_static("r1")), false);
        let said = response.headers().get(PREFERENCE_APPLIED);
        assert_eq!(said, applied.map(HeaderValue::from_static).as_ref());
    };
    check(&[], false, false, None);
    check(&["return=representation, wait=10"], false, false, None);
    check(&["wait=10, Return=Minimal"], true, false, Some("return=minimal"));
    check(&["Respond-Async; wait=10"], false, true, Some("respond-async"));
    check(&["respond-async", "return=minimal"], true, true, Some("return=minimal, respond-async"));
}
