//! Schemas of answers (JSON Schema 2020-12).

use serde_json::{Value, json};

/// The schema of a moment, which is null if it is not known.
fn moment() -> Value {
    json!({"type": ["string", "null"], "format": "date-time"})
}

/// The schema of a count.
fn count() -> Value {
    json!({"type": "integer", "minimum": 0})
}

/// The schema of an object that has all of these members. If `more` is true, the object may have further members.
fn object(members: Value, more: bool) -> Value {
    let names: Vec<_> = members.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect();
    json!({"type": "object", "required": names, "properties": members, "additionalProperties": more})
}

fn list(of: Value) -> Value {
    json!({"type": "array", "items": of})
}

/// An answer as CSV or NDJSON.
pub(super) fn text() -> Value {
    json!({"type": "string"})
}

/// The answer of `/analytics`: three lines of text.
pub(super) fn hour() -> Value {
    json!({"type": "string", "pattern": "^unique_users,[0-9]+\nclicks,[0-9]+\nimpressions,[0-9]+\n$"})
}

/// The answer of `/v1/counters`.
pub(super) fn counters() -> Value {
    let country = object(
        json!({"country": {"type": "string"}, "view": count(), "play": count(), "click": count()}),
        false,
    );
    let window = object(json!({"from": moment(), "to": moment(), "tz": {"type": "string"}}), false);
    let meta = json!({
        "as_of": moment(), "stale": {"type": "boolean"}, "exact": {"type": "boolean"}, "window": window,
        "rows": count(),
    });
    object(json!({"data": list(country), "meta": object(meta, true)}), false)
}

/// The answer of `/v1/polls` and `/v1/polls/{poll}`. `row` is the schema of a row.
pub(super) fn polls(row: Value) -> Value {
    let meta = json!({
        "as_of": moment(), "stale": {"type": "boolean"}, "complete": {"type": "boolean"},
        "exact": {"type": "boolean"}, "rows": count(),
    });
    object(json!({"data": list(row), "meta": object(meta, true)}), false)
}

/// A row of `/v1/polls/{poll}`: an option of this poll.
pub(super) fn option() -> Value {
    object(json!({"option": {"type": "string"}, "votes": count(), "voters": count()}), false)
}

/// A row of `/v1/polls`: an option, with the name of its poll.
pub(super) fn option_of_a_poll() -> Value {
    let members = json!({
        "poll": {"type": "string"}, "option": {"type": "string"}, "votes": count(), "voters": count(),
    });
    object(members, false)
}

/// The answer of `/v1/query` as JSON. A row has a member for each dimension and measure that the query selects. A row
/// may also have `time`, the start of its bucket; `others`, which marks a row that merges the values beyond `top`; and,
/// for a comparison, `compare` and `change`.
pub(super) fn rows() -> Value {
    let row = json!({
        "type": "object",
        "properties": {"time": {"type": "string", "format": "date-time"}, "others": {"const": true}},
        "additionalProperties": {"type": ["string", "integer", "number", "boolean", "object", "null"]},
    });
    let window = object(json!({"from": moment(), "to": moment(), "tz": {"type": "string"}}), true);
    let meta = json!({
        "as_of": moment(), "stale": {"type": "boolean"}, "complete_until": moment(),
        "exact": {"type": "boolean"}, "rollups": list(json!({"type": "string"})), "window": window,
        "rows": count(), "truncated": {"type": "boolean"}, "unsafe_integers": {"type": "boolean"},
    });
    object(json!({"data": list(row), "meta": object(meta, true), "query": {"type": "object"}}), false)
}

/// The answer of `/v1/retention` or `/v1/funnel` as JSON. `row` is the schema of a row.
pub(super) fn table(row: Value) -> Value {
    let window = object(json!({"from": moment(), "to": moment(), "tz": {"type": "string"}}), false);
    let meta = json!({
        "as_of": moment(), "stale": {"type": "boolean"}, "complete_until": moment(),
        "exact": {"type": "boolean"}, "rollups": list(json!({"type": "string"})), "window": window,
        "rows": count(),
    });
    object(json!({"data": list(row), "meta": object(meta, true), "query": {"type": "object"}}), false)
}

/// A row of `/v1/retention`: a cohort. `cells` has a number of users for the cohort's own period and for each later
/// period. A cell is null until all events of its period are counted. If the rollup lacks events of the cohort's own
/// period, `size` and all cells are null.
pub(super) fn cohort() -> Value {
    let users = || json!({"type": ["integer", "null"], "minimum": 0});
    let members = json!({
        "cohort": {"type": "string", "format": "date-time"}, "size": users(), "cells": list(users()),
    });
    object(members, false)
}

/// A row of `/v1/funnel`: a step.
pub(super) fn step() -> Value {
    let share = || json!({"type": ["number", "null"], "minimum": 0, "maximum": 1});
    let members = json!({
        "step": {"type": "string"}, "users": count(), "of_first": share(), "of_previous": share(),
    });
    object(members, false)
}

/// The answer of `/v1/meta`.
pub(super) fn meta() -> Value {
    let text = || json!({"type": "string"});
    let optional = || json!({"type": ["integer", "null"], "minimum": 1});
    let rollup = object(
        json!({
            "name": text(), "grain": text(), "dimensions": list(text()),
            "measures": list(object(json!({"name": text(), "type": text()}), false)),
            "where": list(object(json!({"field": text(), "values": list(text())}), false)),
            "retention_days": optional(), "since": moment(),
            "history": {"type": "string", "enum": ["whole", "since", "not_counted", "unknown"]},
        }),
        false,
    );
    let field = object(json!({"name": text(), "path": text(), "type": text()}), false);
    let limits = json!({"type": "object", "additionalProperties": count()});
    let key = object(
        json!({
            "id": {"type": ["string", "null"]}, "tenant": text(), "filter": list(text()),
            "operator": {"type": "boolean"}, "answers_per_second": optional(), "queries_per_second": optional(),
        }),
        false,
    );
    object(
        json!({"version": text(), "rollups": list(rollup), "fields": list(field), "limits": limits, "key": key}),
        false,
    )
}

/// The answer of `/v1/pipeline`.
pub(super) fn pipeline() -> Value {
    let lines = object(
        json!({
            "received": count(), "stored": count(), "rejected": count(), "duplicates": count(),
            "rejected_samples": count(),
        }),
        false,
    );
    let slowest = json!({"type": ["integer", "null"], "minimum": 0});
    let partitions = object(json!({"count": count(), "slowest": slowest}), false);
    let mut audit = object(
        json!({
            "at": {"type": "string", "format": "date-time"}, "sound": {"type": "boolean"}, "tables": count(),
            "partly_compared": count(), "missing": count(), "duplicate": count(), "offsets_in_gaps": count(),
        }),
        false,
    );
    audit["type"] = json!(["object", "null"]);
    let data = object(json!({"lines": lines, "partitions": partitions, "audit": audit}), false);
    let window = object(json!({"from": moment(), "to": moment(), "tz": {"type": "string"}}), false);
    let meta = object(json!({"as_of": moment(), "stale": {"type": "boolean"}, "window": window}), false);
    object(json!({"data": data, "meta": meta}), false)
}

/// The body of every refusal (RFC 9457).
pub(super) fn problem() -> Value {
    let text = || json!({"type": "string"});
    let error = object(json!({"param": text(), "reason": text()}), false);
    let mut problem = object(
        json!({
            "type": {"type": "string", "pattern": "^/problems/[a-z_]+$"}, "title": text(),
            "status": {"type": "integer", "minimum": 400, "maximum": 599}, "code": text(), "detail": text(),
            "hint": text(), "request_id": text(),
        }),
        false,
    );
    problem["properties"]["errors"] = list(error);
    problem["properties"]["errors"]["description"] = json!("What is wrong, by parameter.");
    problem
}
