//! How refused requests get their problem (RFC 9457): a handler returns what is wrong, and the layer that knows the id
//! of the request renders it.

use axum::extract::Request;
use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use runtime::problem::{MEDIA_TYPE, Problem};
use runtime::request_id::{REQUEST_ID, RequestId};
use serde::Serialize;

/// Why a request is refused, in the words of its routes.
pub(crate) trait Refusal: Clone + Send + Sync + 'static {
    /// The status of the response.
    fn status(&self) -> StatusCode;

    /// The response to the request `id`.
    fn render(&self, id: &RequestId) -> Response;
}

/// Only the status: [`add_request_id`] renders the body.
pub(crate) fn unrendered<R: Refusal>(refusal: R) -> Response {
    let mut response = refusal.status().into_response();
    response.extensions_mut().insert(refusal);
    response
}

/// The response of a problem; `retry_after` is in seconds.
pub(crate) fn response(
    problem: &Problem<'_>,
    members: impl Serialize,
    retry_after: Option<&'static str>,
) -> Response {
    let mut response = (problem.status, problem.render(members)).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(seconds) = retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from_static(seconds));
    }
    response
}

/// Adds the id of the request to each response, and renders refusals.
pub(crate) async fn add_request_id<R: Refusal>(request: Request, next: Next) -> Response {
    let id = RequestId::of(request.headers());
    let mut response = next.run(request).await;
    let refusal = response.extensions_mut().remove::<R>();
    let allow = response.headers_mut().remove(ALLOW);
    let mut response = refusal.map_or(response, |refusal| refusal.render(&id));
    if let Some(allow) = allow {
        response.headers_mut().insert(ALLOW, allow);
    }
    response.headers_mut().insert(REQUEST_ID, id.header());
    response
}
