//! Which web pages may read answers from a browser (CORS).
//!
//! This service refuses no request because of its origin. If the origin is not allowed, the response has no CORS
//! headers, and the browser withholds the response from the page.

use std::time::Duration;

use axum::http::header::{
    ACCEPT, ACCESS_CONTROL_ALLOW_METHODS, AUTHORIZATION, CONTENT_TYPE, ETAG, IF_NONE_MATCH, RETRY_AFTER,
};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::response::Response;
use runtime::request_id::REQUEST_ID;
use runtime::vars::origins::origins;
use runtime::vars::{VarError, Vars};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::rendered::{X_AGE_MS, X_AS_OF};

/// Two hours, the longest time that Chromium keeps the answer to a preflight.
const MAX_AGE: Duration = Duration::from_secs(7200);

/// The headers of responses that pages may read. `/openapi.json` describes each of them, as a test checks.
pub(crate) const EXPOSED_HEADERS: [HeaderName; 9] = [
    ETAG,
    X_AS_OF,
    X_AGE_MS,
    RETRY_AFTER,
    REQUEST_ID,
    HeaderName::from_static("x-next"),
    HeaderName::from_static("x-truncated"),
    HeaderName::from_static("ratelimit"),
    HeaderName::from_static("ratelimit-policy"),
];

/// Origins of web pages that may read answers from a browser: `CORS_ORIGINS`, `*` or origins such as
/// `https://example.com`, separated by commas, default `*`. List the origins of your pages if answers are not public.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CorsConfig {
    /// Every page.
    Any,
    /// Pages of these origins, written as browsers write them: `https://example.com`, without a slash at the end.
    Listed(Vec<HeaderValue>),
}

impl CorsConfig {
    /// Reads and checks the variable above.
    pub fn from_vars(vars: &Vars) -> Result<Self, VarError> {
        let text = vars.string_or("CORS_ORIGINS", "*");
        if text.trim() == "*" {
            return Ok(Self::Any);
        }
        origins("CORS_ORIGINS", &text).map(Self::Listed)
    }

    /// The layer that answers preflights and adds the CORS headers to responses. Preflights have no token, so this
    /// layer must be outside of the layer that requires a token.
    pub(crate) fn layer(&self) -> CorsLayer {
        let origins = match self {
            Self::Any => AllowOrigin::any(),
            Self::Listed(origins) => AllowOrigin::list(origins.iter().cloned()),
        };
        let read_key = HeaderName::from_static("x-read-key");
        CorsLayer::new()
            .allow_origin(origins)
            .allow_methods([Method::GET, Method::HEAD, Method::POST])
            .allow_headers([ACCEPT, AUTHORIZATION, CONTENT_TYPE, IF_NONE_MATCH, REQUEST_ID, read_key])
            .expose_headers(EXPOSED_HEADERS)
            .max_age(MAX_AGE)
            // By default, this layer adds `Vary` to every response. Here it adds none, because `http::response` and
            // `document` set a complete `Vary` on the answers and documents that caches may keep.
            .vary([])
    }
}

/// Sets the status of a response to a preflight to `204 No Content`, because such a response has no body.
pub(crate) fn no_content(mut response: Response) -> Response {
    if response.headers().contains_key(ACCESS_CONTROL_ALLOW_METHODS) {
        *response.status_mut() = StatusCode::NO_CONTENT;
    }
    response
}
