//! The whole OpenAPI document: every endpoint with its answers, refusals and headers.

use serde_json::{Map, Value, json};

use super::endpoints::{EVENT_STREAM, Endpoint, endpoints};
use super::schemas;
use crate::problem::MEDIA_TYPE;
use crate::query;

/// Statuses of refusals that every path can return: for a malformed request, for a request that arrives too slowly, and
/// for headers that are too long.
const EVERYWHERE: [u16; 3] = [400, 408, 431];
/// Further statuses of refusals that the document lists for every path if readers need a key. `/v1/meta` and
/// `/openapi.json` are listed with `403` but never return it.
const WITH_KEYS: [u16; 3] = [401, 403, 429];

/// The whole document; `needs_key` says whether readers need a token.
pub(super) fn document(needs_key: bool) -> Value {
    let mut paths = Map::new();
    for endpoint in endpoints() {
        let path = paths.entry(endpoint.path).or_insert_with(|| json!({}));
        path[endpoint.method] = operation(&endpoint, needs_key);
    }
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Millrace: the read API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Counts of events. Each answer names the moment up to which all events are counted.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": {"Problem": schemas::problem()}},
    });
    if needs_key {
        document["components"]["securitySchemes"] = json!({
            "token": {"type": "http", "scheme": "bearer", "description": "The token of a key that the operator declared."},
            "header": {"type": "apiKey", "in": "header", "name": "X-Read-Key", "description": "The same token."},
        });
        document["security"] = json!([{"token": []}, {"header": []}]);
    }
    document
}

fn operation(endpoint: &Endpoint, needs_key: bool) -> Value {
    let content: Map<_, _> = endpoint
        .answers
        .iter()
        .map(|(kind, schema)| ((*kind).to_owned(), json!({"schema": schema})))
        .collect();
    let mut responses = Map::new();
    responses.insert(
        "200".to_owned(),
        json!({"description": "The answer.", "headers": headers(endpoint, needs_key), "content": content}),
    );
    if !is_stream(endpoint) {
        let known =
            json!({"description": "The reader already has the answer: `If-None-Match` has its ETag."});
        responses.insert("304".to_owned(), known);
    }
    let keys = if needs_key { &WITH_KEYS[..] } else { &[] };
    for status in EVERYWHERE.iter().chain(keys).chain(endpoint.refusals) {
        responses.insert(status.to_string(), refusal(*status));
    }
    let name = endpoint.path.replace(['/', '.', '{', '}'], "_");
    let mut operation = json!({
        "operationId": format!("{}{name}", endpoint.method),
        "summary": endpoint.summary,
        "parameters": endpoint.parameters,
        "responses": responses,
    });
    if let Some(schema) = &endpoint.body {
        let content = json!({"application/json": {"schema": schema}});
        operation["requestBody"] = json!({"required": true, "content": content});
    }
    operation
}

/// Whether the endpoint answers with a stream of events, which has no end and no ETag.
fn is_stream(endpoint: &Endpoint) -> bool {
    endpoint.answers.iter().any(|(kind, _)| *kind == EVENT_STREAM)
}

/// The headers of a `200` response. A test compares the headers of all responses with those that CORS exposes to pages.
fn headers(endpoint: &Endpoint, needs_key: bool) -> Value {
    let header = |doc: &str, schema: Value| json!({"description": doc, "schema": schema});
    let mut headers = json!({
        "X-Request-Id": header("The id of the request, also in logs.", json!({"type": "string"})),
    });
    if !is_stream(endpoint) {
        headers["ETag"] = header("Changes with the data.", json!({"type": "string"}));
    }
    if endpoint.has_as_of {
        let moment = json!({"type": "string", "format": "date-time"});
        headers["X-As-Of"] = header("All that was in Kafka before this moment is counted.", moment);
        let age = json!({"type": "integer", "minimum": 0});
        headers["X-Age-Ms"] = header("Milliseconds from the moment of `X-As-Of` to the response.", age);
    }
    if query::PATHS.iter().any(|(path, _)| *path == endpoint.path) {
        let text = || json!({"type": "string"});
        headers["X-Truncated"] = header("`true` if rows beyond the limit were left out.", text());
        headers["X-Next"] =
            header("The value of `cursor` for the next page; absent on the last page.", text());
    }
    if needs_key {
        let text = || json!({"type": "string"});
        headers["RateLimit"] = header("How much of the key's rate limit is left, if it has one.", text());
        headers["RateLimit-Policy"] = header("The key's rate limit, if it has one.", text());
    }
    headers
}

fn refusal(status: u16) -> Value {
    let (description, header) = match status {
        400 => ("The request is malformed, or a parameter or the body cannot be used.", None),
        401 => ("The request has no valid token.", Some("WWW-Authenticate")),
        403 => ("The key does not permit what the request asks for.", None),
        404 => ("The rollup that this answer is read from is not declared.", None),
        408 => ("The request did not arrive in time.", None),
        413 => ("The body is too long.", None),
        422 => ("No rollup can answer the query, or the query asks for too much.", None),
        429 => (
            "The key has reached its rate limit or, on /v1/live, its limit of open streams.",
            Some("Retry-After"),
        ),
        431 => ("The headers are too long.", None),
        503 => (
            "The answer is not ready, ClickHouse does not answer, or the service is at a limit or stopping.",
            Some("Retry-After"),
        ),
        _ => unreachable!("no endpoint has a refusal {status}"),
    };
    let content = json!({MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}});
    let mut response = json!({"description": description, "content": content});
    if let Some(name) = header {
        response["headers"] = json!({name: {"required": true, "schema": {"type": "string"}}});
    }
    response
}
