//! The edge as a whole, with the in-process mock broker of librdkafka or without a broker.

use std::path::PathBuf;
use std::time::Instant;

use ::http::{HeaderMap, Method, StatusCode};
use http_body_util::BodyExt as _;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use runtime::vars::Vars;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::time::{interval, timeout};
use tower::ServiceExt as _;
use uuid::Uuid;

use super::*;
use crate::commands;
use crate::spool::store::{self, Change, SpooledRecord, Store};

const DEADLINE: Duration = Duration::from_secs(20);
const NO_BROKER: (&str, &str) = ("KAFKA_BROKERS", "127.0.0.1:1");

fn config(pairs: &[(&str, &str)]) -> Config {
    Config::from_vars(&Vars::from_pairs([NO_BROKER].iter().chain(pairs).copied())).unwrap()
}

fn edge(pairs: &[(&str, &str)]) -> Edge {
    Edge::start(config(pairs)).unwrap()
}

/// An edge whose Kafka client contains a mock broker.
async fn edge_with_broker(pairs: &[(&str, &str)]) -> Edge {
    let mut config = config(pairs);
    // The configuration refuses `KAFKA_OPT_…` variables with these settings, so the test sets them directly.
    for (name, value) in [("test.mock.num.brokers", "1"), ("allow.auto.create.topics", "true")] {
        config.kafka.options.insert(name.to_owned(), value.to_owned());
    }
    let edge = Edge::start(config).unwrap();
    until("the broker within the client is reached", || edge.app.publisher.kafka_reachable().is_ok()).await;
    edge
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let mut looks = interval(Duration::from_millis(5));
    let holds = async {
        while !condition() {
            looks.tick().await;
        }
    };
    timeout(DEADLINE, holds).await.expect(what);
}

/// An edge and its mock broker. The broker belongs to the test and not to the edge's client, so that the test can slow
/// the broker down.
async fn edge_with_external_broker(
    pairs: &[(&str, &str)],
) -> (Edge, MockCluster<'static, DefaultProducerContext>) {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("events", 1, 1).unwrap();
    let edge = edge(&[&[("KAFKA_BROKERS", cluster.bootstrap_servers().as_str())], pairs].concat());
    until("the broker is reached", || edge.app.publisher.kafka_reachable().is_ok()).await;
    (edge, cluster)
}

async fn call(edge: &Edge, method: Method, uri: &str, body: &str) -> (StatusCode, HeaderMap, Value) {
    call_with(edge, method, uri, &[], body).await
}

async fn call_with(
    edge: &Edge,
    method: Method,
    uri: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (StatusCode, HeaderMap, Value) {
    let request = Request::builder().method(method).uri(uri);
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let request = request.body(Full::new(Bytes::from(body.to_owned())));
    let Ok(response) = edge.service().oneshot(request.unwrap()).await;
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (head.status, head.headers, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

async fn bound() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// Why the edge is not ready; empty if it is ready or degraded.
fn why_not_ready(edge: &Edge) -> String {
    match edge.app.publisher.readiness() {
        Readiness::Not(why) => why,
        Readiness::Ready | Readiness::Degraded(_) => String::new(),
    }
}

#[track_caller]
fn check_sums(edge: &Edge) -> EventTotals {
    let totals = edge.app.metrics.totals();
    assert_eq!(totals.received, totals.accepted + totals.rejected);
    assert_eq!(
        totals.accepted,
        totals.delivered + totals.spooled + totals.not_durable + totals.queued + totals.lost
    );
    totals
}

#[tokio::test]
async fn valid_lines_are_stored_and_invalid_lines_of_the_same_request_are_reported() {
    let edge = edge_with_broker(&[]).await;
    let (status, headers, report) =
        call(&edge, Method::POST, "/v1/events", "{\"event\":\"a\"}\nx\n{\"event\":\"b\"}").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(report["request_id"], headers["x-request-id"].to_str().unwrap());
    assert_eq!(
        (&report["received"], &report["accepted"], &report["rejected"]),
        (&json!(3), &json!(2), &json!(1))
    );
    assert_eq!(report["errors"], json!([{"line": 2, "code": "bad_json"}]));

    let (status, _, refusal) = call(&edge, Method::POST, "/api/events", "x\ny").await;
    assert_eq!((status, &refusal["code"]), (StatusCode::BAD_REQUEST, &json!("all_lines_invalid")));
    assert_eq!(refusal["errors"].as_array().unwrap().len(), 2);

    let (status, _, body) = call(&edge, Method::POST, "/analytics/1700000000000/u1/click", "").await;
    assert_eq!((status, body), (StatusCode::NO_CONTENT, Value::Null));
    let totals = check_sums(&edge);
    assert_eq!((totals.received, totals.delivered), (6, 3));
}

#[tokio::test]
async fn many_requests_at_once_are_all_stored() {
    let edge = edge_with_broker(&[]).await;
    let calls: Vec<_> = (0..500)
        .map(|user| {
            let request = Request::post(format!("/analytics?timestamp=1700000000000&user={user}&click"));
            tokio::spawn(edge.service().oneshot(request.body(Full::<Bytes>::default()).unwrap()))
        })
        .collect();
    for call in calls {
        let Ok(response) = call.await.unwrap();
        assert_eq!(response.status(), StatusCode::NO_CONTENT);
    }
    assert_eq!(check_sums(&edge).delivered, 500);
}

#[tokio::test]
async fn without_a_broker_requests_get_retry_after_and_readiness_says_why() {
    let edge = edge(&[]);
    let (status, headers, refusal) = call(&edge, Method::POST, "/v1/events", "{\"event\":\"a\"}").await;
    assert_eq!((status, &refusal["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("not_durable")));
    assert!(headers.contains_key("retry-after"));
    assert!(why_not_ready(&edge).starts_with("kafka at 127.0.0.1:1 "));
    assert_eq!(check_sums(&edge).received, 0);
}

/// Creates a spool that contains the records `put`, and returns the path of its file. The spool also contains the
/// number of partitions of the topic, 1: without this number, an edge that has not reached Kafka refuses all events.
fn a_spool_with(directory: &TempDir, put: Vec<SpooledRecord>) -> PathBuf {
    let path = store::path(directory.path(), "events");
    let change = Change { put, partitions: Some(1), ..Change::default() };
    Store::open_or_create(&path).unwrap().apply(&change).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn events_spooled_without_a_broker_are_delivered_by_a_later_process() {
    let directory = TempDir::new().unwrap();
    let spool = [("SPOOL_DIR", directory.path().to_str().unwrap()), ("SPOOL_MIN_FREE", "0B")];
    let path = a_spool_with(&directory, vec![]);

    let edge = edge(&spool);
    let serves = || matches!(edge.app.publisher.readiness(), Readiness::Degraded(why) if why.ends_with("events go to the spool"));
    until("the spool serves", serves).await;
    let (status, _, report) = call(&edge, Method::POST, "/v1/events", "{\"event\":\"a\"}").await;
    assert_eq!((status, &report["ack"]), (StatusCode::OK, &json!("durable")));
    assert_eq!(check_sums(&edge).spooled, 1);
    drop(edge);
    until("the spool is closed", || Store::open(&path).is_ok()).await;

    let edge = edge_with_broker(&spool).await;
    until("the spool is empty", || edge.app.publisher.records_in_spool() == Some(0)).await;
    let metrics = &edge.app.metrics;
    until("the events of the spool are counted", || metrics.spool_replayed.get() == 1).await;
    assert_eq!(check_sums(&edge).accepted, 0, "an earlier process accepted the events");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spooled_record_that_kafka_refuses_stays_and_does_not_block_others() {
    let directory = TempDir::new().unwrap();
    let record =
        |bytes| SpooledRecord { id: Uuid::now_v7(), partition: 0, lines: 1, value: vec![b'x'; bytes] };
    a_spool_with(&directory, vec![record(2000), record(10)]);
    let spool = [("SPOOL_DIR", directory.path().to_str().unwrap()), ("SPOOL_MIN_FREE", "0B")];
    let edge = edge_with_broker(&[&spool[..], &[("KAFKA_OPT_message.max.bytes", "1000")]].concat()).await;
    until("the record that fits is in kafka", || edge.app.metrics.spool_replayed.get() > 0).await;
    assert_eq!(edge.app.metrics.spool_replayed.get(), 1);
    assert_eq!(edge.app.publisher.records_in_spool(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_refused_because_the_spool_is_full_are_counted_as_not_durable() {
    let directory = TempDir::new().unwrap();
    a_spool_with(&directory, vec![]);
    let full = [("SPOOL_DIR", directory.path().to_str().unwrap()), ("SPOOL_MIN_FREE", "1000000TiB")];
    let edge = edge(&full);
    until("kafka is known to be unreachable, and the partitions are known", || {
        why_not_ready(&edge).contains("not answer; the spool is full")
            && edge.app.publisher.partitions().is_ok()
    })
    .await;
    let (status, headers, body) = call(&edge, Method::POST, "/v1/events", "{\"event\":\"a\"}").await;
    assert_eq!((status, &body["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("spool_full")));
    assert!(headers.contains_key("retry-after"));
    let totals = check_sums(&edge);
    assert_eq!((totals.received, totals.not_durable), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_kafka_may_have_are_not_said_to_be_stored_nowhere_by_a_full_spool() {
    let directory = TempDir::new().unwrap();
    let spool = directory.path().to_str().unwrap();
    let pairs = [("SPOOL_DIR", spool), ("SPOOL_MIN_FREE", "1000000TiB"), ("DURABLE_WAIT", "300ms")];
    let (edge, broker) = edge_with_external_broker(&pairs).await;
    broker.broker_round_trip_time(1, DEADLINE).unwrap();
    let (status, _, refusal) = call(&edge, Method::POST, "/v1/events", "{\"event\":\"a\"}").await;
    assert_eq!((status, &refusal["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("not_durable")));
}

#[tokio::test]
async fn a_request_beyond_unacked_bytes_is_refused_as_a_whole() {
    let edge = edge_with_broker(&[("UNACKED_BYTES", "150")]).await;
    let (status, _, _) = call(&edge, Method::POST, "/v1/events", "{\"event\":\"a\"}").await;
    assert_eq!(status, StatusCode::OK);
    let (status, _, refusal) =
        call(&edge, Method::POST, "/v1/events", "{\"event\":\"a\"}\n{\"event\":\"b\"}").await;
    assert_eq!((status, &refusal["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("overloaded")));
    let totals = check_sums(&edge);
    assert_eq!((totals.delivered, totals.not_durable), (1, 2));
}

#[tokio::test]
async fn only_an_answered_request_leaves_samples_of_its_rejected_lines() {
    let edge = edge_with_broker(&[("UNACKED_BYTES", "150")]).await;
    let (one, two) = ("{\"event\":\"a\"}\nbad", "{\"event\":\"a\"}\n{\"event\":\"b\"}\nbad");
    for (body, expected) in [(two, StatusCode::SERVICE_UNAVAILABLE), (one, StatusCode::OK)] {
        assert_eq!(call(&edge, Method::POST, "/v1/events", body).await.0, expected);
    }
    let (delivered, dropped) = (&edge.app.metrics.samples_delivered, &edge.app.metrics.samples_dropped);
    until("the samples are delivered or dropped", || delivered.get() + dropped.get() > 0).await;
    assert_eq!(delivered.get() + dropped.get(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bytes_of_a_body_are_not_reserved_while_its_events_wait_for_kafka() {
    let (edge, broker) = edge_with_external_broker(&[]).await;
    broker.broker_round_trip_time(1, Duration::from_millis(500)).unwrap();
    let request = call(&edge, Method::POST, "/v1/events", "{\"event\":\"a\"}");
    let metrics = &edge.app.metrics;
    let waits = || metrics.totals().queued == 1 && metrics.in_flight_bytes.get() == 0;
    let ((status, _, _), ()) = tokio::join!(request, until("the event waits for kafka", waits));
    assert_eq!(status, StatusCode::OK);
}

const ASYNC: [(&str, &str); 1] = [("prefer", "respond-async")];

#[tokio::test(flavor = "multi_thread")]
async fn respond_async_is_answered_before_the_events_are_durable_and_then_delivered() {
    let (edge, broker) = edge_with_external_broker(&[]).await;
    broker.broker_round_trip_time(1, Duration::from_millis(500)).unwrap();
    for (uri, body) in [
        ("/v1/events", r#"{"event":"a"}"#),
        ("/v1/counters", r#"{"event":"view","country":"DE"}"#),
        ("/v1/votes", r#"{"poll":"p","option":"o"}"#),
    ] {
        let (status, headers, report) = call_with(&edge, Method::POST, uri, &ASYNC, body).await;
        assert_eq!((status, &report["ack"]), (StatusCode::ACCEPTED, &json!("accepted")), "{uri}");
        assert_eq!(headers["preference-applied"], "respond-async");
    }
    let (status, headers, _) =
        call_with(&edge, Method::POST, "/analytics/1700000000000/u1/click", &ASYNC, "").await;
    assert_eq!(
        (status, &headers["preference-applied"]),
        (StatusCode::NO_CONTENT, &"respond-async".parse().unwrap())
    );
    assert_eq!(edge.app.metrics.totals().queued, 4);
    until("all are delivered", || edge.app.metrics.totals().delivered == 4).await;
    check_sums(&edge);
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_show_the_queues_of_kafkas_client() {
    let (edge, broker) = edge_with_external_broker(&[("KAFKA_OPT_statistics.interval.ms", "20")]).await;
    broker.broker_round_trip_time(1, Duration::from_secs(1)).unwrap();
    let line = r#"{"event":"a"}"#;
    let (status, _, _) = call_with(&edge, Method::POST, "/v1/events", &ASYNC, line).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let metrics = &edge.app.metrics;
    let shown = || metrics.queue_messages.get() == 1 && metrics.queue_bytes.get() > line.len() as i64;
    until("a record in the queue", shown).await;
    until("an empty queue", || metrics.queue_messages.get() == 0 && metrics.queue_bytes.get() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn undelivered_events_are_lost_if_answered_early_and_refused_otherwise() {
    let (edge, broker) = edge_with_external_broker(&[("DURABLE_WAIT", "300ms")]).await;
    broker.broker_round_trip_time(1, DEADLINE).unwrap();
    let line = r#"{"event":"a"}"#;
    let (status, _, _) = call_with(&edge, Method::POST, "/v1/events", &ASYNC, line).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let (status, _, refusal) = call(&edge, Method::POST, "/v1/events", line).await;
    assert_eq!((status, &refusal["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("not_durable")));
    until("no event waits for kafka any more", || edge.app.metrics.totals().queued == 0).await;
    let totals = check_sums(&edge);
    assert_eq!((totals.lost, totals.not_durable), (1, 1));

    // The edge now knows that Kafka is unreachable, so it refuses the request, although the client allows a `202`.
    let (status, headers, refusal) = call_with(&edge, Method::POST, "/v1/events", &ASYNC, line).await;
    assert_eq!((status, &refusal["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("not_durable")));
    assert!(!headers.contains_key("preference-applied"));
    let totals = check_sums(&edge);
    assert_eq!((totals.lost, totals.not_durable), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_refuses_records_is_unreachable_for_a_while_despite_its_metadata() {
    let (edge, broker) = edge_with_external_broker(&[]).await;
    let refuses = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    broker.request_errors(RDKafkaApiKey::Produce, &[refuses]);
    let line = r#"{"event":"a"}"#;
    let start = Instant::now();
    for headers in [&[][..], &ASYNC] {
        let (status, _, refusal) = call_with(&edge, Method::POST, "/v1/events", headers, line).await;
        assert_eq!((status, &refusal["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("not_durable")));
        let said = why_not_ready(&edge);
        assert!(said.contains("refuses records"), "{said}");
    }
    until("kafka counts as reachable again", || edge.app.publisher.readiness() == Readiness::Ready).await;
    assert!(start.elapsed() > Duration::from_secs(2), "metadata alone does not make kafka reachable");
    let (status, _, _) = call(&edge, Method::POST, "/v1/events", line).await;
    assert_eq!(status, StatusCode::OK);
    let totals = check_sums(&edge);
    assert_eq!((totals.delivered, totals.not_durable, totals.lost), (1, 2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_answered_early_are_bounded_and_delivered_during_a_stop() {
    let pairs = [("ACK", "accepted"), ("UNACKED_BYTES", "150"), ("DRAIN_DELAY", "1ms")];
    let (edge, broker) = edge_with_external_broker(&pairs).await;
    broker.broker_round_trip_time(1, Duration::from_millis(500)).unwrap();
    let line = r#"{"event":"a"}"#;
    let (status, headers, _) = call(&edge, Method::POST, "/v1/events", line).await;
    assert_eq!((status, headers.contains_key("preference-applied")), (StatusCode::ACCEPTED, false));
    let (status, _, refusal) = call(&edge, Method::POST, "/v1/events", line).await;
    assert_eq!((status, &refusal["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("overloaded")));
    let listeners = Listeners { http: bound().await, admin: bound().await };
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    let totals = timeout(DEADLINE, edge.serve(listeners, shutdown)).await.unwrap().unwrap().0;
    assert_eq!((totals.delivered, totals.not_durable, totals.lost), (1, 1, 0));
}

/// A mock broker that answers the client's first request for a producer id with an error that is fatal for the client.
fn broker_with_fatal_error() -> MockCluster<'static, DefaultProducerContext> {
    let broker = MockCluster::new(1).unwrap();
    broker.create_topic("events", 1, 1).unwrap();
    // A real broker sends this error to a client that is not authorized to write.
    let refuses = RDKafkaRespErr::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED;
    broker.request_errors(RDKafkaApiKey::InitProducerId, &[refuses]);
    broker
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fatal_error_of_kafkas_client_ends_the_edge_with_the_reason() {
    let broker = broker_with_fatal_error();
    let edge = edge(&[("KAFKA_BROKERS", broker.bootstrap_servers().as_str()), ("DRAIN_DELAY", "1ms")]);
    let app = Arc::clone(&edge.app);
    until("the broker was reached", || app.publisher.partitions().is_ok()).await;
    let (status, _, refusal) = call(&edge, Method::POST, "/v1/events", r#"{"event":"a"}"#).await;
    assert_eq!((status, &refusal["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("not_durable")));
    let listeners = Listeners { http: bound().await, admin: bound().await };
    let ended = timeout(DEADLINE, edge.serve(listeners, CancellationToken::new())).await.unwrap();
    let Err(RunError::KafkaClient { reason, summary }) = ended else { panic!("{ended:?}") };
    assert!(reason.contains("authorization failed"), "{reason}");
    assert_eq!((summary.0.not_durable, summary.0.lost), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_fatal_error_of_kafkas_client_an_edge_with_a_spool_serves_for_a_while() {
    let directory = TempDir::new().unwrap();
    let broker = broker_with_fatal_error();
    let mut edge = edge(&[
        ("KAFKA_BROKERS", broker.bootstrap_servers().as_str()),
        ("SPOOL_DIR", directory.path().to_str().unwrap()),
        ("SPOOL_MIN_FREE", "0B"),
        ("DRAIN_DELAY", "1ms"),
    ]);
    assert!(edge.serve_after_fatal_error >= SERVE_AFTER_FATAL_ERROR);
    edge.serve_after_fatal_error = Duration::from_secs(1);
    let app = Arc::clone(&edge.app);
    let serves =
        || matches!(app.publisher.readiness(), Readiness::Degraded(why) if why.contains("fatal error"));
    until("the spool serves", serves).await;
    let (service, listeners) = (edge.service(), Listeners { http: bound().await, admin: bound().await });
    let start = Instant::now();
    let ended = tokio::spawn(edge.serve(listeners, CancellationToken::new()));
    let request = Request::post("/v1/events").body(Full::new(Bytes::from_static(br#"{"event":"a"}"#)));
    let Ok(response) = service.oneshot(request.unwrap()).await;
    assert_eq!(response.status(), StatusCode::OK);
    let ended = timeout(DEADLINE, ended).await.unwrap().unwrap();
    let Err(RunError::KafkaClient { summary, .. }) = ended else { panic!("{ended:?}") };
    assert_eq!((summary.0.spooled, summary.0.lost), (1, 0));
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fatal_error_of_kafkas_client_ends_a_replay_with_the_reason() {
    let directory = TempDir::new().unwrap();
    let record =
        SpooledRecord { id: Uuid::now_v7(), partition: 0, lines: 1, value: br#"{"event":"a"}"#.to_vec() };
    a_spool_with(&directory, vec![record]);
    let broker = broker_with_fatal_error();
    let vars = Vars::from_pairs([
        ("KAFKA_BROKERS", broker.bootstrap_servers().as_str()),
        ("SPOOL_DIR", directory.path().to_str().unwrap()),
    ]);
    let config = Config::from_vars(&vars).unwrap();
    let (stop, mut out) = (CancellationToken::new(), Vec::new());
    let ended = timeout(DEADLINE, commands::replay(&config, stop, &mut out)).await.unwrap();
    let error = ended.unwrap_err().to_string();
    assert!(error.contains("authorization failed") && error.ends_with("1 records stay in the spool"));
}

#[tokio::test]
async fn other_paths_and_methods_get_their_own_refusals() {
    let edge = edge(&[]);
    for (method, uri, status) in [
        (Method::GET, "/", StatusCode::NOT_FOUND),
        (Method::POST, "/v1/events/", StatusCode::NOT_FOUND),
        (Method::POST, "/analytics/1700000000000/u1/like", StatusCode::NOT_FOUND),
        (Method::GET, "/v1/events", StatusCode::METHOD_NOT_ALLOWED),
        (Method::GET, "/analytics?timestamp=0", StatusCode::METHOD_NOT_ALLOWED),
        (Method::POST, "/analytics/x/u1/click", StatusCode::BAD_REQUEST),
    ] {
        let (found, headers, _) = call(&edge, method, uri, "").await;
        assert_eq!(found, status, "{uri}");
        assert_eq!(headers["cache-control"], "no-store");
    }
}

#[tokio::test]
async fn every_response_to_an_allowed_origin_has_cors_headers() {
    let ask = async |edge: &Edge, method: Method| {
        let request = Request::builder()
            .method(method)
            .uri("/v1/events")
            .header("origin", "https://a.example")
            .header("access-control-request-method", "POST");
        let Ok(response) = edge.service().oneshot(request.body(Full::<Bytes>::default()).unwrap()).await;
        (response.status(), response.headers().clone())
    };
    let open = edge(&[("CORS_ORIGINS", "https://a.example")]);
    let (status, headers) = ask(&open, Method::OPTIONS).await;
    assert_eq!(
        (status, &headers["access-control-max-age"]),
        (StatusCode::NO_CONTENT, &"7200".parse().unwrap())
    );
    let (status, headers) = ask(&open, Method::POST).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        (&headers["access-control-allow-origin"], &headers["vary"]),
        (&"https://a.example".parse().unwrap(), &"origin".parse().unwrap())
    );

    let (status, headers) = ask(&edge(&[]), Method::OPTIONS).await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    assert!(!headers.contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn a_stop_finishes_earlier_requests_and_counts_all_events() {
    let edge = edge_with_broker(&[("DRAIN_DELAY", "1ms")]).await;
    let listeners = Listeners { http: bound().await, admin: bound().await };
    let (status, _, _) = call(&edge, Method::POST, "/analytics/1700000000000/u1/click", "").await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    let summary = timeout(DEADLINE, edge.serve(listeners, shutdown)).await.unwrap().unwrap();
    assert_eq!(
        summary.to_string(),
        "events received 1, accepted 1, rejected 0, delivered 1, spooled 0, not durable 0, queued 0, lost 0"
    );
}
