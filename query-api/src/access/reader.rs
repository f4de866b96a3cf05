//! The reader of a request: which tenant's data the reader gets, and what the reader may ask for.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::filter::Filter;
use crate::problem::{Kind, Problem};

/// The tenant that everybody reads if readers need no key.
pub(crate) const DEFAULT_TENANT: &str = "default";

/// Who sent a request. Equal readers get equal answers to the same request. Readers that are not equal may get
/// different answers. So answers are cached by reader and request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Reader {
    /// The id of the key; `None` if readers need no key.
    pub(crate) id: Option<String>,
    /// The tenant whose data the reader gets.
    pub(crate) tenant: String,
    /// The measures that the reader may ask for; `None`: all.
    pub(crate) measures: Option<BTreeSet<String>>,
    /// Filters that apply to every request of the reader: only events that meet all of them are counted.
    pub(crate) filters: Vec<Filter>,
    /// Whether the reader may see the state of the pipeline.
    pub(crate) operator: bool,
    /// Maximum number of requests per second that cost [`super::Cost::Answer`]; `None`: no limit.
    pub(crate) answers_per_second: Option<NonZeroU32>,
    /// Maximum number of requests per second that cost [`super::Cost::Query`]; `None`: no limit.
    pub(crate) queries_per_second: Option<NonZeroU32>,
}

/// The reader of every request if readers need no key.
impl Default for Reader {
    fn default() -> Self {
        let tenant = DEFAULT_TENANT.to_owned();
        Self {
            id: None,
            tenant,
            measures: None,
            filters: Vec::new(),
            operator: true,
            answers_per_second: None,
            queries_per_second: None,
        }
    }
}

impl Reader {
    /// Whether the reader may ask for the measure.
    pub(crate) fn may_read(&self, measure: &str) -> bool {
        self.measures.as_ref().is_none_or(|measures| measures.contains(measure))
    }

    /// Refuses a measure that the reader may not ask for, and names the parameter that asks for it.
    pub(crate) fn check_measure(&self, param: &str, measure: &str) -> Result<(), Problem> {
        if self.may_read(measure) {
            return Ok(());
        }
        // The text is the same for a measure that does not exist, so it does not reveal which measures exist.
        Err(Problem::of(Kind::Forbidden, param, format!("the key does not permit the measure `{measure}`")))
    }

    /// Whether the reader may get an answer that shows `measures` and was prepared for all readers of the tenant. A
    /// prepared answer counts all events, so a reader with filters may not get it.
    pub(crate) fn may_have_prepared(&self, measures: &[&str]) -> bool {
        self.filters.is_empty() && measures.iter().all(|measure| self.may_read(measure))
    }
}

/// The reader of a request. Handlers take it as an extractor.
#[derive(Debug, Clone, Default)]
pub(crate) struct KnownReader(pub(crate) Arc<Reader>);

impl<S: Sync> FromRequestParts<S> for KnownReader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // A layer adds a reader to each request of the API: `identify` if readers need a key, else the layer with the
        // anonymous reader. So only a bug in this service lets a request reach a handler without a reader.
        parts.extensions.get::<Self>().cloned().ok_or_else(|| Kind::Unauthorized.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(measures: &[&str], filters: &[&str]) -> Reader {
        let measures = Some(measures.iter().map(|name| (*name).to_owned()).collect());
        let filters = filters.iter().map(|text| Filter::parse(text).unwrap()).collect();
        Reader { measures, filters, ..Reader::default() }
    }

    #[test]
    fn a_measure_that_the_key_does_not_name_is_refused_with_its_parameter() {
        let board = reader(&["events"], &[]);
        assert_eq!(board.check_measure("measures", "events"), Ok(()));
        let problem = board.check_measure("measures", "users").unwrap_err();
        assert_eq!((problem.kind, problem.errors[0].param.as_str()), (Kind::Forbidden, "measures"));
        assert_eq!(Reader::default().check_measure("measures", "users"), Ok(()));
    }

    #[test]
    fn a_prepared_answer_needs_a_key_for_all_its_measures_and_all_events() {
        assert!(Reader::default().may_have_prepared(&["events", "users"]));
        assert!(reader(&["events", "users"], &[]).may_have_prepared(&["events", "users"]));
        assert!(!reader(&["events"], &[]).may_have_prepared(&["events", "users"]));
        assert!(!reader(&["events", "users"], &["country:eq:DE"]).may_have_prepared(&["events"]));
    }
}
