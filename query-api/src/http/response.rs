//! The response that carries an answer, and its headers.

use axum::http::header::{AGE, CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use schemas::time::UnixMillis;

use crate::rendered::{Rendered, etag_matches, rfc3339};

/// The moment that an answer is true for.
const X_AS_OF: HeaderName = HeaderName::from_static("x-as-of");

/// `200` with the body, or `304` if the reader already has it. No header of the request selects another
/// body, so there is no `Vary`.
pub(crate) fn respond(
    rendered: &Rendered,
    as_of: Option<UnixMillis>,
    now: UnixMillis,
    request: &HeaderMap,
) -> Response {
    let unchanged = request.get(IF_NONE_MATCH).is_some_and(|known| etag_matches(known, &rendered.etag));
    let mut response = if unchanged {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        rendered.body.clone().into_response()
    };
    let headers = response.headers_mut();
    let text =
        |text: String| HeaderValue::try_from(text).expect("digits and ASCII punctuation make a header");
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(rendered.media_type));
    headers.insert(ETAG, text(rendered.etag.clone()));
    headers.insert(
        CACHE_CONTROL,
        HeaderValue::from_static("public, max-age=1, stale-while-revalidate=30, stale-if-error=300"),
    );
    if let Some(as_of) = as_of {
        let age = (now.0 - as_of.0).max(0) / 1000;
        headers.insert(X_AS_OF, text(rfc3339(as_of)));
        headers.insert(AGE, text(age.to_string()));
    }
    response
}
