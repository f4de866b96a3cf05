use std::convert::Infallible;
use std::fs;

use axum::body::{Body, to_bytes};
use axum::http::StatusCode;
use axum::http::header::{ACCESS_CONTROL_REQUEST_METHOD, WWW_AUTHENTICATE};
use runtime::keys::generate;
use runtime::vars::Vars;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt as _;
use tower::util::BoxCloneService;

use super::*;
use crate::{Config, QueryApi};

/// A service that requires keys. Nothing listens on the address in its `CLICKHOUSE_URL`.
struct Service {
    routes: BoxCloneService<Request, Response, Infallible>,
    _directory: TempDir,
}

/// The token of a key, and the key's declaration with the additional lines `more`.
fn key(id: &str, tenant: &str, more: &str) -> (String, String) {
    let (token, toml) = generate(id, tenant);
    (token, format!("{toml}{more}\n"))
}

impl Service {
    fn start(declared: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("keys.toml");
        fs::write(&file, declared.concat()).unwrap();
        let vars = [
            ("CLICKHOUSE_URL", "http://127.0.0.1:9"),
            // Requests wait for a snapshot that never comes, so the wait must be short.
            ("REFRESH_INTERVAL", "10ms"),
            ("REFRESH_DEADLINE", "10ms"),
            ("READ_AUTH", "required"),
            ("READ_KEYS_FILE", file.to_str().unwrap()),
        ];
        let config = Config::from_vars(&Vars::from_pairs(vars)).unwrap();
        Self { routes: BoxCloneService::new(QueryApi::start(config).service()), _directory: directory }
    }

    async fn send(&self, request: Request) -> (StatusCode, HeaderMap, Value) {
        let response = self.routes.clone().oneshot(request).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, headers, serde_json::from_slice(&body).unwrap_or_default())
    }

    async fn get(&self, path: &str, token: &str) -> (StatusCode, HeaderMap, Value) {
        let request = Request::get(path).header(AUTHORIZATION, format!("Bearer {token}"));
        self.send(request.body(Body::empty()).unwrap()).await
    }

    #[track_caller]
    fn check_problem((status, headers, body): &(StatusCode, HeaderMap, Value), expected: u16, code: &str) {
        assert_eq!((status.as_u16(), &body["code"]), (expected, &json!(code)), "{body}");
        assert_eq!(headers["content-type"], "application/problem+json");
        assert_eq!(headers["cache-control"], "no-store");
    }
}

const RETENTION: &str = "/v1/retention?first=event:eq:a&again=event:eq:b";
const FUNNEL: &str = "/v1/funnel?steps=event:eq:a&steps=event:eq:b";

/// Paths of prepared answers (the first five), of other routes that need a key, and of no route (the last). `/v1/live`
/// has its own test.
const PATHS: [&str; 12] = [
    "/analytics?timestamp=1700000000000",
    "/v1/counters",
    "/web/get.php",
    "/v1/polls",
    "/v1/polls/shoe",
    "/v1/query",
    RETENTION,
    FUNNEL,
    "/v1/meta",
    "/openapi.json",
    "/v1/pipeline",
    "/nowhere",
];

#[tokio::test]
async fn every_token_that_is_not_valid_is_refused_in_the_same_way_on_every_path() {
    let (good, declared) = key("good", "default", "");
    let (disabled, declared_disabled) = key("disabled", "default", "enabled = false");
    let service = Service::start(&[&declared, &declared_disabled]);
    for path in PATHS {
        let mut seen = Vec::new();
        for token in ["", "mr_unknown", &disabled] {
            let answer = service.get(path, token).await;
            Service::check_problem(&answer, 401, "unauthorized");
            assert_eq!(answer.1[WWW_AUTHENTICATE], "Bearer realm=\"millrace\"");
            let mut body = answer.2;
            body["request_id"] = Value::Null;
            seen.push(body);
        }
        let without = service.send(Request::get(path).body(Body::empty()).unwrap()).await;
        Service::check_problem(&without, 401, "unauthorized");
        assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "{seen:?}");
        assert_ne!(service.get(path, &good).await.0, StatusCode::UNAUTHORIZED, "{path}");
        let header = Request::get(path).header(X_READ_KEY, &good).body(Body::empty()).unwrap();
        assert_ne!(service.send(header).await.0, StatusCode::UNAUTHORIZED, "{path}");
    }
}

#[tokio::test]
async fn a_preflight_needs_no_token_and_gets_no_data() {
    let service = Service::start(&[]);
    let options = Request::options("/v1/query");
    let preflight = options.header(ACCESS_CONTROL_REQUEST_METHOD, "GET").body(Body::empty()).unwrap();
    let answer = service.send(preflight).await;
    assert_eq!((answer.0, answer.2), (StatusCode::NO_CONTENT, Value::Null));
    let plain = Request::options("/v1/query").body(Body::empty()).unwrap();
    assert_eq!(service.send(plain).await.0, StatusCode::NO_CONTENT);
    let get = Request::get("/v1/meta").header(ACCESS_CONTROL_REQUEST_METHOD, "GET");
    assert_eq!(service.send(get.body(Body::empty()).unwrap()).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn each_key_has_a_rate_for_answers_and_a_rate_for_queries() {
    let rates = "queries_per_second = 2\nanswers_per_second = 1";
    let ((a, declared_a), (b, declared_b)) = (key("a", "acme", rates), key("b", "acme", rates));
    let service = Service::start(&[&declared_a, &declared_b]);
    let (_, headers, _) = service.get("/v1/query", &a).await;
    assert_eq!(headers[RATE_LIMIT], "\"queries\";r=1");
    assert_eq!(headers[RATE_LIMIT_POLICY], "\"queries\";q=2;w=1");
    let mut refused = None;
    for _ in 0..100 {
        let answer = service.get("/v1/query.csv", &a).await;
        if answer.0 == StatusCode::TOO_MANY_REQUESTS {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.unwrap();
    Service::check_problem(&refused, 429, "rate_limited");
    assert_eq!(
        (&refused.1[RETRY_AFTER], &refused.1[RATE_LIMIT]),
        (&header_value("1"), &header_value("\"queries\";r=0;t=1"))
    );
    // Queries of the key `a` are not charged to its rate for answers, nor to the rates of the key `b`.
    assert_eq!(service.get("/v1/meta", &a).await.0, StatusCode::OK);
    assert_eq!(service.get("/v1/query", &b).await.1[RATE_LIMIT], "\"queries\";r=1");
}

fn header_value(text: &'static str) -> HeaderValue {
    HeaderValue::from_static(text)
}

#[tokio::test]
async fn a_prepared_answer_is_refused_to_a_key_that_permits_less() {
    let (all, declared_all) = key("all", "default", "");
    let (some, declared_some) = key("some", "default", "measures = [\"events\"]");
    let (part, declared_part) = key("part", "default", "filter = [\"country:eq:DE\"]");
    let service = Service::start(&[&declared_all, &declared_some, &declared_part]);
    let refused = async |path: &str, token: &str| {
        let answer = service.get(path, token).await;
        let is_refused = answer.0 == StatusCode::FORBIDDEN;
        if is_refused {
            Service::check_problem(&answer, 403, "forbidden");
            assert!(answer.2["hint"].as_str().unwrap().contains("/v1/query"));
        }
        is_refused
    };
    for path in &PATHS[..5] {
        let path = path.replace("timestamp", "wait=0&timestamp");
        let is_of_events = path.contains("counters") || path.contains("get.php");
        assert!(!refused(&path, &all).await, "{path}");
        assert_eq!(refused(&path, &some).await, !is_of_events, "{path}");
        assert!(refused(&path, &part).await, "{path}");
    }
    for path in &PATHS[5..10] {
        assert!(!refused(path, &part).await, "{path}");
    }
}

#[tokio::test]
async fn a_refusal_names_the_parameter_that_asks_for_a_forbidden_measure() {
    let (token, declared) = key("a", "acme", "measures = [\"events\"]");
    let service = Service::start(&[&declared]);
    for (parameters, param) in [
        ("measures=events,users", "measures"),
        ("measures=no_such", "measures"),
        ("rollup=users_daily", "rollup"),
        ("rollup=no_such", "rollup"),
    ] {
        let answer = service.get(&format!("/v1/query?{parameters}"), &token).await;
        Service::check_problem(&answer, 403, "forbidden");
        assert_eq!(answer.2["errors"][0]["param"], param);
    }
    assert_eq!(service.get("/v1/query?rollup=event_hourly", &token).await.0, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn a_stream_is_refused_to_a_key_that_permits_less_than_it_shows() {
    let (all, declared_all) = key("all", "default", "");
    let (some, declared_some) = key("some", "default", "measures = [\"events\"]");
    let (part, declared_part) = key("part", "default", "filter = [\"country:eq:DE\"]");
    let service = Service::start(&[&declared_all, &declared_some, &declared_part]);
    // The body of `/v1/live` does not end, so the test reads only the status.
    for (token, status) in [(&*all, 200), (&*some, 403), (&*part, 403), ("mr_unknown", 401)] {
        let request = Request::get("/v1/live").header(AUTHORIZATION, format!("Bearer {token}"));
        let response = service.routes.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), status);
    }
}

#[tokio::test]
async fn retention_and_funnels_are_refused_to_a_key_that_permits_no_users() {
    let (events, declared_events) = key("events", "default", "measures = [\"events\"]");
    let more = "measures = [\"users\"]\nqueries_per_second = 9";
    let (users, declared_users) = key("users", "default", more);
    let service = Service::start(&[&declared_events, &declared_users]);
    for (path, param) in [(RETENTION, "first"), (FUNNEL, "steps")] {
        let answer = service.get(path, &events).await;
        Service::check_problem(&answer, 403, "forbidden");
        assert_eq!(answer.2["errors"][0]["param"], param);
        assert!(answer.2["detail"].as_str().unwrap().contains("the measure `users`"));
        let answer = service.get(path, &users).await;
        Service::check_problem(&answer, 503, "not_yet");
        assert!(answer.1[RATE_LIMIT].to_str().unwrap().starts_with("\"queries\""));
    }
}

/// Neither retention nor a funnel can filter by the field that the key's filter names. So the refusal of a request
/// proves that the service applied this filter.
#[tokio::test]
async fn retention_and_funnels_count_only_events_that_meet_the_filters_of_the_key() {
    let (part, declared_part) = key("part", "default", "filter = [\"props.no_such:eq:a\"]");
    let service = Service::start(&[&declared_part]);
    for path in [RETENTION, FUNNEL] {
        let answer = service.get(path, &part).await;
        Service::check_problem(&answer, 422, "not_covered");
        assert_eq!(answer.2["errors"][0]["param"], "filter");
    }
}

#[tokio::test]
async fn only_operators_may_read_the_state_of_the_pipeline() {
    let (operator, declared_operator) = key("operator", "acme", "operator = true");
    let (board, declared_board) = key("board", "acme", "operator = false");
    let service = Service::start(&[&declared_operator, &declared_board]);
    // The operator is permitted, so the service tries to ask ClickHouse, which does not answer.
    Service::check_problem(&service.get("/v1/pipeline", &operator).await, 503, "unavailable");
    let refused = service.get("/v1/pipeline", &board).await;
    Service::check_problem(&refused, 403, "forbidden");
    assert!(refused.2["detail"].as_str().unwrap().contains("`operator = true`"));
}

#[tokio::test]
async fn shared_caches_do_not_keep_the_answer_of_a_key() {
    let (token, declared) = key("a", "acme", "");
    let service = Service::start(&[&declared]);
    let (_, headers, _) = service.get("/v1/meta", &token).await;
    assert!(headers[CACHE_CONTROL].to_str().unwrap().starts_with("private, "));
    let vary: Vec<_> = headers.get_all(VARY).iter().map(|value| value.to_str().unwrap()).collect();
    assert!(vary.contains(&"authorization") && vary.contains(&"x-read-key"), "{vary:?}");
    // A reader without a token gets no `304` for a known ETag.
    let known = Request::get("/v1/meta").header("if-none-match", &headers["etag"]).body(Body::empty());
    assert_eq!(service.send(known.unwrap()).await.0, StatusCode::UNAUTHORIZED);
}
