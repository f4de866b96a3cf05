use axum::body::Body;
use axum::http::{HeaderMap, Request};
use runtime::vars::Vars;
use tower::ServiceExt as _;

use crate::{Config, QueryApi};

/// Sends a request to a service that cannot reach ClickHouse, and returns the status and headers of the response.
async fn ask(request: &str, headers: &[(&str, &str)]) -> (u16, HeaderMap) {
    let vars = Vars::from_pairs([("CLICKHOUSE_URL", "http://127.0.0.1:9")]);
    let service = QueryApi::start(Config::from_vars(&vars).unwrap()).service();
    let (method, path) = request.split_once(' ').unwrap();
    let request = headers
        .iter()
        .fold(Request::builder(), |request, (name, value)| request.header(*name, *value))
        .method(method)
        .uri(path);
    let response = service.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    (response.status().as_u16(), response.headers().clone())
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn a_preflight_has_no_body_and_says_what_a_page_may_send() {
    let preflight = [
        ("origin", "https://page.example"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization"),
    ];
    let (status, headers) = ask("OPTIONS /v1/query", &preflight).await;
    assert_eq!((status, text(&headers, "access-control-allow-origin")), (204, "*"));
    assert_eq!(text(&headers, "access-control-allow-methods"), "GET,HEAD,POST");
    assert!(text(&headers, "access-control-allow-headers").contains("authorization"));
}

#[tokio::test]
async fn pages_of_other_origins_can_read_refusals_and_retry_after() {
    let (status, headers) =
        ask("GET /analytics?timestamp=1&wait=0", &[("origin", "https://a.example")]).await;
    assert_eq!((status, text(&headers, "retry-after")), (503, "5"));
    assert_eq!(text(&headers, "access-control-allow-origin"), "*");
    for header in ["etag", "x-as-of", "x-age-ms", "retry-after", "x-next", "x-truncated"] {
        assert!(text(&headers, "access-control-expose-headers").contains(header), "{header}");
    }
}

#[tokio::test]
async fn a_cache_never_gives_one_origin_the_cors_headers_of_another() {
    for path in ["/openapi.json", "/v1/meta"] {
        let (status, headers) = ask(&format!("GET {path}"), &[("origin", "https://a.example")]).await;
        assert_eq!((status, text(&headers, "vary")), (200, "Origin"), "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_ready_in_time_is_503_with_retry_after() {
    for path in
        ["/analytics?timestamp=1", "/v1/counters", "/v1/counters.csv", "/v1/polls.json", "/v1/polls/a.csv"]
    {
        let (status, headers) = ask(&format!("GET {path}"), &[]).await;
        assert_eq!((status, text(&headers, "retry-after")), (503, "5"), "{path}");
    }
}

#[tokio::test]
async fn an_invalid_request_is_refused_without_waiting_for_a_snapshot() {
    for (request, status) in [
        ("GET /v1/counters.csv?format=json", 400),
        ("GET /v1/polls/p?format=xml", 400),
        ("GET /analytics?timestamp=x", 400),
        ("GET /v1/counters.xml", 404),
        ("POST /v1/polls", 405),
    ] {
        assert_eq!(ask(request, &[]).await.0, status, "{request}");
    }
}
