//! Why a request is refused, and the problem (RFC 9457) that its sender gets.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use runtime::problem::Problem as ProblemBody;
use runtime::request_id::RequestId;
use serde::Serialize;

use crate::problem::{self, Refusal};

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
    /// `Retry-After`, in seconds; every `503` has it.
    fn retry_after(&self) -> Option<&'static str> {
        match self {
            Self::NotYet => Some("5"),
            Self::Busy => Some("30"),
            Self::BadParameter(..) | Self::NotFound | Self::NotDeclared | Self::MethodNotAllowed => None,
        }
    }
}

impl Refusal for Problem {
    fn status(&self) -> StatusCode {
        match self {
            Self::BadParameter(..) => StatusCode::BAD_REQUEST,
            Self::NotFound | Self::NotDeclared => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotYet | Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

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
        problem::response(&problem, MoreMembers { errors }, self.retry_after())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        problem::unrendered(self)
    }
}
