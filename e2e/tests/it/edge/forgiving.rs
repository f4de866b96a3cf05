//! The edge recognizes by the bytes of a body whether the body has lines, an array or one object. It rejects only the
//! invalid events of a body, and drops only the unreadable optional fields of an event. The edge and the query API
//! refuse requests with errors in one form.

use std::io::Write as _;

use devstack::wait_for;
use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::header::HeaderName;
use serde_json::{Value, json};

use crate::client::HttpResponse;
use crate::wire;
use crate::world::{DEADLINE, World};

/// The `received`, `accepted` and `rejected` counts of a report.
fn sums(report: &Value) -> [u64; 3] {
    ["received", "accepted", "rejected"].map(|sum| report[sum].as_u64().unwrap_or(u64::MAX))
}

#[tokio::test]
async fn arrays_and_objects_are_read_in_every_media_type_and_only_bad_elements_rejected() {
    let world = World::new("forgiving_shapes").await;
    let (edge, _aggregator) = tokio::join!(world.edge(), world.aggregator());
    let types = [
        "application/x-www-form-urlencoded",
        "text/plain;charset=UTF-8",
        "application/json",
        "application/x-ndjson",
        "application/jsonlines",
        "text/json",
        "application/cloudevents-batch+json",
    ];
    let bodies: [(&[u8], [u64; 3]); 6] = [
        (br#"[{"event":"a"}]"#, [1, 1, 0]),
        (b"{\n  \"event\": \"a\",\n  \"plan\": {\n    \"tier\": 1\n  }\n}\n", [1, 1, 0]),
        (b"[\n{\"event\":\"a\"},\n{\"event\":\"a\"}\n]", [2, 2, 0]),
        (b"[{\"event\":\"a\"},{\"event\":\"b\xe9\"},{\"event\":\"a\"}]", [3, 2, 1]),
        (b"[{\"event\":\"a\"},{\"event\":},{\"event\":\"a\"}]", [3, 2, 1]),
        (b"{\"event\":\"a\"}\n{\"event\":\"a\"}", [2, 2, 0]),
    ];
    for media_type in types {
        for (body, expected) in &bodies {
            let answer = edge.http.send("POST", "/v1/events", &[("content-type", media_type)], *body).await;
            assert_eq!(
                (answer.status, sums(&answer.json())),
                (200, *expected),
                "{media_type}: {}",
                answer.text
            );
            let line = answer.json()["errors"][0]["line"].as_u64();
            assert_eq!(line, (expected[2] > 0).then_some(2), "{}", answer.text);
        }
    }
    let answer = edge.http.send("POST", "/v1/events", &[("content-type", "text/html")], "{}").await;
    assert_eq!((answer.status, &answer.json()["code"]), (415, &json!("content_type")));
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    for named in
        ["application/x-ndjson", "application/jsonl", "text/json", "application/*+json", "text/plain"]
    {
        assert!(detail.contains(named), "{detail}");
    }
    let accepted = 7 * bodies.iter().map(|(_, sums)| sums[1]).sum::<u64>();
    let waited = wait_for("all events", DEADLINE, async || {
        world.number("SELECT count() FROM events WHERE tenant != '' AND event = 'a'").await == accepted
    });
    waited.await.unwrap();
    edge.assert_balanced().await;
}

#[tokio::test]
async fn an_unreadable_label_is_dropped_and_its_sender_is_warned() {
    let world = World::new("forgiving_labels").await;
    let (edge, _aggregator) = tokio::join!(world.edge(), world.aggregator());
    let lines = [
        (r#"{"event":"a","country":"T1"}"#, Some(("bad_country", "country"))),
        (r#"{"event":"a","country":"--"}"#, Some(("bad_country", "country"))),
        (r#"{"event":"a","country":"GB "}"#, Some(("bad_country", "country"))),
        (r#"{"event":"a","client_time":"yesterday"}"#, Some(("bad_time", "client_time"))),
        (r#"{"event":"a","device_os":13.5}"#, Some(("bad_type", "device_os"))),
        (r#"{"event":"a","userId":"u1"}"#, Some(("looks_like", "user_id"))),
        (r#"{"event":"a","properties":{"plan":"gold"}}"#, Some(("looks_like", "properties"))),
        (r#"{"event":"read","client_time":"2023-11-15T03:43:20+0530"}"#, None),
        (r#"{"event":"read","client_time":"2023-11-14T22:13:20"}"#, None),
        (r#"{"event":"read","client_time":"2023-11-14 22:13:20,5"}"#, None),
        (r#"{"event":"read","client_time":1700000000000.5}"#, None),
    ];
    let body = lines.map(|(line, _)| line.to_owned());
    let report = edge.http.post_lines(&body).await.json();
    assert_eq!(sums(&report), [11, 11, 0], "{report}");
    let mut expected = Vec::new();
    for (line, (_, warned)) in (1..).zip(&lines) {
        expected.extend(warned.map(|(code, field)| json!({"line": line, "code": code, "field": field})));
    }
    assert_eq!(report["warnings"], json!(expected));
    assert_eq!(edge.metric("ingest_event_warnings_total").await, 7);

    let waited = wait_for("all events", DEADLINE, async || {
        world.number("SELECT count() FROM events WHERE tenant != ''").await == 11
    });
    waited.await.unwrap();
    assert_eq!(
        world
            .number("SELECT count() FROM events WHERE event = 'a' AND country = '' AND device_os = ''")
            .await,
        7
    );
    let read = "SELECT DISTINCT toUnixTimestamp(client_time) FROM events WHERE event = 'read'";
    assert_eq!(world.rows(read).await, [["1700000000"]]);
    // `/v1/counters` rejects an event without a valid country, because it counts by country.
    let counted = edge.http.send("POST", "/v1/counters", &[], r#"{"event":"view","country":"T1"}"#).await;
    assert_eq!(counted.json()["errors"][0]["code"], "bad_country", "{}", counted.text);
}

#[tokio::test]
async fn no_more_than_twenty_warnings_are_listed() {
    let world = World::new("forgiving_many").await;
    let edge = world.edge().await;
    let report = edge.http.post_lines(&vec![r#"{"event":"a","country":"T1"}"#.to_owned(); 50]).await.json();
    assert_eq!(report["warnings"].as_array().map(Vec::len), Some(20), "{report}");
    assert_eq!(report["warnings_truncated"], true);
    assert_eq!(edge.metric("ingest_event_warnings_total").await, 50);
}

#[tokio::test]
async fn a_reaction_is_refused_if_its_hour_cannot_be_queried() {
    let world = World::new("forgiving_times").await;
    let (edge, api) = tokio::join!(world.edge(), world.query_api());
    // A time in seconds instead of milliseconds, a time before 2000, and a time in 2100.
    for time in ["1700000000", "946684799999", "4102444800000"] {
        for path in
            [format!("/analytics/{time}/u/click"), format!("/analytics?timestamp={time}&user=u&click")]
        {
            let answer = edge.http.post(&path).await;
            assert_eq!(
                (answer.status, &answer.json()["code"]),
                (400, &json!("bad_time")),
                "{path}: {}",
                answer.text
            );
            let [detail, hint] = ["detail", "hint"].map(|member| answer.json()[member].to_string());
            assert!(detail.contains("946684800000") && hint.contains("milliseconds"), "{}", answer.text);
        }
    }
    assert_eq!(edge.http.post("/analytics/946684800000/u/click").await.status, 204);
    let asked = api.http.get("/analytics?timestamp=1700000000000&timestamp=x").await;
    assert_eq!((asked.status, &asked.json()["errors"][0]["param"]), (400, &json!("timestamp")));
    let asked = api.http.get("/v1/polls?format=csv&format=json").await;
    assert_eq!((asked.status, &asked.json()["errors"][0]["param"]), (400, &json!("format")));
}

#[tokio::test]
async fn a_batch_with_the_same_key_counts_once_despite_blank_lines_or_array_form() {
    let world = World::new("forgiving_blank").await;
    let (edge, _aggregator) = tokio::join!(world.edge(), world.aggregator());
    let line = r#"{"event":"a","user_id":"u"}"#;
    for body in [format!("{line}\n{line}"), format!("\n{line}\n\r\n{line}\n"), format!("[{line},{line}]")] {
        let answer = edge.http.send("POST", "/v1/events", &[("idempotency-key", "k1")], body).await;
        assert_eq!(answer.json()["accepted"], 2, "{}", answer.text);
    }
    let waited =
        wait_for("all records", DEADLINE, async || world.number("SELECT sum(lines) FROM ledger").await == 6);
    waited.await.unwrap();
    assert_eq!(world.number("SELECT sum(stored) FROM ledger").await, 2);
}

#[tokio::test]
async fn a_compressed_body_without_content_encoding_is_refused_with_a_hint() {
    let world = World::new("forgiving_gzip").await;
    let edge = world.edge().await;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(br#"{"event":"a"}"#).unwrap();
    let answer = edge.http.send("POST", "/v1/events", &[], encoder.finish().unwrap()).await;
    assert_eq!((answer.status, &answer.json()["code"]), (400, &json!("bad_encoding")));
    assert!(answer.json()["hint"].as_str().unwrap().contains("Content-Encoding"), "{}", answer.text);
}

#[tokio::test]
async fn unparsable_requests_get_errors_in_the_same_form() {
    let world = World::new("forgiving_unparsed").await;
    let edge = world.edge().await;
    for (sent, status, code) in [
        ("GET /\r\n\r\n".to_owned(), 400, "bad_http"),
        ("POST /v1/ev ents HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), 400, "bad_http"),
        (
            "POST /v1/events HTTP/1.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned(),
            400,
            "bad_http",
        ),
        (
            "POST /v1/events HTTP/1.1\r\nHost: x\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned(),
            400,
            "bad_http",
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: {}\r\n\r\n", "x".repeat(17 << 10)),
            431,
            "headers_too_large",
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(100 << 10)),
            431,
            "headers_too_large",
        ),
    ] {
        let mut stream = wire::connect_and_send(&edge, sent.as_bytes()).await;
        let received = String::from_utf8(wire::read_until_closed(&mut stream).await).unwrap();
        let (head, body) = received.split_once("\r\n\r\n").unwrap();
        let mut lines = head.split("\r\n");
        let found = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines.map(|line| line.split_once(": ").unwrap());
        let headers =
            headers.map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()));
        let answer = HttpResponse { status: found, headers: headers.collect(), text: body.to_owned() };
        assert_eq!(
            (answer.status, answer.problem()),
            (status, code.to_owned()),
            "{}",
            &sent[..sent.len().min(80)]
        );
    }
}

#[tokio::test]
async fn the_query_api_refuses_in_the_same_form_as_the_edge() {
    let world = World::new("forgiving_reads").await;
    let api = world.query_api().await;
    for (method, path, status, code) in [
        ("GET", "/nothing", 404, "not_found"),
        ("POST", "/v1/counters", 405, "method_not_allowed"),
        ("GET", "/analytics", 400, "bad_parameter"),
        ("GET", "/analytics?timestamp=now", 400, "bad_parameter"),
        ("GET", "/v1/counters?fromat=csv", 400, "bad_parameter"),
        ("GET", "/v1/polls/%FF", 400, "bad_parameter"),
        ("GET", "/analytics?timestamp=1262304000000&wait=0", 503, "not_yet"),
    ] {
        let answer = api.http.send(method, path, &[("x-request-id", "mine-1")], "").await;
        assert_eq!((answer.status, answer.problem()), (status, code.to_owned()), "{path}: {}", answer.text);
        assert_eq!(answer.header("x-request-id"), "mine-1");
    }
    assert!(!api.http.get("/v1/counters").await.header("x-request-id").is_empty());
}
