//! Why a request is refused, and the problem (RFC 9457) that its sender gets.

use axum::extract::Request;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use runtime::problem::{self, Problem as ProblemBody};
use runtime::request_id::{REQUEST_ID, RequestId};
use serde::Serialize;

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Problem {
    /// The name of a parameter, and what is wrong with its value.
    BadParameter(String, String),
    NotFound,
    MethodNotAllowed,
    /// The rollup that the answer is read from is not declared.
    NotDeclared,
    /// The latest snapshot does not have the answer, and the request does not wait or has waited long enough.
    NotYet,
    /// Readers already ask for as many old hours or small polls as a refresh reads.
    Busy,
}

/// One entry of `errors`.
#[derive(Serialize)]
struct BadParameter<'a> {
    param: &'a str,
    reason: &'a str,
}

/// The members that only some problems have.
#[derive(Serialize)]
struct MoreMembers<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<[BadParameter<'a>; 1]>,
}

impl Problem {
    fn status(&self) -> StatusCode {
        match self {
            Self::BadParameter(..) => StatusCode::BAD_REQUEST,
            Self::NotFound | Self::NotDeclared => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotYet | Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// `Retry-After`, in seconds; every `503` has it.
    fn retry_after(&self) -> Option<&'static str> {
        match self {
            Self::NotYet => Some("5"),
            Self::Busy => Some("30"),
            Self::BadParameter(..) | Self::NotFound | Self::NotDeclared | Self::MethodNotAllowed => None,
        }
    }

    /// The response to the request `id`.
    fn render(&self, id: &RequestId) -> Response {
        let bad_parameter;
        let (code, title, detail, hint) = match self {
            Self::BadParameter(parameter, reason) => {
                bad_parameter = format!("`{parameter}`: {reason}");
                (
                    "bad_parameter",
                    "A parameter cannot be used",
                    bad_parameter.as_str(),
                    "correct the parameter",
                )
            }
            Self::NotFound => (
                "not_found",
                "There is no such path",
                "the paths are /analytics?timestamp={ms}, /v1/counters, /v1/polls and /v1/polls/{poll}",
                "correct the path",
            ),
            Self::MethodNotAllowed => (
                "method_not_allowed",
                "The method is not allowed",
                "this path accepts GET and HEAD only",
                "use GET",
            ),
            Self::NotDeclared => (
                "not_declared",
                "The rollup is not declared",
                "the rollup that this answer is read from is not declared",
                "ask the operator to declare it; the log of the query API names the rollup",
            ),
            Self::NotYet => (
                "not_yet",
                "The answer is not ready yet",
                "the answer was not ready within the time that a request waits for it",
                "wait as long as `Retry-After` says, then send the request again",
            ),
            Self::Busy => (
                "busy",
                "Too many different answers are requested",
                "readers ask for more old hours or small polls than are read at once",
                "wait as long as `Retry-After` says, then send the request again",
            ),
        };
        let status = self.status();
        let problem = ProblemBody { status, code, title, detail, hint, request_id: id.as_str() };
        let errors = match self {
            Self::BadParameter(param, reason) => Some([BadParameter { param, reason }]),
            _ => None,
        };
        let mut response = (status, problem.render(MoreMembers { errors })).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(problem::MEDIA_TYPE));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after() {
            headers.insert(RETRY_AFTER, HeaderValue::from_static(seconds));
        }
        response
    }
}

/// Only the status: [`add_request_id`], which knows the id of the request, renders the body.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Adds the id of the request to each response, and renders problems.
pub(super) async fn add_request_id(request: Request, next: Next) -> Response {
    let id = RequestId::of(request.headers());
    let mut response = next.run(request).await;
    let problem = response.extensions_mut().remove::<Problem>();
    let allow = response.headers_mut().remove(axum::http::header::ALLOW);
    let mut response = problem.map_or(response, |problem| problem.render(&id));
    if let Some(allow) = allow {
        response.headers_mut().insert(axum::http::header::ALLOW, allow);
    }
    response.headers_mut().insert(REQUEST_ID, id.header());
    response
}
