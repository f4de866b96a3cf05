//! Bodies that are rendered once and sent many times.

use axum::http::HeaderValue;
use bytes::Bytes;
use schemas::time::UnixMillis;
use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64;

/// One body, ready to be sent, with its media type and its ETag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rendered {
    /// The media type.
    pub(crate) media_type: &'static str,
    /// The bytes of the body.
    pub(crate) body: Bytes,
    /// Strong ETag, quotes included.
    pub(crate) etag: String,
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

    /// The JSON of `body`.
    pub(crate) fn json(body: &impl Serialize) -> Self {
        let body = serde_json::to_string(body).expect("answers hold only numbers and strings");
        Self::of_data("application/json", body)
    }

    /// A body with this ETag.
    pub(crate) fn new(media_type: &'static str, body: impl Into<Bytes>, etag: &str) -> Self {
        Self { media_type, body: body.into(), etag: etag.to_owned() }
    }

    /// A body that is nothing but data.
    fn of_data(media_type: &'static str, body: String) -> Self {
        let etag = format!("\"{:016x}\"", xxh3_64(body.as_bytes()));
        Self::new(media_type, body, &etag)
    }
}

/// What names the data of a body: a weak ETag, quotes included, of all of `parts`.
pub(crate) fn etag(parts: &[&[u8]]) -> String {
    format!("W/\"{:016x}\"", xxh3_64(&parts.join(&0)))
}

/// A body that contains whether it is stale. That changes once, so both bodies are rendered in advance.
///
/// The age of an answer is sent in its headers: in the body it would change the ETag with every
/// request.
#[derive(Debug)]
pub(crate) struct AgingBody {
    /// Everything that was in Kafka before this moment is counted; `None` while nothing is known.
    pub(crate) as_of: Option<UnixMillis>,
    fresh: Rendered,
    stale: Rendered,
}

impl AgingBody {
    /// Calls `render` for both bodies; its argument is whether the body is stale.
    pub(crate) fn new(as_of: Option<UnixMillis>, render: impl Fn(bool) -> Rendered) -> Self {
        Self { as_of, fresh: render(false), stale: render(true) }
    }

    /// The body to send at `now`. It is stale when it should have been refreshed twice, with `interval`
    /// milliseconds between two refreshes, or when the aggregator's rollups differ from ours.
    pub(crate) fn at(&self, now: UnixMillis, interval: i64, rollups_differ: bool) -> &Rendered {
        let limit = interval.saturating_mul(3);
        let fresh = self.as_of.is_some_and(|as_of| now.0 - as_of.0 <= limit);
        if fresh && !rollups_differ { &self.fresh } else { &self.stale }
    }
}

/// A moment as JSON and headers show it.
pub(crate) fn rfc3339(moment: UnixMillis) -> String {
    format!("{moment}Z").replace(' ', "T")
}

/// Whether `If-None-Match` contains the ETag, alone or in a list; a weak tag equals the strong one of the same value.
pub(crate) fn etag_matches(known: &HeaderValue, etag: &str) -> bool {
    fn opaque(tag: &str) -> &str {
        tag.trim().trim_start_matches("W/")
    }
    let listed = |list: &str| list.split(',').any(|tag| tag.trim() == "*" || opaque(tag) == opaque(etag));
    known.to_str().is_ok_and(listed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_answers_have_equal_etags() {
        let one = Rendered::text("unique_users,1".to_owned());
        assert_eq!(one.etag, Rendered::text("unique_users,1".to_owned()).etag);
        assert_ne!(one.etag, Rendered::text("unique_users,0".to_owned()).etag);
    }

    #[test]
    fn a_known_tag_is_found_in_a_list() {
        let matches = |known: &'static str| etag_matches(&HeaderValue::from_static(known), "\"ab\"");
        assert!(matches("\"ab\"") && matches("\"x\", W/\"ab\"") && matches("*"));
        assert!(!matches("\"abc\"") && !matches("ab"));
    }
}
