//! What a client is told: status, headers, JSON. Rendered here and nowhere else.

use ::http::header::{
    ACCEPT_ENCODING, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE,
};
use ::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use bytes::Bytes;
use http_body_util::Full;
use runtime::problem::{self, Problem};
use runtime::request_id::{REQUEST_ID, RequestId};
use serde::Serialize;

use crate::accept::enrich::{LineError, Report};
use crate::config::Ack;
use crate::endpoints::votes::results::Standing;
use crate::outcome::Refusal;

const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// The answer to a request, before it is rendered.
#[derive(Debug)]
pub struct Answer {
    /// What is said.
    pub said: Said,
    /// Whether the connection ends with it, because the body was not read.
    pub closes: bool,
    /// What of the client's preferences it follows.
    pub follows: Preferences,
}

/// What an answer says.
#[derive(Debug)]
pub enum Said {
    /// `200`: every good line is stored, or `202`: they are taken; the bad ones are listed.
    Stored(Ack, Report),
    /// The same of votes, with how their poll stands if that is known.
    Voted(Ack, Report, Option<Standing>),
    /// The same without a body, as the client preferred.
    StoredMinimal(Ack),
    /// `204`: the reaction is stored, or taken.
    NoContent,
    /// No success; the report is there if lines were read.
    Refused(Refusal, Option<Report>),
}

impl Answer {
    /// An answer after which the connection serves on.
    pub fn new(said: Said) -> Self {
        Self { said, closes: false, follows: Preferences::default() }
    }

    /// A refusal without a report.
    pub fn refused(refusal: Refusal) -> Self {
        Self::new(refusal.into())
    }
}

/// A refusal without a report.
impl From<Refusal> for Said {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal, None)
    }
}

/// What a client prefers (`Prefer`, RFC 7240), of what we can do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Preferences {
    /// No body: `return=minimal`.
    pub minimal: bool,
    /// An answer before the events are safe: `respond-async`.
    pub respond_async: bool,
}

impl Preferences {
    /// What the headers of a request say.
    pub fn of(headers: &HeaderMap) -> Self {
        let values = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
        let mut preferences = Self::default();
        for preference in values.flat_map(|value| value.split([',', ';'])).map(str::trim) {
            preferences.minimal |= preference.eq_ignore_ascii_case("return=minimal");
            preferences.respond_async |= preference.eq_ignore_ascii_case("respond-async");
        }
        preferences
    }

    /// When the request is answered, which would be `otherwise`.
    pub fn ack(self, otherwise: Ack) -> Ack {
        if self.respond_async { Ack::Accepted } else { otherwise }
    }

    /// The value of `Preference-Applied`.
    fn applied(self) -> Option<HeaderValue> {
        let value = match (self.minimal, self.respond_async) {
            (false, false) => return None,
            (true, false) => "return=minimal",
            (false, true) => "respond-async",
            (true, true) => "return=minimal, respond-async",
        };
        Some(HeaderValue::from_static(value))
    }
}

/// Renders an answer; `closes` says that its connection ends with it.
pub fn render(answer: &Answer, id: &RequestId, closes: bool) -> Response<Full<Bytes>> {
    let (status, body) = match &answer.said {
        Said::Stored(ack, report) => (status(*ack), Some(json(&Stored::of(*ack, report, id)))),
        Said::Voted(ack, report, poll) => {
            let stored = Stored::of(*ack, report, id);
            (status(*ack), Some(json(&Voted { stored, poll: poll.as_ref() })))
        }
        Said::StoredMinimal(ack) => (status(*ack), None),
        Said::NoContent => (StatusCode::NO_CONTENT, None),
        Said::Refused(refusal, report) => {
            (refusal.status(), Some(Refused::render(refusal, report.as_ref(), id)))
        }
    };
    let has_body = body.is_some();
    let mut response = Response::new(Full::new(body.unwrap_or_default()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id.header());
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if has_body {
        let is_problem = matches!(answer.said, Said::Refused(..));
        let media_type = if is_problem { problem::MEDIA_TYPE } else { "application/json" };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    }
    if closes {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(applied) = answer.follows.applied() {
        headers.insert(PREFERENCE_APPLIED, applied);
    }
    if let Said::Refused(refusal, _) = &answer.said {
        advise(refusal, headers);
    }
    response
}

fn status(ack: Ack) -> StatusCode {
    match ack {
        Ack::Durable => StatusCode::OK,
        Ack::Accepted => StatusCode::ACCEPTED,
    }
}

/// The headers that say what would be right.
fn advise(refusal: &Refusal, headers: &mut HeaderMap) {
    match refusal {
        Refusal::MethodNotAllowed => {
            headers.insert(ALLOW, HeaderValue::from_static("POST"));
        }
        Refusal::ContentEncoding => {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip, zstd, identity"));
        }
        Refusal::NoKey | Refusal::UnknownKey => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        Refusal::RateLimited(seconds) => {
            headers.insert(RETRY_AFTER, after(*seconds));
        }
        Refusal::Overloaded(_) | Refusal::NotDurable | Refusal::NoPartitions | Refusal::Draining => {
            headers.insert(RETRY_AFTER, after(1));
        }
        Refusal::SpoolFull => {
            headers.insert(RETRY_AFTER, after(5));
        }
        _ => {}
    }
}

/// So many seconds and up to as many again, so that those refused do not return in step.
fn after(seconds: u32) -> HeaderValue {
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
    poll: Option<&'a Standing>,
}

/// What the answer to a refused request has beside what every problem has.
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

/// Warnings about accepted events; nothing where there are none.
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

fn json(answer: &impl Serialize) -> Bytes {
    serde_json::to_vec(answer).expect("an answer is written to memory").into()
}

#[cfg(test)]
mod tests;
