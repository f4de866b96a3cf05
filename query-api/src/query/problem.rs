//! Why a query has no answer, and how its sender learns of it: RFC 9457, like every refusal of this service.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use runtime::problem;
use runtime::request_id::RequestId;
use serde::Serialize;

use crate::problem::Refusal;

/// Why a query has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) kind: Kind,
    /// What is wrong, by parameter; empty where no parameter is at fault.
    pub(super) errors: Vec<BadParameter>,
}

/// A parameter and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct BadParameter {
    pub(super) param: String,
    pub(super) reason: String,
}

/// The kinds of problems.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A parameter that cannot be read.
    BadParameter,
    /// A body that is no JSON object.
    BadBody,
    /// A body that is longer than any query.
    BodyTooLarge,
    /// No rollup, or no single one, has what is asked for.
    NotCovered,
    /// The answer would take more rows, cells or time than one query may.
    TooWide,
    /// As many queries run as may run at once.
    Busy,
    /// ClickHouse did not answer in time.
    TooSlow,
    /// ClickHouse did not answer, or not as it should.
    Unavailable,
    /// Neither GET nor POST.
    MethodNotAllowed,
}

impl Problem {
    /// One parameter is at fault.
    pub(super) fn of(kind: Kind, param: impl Into<String>, reason: impl Into<String>) -> Self {
        let error = BadParameter { param: param.into(), reason: reason.into() };
        Self { kind, errors: vec![error] }
    }

    /// A parameter that cannot be read.
    pub(super) fn bad(param: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::of(Kind::BadParameter, param, reason)
    }

    /// What is wrong, in a sentence.
    pub(super) fn detail(&self) -> String {
        let parts: Vec<_> =
            self.errors.iter().map(|BadParameter { param, reason }| format!("`{param}`: {reason}")).collect();
        if parts.is_empty() { self.kind.detail().to_owned() } else { parts.join("; ") }
    }
}

impl Refusal for Problem {
    fn status(&self) -> StatusCode {
        self.kind.status()
    }

    fn render(&self, id: &RequestId) -> Response {
        #[derive(Serialize)]
        struct More<'a> {
            #[serde(skip_serializing_if = "<[_]>::is_empty")]
            errors: &'a [BadParameter],
        }
        let (status, detail) = (self.kind.status(), self.detail());
        let problem = problem::Problem {
            status,
            code: self.kind.code(),
            title: self.kind.title(),
            detail: &detail,
            hint: self.kind.hint(),
            request_id: id.as_str(),
        };
        crate::problem::response(&problem, More { errors: &self.errors }, self.kind.retry_after())
    }
}

/// For the one kind that no parameter causes.
impl From<Kind> for Problem {
    fn from(kind: Kind) -> Self {
        Self { kind, errors: Vec::new() }
    }
}

impl Kind {
    fn status(self) -> StatusCode {
        match self {
            Self::BadParameter | Self::BadBody => StatusCode::BAD_REQUEST,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NotCovered | Self::TooWide => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Busy | Self::TooSlow | Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        }
    }

    fn code(self) -> &'static str {
        match self {
            Self::BadParameter => "bad_parameter",
            Self::BadBody => "bad_body",
            Self::BodyTooLarge => "body_too_large",
            Self::NotCovered => "not_covered",
            Self::TooWide => "too_wide",
            Self::Busy => "busy",
            Self::TooSlow => "too_slow",
            Self::Unavailable => "unavailable",
            Self::MethodNotAllowed => "method_not_allowed",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::BadParameter => "A parameter cannot be used",
            Self::BadBody => "The body cannot be read",
            Self::BodyTooLarge => "The body is too long",
            Self::NotCovered => "No rollup answers this query",
            Self::TooWide => "The query asks for too much at once",
            Self::Busy => "Too many queries run at once",
            Self::TooSlow => "The query was not answered in time",
            Self::Unavailable => "The database does not answer",
            Self::MethodNotAllowed => "The method is not allowed",
        }
    }

    /// What is wrong where no parameter is.
    fn detail(self) -> &'static str {
        match self {
            Self::BadParameter | Self::NotCovered => "the parameters do not fit together",
            Self::BadBody => "the body is not a JSON object of parameters",
            Self::BodyTooLarge => "the body of a query has at most 64 KiB",
            Self::TooWide => "the query reads or returns more rows than one query may",
            Self::Busy => "the query waited for its turn for as long as a query may wait",
            Self::TooSlow => "ClickHouse did not answer within the time that a query may take",
            Self::Unavailable => "ClickHouse did not answer; the log of the query API has the reason",
            Self::MethodNotAllowed => "this path takes GET, HEAD and POST only",
        }
    }

    fn hint(self) -> &'static str {
        match self {
            Self::BadParameter => "correct the parameter",
            Self::BadBody | Self::BodyTooLarge => "send the parameters of GET as one JSON object",
            Self::NotCovered => {
                "ask for what a rollup has, or have the operator declare a rollup that has it"
            }
            Self::TooWide => "ask for a shorter window, a coarser grain, fewer dimensions, or add a filter",
            Self::Busy | Self::TooSlow | Self::Unavailable => {
                "wait as long as `Retry-After` says, then ask again"
            }
            Self::MethodNotAllowed => "use GET or POST",
        }
    }

    /// After how many seconds the same request may succeed; each `503` has it.
    fn retry_after(self) -> Option<&'static str> {
        match self {
            Self::Busy => Some("5"),
            Self::TooSlow | Self::Unavailable => Some("10"),
            Self::BadParameter
            | Self::BadBody
            | Self::BodyTooLarge
            | Self::NotCovered
            | Self::TooWide
            | Self::MethodNotAllowed => None,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        crate::problem::unrendered(self)
    }
}
