//! Answers to what never became a request of a service: a request that HTTP itself forbids, or headers beyond the
//! limits.
//!
//! hyper answers what it cannot parse by itself, with a bare status. Such an answer is recognised when it is written,
//! and replaced by one of the form that all others have ([`crate::problem`]).

use std::fmt::Write as _;

use bytes::Bytes;
use http::header::HOST;
use http::{Request, StatusCode, Version};

use crate::problem::{self, Problem};
use crate::request_id::RequestId;

/// What is wrong with a request that no service sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unparsed {
    /// HTTP forbids it.
    BadHttp,
    /// HTTP/1.1 without `Host`, or with several.
    Host,
    /// More headers, or longer ones, than are allowed.
    HeadersTooLarge,
    /// A longer address than hyper reads.
    UriTooLong,
}

impl Unparsed {
    /// Whether a request names its host as HTTP/1.1 demands (RFC 9112, 3.2).
    pub(super) fn check_host<B>(request: &Request<B>) -> Result<(), Self> {
        let hosts = request.headers().get_all(HOST).iter().count();
        if request.version() == Version::HTTP_11 && hosts != 1 { Err(Self::Host) } else { Ok(()) }
    }

    /// What hyper answers by itself, if `head` is that. An answer of a service names its request.
    pub(super) fn of_answer(head: &[u8]) -> Option<Self> {
        // It answers in the version of the request before.
        let status = head.strip_prefix(b"HTTP/1.1 ").or_else(|| head.strip_prefix(b"HTTP/1.0 "))?;
        let unparsed = match status.first_chunk()? {
            b"400" => Self::BadHttp,
            b"414" => Self::UriTooLong,
            b"431" => Self::HeadersTooLarge,
            _ => return None,
        };
        let text = str::from_utf8(head).ok()?.to_ascii_lowercase();
        (text.contains("\r\ncontent-length: 0\r\n") && !text.contains("\r\nx-request-id:"))
            .then_some(unparsed)
    }

    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::BadHttp | Self::Host => StatusCode::BAD_REQUEST,
            Self::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
        }
    }

    /// The body of the answer.
    pub(super) fn body(self, id: &RequestId) -> Bytes {
        let (code, title, detail, hint) = match self {
            Self::BadHttp => (
                "bad_http",
                "The request is not HTTP",
                "the bytes that were sent are no HTTP request",
                "look at the first line and the headers that the client writes",
            ),
            Self::Host => (
                "bad_http",
                "The request is not HTTP",
                "the header `Host` is missing, or there are several",
                "send `Host` once",
            ),
            Self::HeadersTooLarge => (
                "headers_too_large",
                "The headers are too long",
                "there are more headers, or longer ones, than are read",
                "send fewer headers; cookies are not needed here",
            ),
            Self::UriTooLong => (
                "uri_too_long",
                "The address is too long",
                "the address of the request is longer than is read",
                "send data in the body of a POST",
            ),
        };
        Problem { status: self.status(), code, title, detail, hint, request_id: id.as_str() }.body()
    }

    /// The whole answer, as it is sent over HTTP/1; the connection ends with it.
    pub(super) fn answer(self) -> Bytes {
        let id = RequestId::new();
        let (status, body) = (self.status(), self.body(&id));
        let mut answer = format!("HTTP/1.1 {status}\r\n");
        // Writing to a String cannot fail.
        let _ = write!(
            answer,
            "content-type: {}\r\ncontent-length: {}\r\ncache-control: no-store\r\nx-request-id: {}\r\nconnection: close\r\n\r\n",
            problem::MEDIA_TYPE,
            body.len(),
            id.as_str()
        );
        let mut answer = answer.into_bytes();
        answer.extend_from_slice(&body);
        answer.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_hypers_own_is_told_from_one_of_a_service() {
        let bare = |status: &str| {
            format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\ndate: x\r\n\r\n")
        };
        let of = |head: &str| Unparsed::of_answer(head.as_bytes());
        assert_eq!(of(&bare("400 Bad Request")), Some(Unparsed::BadHttp));
        assert_eq!(of(&bare("431 Request Header Fields Too Large")), Some(Unparsed::HeadersTooLarge));
        let older = bare("400 Bad Request").replace("HTTP/1.1", "HTTP/1.0");
        assert_eq!(of(&older), Some(Unparsed::BadHttp));
        assert_eq!(of(&bare("404 Not Found")), None);
        assert_eq!(of(&bare("400 Bad Request").replace("date: x", "X-Request-Id: r")), None);
        assert_eq!(of(&bare("400 Bad Request").replace("length: 0", "length: 9")), None);
        assert_eq!(of(str::from_utf8(&Unparsed::BadHttp.answer()).unwrap()), None);
    }

    #[test]
    fn the_host_of_http_1_1_is_named_once() {
        let check = |version, hosts: &[&str], expected| {
            let mut request = Request::builder().version(version);
            for host in hosts {
                request = request.header(HOST, *host);
            }
            assert_eq!(Unparsed::check_host(&request.body(()).unwrap()), expected);
        };
        check(Version::HTTP_11, &["a"], Ok(()));
        check(Version::HTTP_11, &[], Err(Unparsed::Host));
        check(Version::HTTP_11, &["a", "a"], Err(Unparsed::Host));
        check(Version::HTTP_10, &[], Ok(()));
        check(Version::HTTP_2, &[], Ok(()));
    }
}
