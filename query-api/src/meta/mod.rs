//! `/v1/meta`: which rollups and measures a reader can query, and what the reader's key permits.
//!
//! Rollups and measures that the key does not permit are left out.

use std::num::NonZeroU32;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::get;
use schemas::field::Field;
use schemas::rollup::{Condition, Dimension, Rollup, Rollups};
use serde::Serialize;

use crate::access::{KnownReader, Reader};
use crate::config::Config;
use crate::document;
use crate::query::{LIMITS, QueryLimits};
use crate::reach::Reach;
use crate::rendered::rfc3339;
use crate::state::AppState;

mod history;

/// The state that all requests share.
struct MetaService {
    rollups: Rollups,
    state: Arc<AppState>,
}

/// The route `/v1/meta`.
pub(crate) fn routes(config: &Config, state: Arc<AppState>) -> Router {
    let service = Arc::new(MetaService { rollups: config.rollups.clone(), state });
    Router::new().route("/v1/meta", get(answer)).with_state(service)
}

/// `GET /v1/meta`. Parameters are ignored, so a reader may add one to bypass a cache.
async fn answer(
    State(service): State<Arc<MetaService>>,
    KnownReader(reader): KnownReader,
    headers: HeaderMap,
) -> Response {
    let meta = Meta::new(&service.rollups, service.state.reach().as_deref(), &reader);
    let meta = serde_json::to_vec(&meta).expect("strings, numbers and booleans always serialize to JSON");
    document::respond(meta.into(), &headers)
}

/// The JSON body of the answer. The order of the fields is their order in the body.
#[derive(Serialize)]
struct Meta<'a> {
    version: &'static str,
    rollups: Vec<RollupMeta<'a>>,
    fields: Vec<FieldMeta<'a>>,
    limits: QueryLimits,
    key: KeyMeta<'a>,
}

#[derive(Serialize)]
struct RollupMeta<'a> {
    name: &'a str,
    grain: &'static str,
    dimensions: Vec<String>,
    measures: Vec<MeasureMeta<'a>>,
    /// The rollup counts only events that meet all of these conditions.
    #[serde(rename = "where")]
    conditions: Vec<ConditionMeta<'a>>,
    /// Number of days for which a bucket is kept; null if buckets are never deleted.
    retention_days: Option<u32>,
    /// Which events the rollup has counted:
    /// - `whole`: every event.
    /// - `since`: every event that arrived at or after the moment in the field `since`.
    /// - `not_counted`: for at least one Kafka partition, the aggregator does not count events into the rollup at
    ///   present, for example because the rollup was removed from the aggregator's `ROLLUPS_FILE`.
    /// - `unknown`: ClickHouse has not answered yet.
    history: &'static str,
    /// If `history` is `since`: every event that arrived at or after this moment is counted. Otherwise null.
    since: Option<String>,
}

#[derive(Serialize)]
struct MeasureMeta<'a> {
    name: &'a str,
    /// The measure as the rollup declares it: `count`, `sum(param_int)`, `uniq_exact(user)`.
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Serialize)]
struct ConditionMeta<'a> {
    field: String,
    values: &'a [String],
}

#[derive(Serialize)]
struct FieldMeta<'a> {
    name: &'a str,
    path: String,
    #[serde(rename = "type")]
    kind: &'static str,
}

/// What the key permits; everything if readers need no key.
#[derive(Serialize)]
struct KeyMeta<'a> {
    id: Option<&'a str>,
    tenant: &'a str,
    /// The filters of the key. Answers count only events that meet all of these filters.
    filter: Vec<String>,
    operator: bool,
    /// How many requests per second the key may send to paths other than `/v1/query`, `/v1/retention` and `/v1/funnel`;
    /// null if there is no limit.
    answers_per_second: Option<NonZeroU32>,
    /// How many requests per second the key may send to `/v1/query`, `/v1/retention` and `/v1/funnel` together; null if
    /// there is no limit.
    queries_per_second: Option<NonZeroU32>,
}

impl<'a> Meta<'a> {
    fn new(rollups: &'a Rollups, reach: Option<&Reach>, reader: &'a Reader) -> Self {
        let readable = |rollup: &'a Rollup| {
            let rollup = RollupMeta::new(rollup, reach, reader);
            (!rollup.measures.is_empty()).then_some(rollup)
        };
        Self {
            version: env!("CARGO_PKG_VERSION"),
            rollups: rollups.iter().filter_map(readable).collect(),
            fields: rollups.fields().iter().map(FieldMeta::new).collect(),
            limits: LIMITS,
            key: KeyMeta {
                id: reader.id.as_deref(),
                tenant: &reader.tenant,
                filter: reader.filters.iter().map(ToString::to_string).collect(),
                operator: reader.operator,
                answers_per_second: reader.answers_per_second,
                queries_per_second: reader.queries_per_second,
            },
        }
    }
}

impl<'a> RollupMeta<'a> {
    fn new(rollup: &'a Rollup, reach: Option<&Reach>, reader: &Reader) -> Self {
        let history = history::of(reach, &rollup.name);
        let measures = rollup.measures.iter().filter(|(name, _)| reader.may_read(name));
        let condition =
            |Condition { field, values }: &'a Condition| ConditionMeta { field: field.to_string(), values };
        Self {
            name: &rollup.name,
            grain: rollup.grain.name(),
            dimensions: rollup.dimensions.iter().map(Dimension::to_string).collect(),
            measures: measures.map(|(name, kind)| MeasureMeta { name, kind: kind.to_string() }).collect(),
            conditions: rollup.conditions.iter().map(condition).collect(),
            retention_days: rollup.retention_days,
            history: history.name(),
            since: history.since().map(rfc3339),
        }
    }
}

impl<'a> FieldMeta<'a> {
    fn new(Field { name, path, kind }: &'a Field) -> Self {
        Self { name, path: path.to_string(), kind: kind.name() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::filter::Filter;

    const DECLARED: &str = r#"
[[field]]
name = "amount"
path = "cart.amount"
type = "int"

[[rollup]]
name = "views_daily"
grain = "day"
dimensions = ["country", "props.plan"]
where = { event = ["view", "play"] }
measures = { shown = "count", spent = "sum(prop_amount)" }
retention = "400d"

[[rollup]]
name = "users_daily"
grain = "day"
dimensions = []
measures = { users = "uniq_exact(user)" }
"#;

    fn meta(reader: &Reader) -> Value {
        let rollups = Rollups::parse("", DECLARED).unwrap();
        serde_json::to_value(Meta::new(&rollups, Some(&Reach::default()), reader)).unwrap()
    }

    #[test]
    fn a_rollup_is_shown_as_it_is_declared() {
        let meta = meta(&Reader::default());
        assert_eq!(
            meta["rollups"][0],
            json!({
                "name": "views_daily", "grain": "day", "dimensions": ["country", "props.plan"],
                "measures": [{"name": "shown", "type": "count"}, {"name": "spent", "type": "sum(prop_amount)"}],
                "where": [{"field": "event", "values": ["view", "play"]}],
                "retention_days": 400, "history": "whole", "since": null,
            })
        );
        assert_eq!(meta["fields"], json!([{"name": "amount", "path": "cart.amount", "type": "int"}]));
        assert_eq!(meta["limits"]["cells"], 100_000);
        assert_eq!((&meta["key"]["tenant"], &meta["key"]["operator"]), (&json!("default"), &json!(true)));
    }

    #[test]
    fn rollups_and_measures_that_the_key_does_not_permit_are_left_out() {
        let reader = Reader {
            measures: Some(["shown".to_owned()].into()),
            filters: vec![Filter::parse("country:in:US|DE").unwrap()],
            ..Reader::default()
        };
        let meta = meta(&reader);
        assert_eq!(meta["rollups"].as_array().unwrap().len(), 1);
        assert_eq!(meta["rollups"][0]["measures"], json!([{"name": "shown", "type": "count"}]));
        assert_eq!(meta["key"]["filter"], json!(["country:in:US|DE"]));
    }
}
