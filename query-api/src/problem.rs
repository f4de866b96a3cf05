//! Why a request is refused, and the problem (RFC 9457) that its sender gets: one list for all routes.
//!
//! A handler returns a [`Problem`]. The layer that knows the id of the request renders the problem as a response.

use std::mem;

use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use runtime::problem;
pub(crate) use runtime::problem::MEDIA_TYPE;
use runtime::request_id::{REQUEST_ID, RequestId};
use serde::Serialize;

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) kind: Kind,
    /// What is wrong with each parameter at fault; empty if no parameter is at fault.
    pub(crate) errors: Vec<BadParameter>,
}

/// A parameter and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct BadParameter {
    pub(crate) param: String,
    pub(crate) reason: String,
}

/// The kinds of problems.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A parameter cannot be read, or does not fit together with another parameter.
    BadParameter,
    /// The body is not a JSON object of parameters, or has too many parameters.
    BadBody,
    /// The request has no token of a valid key.
    Unauthorized,
    /// A parameter asks for something that the key does not permit.
    Forbidden,
    /// The answer is prepared from more events or measures than the key permits.
    PreparedForbidden,
    /// The answer is about the whole pipeline, and the key is not an operator's.
    NotOperator,
    /// The key has used up its rate; the layer that knows the rate adds `Retry-After`.
    RateLimited,
    /// The path does not exist.
    NotFound,
    /// The rollup that an answer is read from is not declared.
    NotDeclared,
    /// The path does not accept the method.
    MethodNotAllowed,
    /// The body is longer than the limit for the body of a query.
    BodyTooLarge,
    /// No rollup has what the request asks for, or a name in the request has several meanings among the rollups, or the
    /// events of the window are no longer kept.
    NotCovered,
    /// The window is too long, or the query would read or return too many rows or events or need too much memory.
    TooWide,
    /// The latest snapshot does not have the answer, and the request does not wait or has waited long enough. For a
    /// query: ClickHouse has not answered any refresh yet.
    NotYet,
    /// Readers already ask for the maximum number of cold hours, cold polls or tenants that a refresh reads.
    TooManyKeys,
    /// The query waited too long for its turn, because the maximum number of queries is running; or ClickHouse runs too
    /// many statements; or too little of the memory for long answers is free.
    Busy,
    /// The maximum number of streams is open, or the process is about to stop.
    NoStream,
    /// The key already has the maximum number of streams for one key.
    NoStreamOfKey,
    /// ClickHouse did not answer in time.
    TooSlow,
    /// ClickHouse did not answer, or answered with an error.
    Unavailable,
}

/// The texts of a problem that do not depend on the request.
struct Text {
    status: StatusCode,
    code: &'static str,
    title: &'static str,
    /// What is wrong, if no parameter is at fault.
    detail: &'static str,
    /// What the sender can do about it.
    hint: &'static str,
}

impl Problem {
    /// A problem with one parameter.
    pub(crate) fn of(kind: Kind, param: impl Into<String>, reason: impl Into<String>) -> Self {
        let error = BadParameter { param: param.into(), reason: reason.into() };
        Self { kind, errors: vec![error] }
    }

    /// A problem of the kind [`Kind::BadParameter`] with one parameter.
    pub(crate) fn bad(param: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::of(Kind::BadParameter, param, reason)
    }

    /// What is wrong, in a sentence.
    pub(crate) fn detail(&self) -> String {
        let parts: Vec<_> =
            self.errors.iter().map(|BadParameter { param, reason }| format!("`{param}`: {reason}")).collect();
        if parts.is_empty() { self.kind.text().detail.to_owned() } else { parts.join("; ") }
    }

    /// The response to the request `id`. `set` has the headers that other layers have added so far. The response keeps
    /// these headers, except `Content-Length` and headers for which the problem has its own value.
    fn render(&self, id: &RequestId, mut set: HeaderMap) -> Response {
        #[derive(Serialize)]
        struct More<'a> {
            #[serde(skip_serializing_if = "<[_]>::is_empty")]
            errors: &'a [BadParameter],
        }
        let Text { status, code, title, hint, .. } = self.kind.text();
        let detail = self.detail();
        let problem =
            problem::Problem { status, code, title, detail: &detail, hint, request_id: id.as_str() };
        let body = problem.render(More { errors: &self.errors });
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.kind.retry_after() {
            headers.insert(RETRY_AFTER, HeaderValue::from_static(seconds));
        }
        if self.kind == Kind::Unauthorized {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"millrace\""));
        }
        for ours in headers.keys().chain([&CONTENT_LENGTH]) {
            set.remove(ours);
        }
        headers.extend(set);
        response
    }
}

/// A problem of this kind that no parameter causes.
impl From<Kind> for Problem {
    fn from(kind: Kind) -> Self {
        Self { kind, errors: Vec::new() }
    }
}

/// A response with only the status. The problem is in its extensions, and [`complete`] renders the body from it.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.kind.text().status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl IntoResponse for Kind {
    fn into_response(self) -> Response {
        Problem::from(self).into_response()
    }
}

/// Adds the id of the request to a response. If the response carries a problem, also renders the body.
pub(crate) fn complete(mut response: Response, id: &RequestId) -> Response {
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        response = problem.render(id, mem::take(response.headers_mut()));
    }
    response.headers_mut().insert(REQUEST_ID, id.header());
    response
}

impl Kind {
    /// The seconds for the header `Retry-After`; `None` if a retry does not help, or if another layer adds the header.
    /// Every kind with status `503` has a value.
    fn retry_after(self) -> Option<&'static str> {
        match self {
            Self::NotYet | Self::Busy | Self::NoStream | Self::NoStreamOfKey => Some("5"),
            Self::TooSlow | Self::Unavailable => Some("10"),
            Self::TooManyKeys => Some("30"),
            Self::BadParameter
            | Self::BadBody
            | Self::Unauthorized
            | Self::Forbidden
            | Self::PreparedForbidden
            | Self::NotOperator
            | Self::RateLimited
            | Self::NotFound
            | Self::NotDeclared
            | Self::MethodNotAllowed
            | Self::BodyTooLarge
            | Self::NotCovered
            | Self::TooWide => None,
        }
    }

    /// The code in the body, which is also the label in metrics.
    pub(crate) fn code(self) -> &'static str {
        self.text().code
    }

    fn text(self) -> Text {
        const WAIT: &str = "wait as long as `Retry-After` says, then send the request again";
        match self {
            Self::BadParameter => Text {
                status: StatusCode::BAD_REQUEST,
                code: "bad_parameter",
                title: "A parameter cannot be used",
                detail: "the parameters do not fit together",
                hint: "correct the parameter",
            },
            Self::BadBody => Text {
                status: StatusCode::BAD_REQUEST,
                code: "bad_body",
                title: "The body cannot be read",
                detail: "the body is not a JSON object of parameters, or has too many parameters",
                hint: "send one JSON object with the same parameters as in a GET request",
            },
            Self::Unauthorized => Text {
                status: StatusCode::UNAUTHORIZED,
                code: "unauthorized",
                title: "A valid token is needed",
                detail: "the request has no token of a valid key",
                hint: "send `Authorization: Bearer <token>` with the token of a key that the operator declared",
            },
            Self::Forbidden => Text {
                status: StatusCode::FORBIDDEN,
                code: "forbidden",
                title: "The key does not permit this",
                detail: "the key does not permit what the parameters ask for",
                hint: "ask for what the key permits; /v1/meta shows it",
            },
            Self::PreparedForbidden => Text {
                status: StatusCode::FORBIDDEN,
                code: "forbidden",
                title: "The key does not permit this",
                detail: "this answer is prepared from all events and measures of the tenant, and the key permits only \
                         some of them",
                hint: "use /v1/query, which answers from what the key permits",
            },
            Self::NotOperator => Text {
                status: StatusCode::FORBIDDEN,
                code: "forbidden",
                title: "The key does not permit this",
                detail: "this answer is about the events of all tenants, so it needs a key with `operator = true`",
                hint: "ask the person who declares the keys for a key with `operator = true`",
            },
            Self::RateLimited => Text {
                status: StatusCode::TOO_MANY_REQUESTS,
                code: "rate_limited",
                title: "Too many requests with this key",
                detail: "the key has used up its rate; `RateLimit-Policy` says how many requests a second it permits",
                hint: WAIT,
            },
            Self::NotFound => Text {
                status: StatusCode::NOT_FOUND,
                code: "not_found",
                title: "There is no such path",
                detail: "the paths are /analytics?timestamp={ms}, /v1/counters, /v1/polls, /v1/polls/{poll}, \
                         /v1/query, /v1/retention, /v1/funnel, /v1/live, /v1/meta, /v1/pipeline and \
                         /openapi.json",
                hint: "correct the path",
            },
            Self::NotDeclared => Text {
                status: StatusCode::NOT_FOUND,
                code: "not_declared",
                title: "The rollup is not declared",
                detail: "the rollup that this answer is read from is not declared",
                hint: "ask the operator to declare it; the log of the query API names the rollup",
            },
            Self::MethodNotAllowed => Text {
                status: StatusCode::METHOD_NOT_ALLOWED,
                code: "method_not_allowed",
                title: "The method is not allowed",
                detail: "this path does not accept the method; the header `Allow` names those that it accepts",
                hint: "use a method that `Allow` names",
            },
            Self::BodyTooLarge => Text {
                status: StatusCode::PAYLOAD_TOO_LARGE,
                code: "body_too_large",
                title: "The body is too long",
                detail: "the body of the query is longer than 64 KiB",
                hint: "send shorter parameters, for example fewer values in a filter",
            },
            Self::NotCovered => Text {
                status: StatusCode::UNPROCESSABLE_ENTITY,
                code: "not_covered",
                title: "No rollup covers this query",
                detail: "the parameters do not fit together",
                hint: "ask for what a rollup has, or have the operator declare a rollup that has it",
            },
            Self::TooWide => Text {
                status: StatusCode::UNPROCESSABLE_ENTITY,
                code: "too_wide",
                title: "The query asks for too much at once",
                detail: "the query would read or return too many rows, or need too much memory",
                hint: "ask for a shorter window, a coarser grain, fewer dimensions, or add a filter",
            },
            Self::NotYet => Text {
                status: StatusCode::SERVICE_UNAVAILABLE,
                code: "not_yet",
                title: "The answer is not ready yet",
                detail: "the answer was not ready within the time that a request waits for it",
                hint: WAIT,
            },
            Self::TooManyKeys => Text {
                status: StatusCode::SERVICE_UNAVAILABLE,
                code: "busy",
                title: "Too many different answers are requested",
                detail: "readers ask for more old hours, small polls or tenants than one refresh reads",
                hint: WAIT,
            },
            Self::Busy => Text {
                status: StatusCode::SERVICE_UNAVAILABLE,
                code: "busy",
                title: "Too many queries run at once",
                detail: "too many queries run at once, or too many long answers are being sent",
                hint: WAIT,
            },
            Self::NoStream => Text {
                status: StatusCode::SERVICE_UNAVAILABLE,
                code: "busy",
                title: "Too many streams are open",
                detail: "the process has the maximum number of open streams, or is about to stop",
                hint: WAIT,
            },
            Self::NoStreamOfKey => Text {
                status: StatusCode::TOO_MANY_REQUESTS,
                code: "rate_limited",
                title: "The key has too many streams",
                detail: "the key has the maximum number of open streams for one key: half of those that the \
                         process serves",
                hint: "close streams that nobody reads, or use several keys",
            },
            Self::TooSlow => Text {
                status: StatusCode::SERVICE_UNAVAILABLE,
                code: "too_slow",
                title: "The query was not answered in time",
                detail: "ClickHouse did not answer within the time that a query may take",
                hint: WAIT,
            },
            Self::Unavailable => Text {
                status: StatusCode::SERVICE_UNAVAILABLE,
                code: "unavailable",
                title: "The database does not answer",
                detail: "ClickHouse did not answer, or answered with an error; the log of the query API has the reason",
                hint: WAIT,
            },
        }
    }
}
