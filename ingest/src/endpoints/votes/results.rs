//! The poll results that were last fetched, and the result of one poll for the response to a vote.
//!
//! The inputs are the responses of query-api to `GET /v1/meta`, which names the tenant, and `GET /v1/polls`. No I/O.
//! Invariant: the response to a vote contains a result only if the vote belongs to this tenant.

use std::collections::HashMap;
use std::sync::Arc;

use schemas::time::UnixMillis;
use serde::{Deserialize, Serialize, Serializer};

/// The results of all polls of a tenant, as of one moment.
#[derive(Debug)]
pub struct Results {
    /// The tenant that the polls belong to.
    tenant: String,
    /// Every vote that was in Kafka before this moment is counted.
    pub as_of: UnixMillis,
    polls: HashMap<String, Arc<[OptionResult]>>,
}

/// The result of one option of a poll.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OptionResult {
    /// The name of the option.
    pub option: String,
    /// The votes for the option.
    pub votes: u64,
    /// The distinct voters for the option; votes without a voter do not count here.
    pub voters: u64,
}

/// The result of a poll, as the response to a vote shows it.
#[derive(Debug, Clone, Serialize)]
pub struct PollResult {
    poll: String,
    #[serde(serialize_with = "shared")]
    results: Arc<[OptionResult]>,
    as_of: String,
    age_ms: i64,
}

/// Why the responses of query-api cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ResultsError {
    /// A response does not have the form that query-api sends.
    #[error("parse query-api's response to /v1/meta or /v1/polls")]
    Json(#[from] serde_json::Error),
    /// The response to `/v1/polls` has no valid `as_of`. Query-api sends no `as_of` until the aggregator has reported
    /// progress of all partitions.
    #[error("read poll results: query-api's response to /v1/polls has no valid `as_of`")]
    NoTime,
}

#[derive(Deserialize)]
struct MetaResponse {
    key: Key,
}

#[derive(Deserialize)]
struct Key {
    tenant: String,
}

#[derive(Deserialize)]
struct PollsResponse {
    data: Vec<Row>,
    meta: Meta,
}

#[derive(Deserialize)]
struct Meta {
    as_of: Option<String>,
}

#[derive(Deserialize)]
struct Row {
    poll: String,
    #[serde(flatten)]
    result: OptionResult,
}

impl Results {
    /// Parses the responses of query-api to `GET /v1/meta` and `GET /v1/polls`.
    pub fn parse(meta: &[u8], polls: &[u8]) -> Result<Self, ResultsError> {
        let MetaResponse { key: Key { tenant } } = serde_json::from_slice(meta)?;
        let PollsResponse { data, meta } = serde_json::from_slice(polls)?;
        let as_of = meta.as_of.as_deref().and_then(UnixMillis::parse).ok_or(ResultsError::NoTime)?;
        let mut polls: HashMap<String, Vec<OptionResult>> = HashMap::new();
        for Row { poll, result } in data {
            polls.entry(poll).or_default().push(result);
        }
        let polls = polls.into_iter().map(|(poll, result)| (poll, result.into())).collect();
        Ok(Self { tenant, as_of, polls })
    }

    /// The result of a poll of `tenant`, with its age at `now`; `None` if the results belong to another tenant or do
    /// not contain the poll.
    pub fn of(&self, tenant: &str, poll: String, now: UnixMillis) -> Option<PollResult> {
        if tenant != self.tenant {
            return None;
        }
        let results = Arc::clone(self.polls.get(&poll)?);
        let as_of = format!("{}Z", self.as_of).replace(' ', "T");
        Some(PollResult { poll, results, as_of, age_ms: (now.0 - self.as_of.0).max(0) })
    }
}

fn shared<S: Serializer>(results: &Arc<[OptionResult]>, serializer: S) -> Result<S::Ok, S::Error> {
    results[..].serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    const META: &[u8] = br#"{"version":"0.1.0","key":{"id":null,"tenant":"acme","operator":true}}"#;
    const ANSWER: &[u8] = br#"{"data":[
        {"poll":"shoe","option":"a","votes":3,"voters":2},{"poll":"shoe","option":"b","votes":1,"voters":0},
        {"poll":"hat","option":"a","votes":1,"voters":1}],
        "meta":{"as_of":"2026-11-21T04:05:06.000Z","stale":false,"complete":true,"rows":3}}"#;

    #[test]
    fn a_vote_gets_the_results_of_a_poll_of_its_own_tenant_and_their_age() {
        let results = Results::parse(META, ANSWER).unwrap();
        let now = UnixMillis::parse("2026-11-21 04:05:07.250").unwrap();
        assert_eq!(
            serde_json::to_string(&results.of("acme", "shoe".to_owned(), now)).unwrap(),
            r#"{"poll":"shoe","results":[{"option":"a","votes":3,"voters":2},{"option":"b","votes":1,"voters":0}],"as_of":"2026-11-21T04:05:06.000Z","age_ms":1250}"#
        );
        assert!(results.of("acme", "coat".to_owned(), now).is_none());
        assert!(results.of("default", "shoe".to_owned(), now).is_none());
    }

    #[test]
    fn a_response_without_as_of_is_not_used() {
        let empty = br#"{"data":[],"meta":{"as_of":null}}"#;
        assert!(matches!(Results::parse(META, empty), Err(ResultsError::NoTime)));
        assert!(matches!(Results::parse(META, b"[]"), Err(ResultsError::Json(_))));
    }
}
