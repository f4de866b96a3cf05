//! The response that carries an answer, and its headers; the same for prepared answers and for queries.

use axum::body::Body;
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use schemas::time::UnixMillis;

use super::accept::accepted_encoding;
use crate::rendered::{AsOf, Encoding, Rendered, X_AGE_MS, X_AS_OF, etag_matches};

/// A cache may answer equal requests for one second, and may serve an older response if this service fails. There is no
/// `stale-while-revalidate`: with it, a cache would also serve older responses while this service works. Readers could
/// not recognize these responses by `X-Age-Ms`, because the header does not include the time in the cache.
const CACHING: HeaderValue = HeaderValue::from_static("public, max-age=1, stale-if-error=300");
/// The headers of a request on which the response depends. If readers need keys, the key check appends the headers that
/// may carry the token.
const VARIES_BY: HeaderValue = HeaderValue::from_static("Accept, Accept-Encoding, Origin");
/// The capacity of the header map: enough for the headers that this module sets and those that layers add.
const HEADERS: usize = 16;

/// `200` with the body in an encoding that the reader accepts, or `304` if the reader already has the data.
pub(crate) fn respond(rendered: &Rendered, as_of: &AsOf, now: UnixMillis, request: &HeaderMap) -> Response {
    let mut headers = HeaderMap::with_capacity(HEADERS);
    let body = if is_known(request, &rendered.etag) {
        None
    } else {
        headers.insert(CONTENT_TYPE, rendered.media_type.clone());
        let encoding = if rendered.is_compressible() { encoding(request) } else { Encoding::Identity };
        match encoding {
            Encoding::Identity => {}
            Encoding::Gzip => _ = headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip")),
            Encoding::Zstd => _ = headers.insert(CONTENT_ENCODING, HeaderValue::from_static("zstd")),
        }
        Some(rendered.encoded(encoding))
    };
    headers.insert(ETAG, rendered.etag.clone());
    headers.insert(CACHE_CONTROL, CACHING);
    headers.insert(VARY, VARIES_BY);
    if let (Some(moment), Some(header)) = (as_of.moment, &as_of.header) {
        headers.insert(X_AS_OF, header.clone());
        headers.insert(X_AGE_MS, HeaderValue::from((now.0 - moment.0).max(0)));
    }
    let status = if body.is_some() { StatusCode::OK } else { StatusCode::NOT_MODIFIED };
    let mut response = Response::new(body.map_or_else(Body::empty, Body::from));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

fn is_known(request: &HeaderMap, etag: &HeaderValue) -> bool {
    let etag = || etag.to_str().expect("every ETag of this service is ASCII");
    request.get_all(IF_NONE_MATCH).iter().any(|known| etag_matches(known, etag()))
}

fn encoding(request: &HeaderMap) -> Encoding {
    request
        .get(ACCEPT_ENCODING)
        .and_then(|accepted| accepted.to_str().ok())
        .map_or(Encoding::Identity, accepted_encoding)
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use axum::http::HeaderName;

    use super::*;

    fn ask(rendered: &Rendered, headers: &[(HeaderName, &'static str)]) -> Response {
        let headers = headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
        let as_of = AsOf::new(Some(UnixMillis(1_763_697_906_000)));
        respond(rendered, &as_of, UnixMillis(1_763_697_907_500), &headers.collect())
    }

    fn header<'a>(response: &'a Response, name: &str) -> &'a str {
        response.headers().get(name).map_or("", |value| value.to_str().unwrap())
    }

    #[test]
    fn the_headers_have_the_as_of_the_age_and_the_time_in_caches() {
        let response = ask(&Rendered::text("a".to_owned()), &[]);
        assert_eq!(header(&response, "x-as-of"), "2025-11-21T04:05:06.000Z");
        assert_eq!(header(&response, "x-age-ms"), "1500");
        assert_eq!(header(&response, "cache-control"), "public, max-age=1, stale-if-error=300");
        assert_eq!(header(&response, "vary"), "Accept, Accept-Encoding, Origin");
        assert_eq!(header(&response, "age"), "");
    }

    #[tokio::test]
    async fn known_data_gets_304_with_the_new_as_of_in_any_encoding() {
        let rendered = Rendered::text("unique_users,1\n".repeat(100));
        let known = rendered.etag.to_str().unwrap().to_owned().leak();
        let response = ask(&rendered, &[(IF_NONE_MATCH, known), (ACCEPT_ENCODING, "gzip")]);
        assert_eq!(response.status(), 304);
        assert_eq!(header(&response, "x-as-of"), "2025-11-21T04:05:06.000Z");
        assert_eq!((header(&response, "etag"), header(&response, "content-encoding")), (&*known, ""));
        assert!(to_bytes(response.into_body(), 1).await.unwrap().is_empty());
    }

    #[test]
    fn only_long_bodies_are_compressed_and_the_etag_is_the_same() {
        let (short, long) = (Rendered::text("a".to_owned()), Rendered::text("a\n".repeat(1000)));
        assert_eq!(header(&ask(&short, &[(ACCEPT_ENCODING, "gzip")]), "content-encoding"), "");
        let (plain, gzip) = (ask(&long, &[]), ask(&long, &[(ACCEPT_ENCODING, "gzip, br")]));
        assert_eq!((header(&plain, "content-encoding"), header(&gzip, "content-encoding")), ("", "gzip"));
        assert_eq!(header(&plain, "etag"), header(&gzip, "etag"));
    }
}
