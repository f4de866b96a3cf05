//! `/`: a web page that shows the answers of this API.
//!
//! The page consists of three files: HTML, script and style sheet. They are built from `query-api/page` and compiled
//! into the program, so no other server is needed. The page uses the same public API as every other reader. The names
//! of the script and the style sheet contain a hash of their content, so browsers may cache these two files for ever.
//! Browsers ask for the HTML file each time, and get `304` until the program changes.

mod config;

use std::io::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    IF_NONE_MATCH, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use xxhash_rust::xxh3::xxh3_64;

use crate::rendered::etag_matches;

pub use config::PageConfig;

const INDEX: &str = include_str!("../../page/dist/index.html");
const SCRIPT: &str = include_str!("../../page/dist/app.js");
const STYLE: &str = include_str!("../../page/dist/app.css");

const CROSS_ORIGIN_OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");

/// The routes of the page, its script and its style sheet.
pub(crate) fn routes(config: &PageConfig) -> Router {
    let script = Asset::named("app", "js", "text/javascript; charset=utf-8", SCRIPT);
    let style = Asset::named("app", "css", "text/css; charset=utf-8", STYLE);
    let index = INDEX.replace("/assets/app.js", &script.path).replace("/assets/app.css", &style.path);
    let page = Page {
        index: Asset::new("/".to_owned(), "text/html; charset=utf-8", &index),
        policy: HeaderValue::try_from(policy(config))
            .expect("`PAGE_FRAME_ANCESTORS` was checked when it was read"),
    };
    let asset = |asset: Asset| {
        let (path, asset) = (asset.path.clone(), Arc::new(asset));
        Router::new().route(&path, get(send_asset)).with_state(asset)
    };
    Router::new()
        .route("/", get(send_page))
        .with_state(Arc::new(page))
        .merge(asset(script))
        .merge(asset(style))
}

/// The content security policy of the page. Scripts and styles come from this server, images from this server or a
/// `data:` URL, and requests go to this server. The page has no plug-ins and no frames, and sends no forms. Only the
/// sites in `frame_ancestors` may show the page in a frame. Trusted types prevent scripts from inserting a string as
/// markup.
fn policy(PageConfig { frame_ancestors }: &PageConfig) -> String {
    format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors {frame_ancestors}; require-trusted-types-for 'script'"
    )
}

/// The page, and the content security policy that is sent with it.
struct Page {
    index: Asset,
    policy: HeaderValue,
}

/// A file that is served uncompressed or compressed with gzip.
struct Asset {
    path: String,
    kind: HeaderValue,
    plain: Bytes,
    gzip: Bytes,
    /// A weak ETag, because the plain and the compressed file share it. A strong ETag would promise identical bytes.
    etag: String,
}

impl Asset {
    fn new(path: String, kind: &'static str, text: &str) -> Self {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        gzip.write_all(text.as_bytes()).expect("a write to memory cannot fail");
        Self {
            path,
            kind: HeaderValue::from_static(kind),
            plain: Bytes::copy_from_slice(text.as_bytes()),
            gzip: gzip.finish().expect("a write to memory cannot fail").into(),
            etag: format!("W/\"{:016x}\"", xxh3_64(text.as_bytes())),
        }
    }

    /// A file whose name changes with its content.
    fn named(name: &str, extension: &str, kind: &'static str, text: &str) -> Self {
        let path = format!("/assets/{name}-{:016x}.{extension}", xxh3_64(text.as_bytes()));
        Self::new(path, kind, text)
    }

    /// The file in an encoding that the browser accepts, or `304` if the browser has it.
    fn send(&self, request: &HeaderMap) -> Response {
        let is_known = request.get(IF_NONE_MATCH).is_some_and(|known| etag_matches(known, &self.etag));
        let is_gzip = accepts_gzip(request);
        let body = if is_gzip { &self.gzip } else { &self.plain };
        let mut response =
            if is_known { StatusCode::NOT_MODIFIED.into_response() } else { body.clone().into_response() };
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, self.kind.clone());
        headers.insert(ETAG, HeaderValue::try_from(&self.etag).expect("a weak ETag is ASCII"));
        headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if is_gzip && !is_known {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }
}

async fn send_page(State(page): State<Arc<Page>>, request: HeaderMap) -> Response {
    let mut response = page.index.send(&request);
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(CONTENT_SECURITY_POLICY, page.policy.clone());
    // The URL of the page may contain names of events and users. Other sites must not get it as a referrer.
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(CROSS_ORIGIN_OPENER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(
        PERMISSIONS_POLICY,
        HeaderValue::from_static("camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    );
    response
}

async fn send_asset(State(asset): State<Arc<Asset>>, request: HeaderMap) -> Response {
    let mut response = asset.send(&request);
    let forever = HeaderValue::from_static("public, max-age=31536000, immutable");
    response.headers_mut().insert(CACHE_CONTROL, forever);
    response
}

/// Whether the browser accepts gzip. A browser that sends `gzip;q=0` does not.
fn accepts_gzip(request: &HeaderMap) -> bool {
    let accepted = request.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let is_refused = weight.trim().strip_prefix("q=").and_then(|q| q.parse().ok()) == Some(0.0);
        name.trim().eq_ignore_ascii_case("gzip") && !is_refused
    })
}

#[cfg(test)]
mod tests;
