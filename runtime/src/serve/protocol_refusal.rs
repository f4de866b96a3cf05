//! Refusals of requests that never reach a service, because they violate HTTP or because their headers exceed the
//! limits.
//!
//! If hyper cannot parse the bytes of a request, it sends a status and no body. `monitored.rs` recognises such a
//! response when hyper writes it, and sends a problem (`problem.rs`) instead, so that all refusals have the same form.

use std::fmt::Write as _;

use bytes::Bytes;
use http::header::HOST;
use http::{Request, StatusCode, Version};

use crate::problem::{self, Problem};
use crate::request_id::RequestId;

/// Why a request never reaches the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProtocolRefusal {
    /// The bytes are not HTTP.
    BadHttp,
    /// HTTP/1.1 without the header `Host`, or with several.
    Host,
    /// More headers, or longer ones, than the limits allow.
    HeadersTooLarge,
    /// The URI is longer than hyper accepts.
    UriTooLong,
}

impl ProtocolRefusal {
    /// Checks that a request names its host as HTTP/1.1 requires (RFC 9112, 3.2).
    pub(super) fn check_host<B>(request: &Request<B>) -> Result<(), Self> {
        let hosts = request.headers().get_all(HOST).iter().count();
        if request.version() == Version::HTTP_11 && hosts != 1 { Err(Self::Host) } else { Ok(()) }
    }

    /// The refusal to send instead of the response that begins with `head`, if hyper made this response itself because
    /// it could not parse a request. `None` for a response of the service, which is recognised by its request id.
    pub(super) fn of_response(head: &[u8]) -> Option<Self> {
        // hyper does not know the version of a request that it cannot parse. It uses the version of the previous
        // request on the connection, which may be HTTP/1.0.
        let status = head.strip_prefix(b"HTTP/1.1 ").or_else(|| head.strip_prefix(b"HTTP/1.0 "))?;
        let refusal = match status.first_chunk()? {
            b"400" => Self::BadHttp,
            b"414" => Self::UriTooLong,
            b"431" => Self::HeadersTooLarge,
            _ => return None,
        };
        let text = str::from_utf8(head).ok()?.to_ascii_lowercase();
        (text.contains("\r\ncontent-length: 0\r\n") && !text.contains("\r\nx-request-id:")).then_some(refusal)
    }

    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::BadHttp | Self::Host => StatusCode::BAD_REQUEST,
            Self::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
        }
    }

    /// The body of the response.
    pub(super) fn body(self, id: &RequestId) -> Bytes {
        let (code, title, detail, hint) = match self {
            Self::BadHttp => (
                "bad_http",
                "The request is not HTTP",
                "the bytes that were sent are not an HTTP request",
                "check the request line and the headers that the client sends",
            ),
            Self::Host => (
                "bad_http",
                "The request is not HTTP",
                "the header `Host` is missing, or occurs more than once",
                "send `Host` exactly once",
            ),
            Self::HeadersTooLarge => (
                "headers_too_large",
                "The headers are too long",
                "the request has more headers, or longer ones, than the server accepts",
                "send fewer or shorter headers; cookies are not needed here",
            ),
            Self::UriTooLong => (
                "uri_too_long",
                "The URI is too long",
                "the URI of the request is longer than the server accepts",
                "send data in the body of a POST request",
            ),
        };
        Problem { status: self.status(), code, title, detail, hint, request_id: id.as_str() }.body()
    }

    /// The whole response, as it is sent over HTTP/1; the connection ends after it.
    pub(super) fn response(self) -> Bytes {
        let id = RequestId::new();
        let (status, body) = (self.status(), self.body(&id));
        let mut response = format!("HTTP/1.1 {status}\r\n");
        // Writing to a String cannot fail.
        let _ = write!(
            response,
            "content-type: {}\r\ncontent-length: {}\r\ncache-control: no-store\r\nx-request-id: {}\r\nconnection: close\r\n\r\n",
            problem::MEDIA_TYPE,
            body.len(),
            id.as_str()
        );
        let mut response = response.into_bytes();
        response.extend_from_slice(&body);
        response.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_of_hyper_is_distinguished_from_one_of_a_service() {
        let bare = |status: &str| {
            format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\ndate: x\r\n\r\n")
        };
        let of = |head: &str| ProtocolRefusal::of_response(head.as_bytes());
        assert_eq!(of(&bare("400 Bad Request")), Some(ProtocolRefusal::BadHttp));
        assert_eq!(of(&bare("431 Request Header Fields Too Large")), Some(ProtocolRefusal::HeadersTooLarge));
        let older = bare("400 Bad Request").replace("HTTP/1.1", "HTTP/1.0");
        assert_eq!(of(&older), Some(ProtocolRefusal::BadHttp));
        assert_eq!(of(&bare("404 Not Found")), None);
        assert_eq!(of(&bare("400 Bad Request").replace("date: x", "X-Request-Id: r")), None);
        assert_eq!(of(&bare("400 Bad Request").replace("length: 0", "length: 9")), None);
        assert_eq!(of(str::from_utf8(&ProtocolRefusal::BadHttp.response()).unwrap()), None);
    }

    #[test]
    fn the_host_of_http_1_1_is_named_once() {
        let check = |version, hosts: &[&str], expected| {
            let mut request = Request::builder().version(version);
            for host in hosts {
                request = request.header(HOST, *host);
            }
            assert_eq!(ProtocolRefusal::check_host(&request.body(()).unwrap()), expected);
        };
        check(Version::HTTP_11, &["a"], Ok(()));
        check(Version::HTTP_11, &[], Err(ProtocolRefusal::Host));
        check(Version::HTTP_11, &["a", "a"], Err(ProtocolRefusal::Host));
        check(Version::HTTP_10, &[], Ok(()));
        check(Version::HTTP_2, &[], Ok(()));
    }
}
