use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use runtime::vars::Vars;
use serde_json::Value;
use tower::ServiceExt as _;

use super::document::document;
use crate::cors::EXPOSED_HEADERS;
use crate::{Config, HttpService, QueryApi};

/// A service whose ClickHouse does not answer.
fn service() -> impl HttpService<Body> {
    let vars = Vars::from_pairs([("CLICKHOUSE_URL", "http://127.0.0.1:9")]);
    QueryApi::start(Config::from_vars(&vars).unwrap()).service()
}

/// Whether the service accepts the parameters of a request, that is, does not answer `400`.
async fn is_read(service: &impl HttpService<Body>, method: &str, uri: &str, body: &str) -> bool {
    let method = Method::from_bytes(method.to_ascii_uppercase().as_bytes()).unwrap();
    let request = Request::builder().method(method).uri(uri).body(Body::from(body.to_owned())).unwrap();
    let status = service.clone().oneshot(request).await.unwrap().status();
    assert!(![StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED].contains(&status), "{uri}: {status}");
    status != StatusCode::BAD_REQUEST
}

/// Path, method and operation of every endpoint in the document.
fn operations() -> Vec<(String, String, Value)> {
    let document = document(true);
    let mut operations = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            operations.push((path.clone(), method.clone(), operation.clone()));
        }
    }
    operations
}

/// The required parameters of an operation, as a part of the URL.
fn required(operation: &Value) -> String {
    let all = operation["parameters"].as_array().unwrap().iter();
    all.filter(|parameter| parameter["in"] == "query" && parameter["required"] == true)
        .flat_map(|parameter| {
            let values = match &parameter["example"] {
                Value::Null => vec!["1"],
                Value::Array(values) => values.iter().map(|value| value.as_str().unwrap()).collect(),
                value => vec![value.as_str().unwrap()],
            };
            let name = parameter["name"].as_str().unwrap();
            values.into_iter().map(move |value| format!("{name}={value}&"))
        })
        .collect()
}

/// The parameters of an operation that are in `place` (`path` or `query`). Each has its name and its permitted values;
/// the list of values is empty if the document does not restrict them to a list.
fn parameters(operation: &Value, place: &str) -> Vec<(String, Vec<String>)> {
    let all = operation["parameters"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    all.filter(|parameter| parameter["in"] == place)
        .map(|parameter| {
            let values = parameter["schema"]["enum"].as_array().into_iter().flatten().map(text).collect();
            (text(&parameter["name"]), values)
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn the_routes_accept_the_described_parameters_and_no_others() {
    let service = service();
    for (path, method, operation) in operations() {
        let named = parameters(&operation, "path").into_iter();
        let path = named.fold(path, |path, (name, ..)| path.replace(&format!("{{{name}}}"), "shoe"));
        let query_parameters = parameters(&operation, "query");
        let uri = format!("{path}?{}", required(&operation));
        let example = &operation["requestBody"]["content"]["application/json"]["schema"]["examples"][0];
        let body = if example.is_null() { "{}".to_owned() } else { example.to_string() };
        assert!(is_read(&service, &method, &uri, &body).await, "{method} {uri}");
        for (name, values) in &query_parameters {
            // A value of `format` or `csv` may contradict the suffix of the path, such as `.json`, and is then refused.
            let is_contrary = path.contains('.') && ["format", "csv"].contains(&name.as_str());
            for value in values.iter().filter(|_| !is_contrary) {
                assert!(
                    is_read(&service, &method, &format!("{uri}{name}={value}"), &body).await,
                    "{path}: {name}={value}"
                );
            }
            if !values.is_empty() {
                assert!(
                    !is_read(&service, &method, &format!("{uri}{name}=no_such_value"), &body).await,
                    "{path}: {name}"
                );
            }
        }
        let ignores_parameters =
            ["/v1/meta", "/v1/pipeline", "/openapi.json", "/v1/live"].contains(&path.as_str());
        assert_eq!(
            is_read(&service, &method, &format!("{uri}no_such=1"), &body).await,
            ignores_parameters,
            "{method} {path}"
        );
    }
}

#[test]
fn every_get_request_in_docs_api_is_described() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/api.md");
    let page = fs::read_to_string(page).unwrap();
    let reads = page.split("## Reads").nth(1).unwrap().split("\n## ").next().unwrap();
    let document = document(false);
    let mut found = 0;
    for (at, _) in reads.match_indices("`GET /") {
        let path = reads[at + "`GET ".len()..].split(['`', '?']).next().unwrap();
        assert!(document["paths"][path]["get"].is_object(), "{path}");
        found += 1;
    }
    assert!(found >= 8, "docs/api.md describes only {found} GET requests");
}

#[test]
fn the_document_requires_a_token_if_readers_need_a_key() {
    let (open, closed) = (document(false), document(true));
    assert!(
        open.get("security").is_none() && open["paths"]["/v1/query"]["get"]["responses"]["401"].is_null()
    );
    assert_eq!(closed["components"]["securitySchemes"]["token"]["scheme"], "bearer");
    for status in ["401", "403", "429"] {
        assert!(closed["paths"]["/v1/query"]["get"]["responses"][status].is_object());
    }
}

#[test]
fn the_headers_that_pages_may_read_are_described_and_no_others() {
    let mut described = BTreeSet::new();
    for (_, _, operation) in operations() {
        for response in operation["responses"].as_object().unwrap().values() {
            let names = response["headers"].as_object().into_iter().flatten();
            described.extend(names.map(|(name, _)| name.to_ascii_lowercase()));
        }
    }
    // The browser itself evaluates `WWW-Authenticate`, so scripts of a page need not read it.
    described.remove("www-authenticate");
    let exposed = EXPOSED_HEADERS.iter().map(|name| name.as_str().to_owned()).collect();
    assert_eq!(described, exposed);
}
