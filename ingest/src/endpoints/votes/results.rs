//! The polls' results as they were fetched last, and what a vote is told of them.
//!
//! Pure. What query-api answered at `GET /v1/polls` goes in, rows of one poll side by side.

use std::collections::HashMap;
use std::sync::Arc;

use schemas::time::UnixMillis;
use serde::{Deserialize, Serialize, Serializer};

/// The results of all polls that query-api shows, at one moment.
#[derive(Debug)]
pub struct Results {
    /// Every vote that was in Kafka before this moment is counted.
    pub as_of: UnixMillis,
    polls: HashMap<String, Arc<[Counted]>>,
}

/// One option of a poll.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// Its name.
    pub option: String,
    /// Votes for it.
    pub votes: u64,
    /// Distinct voters for it; votes without a voter do not count here.
    pub voters: u64,
}

/// How a poll stands, as a vote is told.
#[derive(Debug, Clone, Serialize)]
pub struct Standing {
    poll: String,
    #[serde(serialize_with = "shared")]
    results: Arc<[Counted]>,
    as_of: String,
    age_ms: i64,
}

/// Why an answer holds no results.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// It is not what query-api sends.
    #[error("read the polls' results")]
    Json(#[from] serde_json::Error),
    /// Nothing is counted yet.
    #[error("read the polls' results: the answer is of no moment")]
    NoMoment,
}

#[derive(Deserialize)]
struct Answer {
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
    counted: Counted,
}

impl Results {
    /// Reads an answer of query-api.
    pub fn parse(json: &[u8]) -> Result<Self, Unusable> {
        let Answer { data, meta } = serde_json::from_slice(json)?;
        let as_of = meta.as_of.as_deref().and_then(UnixMillis::parse).ok_or(Unusable::NoMoment)?;
        let mut polls: HashMap<String, Vec<Counted>> = HashMap::new();
        for Row { poll, counted } in data {
            polls.entry(poll).or_default().push(counted);
        }
        let polls = polls.into_iter().map(|(poll, counted)| (poll, counted.into())).collect();
        Ok(Self { as_of, polls })
    }

    /// How `poll` stands; none if nothing of it is known.
    pub fn of(&self, poll: String, now: UnixMillis) -> Option<Standing> {
        let results = Arc::clone(self.polls.get(&poll)?);
        let as_of = format!("{}Z", self.as_of).replace(' ', "T");
        Some(Standing { poll, results, as_of, age_ms: (now.0 - self.as_of.0).max(0) })
    }
}

fn shared<S: Serializer>(results: &Arc<[Counted]>, serializer: S) -> Result<S::Ok, S::Error> {
    results[..].serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &[u8] = br#"{"data":[
        {"poll":"shoe","option":"a","votes":3,"voters":2},{"poll":"shoe","option":"b","votes":1,"voters":0},
        {"poll":"hat","option":"a","votes":1,"voters":1}],
        "meta":{"as_of":"2026-11-21T04:05:06.000Z","stale":false,"complete":true,"rows":3}}"#;

    #[test]
    fn a_poll_is_told_with_its_options_and_its_age() {
        let results = Results::parse(ANSWER).unwrap();
        let now = UnixMillis::parse("2026-11-21 04:05:07.250").unwrap();
        assert_eq!(
            serde_json::to_string(&results.of("shoe".to_owned(), now)).unwrap(),
            r#"{"poll":"shoe","results":[{"option":"a","votes":3,"voters":2},{"option":"b","votes":1,"voters":0}],"as_of":"2026-11-21T04:05:06.000Z","age_ms":1250}"#
        );
        assert!(results.of("coat".to_owned(), now).is_none());
    }

    #[test]
    fn an_answer_of_no_moment_is_of_no_use() {
        let empty = br#"{"data":[],"meta":{"as_of":null}}"#;
        assert!(matches!(Results::parse(empty), Err(Unusable::NoMoment)));
        assert!(matches!(Results::parse(b"[]"), Err(Unusable::Json(_))));
    }
}
