use axum::body::{Body, to_bytes};
use axum::http::Request;
use runtime::vars::Vars;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;
use crate::{Config, QueryApi};

/// Sends a request to a service that cannot reach ClickHouse. Checks the status of the response, the code of the
/// problem, and the first parameter at fault.
async fn check(request: Request<Body>, status: u16, code: &str, param: Option<&str>) {
    let vars = Vars::from_pairs([("CLICKHOUSE_URL", "http://127.0.0.1:9")]);
    let service = QueryApi::start(Config::from_vars(&vars).unwrap()).service();
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(response.status(), status);
    let headers = response.headers().clone();
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    let problem: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&problem["code"], &problem["status"]), (&json!(code), &json!(status)));
    assert_eq!(problem["errors"][0]["param"].as_str(), param, "{problem}");
    assert_eq!(problem["request_id"], headers["x-request-id"].to_str().unwrap());
    assert_eq!(headers["content-type"], "application/problem+json");
    assert_eq!(headers["cache-control"], "no-store");
    assert_eq!(headers.contains_key("retry-after"), status == 503);
    assert_eq!(headers.contains_key("allow"), status == 405);
}

fn get_query(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

#[tokio::test]
async fn a_refused_query_gets_a_problem_that_names_the_parameter() {
    check(get_query("/v1/query?measure=events"), 400, "bad_parameter", Some("measure")).await;
    check(get_query("/v1/query.csv?week=mon&week=sun"), 400, "bad_parameter", Some("week")).await;
    check(get_query("/v1/query?measures=visits"), 422, "not_covered", Some("measures")).await;
    check(get_query("/v1/query?grain=minute&from=-400d"), 422, "too_wide", Some("grain")).await;
    check(get_query("/v1/query?limit=10001"), 400, "bad_parameter", Some("limit")).await;
    check(get_query("/v1/query.csv?limit=100000"), 503, "not_yet", None).await;
    let post = |body: Vec<u8>| Request::post("/v1/query").body(Body::from(body)).unwrap();
    check(post(b"{\"limit\":0}".to_vec()), 400, "bad_parameter", Some("limit")).await;
    check(post(b"limit=0".to_vec()), 400, "bad_body", None).await;
    check(post(vec![b' '; MAX_BODY_BYTES + 1]), 413, "body_too_large", None).await;
    let put = Request::put("/v1/query").body(Body::empty()).unwrap();
    check(put, 405, "method_not_allowed", None).await;
}

#[tokio::test]
async fn a_query_before_clickhouse_has_answered_gets_not_yet() {
    check(get_query("/v1/query"), 503, "not_yet", None).await;
}

fn chosen(given: &[(&str, &str)], suffix: Option<Format>, accept: &str) -> Result<Format, String> {
    let pairs: Vec<_> = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_str(accept).unwrap())]);
    format(&Query::parse(&pairs).unwrap(), suffix, &headers).map_err(|problem| problem.detail())
}

#[test]
fn the_format_comes_from_the_path_then_the_parameter_then_the_header() {
    assert_eq!(chosen(&[], None, "*/*"), Ok(Format::Json));
    assert_eq!(chosen(&[], None, "text/html, text/csv;q=0.5"), Ok(Format::Csv));
    assert_eq!(chosen(&[("format", "ndjson")], None, "text/csv"), Ok(Format::Ndjson));
    assert_eq!(chosen(&[], Some(Format::Csv), "application/json"), Ok(Format::Csv));
    assert_eq!(chosen(&[("csv", "excel")], None, "application/json"), Ok(Format::Csv));
    assert_eq!(chosen(&[("format", "csv")], Some(Format::Csv), ""), Ok(Format::Csv));
}

#[test]
fn a_parameter_that_contradicts_the_path_is_named() {
    assert!(chosen(&[("format", "csv")], Some(Format::Json), "").unwrap_err().starts_with("`format`"));
    assert!(chosen(&[("csv", "excel")], Some(Format::Json), "").unwrap_err().starts_with("`csv`"));
}

#[test]
fn post_combines_the_parameters_of_the_url_and_the_body() {
    let (post, uri) = (Method::POST, Uri::from_static("/v1/query?grain=day"));
    let pairs = parameters(&PARAMETERS, &post, &uri, Ok(Bytes::from_static(b"{\"limit\":5}"))).unwrap();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(pairs, [pair("grain", "day"), pair("limit", "5")]);
    assert_eq!(parameters(&PARAMETERS, &Method::GET, &uri, Ok(Bytes::new())).unwrap().len(), 1);
}
