//! What a key of `READ_KEYS_FILE` permits.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::Arc;

use runtime::keys::{self, Rate, RateConfig};
use schemas::line::is_tenant;
use serde::Deserialize;

use super::reader::Reader;
use crate::filter::Filter;

/// The longest permitted id, in bytes.
const MAX_ID_BYTES: usize = 64;
/// Maximum number of measures that a key may name.
const MAX_MEASURES: usize = 64;
/// Maximum number of filters that a key may have. The filters of a request are limited separately.
const MAX_FILTERS: usize = 8;

/// A key whose declaration is valid: what `layers` needs to decide about a request.
#[derive(Debug)]
pub(super) struct Key {
    /// The reader that the token identifies.
    pub(super) reader: Arc<Reader>,
    /// Whether the key is enabled. A request with the token of a disabled key is refused.
    pub(super) enabled: bool,
    /// The rate limit for requests that cost [`super::Cost::Answer`]; `None`: no limit.
    pub(super) answers: Option<Arc<Rate>>,
    /// The rate limit for requests that cost [`super::Cost::Query`]; `None`: no limit.
    pub(super) queries: Option<Arc<Rate>>,
}

/// A key as the file declares it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeclaredKey {
    id: String,
    tenant: String,
    sha256: String,
    measures: Option<Vec<String>>,
    #[serde(default)]
    filter: Vec<String>,
    #[serde(default)]
    operator: bool,
    answers_per_second: Option<NonZeroU32>,
    queries_per_second: Option<NonZeroU32>,
    #[serde(default = "enabled")]
    enabled: bool,
}

fn enabled() -> bool {
    true
}

impl keys::DeclaredKey for DeclaredKey {
    type Key = Key;

    fn id(&self) -> &str {
        &self.id
    }

    fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Keeps the limiter of each rate that has not changed since `before`, so a reload of the key file does not reset
    /// what the limiter has charged.
    fn resolve(self, before: Option<&Key>) -> Result<Key, String> {
        if self.id.is_empty() || self.id.len() > MAX_ID_BYTES {
            return Err(format!("its id must be 1 to {MAX_ID_BYTES} bytes"));
        }
        if !is_tenant(&self.tenant) {
            return Err("its tenant must be 1 to 64 characters, each one of a-z, 0-9, _ and -".to_owned());
        }
        if self.filter.len() > MAX_FILTERS {
            return Err(format!("it has more than {MAX_FILTERS} filters"));
        }
        let filters = self.filter.iter().map(|text| Filter::parse(text)).collect::<Result<_, _>>();
        let filters = filters.map_err(|reason| format!("one of its filters cannot be read: {reason}"))?;
        let reader = Reader {
            id: Some(self.id),
            tenant: self.tenant,
            measures: self.measures.map(measures).transpose()?,
            filters,
            operator: self.operator,
            answers_per_second: self.answers_per_second,
            queries_per_second: self.queries_per_second,
        };
        let answers = rate(self.answers_per_second, before.and_then(|key| key.answers.as_ref()));
        let queries = rate(self.queries_per_second, before.and_then(|key| key.queries.as_ref()));
        Ok(Key { reader: Arc::new(reader), enabled: self.enabled, answers, queries })
    }
}

fn measures(names: Vec<String>) -> Result<BTreeSet<String>, String> {
    match names.len() {
        0 => Err("its measures are an empty list; leave out `measures` to permit all".to_owned()),
        1..=MAX_MEASURES => Ok(names.into_iter().collect()),
        _ => Err(format!("it names more than {MAX_MEASURES} measures")),
    }
}

fn rate(declared: Option<NonZeroU32>, before: Option<&Arc<Rate>>) -> Option<Arc<Rate>> {
    let config = RateConfig { rate: declared?, burst: declared? };
    let used = before.filter(|rate| rate.config() == config).cloned();
    Some(used.unwrap_or_else(|| Arc::new(Rate::new(config))))
}

#[cfg(test)]
mod tests {
    use runtime::keys::{KeySet, generate};

    use super::*;

    fn parse(text: &str, before: &KeySet<Key>) -> Result<KeySet<Key>, String> {
        KeySet::parse::<DeclaredKey>(text, before).map_err(|error| error.to_string())
    }

    /// The token of the key `board`, and a file that declares this key with the additional lines `more`.
    fn declared(more: &str) -> (String, String) {
        let (token, toml) = generate("board", "acme");
        (token, format!("{toml}{more}"))
    }

    fn key(more: &str) -> Arc<Key> {
        let (token, text) = declared(more);
        Arc::clone(parse(&text, &KeySet::default()).unwrap().find(token.as_bytes()).unwrap())
    }

    #[test]
    fn a_key_without_limits_permits_all_data_of_its_tenant() {
        let key = key("");
        let reader = Reader { id: Some("board".to_owned()), tenant: "acme".to_owned(), ..Reader::default() };
        assert_eq!(*key.reader, Reader { operator: false, ..reader });
        assert!(key.enabled && key.answers.is_none() && key.queries.is_none());
    }

    #[test]
    fn a_key_has_what_the_file_declares() {
        let key = key("measures = [\"events\", \"users\"]\nfilter = [\"country:in:US|DE\"]\noperator = true
            answers_per_second = 100\nqueries_per_second = 5\nenabled = false");
        let measures = key.reader.measures.clone().unwrap();
        assert_eq!(measures.into_iter().collect::<Vec<_>>(), ["events", "users"]);
        assert_eq!(key.reader.filters, [Filter::parse("country:in:US|DE").unwrap()]);
        let rates = [&key.answers, &key.queries].map(|rate| rate.as_ref().unwrap().config().rate.get());
        assert_eq!((rates, key.reader.operator, key.enabled), ([100, 5], true, false));
    }

    #[test]
    fn an_error_names_the_invalid_key() {
        let error = |more: &str| parse(&declared(more).1, &KeySet::default()).unwrap_err();
        assert!(error("filter = [\"country\"]").contains("key `board`: one of its filters cannot be read"));
        assert!(error("measures = []").contains("an empty list"));
        assert!(error("queries_per_second = 0").starts_with("line 5: "));
        assert!(error("query_per_second = 1").contains("query_per_second"));
        let long = generate(&"x".repeat(65), "acme").1;
        assert!(parse(&long, &KeySet::default()).unwrap_err().contains("1 to 64 bytes"));
    }

    #[test]
    fn an_unchanged_rate_keeps_its_usage_when_the_key_file_changes() {
        let (token, text) = declared("queries_per_second = 1");
        let before = parse(&text, &KeySet::default()).unwrap();
        let rate = |set: &KeySet<Key>| set.find(token.as_bytes()).unwrap().queries.clone().unwrap();
        let same = parse(&format!("{text}\nanswers_per_second = 9"), &before).unwrap();
        assert!(Arc::ptr_eq(&rate(&before), &rate(&same)));
        let other = parse(&text.replace("second = 1", "second = 2"), &before).unwrap();
        assert!(!Arc::ptr_eq(&rate(&before), &rate(&other)));
    }
}
