//! The response to a request: status, headers and JSON. Responses are rendered only here.

use ::http::header::{
    ACCEPT_ENCODING, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE,
};
use ::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use bytes::Bytes;
use http_body_util::Full;
use runtime::problem::{self, Problem};
use runtime::request_id::{REQUEST_ID, RequestId};
use serde::Serialize;

use super::preferences::Preferences;
use crate::accept::report::{LineError, Report};
use crate::content::Encoding;
use crate::endpoints::votes::results::PollResult;
use crate::outcome::{Refusal, RefusalKind};
use crate::publish::Ack;

const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// The response to a request, before it is rendered.
#[derive(Debug)]
pub struct ApiResponse {
    /// The content of the response.
    pub body: ResponseBody,
    /// Whether an HTTP/1 connection ends with this response, because the body of the request may not have been read to
    /// its end.
    pub close: bool,
    /// The preferences of the client that are applied.
    pub applied: Preferences,
}

/// The content of a response, which also decides the status code.
#[derive(Debug)]
pub enum ResponseBody {
    /// `200`: every valid line is durable, or `202`: every valid line is accepted. The first invalid lines are listed.
    Stored(Ack, Report),
    /// Like [`Self::Stored`], for votes, with the result of their poll if it is known.
    Voted(Ack, Report, Option<PollResult>),
    /// Like [`Self::Stored`], but without a body, because the client prefers that.
    StoredMinimal(Ack),
    /// `204`: the reaction is durable or accepted, or the request was a preflight.
    NoContent,
    /// The request is refused; with a report only if its lines were read and all of them are invalid.
    Refused(Refusal, Option<Report>),
}

impl ApiResponse {
    /// A response without applied preferences; the connection can stay open after it.
    pub fn new(body: ResponseBody) -> Self {
        Self { body, close: false, applied: Preferences::default() }
    }

    /// A refusal without a report.
    pub fn refused(refusal: Refusal) -> Self {
        Self::new(refusal.into())
    }
}

/// A refusal without a report.
impl From<Refusal> for ResponseBody {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal, None)
    }
}

/// Renders a response. `close` says whether it gets `Connection: close`. The caller computes `close` from
/// [`ApiResponse::close`], the HTTP version, and whether the edge is stopping.
pub fn render(response: &ApiResponse, id: &RequestId, close: bool) -> Response<Full<Bytes>> {
    let (status, body) = match &response.body {
        ResponseBody::Stored(ack, report) => (status(*ack), Some(json(&Stored::of(*ack, report, id)))),
        ResponseBody::Voted(ack, report, poll) => {
            let stored = Stored::of(*ack, report, id);
            (status(*ack), Some(json(&Voted { stored, poll: poll.as_ref() })))
        }
        ResponseBody::StoredMinimal(ack) => (status(*ack), None),
        ResponseBody::NoContent => (StatusCode::NO_CONTENT, None),
        ResponseBody::Refused(refusal, report) => {
            (refusal.status(), Some(Refused::render(refusal, report.as_ref(), id)))
        }
    };
    let has_body = body.is_some();
    let mut rendered = Response::new(Full::new(body.unwrap_or_default()));
    *rendered.status_mut() = status;
    let headers = rendered.headers_mut();
    headers.insert(REQUEST_ID, id.header());
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if has_body {
        let is_problem = matches!(response.body, ResponseBody::Refused(..));
        let media_type = if is_problem { problem::MEDIA_TYPE } else { "application/json" };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    }
    if close {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(applied) = response.applied.applied() {
        headers.insert(PREFERENCE_APPLIED, applied);
    }
    if let ResponseBody::Refused(refusal, _) = &response.body {
        add_refusal_headers(refusal.kind(), headers);
    }
    rendered
}

fn status(ack: Ack) -> StatusCode {
    match ack {
        Ack::Durable => StatusCode::OK,
        Ack::Accepted => StatusCode::ACCEPTED,
    }
}

/// Adds the headers that a client needs to correct or repeat a refused request.
fn add_refusal_headers(kind: RefusalKind, headers: &mut HeaderMap) {
    match kind {
        RefusalKind::MethodNotAllowed => {
            headers.insert(ALLOW, HeaderValue::from_static("POST"));
        }
        RefusalKind::UnsupportedEncoding => {
            headers.insert(ACCEPT_ENCODING, accepted_encodings());
        }
        RefusalKind::Unauthorized => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        RefusalKind::TooManyRequests { retry_after } | RefusalKind::ServiceUnavailable { retry_after } => {
            headers.insert(RETRY_AFTER, with_jitter(retry_after));
        }
        RefusalKind::BadRequest
        | RefusalKind::Forbidden
        | RefusalKind::NotFound
        | RefusalKind::RequestTimeout
        | RefusalKind::PayloadTooLarge { .. }
        | RefusalKind::UnsupportedMediaType
        | RefusalKind::InternalServerError => {}
    }
}

fn accepted_encodings() -> HeaderValue {
    let names = Encoding::ALL.map(Encoding::as_str).join(", ");
    HeaderValue::from_str(&names).expect("names of encodings are ASCII")
}

/// A random number from `seconds` to twice `seconds`, so that refused clients do not retry at the same time.
fn with_jitter(seconds: u32) -> HeaderValue {
    HeaderValue::from(fastrand::u32(seconds..=seconds.saturating_mul(2)))
}

#[derive(Serialize)]
struct Stored<'a> {
    request_id: &'a str,
    ack: &'static str,
    received: u32,
    accepted: u32,
    rejected: u32,
    #[serde(flatten)]
    errors: Errors<'a>,
    #[serde(flatten)]
    warnings: Option<Warnings<'a>>,
}

impl<'a> Stored<'a> {
    fn of(ack: Ack, report: &'a Report, id: &'a RequestId) -> Self {
        Self {
            request_id: id.as_str(),
            ack: ack.as_str(),
            received: report.received(),
            accepted: report.accepted,
            rejected: report.rejected,
            errors: Errors::of(report),
            warnings: Warnings::of(report),
        }
    }
}

#[derive(Serialize)]
struct Voted<'a> {
    #[serde(flatten)]
    stored: Stored<'a>,
    poll: Option<&'a PollResult>,
}

/// The members that the edge adds to a [`Problem`] (RFC 9457): the limit that the request exceeded, and the first
/// invalid lines.
#[derive(Serialize)]
struct Refused<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<usize>,
    #[serde(flatten)]
    errors: Option<Errors<'a>>,
}

#[derive(Serialize)]
struct Errors<'a> {
    errors: &'a [LineError],
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    errors_truncated: bool,
}

impl<'a> Errors<'a> {
    fn of(report: &'a Report) -> Self {
        Self { errors: &report.errors, errors_truncated: report.errors.len() < report.rejected as usize }
    }
}

impl Refused<'_> {
    fn render(refusal: &Refusal, report: Option<&Report>, id: &RequestId) -> Bytes {
        let problem = Problem {
            status: refusal.status(),
            code: refusal.code(),
            title: refusal.title(),
            detail: &refusal.detail(),
            hint: refusal.hint(),
            request_id: id.as_str(),
        };
        problem.render(&Refused { limit: refusal.limit(), errors: report.map(Errors::of) })
    }
}

/// Warnings about accepted events; absent if there are none.
#[derive(Serialize)]
struct Warnings<'a> {
    warnings: &'a [LineError],
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    warnings_truncated: bool,
}

impl<'a> Warnings<'a> {
    fn of(report: &'a Report) -> Option<Self> {
        let warnings = &report.warnings[..];
        let warnings_truncated = warnings.len() < report.warnings() as usize;
        (!warnings.is_empty()).then_some(Self { warnings, warnings_truncated })
    }
}

fn json(body: &impl Serialize) -> Bytes {
    serde_json::to_vec(body).expect("JSON is written to memory").into()
}

#[cfg(test)]
mod tests;
