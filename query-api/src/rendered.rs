//! Bodies that are rendered once and sent many times, each in the encodings that readers accept.

use std::fmt::Debug;
use std::io::Write as _;
use std::sync::OnceLock;

use axum::http::{HeaderName, HeaderValue};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use schemas::time::UnixMillis;
use serde::Serialize;
use serde_json::value::RawValue;
use xxhash_rust::xxh3::xxh3_64;

/// The header with the `as_of` of an answer: everything that was in Kafka before this moment is counted.
pub(crate) const X_AS_OF: HeaderName = HeaderName::from_static("x-as-of");
/// The header with the age of an answer: the milliseconds from the moment in `X-As-Of` until the response is sent. The
/// standard header `Age` cannot carry this age, because caches set `Age` to the time for which they have kept the
/// response.
pub(crate) const X_AGE_MS: HeaderName = HeaderName::from_static("x-age-ms");
/// Bodies of at most this many bytes are sent uncompressed, because they fit into one packet without compression.
const MIN_COMPRESSED_BYTES: usize = 1024;
/// The compression levels. The first reader of a body waits while it is compressed, which takes only a few milliseconds
/// for a megabyte at each of these levels.
const GZIP_LEVEL: Compression = Compression::new(1);
const ZSTD_LEVEL: i32 = 1;

/// How the bytes of a body are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// The bytes as they are.
    Identity,
    Gzip,
    Zstd,
}

/// One body, ready to be sent, with its media type and its ETag.
#[derive(Debug, Clone)]
pub(crate) struct Rendered {
    /// The value of the header `Content-Type`.
    pub(crate) media_type: HeaderValue,
    /// The uncompressed body.
    pub(crate) body: Bytes,
    /// Weak ETag, quotes included. Two bodies that differ only in their encoding or their `as_of` have equal ETags.
    pub(crate) etag: HeaderValue,
    gzip: OnceLock<Bytes>,
    zstd: OnceLock<Bytes>,
}

impl Rendered {
    /// Plain text.
    pub(crate) fn text(body: String) -> Self {
        Self::of_data("text/plain; charset=utf-8", body)
    }

    /// CSV with a header line (RFC 4180).
    pub(crate) fn csv(body: String) -> Self {
        Self::of_data("text/csv; charset=utf-8; header=present", body)
    }

    /// A body whose ETag was made with [`etag`].
    pub(crate) fn new(media_type: &'static str, body: impl Into<Bytes>, etag: &str) -> Self {
        Self {
            media_type: HeaderValue::from_static(media_type),
            body: body.into(),
            etag: header(etag),
            gzip: OnceLock::new(),
            zstd: OnceLock::new(),
        }
    }

    /// A body that contains only data and not the `as_of`, so its ETag is made from the whole body.
    fn of_data(media_type: &'static str, body: String) -> Self {
        let etag = etag(&[media_type.as_bytes(), body.as_bytes()]);
        Self::new(media_type, body, &etag)
    }

    /// Whether the body is long enough for compression to save time.
    pub(crate) fn is_compressible(&self) -> bool {
        self.body.len() > MIN_COMPRESSED_BYTES
    }

    /// The body in this encoding. The first call for an encoding compresses the body; later calls reuse the result.
    pub(crate) fn encoded(&self, encoding: Encoding) -> Bytes {
        match encoding {
            Encoding::Identity => self.body.clone(),
            Encoding::Gzip => self.gzip.get_or_init(|| gzip(&self.body)).clone(),
            Encoding::Zstd => self.zstd.get_or_init(|| zstd(&self.body)).clone(),
        }
    }
}

fn gzip(body: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), GZIP_LEVEL);
    encoder.write_all(body).and_then(|()| encoder.finish()).expect("writing to memory cannot fail").into()
}

fn zstd(body: &[u8]) -> Bytes {
    zstd::bulk::compress(body, ZSTD_LEVEL).expect("the destination has the length that zstd requires").into()
}

/// A weak ETag, quotes included, that identifies the data in `parts`.
pub(crate) fn etag(parts: &[&[u8]]) -> String {
    format!("W/\"{:016x}\"", xxh3_64(&parts.join(&0)))
}

/// The `as_of` of an answer, also as the value of a header.
#[derive(Debug, Clone)]
pub(crate) struct AsOf {
    /// Everything that was in Kafka before this moment is counted; `None` before the aggregator has reported progress
    /// of all partitions.
    pub(crate) moment: Option<UnixMillis>,
    /// The moment in the format of RFC 3339, as the value of the header `X-As-Of`.
    pub(crate) header: Option<HeaderValue>,
}

impl AsOf {
    pub(crate) fn new(moment: Option<UnixMillis>) -> Self {
        Self { moment, header: moment.map(|moment| header(&rfc3339(moment))) }
    }
}

/// JSON `{"data":…,"meta":…}` whose `meta` says whether the answer is stale. Nothing else in the body depends on the
/// time of the request, so two bodies are rendered in advance: the fresh one and the stale one.
///
/// The age of an answer is sent in its headers: in the body, the age would make the body change with every request.
#[derive(Debug)]
pub(crate) struct AgingBody {
    /// The `as_of` of the data.
    pub(crate) as_of: AsOf,
    fresh: Rendered,
    stale: Rendered,
}

/// A body as it is serialized. The fields are sent in this order.
#[derive(Serialize)]
struct Body<'a, M> {
    data: &'a RawValue,
    meta: M,
}

impl AgingBody {
    /// Renders the fresh and the stale body. The arguments of `meta` are the `as_of` of the data and whether the data
    /// are stale. For the ETag, `meta` is called without the `as_of`, so that equal data have equal ETags.
    pub(crate) fn new<M: Serialize>(
        as_of: &AsOf,
        data: &impl Serialize,
        meta: impl Fn(Option<UnixMillis>, bool) -> M,
    ) -> Self {
        const NUMBERS_AND_TEXTS: &str = "every value of an answer can be written as JSON";
        let data = serde_json::value::to_raw_value(data).expect(NUMBERS_AND_TEXTS);
        let render = |stale| {
            let timeless = serde_json::to_string(&meta(None, stale)).expect(NUMBERS_AND_TEXTS);
            let etag = etag(&[b"application/json", data.get().as_bytes(), timeless.as_bytes()]);
            let body = Body { data: &data, meta: meta(as_of.moment, stale) };
            let body = serde_json::to_string(&body).expect(NUMBERS_AND_TEXTS);
            Rendered::new("application/json", body, &etag)
        };
        Self { as_of: as_of.clone(), fresh: render(false), stale: render(true) }
    }

    /// The body to send at `now`. The answer is stale if its `as_of` is unknown or older than three intervals of
    /// `interval` milliseconds, because by that time at least two refreshes should have replaced the answer. It is also
    /// stale if the aggregator declares other rollups than this process.
    pub(crate) fn at(&self, now: UnixMillis, interval: i64, rollups_differ: bool) -> &Rendered {
        let limit = interval.saturating_mul(3);
        let fresh = self.as_of.moment.is_some_and(|as_of| now.0 - as_of.0 <= limit);
        if fresh && !rollups_differ { &self.fresh } else { &self.stale }
    }
}

/// A moment in the format of RFC 3339, in which JSON and headers contain it.
pub(crate) fn rfc3339(moment: UnixMillis) -> String {
    format!("{moment}Z").replace(' ', "T")
}

/// Whether `known`, the value of `If-None-Match`, contains `etag` or `*`, alone or in a list. Tags are compared without
/// the prefix `W/` (the weak comparison of RFC 9110).
pub(crate) fn etag_matches(known: &HeaderValue, etag: &str) -> bool {
    fn opaque(tag: &str) -> &str {
        tag.trim().trim_start_matches("W/")
    }
    let listed = |list: &str| list.split(',').any(|tag| tag.trim() == "*" || opaque(tag) == opaque(etag));
    known.to_str().is_ok_and(listed)
}

fn header(text: &str) -> HeaderValue {
    HeaderValue::try_from(text).expect("ETags and RFC 3339 moments have only visible ASCII characters")
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn equal_answers_have_equal_etags_whatever_their_as_of() {
        let one = Rendered::text("unique_users,1".to_owned());
        assert_eq!(one.etag, Rendered::text("unique_users,1".to_owned()).etag);
        assert_ne!(one.etag, Rendered::text("unique_users,0".to_owned()).etag);
        assert_ne!(one.etag, Rendered::csv("unique_users,1".to_owned()).etag);
        let body = |as_of, rows: &[u64]| {
            let as_of = AsOf::new(Some(UnixMillis(as_of)));
            AgingBody::new(&as_of, &rows, |as_of, stale| (as_of.map(|as_of| as_of.0), stale))
        };
        let (one, later) = (body(1000, &[7]), body(6000, &[7]));
        assert_eq!((&one.fresh.etag, &one.stale.etag), (&later.fresh.etag, &later.stale.etag));
        assert_ne!(one.fresh.body, later.fresh.body);
        assert_ne!(one.fresh.etag, one.stale.etag);
        assert_ne!(one.fresh.etag, body(1000, &[8]).fresh.etag);
    }

    #[test]
    fn an_etag_is_found_in_a_list_of_if_none_match() {
        let matches = |known: &'static str| etag_matches(&HeaderValue::from_static(known), "W/\"ab\"");
        assert!(matches("\"ab\"") && matches("\"x\", W/\"ab\"") && matches("*"));
        assert!(!matches("\"abc\"") && !matches("ab"));
    }

    #[test]
    fn compressed_bodies_decompress_to_the_body() {
        let rendered = Rendered::text("unique_users,1\n".repeat(100));
        let mut inflated = Vec::new();
        let gzip = rendered.encoded(Encoding::Gzip);
        flate2::read::GzDecoder::new(&gzip[..]).read_to_end(&mut inflated).unwrap();
        assert_eq!(inflated, rendered.body);
        assert_eq!(zstd::decode_all(&rendered.encoded(Encoding::Zstd)[..]).unwrap(), rendered.body);
        assert!(gzip.len() < rendered.body.len() && rendered.is_compressible());
    }
}
