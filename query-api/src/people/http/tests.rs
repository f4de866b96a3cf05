use axum::body::{Body, to_bytes};
use axum::http::Request;
use runtime::vars::Vars;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;
use crate::{Config, QueryApi};

/// Sends the request to a service whose ClickHouse does not answer. Checks the status of the response, the code of the
/// problem, and the first parameter that the problem names.
async fn check(request: Request<Body>, status: u16, code: &str, param: Option<&str>) {
    let vars = Vars::from_pairs([("CLICKHOUSE_URL", "http://127.0.0.1:9")]);
    let service = QueryApi::start(Config::from_vars(&vars).unwrap()).service();
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(response.status(), status);
    let headers = response.headers().clone();
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    let problem: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&problem["code"], &problem["status"]), (&json!(code), &json!(status)), "{problem}");
    assert_eq!(problem["errors"][0]["param"].as_str(), param, "{problem}");
    assert_eq!(headers.contains_key("retry-after"), status == 503);
}

async fn check_retention(parameters: &str, status: u16, code: &str, param: Option<&str>) {
    let path = format!("/v1/retention?{parameters}");
    check(Request::get(path).body(Body::empty()).unwrap(), status, code, param).await;
}

async fn check_funnel(body: Value, status: u16, code: &str, param: Option<&str>) {
    let body = Body::from(body.to_string());
    check(Request::post("/v1/funnel").body(body).unwrap(), status, code, param).await;
}

#[tokio::test]
async fn the_refusal_of_a_retention_request_names_the_parameter() {
    const EVENTS: &str = "first=event:eq:a&again=event:eq:b";
    check_retention("again=event:eq:a", 400, "bad_parameter", Some("first")).await;
    check_retention("first=event:eq:a", 400, "bad_parameter", Some("again")).await;
    check_retention(&format!("{EVENTS}&first=event:eq:c"), 400, "bad_parameter", Some("first")).await;
    check_retention(&format!("{EVENTS}&grain=hour"), 400, "bad_parameter", Some("grain")).await;
    check_retention(&format!("{EVENTS}&periods=0"), 400, "bad_parameter", Some("periods")).await;
    check_retention(&format!("{EVENTS}&measures=users"), 400, "bad_parameter", Some("measures")).await;
    check_retention(&format!("{EVENTS}&periods=60&from=-5d"), 422, "too_wide", Some("periods")).await;
    check_retention(&format!("{EVENTS}&filter=country:eq:DE"), 422, "not_covered", Some("filter")).await;
    check_retention(&format!("{EVENTS}&tz=Asia/Tehran"), 422, "not_covered", Some("tz")).await;
    check_retention(EVENTS, 503, "not_yet", None).await;
}

#[tokio::test]
async fn the_refusal_of_a_funnel_names_the_parameter() {
    let steps = json!(["event:eq:a", "event:eq:b"]);
    let with = |name: &str, value: Value| {
        let mut body = json!({"steps": steps});
        body[name] = value;
        body
    };
    check_funnel(json!({}), 400, "bad_parameter", Some("steps")).await;
    check_funnel(json!({"steps": ["event:eq:a"]}), 400, "bad_parameter", Some("steps")).await;
    let nine: Vec<_> = (0..9).map(|step| format!("event:eq:{step}")).collect();
    check_funnel(json!({"steps": nine}), 400, "bad_parameter", Some("steps")).await;
    // If two steps had the same event name, one event would count as both steps.
    check_funnel(json!({"steps": ["event:eq:a", "event:in:b|a"]}), 400, "bad_parameter", Some("steps")).await;
    check_funnel(json!({"steps": ["event:ne:a", "event:eq:b"]}), 400, "bad_parameter", Some("steps")).await;
    check_funnel(json!({"steps": ["country:eq:a", "event:eq:b"]}), 400, "bad_parameter", Some("steps")).await;
    for within in ["0s", "8d", "1w", "day", "-1h", "99999999999d"] {
        check_funnel(with("within", json!(within)), 400, "bad_parameter", Some("within")).await;
    }
    check_funnel(with("from", json!("-32d")), 422, "too_wide", Some("from")).await;
    check_funnel(with("filter", json!("props.plan:eq:a")), 422, "not_covered", Some("filter")).await;
    let old = json!({"steps": steps, "from": "2026-01-01", "to": "2026-01-02"});
    check_funnel(old, 422, "not_covered", Some("from")).await;
    check(Request::post("/v1/funnel").body(Body::from("steps")).unwrap(), 400, "bad_body", None).await;
    check_funnel(json!({"steps": steps}), 503, "not_yet", None).await;
}

#[test]
fn the_format_comes_from_the_path_then_the_parameter_then_the_header() {
    let chosen = |suffix, parameter, accept: &str| {
        let headers = HeaderMap::from_iter([(axum::http::header::ACCEPT, accept.parse().unwrap())]);
        format(suffix, parameter, &headers).map_err(|problem| problem.errors[0].param.clone())
    };
    assert_eq!(chosen(None, None, "*/*"), Ok(Format::Json));
    assert_eq!(chosen(None, None, "text/csv"), Ok(Format::Csv));
    assert_eq!(chosen(Some(Format::Json), None, "text/csv"), Ok(Format::Json));
    assert_eq!(chosen(Some(Format::Json), Some(Format::Csv), "*/*"), Err("format".to_owned()));
}

/// `docs/people.md` shows the tables with which the parameters are parsed.
#[test]
fn docs_people_has_the_tables_of_parameters() {
    fn table<Q>(parameters: &[crate::query::params::Parameter<Q>]) -> String {
        let row = |parameter: &crate::query::params::Parameter<Q>| {
            let default = parameter.default.map(|default| format!("`{default}`")).unwrap_or_default();
            format!("| `{}` | {default} | {} |\n", parameter.name, parameter.doc.replace('|', "\\|"))
        };
        parameters.iter().map(row).collect()
    }
    let page = include_str!("../../../../docs/people.md");
    for rows in [table(&retention_params::PARAMETERS), table(&funnel_params::PARAMETERS)] {
        assert!(page.contains(&rows), "docs/people.md does not have this table:\n{rows}");
    }
}
