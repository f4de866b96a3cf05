//! Why a request is not answered with data, and how its sender is told.

use axum::extract::Request;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use runtime::problem::{self, Problem as Rendered};
use runtime::request_id::{REQUEST_ID, RequestId};
use serde::Serialize;

/// Why a request is not answered with data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Problem {
    /// A parameter and what is wrong with it.
    BadParameter(String, String),
    NotFound,
    MethodNotAllowed,
    /// What it would be read from is not declared.
    NotDeclared,
    /// The answer is not at hand, and the reader does not wait or has waited long enough.
    NotYet,
    /// Too many old hours or small polls are asked for.
    Busy,
}

/// The parameter that a problem concerns.
#[derive(Serialize)]
struct BadParameter<'a> {
    param: &'a str,
    reason: &'a str,
}

/// What a problem has beside what all have.
#[derive(Serialize)]
struct More<'a> {
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

    /// After how many seconds the same request may succeed; each `503` has it.
    fn retry_after(&self) -> Option<&'static str> {
        match self {
            Self::NotYet => Some("5"),
            Self::Busy => Some("30"),
            Self::BadParameter(..) | Self::NotFound | Self::NotDeclared | Self::MethodNotAllowed => None,
        }
    }

    /// The answer to the request `id`.
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
                "there are GET /analytics?timestamp={ms}, /v1/counters, /v1/polls and /v1/polls/{poll}",
                "correct the path",
            ),
            Self::MethodNotAllowed => (
                "method_not_allowed",
                "The method is not allowed",
                "this path takes GET and HEAD only",
                "use GET",
            ),
            Self::NotDeclared => (
                "not_declared",
                "The rollup is not declared",
                "the rollup that this is read from is not declared",
                "ask the operator; the log of the query API names the rollup",
            ),
            Self::NotYet => (
                "not_yet",
                "The answer is being read",
                "the answer was not read within the time that a request waits",
                "wait as long as `Retry-After` says, then ask again",
            ),
            Self::Busy => (
                "busy",
                "Too many different answers are asked for",
                "more old hours or small polls are asked for than are read at once",
                "wait as long as `Retry-After` says, then ask again",
            ),
        };
        let status = self.status();
        let problem = Rendered { status, code, title, detail, hint, request_id: id.as_str() };
        let errors = match self {
            Self::BadParameter(param, reason) => Some([BadParameter { param, reason }]),
            _ => None,
        };
        let mut response = (status, problem.render(More { errors })).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(problem::MEDIA_TYPE));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after() {
            headers.insert(RETRY_AFTER, HeaderValue::from_static(seconds));
        }
        response
    }
}

/// Not yet rendered: [`name_requests`] knows how the request is named.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Names each request in its answer, and renders problems.
pub(crate) async fn name_requests(request: Request, next: Next) -> Response {
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
