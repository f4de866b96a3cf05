//! Responses with a document that describes this service: `/openapi.json` and `/v1/meta`. A document seldom changes, so
//! caches may keep it for a minute. The document of `/v1/meta` depends on the reader's key and on the state of the
//! tables at the latest refresh. If readers need keys, the key check makes each response private to its reader.

use axum::body::Bytes;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use xxhash_rust::xxh3::xxh3_64;

use crate::rendered::etag_matches;

/// `200` with the JSON document, or `304` if the reader already has it.
pub(crate) fn respond(document: Bytes, request: &HeaderMap) -> Response {
    // The ETag is weak, because a proxy may compress the document before it reaches the reader.
    let etag = format!("W/\"{:016x}\"", xxh3_64(&document));
    let unchanged = request.get(IF_NONE_MATCH).is_some_and(|known| etag_matches(known, &etag));
    let mut response =
        if unchanged { StatusCode::NOT_MODIFIED.into_response() } else { document.into_response() };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ETAG, HeaderValue::try_from(etag).expect("hexadecimal digits make a header"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=60, stale-if-error=300"));
    // If `CORS_ORIGINS` lists origins, the CORS headers of the response depend on the origin of the request.
    headers.insert(VARY, HeaderValue::from_static("Origin"));
    response
}
