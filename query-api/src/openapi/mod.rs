//! `/openapi.json`: the description of this API for programs (OpenAPI 3.1).
//!
//! `endpoints` lists the paths and their parameters, `schemas` has the schemas of the answers, and `document` builds
//! the whole document from both. The parameters of queries, retention and funnels are taken from the tables that also
//! parse requests. The parameters of the other paths are written by hand in `endpoints`. A test sends requests to check
//! that the handlers accept the described parameters and no others.

mod endpoints;

mod schemas;

mod document;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::get;

/// The route `/openapi.json`. `needs_key` says whether readers need the token of a key.
pub(crate) fn routes(needs_key: bool) -> Router {
    let document = serde_json::to_vec(&document::document(needs_key)).expect("texts become JSON");
    let answer = |State(document): State<Bytes>, headers: HeaderMap| async move {
        crate::document::respond(document, &headers)
    };
    Router::new().route("/openapi.json", get(answer)).with_state(Bytes::from(document))
}

#[cfg(test)]
mod tests;
