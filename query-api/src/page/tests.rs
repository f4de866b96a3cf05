use std::io::Read as _;

use axum::body::{Body, to_bytes};
use axum::http::Request;
use flate2::read::GzDecoder;
use runtime::vars::Vars;
use tower::ServiceExt as _;

use super::*;

/// The limit on the compressed size of all files of the page together, in bytes.
const MAX_PAGE: usize = 150_000;

fn config() -> PageConfig {
    PageConfig::from_vars(&Vars::from_pairs::<&str, &str>([])).unwrap()
}

/// The answer to `GET path` with these headers, and its body.
async fn answer(path: &str, headers: &[(HeaderName, &str)]) -> (StatusCode, HeaderMap, Bytes) {
    let mut request = Request::get(path);
    for (name, value) in headers {
        request = request.header(name, *value);
    }
    let response = routes(&config()).oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    (parts.status, parts.headers, to_bytes(body, usize::MAX).await.unwrap())
}

/// The paths of the files that a browser loads for the page.
fn loaded(index: &str) -> Vec<&str> {
    index.split('"').filter(|text| text.starts_with("/assets/")).collect()
}

#[tokio::test]
async fn every_file_that_the_page_loads_is_served_and_cached_for_ever() {
    let (status, headers, index) = answer("/", &[]).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers[CONTENT_TYPE], "text/html; charset=utf-8");
    assert_eq!(headers[CACHE_CONTROL], "no-cache");
    let index = String::from_utf8(index.to_vec()).unwrap();
    let assets = loaded(&index);
    assert_eq!(assets.len(), 2, "{index}");
    for (path, kind) in assets.iter().zip(["text/css", "text/javascript"]) {
        let (status, headers, body) = answer(path, &[]).await;
        assert_eq!(status, StatusCode::OK, "{path}");
        assert!(headers[CONTENT_TYPE].to_str().unwrap().starts_with(kind) && !body.is_empty(), "{path}");
        assert_eq!(headers[CACHE_CONTROL], "public, max-age=31536000, immutable");
        assert_eq!(headers[X_CONTENT_TYPE_OPTIONS], "nosniff");
    }
}

#[tokio::test]
async fn the_page_loads_nothing_from_other_servers_and_has_no_inline_script() {
    let (_, headers, index) = answer("/", &[]).await;
    let policy = headers[CONTENT_SECURITY_POLICY].to_str().unwrap();
    for rule in [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.split("; ").any(|part| part == rule), "`{rule}` is not in {policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(headers[REFERRER_POLICY], "no-referrer");
    let index = String::from_utf8(index.to_vec()).unwrap();
    assert!(!index.contains("<style") && !index.contains("<script>") && !index.contains(" style="));
    // An XML namespace looks like a URL but is not loaded.
    let texts = [&index, SCRIPT, STYLE].map(|text| text.replace("http://www.w3.org/", ""));
    for text in texts {
        assert!(!text.contains("http://") && !text.contains("https://"), "a file names another server");
    }
}

#[tokio::test]
async fn the_whole_page_is_small_once_it_is_compressed() {
    let (_, _, index) = answer("/", &[]).await;
    let index = String::from_utf8(index.to_vec()).unwrap();
    let mut bytes = 0;
    for path in loaded(&index).into_iter().chain(["/"]) {
        let (_, headers, gzip) = answer(path, &[(ACCEPT_ENCODING, "br, gzip;q=0.8")]).await;
        assert_eq!(headers[CONTENT_ENCODING], "gzip", "{path}");
        let (_, plain_headers, plain) = answer(path, &[(ACCEPT_ENCODING, "gzip;q=0")]).await;
        assert!(plain_headers.get(CONTENT_ENCODING).is_none());
        let mut unpacked = Vec::new();
        GzDecoder::new(&gzip[..]).read_to_end(&mut unpacked).unwrap();
        assert_eq!(unpacked, plain, "{path}");
        bytes += gzip.len();
    }
    assert!(bytes < MAX_PAGE, "the compressed page has {bytes} bytes");
}

#[tokio::test]
async fn a_page_that_the_browser_has_is_not_sent_again() {
    let (_, headers, _) = answer("/", &[]).await;
    let etag = headers[ETAG].to_str().unwrap();
    let (status, headers, body) = answer("/", &[(IF_NONE_MATCH, etag), (ACCEPT_ENCODING, "gzip")]).await;
    assert_eq!((status, body.len()), (StatusCode::NOT_MODIFIED, 0));
    assert!(headers.contains_key(CONTENT_SECURITY_POLICY) && !headers.contains_key(CONTENT_ENCODING));
}
