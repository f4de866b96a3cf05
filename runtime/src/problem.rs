//! Problems (RFC 9457, "Problem Details for HTTP APIs"): the bodies of the responses to refused requests, in all
//! services.

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;

/// The media type of a problem.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// The members that every problem has. The JSON also has the member `type`: `/problems/` followed by the `code`. The
/// `type` and the `code` of a problem are stable: releases do not change them.
#[derive(Debug, Clone, Copy)]
pub struct Problem<'a> {
    /// The status of the response.
    pub status: StatusCode,
    /// The kind of problem, for programs.
    pub code: &'a str,
    /// The kind of problem, in a phrase for people.
    pub title: &'a str,
    /// What is wrong with this request.
    pub detail: &'a str,
    /// What the sender should do.
    pub hint: &'a str,
    /// The id of the request, as in the `X-Request-Id` of the response and in logs.
    pub request_id: &'a str,
}

impl Problem<'_> {
    /// The body, with the additional members of `more`.
    ///
    /// # Panics
    /// If `more` does not serialize to a JSON object.
    pub fn render(&self, more: impl Serialize) -> Bytes {
        #[derive(Serialize)]
        struct Rendered<'a, M> {
            #[serde(rename = "type")]
            kind: String,
            title: &'a str,
            status: u16,
            code: &'a str,
            detail: &'a str,
            hint: &'a str,
            #[serde(flatten)]
            more: M,
            request_id: &'a str,
        }
        let Self { status, code, title, detail, hint, request_id } = *self;
        let kind = format!("/problems/{code}");
        let rendered =
            Rendered { kind, title, status: status.as_u16(), code, detail, hint, more, request_id };
        serde_json::to_vec(&rendered).expect("`more` serializes to a JSON object").into()
    }

    /// The body, with no further members.
    pub fn body(&self) -> Bytes {
        #[derive(Serialize)]
        struct Nothing {}
        self.render(Nothing {})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_has_the_members_of_rfc_9457_and_our_own() {
        #[derive(Serialize)]
        struct More {
            limit: u32,
        }
        let problem = Problem {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            code: "body_too_large",
            title: "The body is too long",
            detail: "the body is longer than 8 bytes",
            hint: "send fewer events at once",
            request_id: "r1",
        };
        assert_eq!(
            problem.render(More { limit: 8 }),
            r#"{"type":"/problems/body_too_large","title":"The body is too long","status":413,"code":"body_too_large","detail":"the body is longer than 8 bytes","hint":"send fewer events at once","limit":8,"request_id":"r1"}"#
        );
        assert!(!String::from_utf8(problem.body().to_vec()).unwrap().contains("limit"));
    }
}
