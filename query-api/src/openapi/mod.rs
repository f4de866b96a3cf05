//! `/openapi.json`: the description of this API for programs (OpenAPI 3.1).
//!
//! The parameters of queries, retention and funnels come from the tables with which requests are parsed. The parameters
//! of other paths are declared in `endpoints`, and a test compares them with the routes. `endpoints` lists the paths,
//! `schemas` has the schemas of their answers, and `document` puts both together.

mod endpoints;

mod schemas;

mod document;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::get;

/// The route; `needs_key` says whether readers need a token.
pub(crate) fn routes(needs_key: bool) -> Router {
    let document = serde_json::to_vec(&document::document(needs_key)).expect("texts become JSON");
    let answer = |State(document): State<Bytes>, headers: HeaderMap| async move {
        crate::document::respond(document, &headers)
    };
    Router::new().route("/openapi.json", get(answer)).with_state(Bytes::from(document))
}

#[cfg(test)]
mod tests;
