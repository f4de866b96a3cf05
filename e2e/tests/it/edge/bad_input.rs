//! Invalid input gets a clear answer, and valid lines in the same request are kept.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::client::HttpResponse;
use crate::oracle::{Oracle, TestEvent, now};
use crate::world::World;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn the_valid_lines_of_a_partly_invalid_batch_are_counted() {
    let world = World::new("bad_input_lines").await;
    let (edge, _aggregator, _api) = world.pipeline().await;
    let mut rng = fastrand::Rng::with_seed(6);
    let mut oracle = Oracle::default();
    let long = format!(r#"{{"event":"a","session":"{}"}}"#, "s".repeat(201));
    let broken: [(&[u8], Value); 12] = [
        (b"{", json!({"code": "bad_json"})),
        (br#"{"event":"a"} x"#, json!({"code": "bad_json"})),
        (b"[1]", json!({"code": "not_an_object"})),
        (br#""text""#, json!({"code": "not_an_object"})),
        (b"{}", json!({"code": "missing_field", "field": "event"})),
        (br#"{"event":7}"#, json!({"code": "bad_type", "field": "event"})),
        (br#"{"event":"a","sequence":-1}"#, json!({"code": "bad_type", "field": "sequence"})),
        (br#"{"event":"a","user_id":5}"#, json!({"code": "bad_type", "field": "user_id"})),
        (br#"{"event":"a","event":"b"}"#, json!({"code": "duplicate_key", "field": "event"})),
        (b"{\"event\":\"\xff\"}", json!({"code": "bad_utf8"})),
        (br#"{"event":"a","x":[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]}"#, json!({"code": "too_deep"})),
        (long.as_bytes(), json!({"code": "too_long", "field": "session"})),
    ];
    let mut body = Vec::new();
    let mut good = Vec::new();
    for (text, _) in &broken {
        let made = TestEvent::random(&mut rng, now());
        body.extend_from_slice(made.line().as_bytes());
        body.extend_from_slice(b"\r\n\n");
        body.extend_from_slice(text);
        body.push(b'\n');
        good.push(made);
    }
    for (name, body) in [("plain", body.clone()), ("gzip", gzip(&body))] {
        let encoding = if name == "gzip" { "gzip" } else { "identity" };
        let answer = edge.http.send("POST", "/v1/events", &[("content-encoding", encoding)], body).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let report = answer.json();
        assert_eq!(
            (&report["received"], &report["accepted"], &report["rejected"]),
            (&json!(24), &json!(12), &json!(12)),
            "{report}"
        );
        for (at, (text, expected)) in broken.iter().enumerate() {
            let mut error = report["errors"][at].clone();
            // The body repeats three lines: a good line, a blank line and a bad line. So every third line has an error.
            assert_eq!(error["line"].take(), json!(3 * at + 3), "{}", String::from_utf8_lossy(text));
            error.as_object_mut().unwrap().remove("line");
            assert_eq!(&error, expected, "{}", String::from_utf8_lossy(text));
        }
        good.iter().for_each(|made| oracle.record(made));
    }
    world.assert_counted(&oracle.counts()).await;
    edge.assert_balanced().await;
}

#[tokio::test]
async fn a_request_that_cannot_be_read_is_refused_whole_and_clearly() {
    let world = World::new("bad_input_requests").await;
    let (edge, _aggregator, _api) = world.pipeline().await;
    let good = TestEvent::random(&mut fastrand::Rng::with_seed(7), now());
    let zipped = gzip(good.line().repeat(100).as_bytes());
    let check = |answer: &HttpResponse, status: u16, code: &str| {
        assert_eq!((answer.status, answer.problem()), (status, code.to_owned()), "{}", answer.text);
    };
    let events = async |headers: &[(&str, &str)], body: Vec<u8>| {
        edge.http.send("POST", "/v1/events", headers, body).await
    };

    check(&events(&[], Vec::new()).await, 400, "empty_body");
    check(&events(&[], b"\n \r\n".to_vec()).await, 400, "empty_body");
    let answer = events(&[], b"{\nno\n".to_vec()).await;
    check(&answer, 400, "all_lines_invalid");
    assert_eq!(answer.json()["errors"].as_array().map(Vec::len), Some(1), "{}", answer.text);
    check(
        &events(&[("content-encoding", "gzip")], zipped[..zipped.len() / 2].to_vec()).await,
        400,
        "bad_encoding",
    );
    check(&events(&[("content-encoding", "gzip")], b"not gzip at all".to_vec()).await, 400, "bad_encoding");
    let answer = events(&[("content-encoding", "br")], b"x".to_vec()).await;
    check(&answer, 415, "content_encoding");
    assert!(answer.header("accept-encoding").contains("gzip"));
    check(&events(&[("content-encoding", "gzip, gzip")], b"x".to_vec()).await, 415, "content_encoding");
    check(&events(&[("content-type", "image/png")], b"x".to_vec()).await, 415, "content_type");
    check(
        &events(&[("content-encoding", "gzip")], gzip(&vec![b' '; 40 << 20])).await,
        413,
        "decoded_too_large",
    );
    check(&events(&[], "{\"event\":\"a\"}\n".repeat(10_001).into_bytes()).await, 413, "too_many_events");
    check(&edge.http.send("POST", "/v2/events", &[], "x").await, 404, "not_found");
    for method in ["GET", "PUT", "DELETE"] {
        let answer = edge.http.send(method, "/v1/events", &[], "").await;
        check(&answer, 405, "method_not_allowed");
        assert!(answer.header("allow").contains("POST"), "{method}");
    }
    assert_eq!(edge.http.send("GET", "/nothing", &[], "").await.status, 404);

    let mut oracle = Oracle::default();
    oracle.record_report(&edge.http.post_lines(&[good.line()]).await, &[Some(good)]);
    world.assert_counted(&oracle.counts()).await;
    edge.assert_balanced().await;
}

#[tokio::test]
async fn a_body_of_100_mb_is_refused_without_being_read() {
    let world = World::new("bad_input_huge").await;
    let edge = world.edge().await;
    let huge = vec![b' '; 100_000_000];
    // The client may get the answer, or only a closed connection; in both cases the edge keeps serving.
    if let Ok(answer) = edge.http.try_send("POST", "/v1/events", &[], huge).await {
        assert_eq!(
            (answer.status, answer.json()["code"].as_str()),
            (413, Some("body_too_large")),
            "{}",
            answer.text
        );
        assert_eq!(answer.json()["limit"], 8 << 20);
    }
    let made = TestEvent::random(&mut fastrand::Rng::with_seed(8), now());
    Oracle::default().record_report(&edge.http.post_lines(&[made.line()]).await, &[Some(made)]);
    assert_eq!(edge.metric("ingest_inflight_bytes").await, 0, "the memory of a refused body is released");
}

#[tokio::test]
async fn at_most_twenty_errors_are_listed() {
    let world = World::new("bad_input_many").await;
    let edge = world.edge().await;
    let mut lines = vec!["{".to_owned(); 50];
    lines.push("{\"event\":\"a\"}".to_owned());
    let report = edge.http.post_lines(&lines).await.json();
    assert_eq!((&report["rejected"], &report["errors_truncated"]), (&json!(50), &json!(true)));
    assert_eq!(report["errors"].as_array().map(Vec::len), Some(20));
}
