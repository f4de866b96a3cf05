use http_body_util::BodyExt as _;
use schemas::event::Code;

use super::*;
use crate::outcome::Bound;

fn id() -> RequestId {
    RequestId::of(&HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_static("r1"))]))
}

async fn rendered(body: ResponseBody) -> (StatusCode, HeaderMap, String) {
    let id = id();
    let response = render(&ApiResponse::new(body), &id, false);
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
    let (status, headers, body) = rendered(ResponseBody::Stored(Ack::Durable, report(1, 1))).await;
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
async fn a_report_that_does_not_list_all_errors_is_marked_as_truncated() {
    let (_, _, body) = rendered(ResponseBody::Stored(Ack::Durable, report(2, 3))).await;
    assert!(body.ends_with(r#""field":"sequence"}],"errors_truncated":true}"#), "{body}");
}

#[tokio::test]
async fn a_report_lists_warnings_about_accepted_events() {
    let warning = LineError { line: 3, code: Code::BadCountry.as_str(), field: Some("country") };
    let with = |warned: u32| {
        let mut report = Report { warnings: vec![warning], ..report(0, 0) };
        report.warned[2] = warned;
        report
    };
    let (_, _, body) = rendered(ResponseBody::Stored(Ack::Durable, with(1))).await;
    let expected = r#""errors":[],"warnings":[{"line":3,"code":"bad_country","field":"country"}]}"#;
    assert!(body.ends_with(expected), "{body}");
    let (_, _, body) = rendered(ResponseBody::Stored(Ack::Durable, with(2))).await;
    assert!(body.ends_with(r#""field":"country"}],"warnings_truncated":true}"#), "{body}");
}

#[tokio::test]
async fn a_refusal_names_its_limit_and_the_lines() {
    let (status, headers, body) = rendered(ResponseBody::Refused(Refusal::BodyTooLarge(8), None)).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(
        body,
        r#"{"type":"/problems/body_too_large","title":"The body is too long","status":413,"code":"body_too_large","detail":"the body is longer than 8 bytes","hint":"send fewer events in one request","limit":8,"request_id":"r1"}"#
    );
    assert_eq!(headers[CONTENT_TYPE], problem::MEDIA_TYPE);
    let (status, _, body) =
        rendered(ResponseBody::Refused(Refusal::AllLinesInvalid, Some(report(1, 1)))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(
        body.ends_with(r#""errors":[{"line":17,"code":"bad_type","field":"sequence"}],"request_id":"r1"}"#),
        "{body}"
    );
}

#[tokio::test]
async fn the_headers_of_a_refusal_help_the_client_to_correct_the_request() {
    let headers = async |refusal| rendered(ResponseBody::Refused(refusal, None)).await.1;
    assert_eq!(headers(Refusal::MethodNotAllowed).await[ALLOW], "POST");
    assert_eq!(headers(Refusal::ContentEncoding).await[ACCEPT_ENCODING], "gzip, zstd, identity");
    for refusal in [Refusal::NotDurable, Refusal::Overloaded(Bound::Requests)] {
        let wait: u32 = headers(refusal).await[RETRY_AFTER].to_str().unwrap().parse().unwrap();
        assert!((1..=2).contains(&wait));
    }
}

#[tokio::test]
async fn responses_without_content_have_no_body() {
    for (body, status) in [
        (ResponseBody::NoContent, StatusCode::NO_CONTENT),
        (ResponseBody::StoredMinimal(Ack::Durable), StatusCode::OK),
        (ResponseBody::StoredMinimal(Ack::Accepted), StatusCode::ACCEPTED),
    ] {
        let (found, headers, body) = rendered(body).await;
        assert_eq!((found, body.as_str(), headers.contains_key(CONTENT_TYPE)), (status, "", false));
    }
}

#[tokio::test]
async fn a_response_before_the_events_are_durable_has_202_and_ack_accepted() {
    let (status, headers, body) = rendered(ResponseBody::Stored(Ack::Accepted, report(0, 0))).await;
    assert!(body.contains(r#""ack":"accepted""#), "{body}");
    assert_eq!((status, headers.contains_key(PREFERENCE_APPLIED)), (StatusCode::ACCEPTED, false));
}

#[test]
fn supported_preferences_are_found_among_others_and_confirmed() {
    let check = |values: &[&'static str], minimal, respond_async, applied: Option<&'static str>| {
        let headers =
            values.iter().map(|value| (HeaderName::from_static("prefer"), HeaderValue::from_static(value)));
        let found = Preferences::of(&headers.collect());
        assert_eq!(found, Preferences { minimal, respond_async });
        let response = ApiResponse { applied: found, ..ApiResponse::new(ResponseBody::NoContent) };
        let rendered = render(&response, &id(), false);
        let sent = rendered.headers().get(PREFERENCE_APPLIED);
        assert_eq!(sent, applied.map(HeaderValue::from_static).as_ref());
    };
    check(&[], false, false, None);
    check(&["return=representation, wait=10"], false, false, None);
    check(&["wait=10, Return=Minimal"], true, false, Some("return=minimal"));
    check(&["Respond-Async; wait=10"], false, true, Some("respond-async"));
    check(&["respond-async", "return=minimal"], true, true, Some("return=minimal, respond-async"));
}
