//! Which pages may send requests from a browser (CORS).
//!
//! The edge never refuses a request because of CORS. It only leaves out the CORS headers; then the browser hides the
//! response from the page or, if it has sent a preflight request first, does not send the request itself. To make the
//! edge refuse requests from other origins, list the allowed origins in the write key (`origins`).

use ::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use ::http::{HeaderMap, HeaderValue, Method, Request};
use runtime::vars::origins::origins;
use runtime::vars::{VarError, Vars};

/// The request headers that a page may send.
const ALLOWED_HEADERS: &str = "authorization, content-encoding, content-type, idempotency-key, prefer, traceparent, \
     x-request-id, x-write-key";
/// The response headers that a page may read.
const EXPOSED_HEADERS: &str = "retry-after, x-request-id";
/// How long a browser may cache the response to a preflight, in seconds: two hours, the most that Chromium accepts.
const MAX_AGE: &str = "7200";

/// Origins of web pages that may send events from a browser: `CORS_ORIGINS`, `*` or origins such as
/// `https://example.com` separated by commas, default none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum CorsConfig {
    /// No page; responses have no CORS headers.
    #[default]
    Off,
    /// Every page.
    Any,
    /// Pages of these origins, written as browsers write them: `https://example.com`, without a slash at the end.
    Listed(Vec<HeaderValue>),
}

impl CorsConfig {
    /// Reads and checks the variable above.
    pub fn from_vars(vars: &Vars) -> Result<Self, VarError> {
        let text = vars.string_or("CORS_ORIGINS", "");
        match text.trim() {
            "" => Ok(Self::Off),
            "*" => Ok(Self::Any),
            list => origins("CORS_ORIGINS", list).map(Self::Listed),
        }
    }

    /// The origin of the page that sends a request; `None` if CORS is off or the request names no origin.
    pub fn origin(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        if *self == Self::Off { None } else { headers.get(ORIGIN).cloned() }
    }

    /// Whether a request is a preflight, with which a browser asks whether a page may send a request; false if CORS is
    /// off.
    pub fn is_preflight<B>(&self, request: &Request<B>) -> bool {
        *self != Self::Off
            && request.method() == Method::OPTIONS
            && request.headers().contains_key(ORIGIN)
            && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
    }

    /// Adds the CORS headers to a response. `origin` is the origin of the request.
    pub fn allow(&self, origin: Option<&HeaderValue>, preflight: bool, headers: &mut HeaderMap) {
        let allowed = match self {
            Self::Off => return,
            Self::Any => Some(HeaderValue::from_static("*")),
            Self::Listed(list) => {
                // Responses to origins that are not in the list also get `Vary: Origin`. Otherwise, a cache could reuse
                // them for an origin in the list, although they have no `Access-Control-Allow-Origin`.
                headers.append(VARY, HeaderValue::from_static("origin"));
                list.iter().find(|listed| Some(*listed) == origin).cloned()
            }
        };
        let Some(allowed) = allowed.filter(|_| origin.is_some()) else { return };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        let mut add = |name, value| _ = headers.insert(name, HeaderValue::from_static(value));
        if preflight {
            add(ACCESS_CONTROL_ALLOW_METHODS, "POST");
            add(ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS);
            add(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        } else {
            add(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Result<CorsConfig, VarError> {
        CorsConfig::from_vars(&Vars::from_pairs([("CORS_ORIGINS", text)]))
    }

    /// Checks which CORS headers the response to a page of `origin` has, apart from `Access-Control-Expose-Headers`.
    #[track_caller]
    fn check(origins: &str, origin: &'static str, expected: &str) {
        let mut headers = HeaderMap::new();
        let origin = Some(HeaderValue::from_static(origin)).filter(|origin| !origin.is_empty());
        config(origins).unwrap().allow(origin.as_ref(), false, &mut headers);
        headers.remove(ACCESS_CONTROL_EXPOSE_HEADERS);
        let mut added: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        added.sort();
        assert_eq!(added.join("; "), expected);
    }

    #[test]
    fn only_responses_to_allowed_origins_have_allow_origin() {
        let listed = "https://a.example, http://localhost:3000";
        check("", "https://a.example", "");
        check("*", "https://a.example", "access-control-allow-origin: *");
        check("*", "", "");
        check(
            listed,
            "http://localhost:3000",
            "access-control-allow-origin: http://localhost:3000; vary: origin",
        );
        check(listed, "https://b.example", "vary: origin");
        check(listed, "", "vary: origin");
    }

    #[test]
    fn a_preflight_response_has_the_allowed_method_headers_and_max_age() {
        let mut headers = HeaderMap::new();
        config("*").unwrap().allow(Some(&HeaderValue::from_static("null")), true, &mut headers);
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_METHODS], "POST");
        assert_eq!(headers[ACCESS_CONTROL_MAX_AGE], "7200");
        let allowed = headers[ACCESS_CONTROL_ALLOW_HEADERS].to_str().unwrap();
        for header in ["content-type", "content-encoding", "idempotency-key", "authorization", "x-write-key"]
        {
            assert!(allowed.contains(header), "{header}");
        }
    }

    #[test]
    fn an_origin_that_no_browser_sends_fails_the_start() {
        for bad in [
            "https://a.example/",
            "a.example",
            "https://*.example",
            "*,https://a.example",
            "https://A.example",
        ] {
            assert!(config(bad).unwrap_err().to_string().contains("is not an origin"), "{bad}");
        }
    }
}
