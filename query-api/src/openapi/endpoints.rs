//! The paths, their parameters, and what they answer.

use serde_json::{Value, json};

use super::schemas;
use crate::query::{self, Format, PARAMETERS, Shape, Values};

/// A method of a path.
pub(super) struct Endpoint {
    pub(super) path: &'static str,
    pub(super) method: &'static str,
    pub(super) summary: &'static str,
    pub(super) parameters: Vec<Value>,
    /// The schema of the body; `None` where there is none.
    pub(super) body: Option<Value>,
    /// Media types of answers and their schemas.
    pub(super) answers: Vec<(&'static str, Value)>,
    /// Statuses of refusals, beside those that every path has.
    pub(super) refusals: &'static [u16],
    /// Whether answers are of a moment, which their headers name.
    pub(super) is_of_a_moment: bool,
}

/// A parameter of a path whose handler reads it by hand.
struct Parameter {
    name: &'static str,
    place: &'static str,
    required: bool,
    values: Values,
    doc: &'static str,
}

const TIMESTAMP: Parameter = Parameter {
    name: "timestamp",
    place: "query",
    required: true,
    values: Values::Text("^-?[0-9]+$"),
    doc: "A moment in milliseconds since 1970, which stands for the hour that holds it.",
};

const WAIT: Parameter = Parameter {
    name: "wait",
    place: "query",
    required: false,
    values: Values::OneOf(&["0", "1"]),
    doc: "`0` refuses at once what is not read yet, instead of waiting for it.",
};

const FORMAT: Parameter = Parameter {
    name: "format",
    place: "query",
    required: false,
    values: Values::OneOf(&["json", "csv"]),
    doc: "The form of the answer, `json` by default.",
};

const POLL: Parameter = Parameter {
    name: "poll",
    place: "path",
    required: true,
    values: Values::Text(""),
    doc: "The name of the poll.",
};

const JSON: &str = "application/json";
const CSV: &str = "text/csv";
const NDJSON: &str = "application/x-ndjson";

/// Everything that can be asked for.
pub(super) fn endpoints() -> Vec<Endpoint> {
    let analytics = Endpoint {
        path: "/analytics",
        method: "get",
        summary: "Distinct users, clicks and impressions of an hour",
        parameters: described(&[TIMESTAMP, WAIT]),
        body: None,
        answers: vec![("text/plain", schemas::hour())],
        refusals: &[503],
        is_of_a_moment: true,
    };
    let counters = |path| Endpoint {
        path,
        method: "get",
        summary: "Events of the last 7 days, by country, for the top 5 countries",
        parameters: described(&[FORMAT]),
        body: None,
        answers: vec![(JSON, schemas::counters()), (CSV, schemas::text())],
        refusals: &[404, 503],
        is_of_a_moment: true,
    };
    let polls = |path, summary, parameters: &[Parameter], data| Endpoint {
        path,
        method: "get",
        summary,
        parameters: described(parameters),
        body: None,
        answers: vec![(JSON, schemas::polls(data)), (CSV, schemas::text())],
        refusals: &[404, 503],
        is_of_a_moment: true,
    };
    let mut endpoints = vec![
        analytics,
        counters("/v1/counters"),
        counters("/web/get.php"),
        polls("/v1/polls", "The polls with the most votes", &[FORMAT], schemas::option_of_a_poll()),
        polls("/v1/polls/{poll}", "The result of a poll", &[POLL, FORMAT], schemas::option()),
    ];
    for (path, form) in query::PATHS {
        let answers = match form {
            None => vec![(JSON, schemas::rows()), (NDJSON, schemas::text()), (CSV, schemas::text())],
            Some(Format::Json) => vec![(JSON, schemas::rows())],
            Some(Format::Ndjson) => vec![(NDJSON, schemas::text())],
            Some(Format::Csv) => vec![(CSV, schemas::text())],
        };
        let query = |method, summary, parameters, body, refusals| Endpoint {
            path,
            method,
            summary,
            parameters,
            body,
            answers: answers.clone(),
            refusals,
            is_of_a_moment: true,
        };
        let all = PARAMETERS.iter().map(in_address).collect();
        endpoints.push(query("get", "Any measure of a rollup over any window", all, None, &[422, 503]));
        let body = Some(body_of_query());
        endpoints.push(query(
            "post",
            "The same, with the parameters as JSON",
            Vec::new(),
            body,
            &[413, 422, 503],
        ));
    }
    let document = |path, summary, schema| Endpoint {
        path,
        method: "get",
        summary,
        parameters: Vec::new(),
        body: None,
        answers: vec![(JSON, schema)],
        refusals: &[],
        is_of_a_moment: false,
    };
    endpoints.push(document("/v1/meta", "What can be asked for, and what the key permits", schemas::meta()));
    endpoints.push(document("/openapi.json", "This document", json!({"type": "object"})));
    endpoints
}

fn described(parameters: &[Parameter]) -> Vec<Value> {
    let described = |Parameter { name, place, required, values, doc }: &Parameter| json!({"name": name, "in": place, "required": required, "description": doc, "schema": of_text(*values)});
    parameters.iter().map(described).collect()
}

/// A parameter of a query, as the address has it.
fn in_address(parameter: &query::Parameter) -> Value {
    let query::Parameter { name, default, doc, shape, values, .. } = parameter;
    let mut schema = match shape {
        Shape::One => of_text(*values),
        Shape::List => many(*values),
        Shape::Many => json!({"type": "array", "items": of_text(*values), "maxItems": query::LIMITS.filters}),
    };
    if let Some(default) = default {
        schema["default"] = match (shape, values) {
            (Shape::One, Values::Number(..)) => json!(default.parse::<u64>().expect("it is a number")),
            (Shape::One, _) => json!(default),
            (Shape::List | Shape::Many, _) => json!(default.split(',').collect::<Vec<_>>()),
        };
    }
    let mut described = json!({"name": name, "in": "query", "description": doc, "schema": schema});
    if *shape == Shape::List {
        (described["style"], described["explode"]) = (json!("form"), json!(false));
    }
    described
}

/// The parameters of a query as an object, which repeats no name.
fn body_of_query() -> Value {
    let property = |query::Parameter { name, doc, shape, values, .. }: &query::Parameter| {
        let text = of_text(*values);
        let schema = match shape {
            Shape::One if matches!(values, Values::Number(..)) => {
                json!({"anyOf": [text, {"type": "string", "pattern": "^[0-9]+$"}, {"type": "null"}]})
            }
            Shape::One => json!({"anyOf": [text, {"type": "null"}]}),
            Shape::List => json!({"anyOf": [many(*values), {"type": "string"}, {"type": "null"}]}),
            Shape::Many => json!({"anyOf": [{"type": "array", "items": text}, text, {"type": "null"}]}),
        };
        let mut schema = schema;
        schema["description"] = json!(doc);
        ((*name).to_owned(), schema)
    };
    let properties: serde_json::Map<_, _> = PARAMETERS.iter().map(property).collect();
    json!({"type": "object", "properties": properties, "additionalProperties": false})
}

fn of_text(values: Values) -> Value {
    match values {
        Values::Text("") | Values::Names(_) => json!({"type": "string"}),
        Values::Text(pattern) => json!({"type": "string", "pattern": pattern}),
        Values::OneOf(all) => json!({"type": "string", "enum": all}),
        Values::Number(least, most) => json!({"type": "integer", "minimum": least, "maximum": most}),
    }
}

/// Names with commas between, as an array.
fn many(values: Values) -> Value {
    let mut schema =
        json!({"type": "array", "items": {"type": "string", "pattern": "^[^,]+$"}, "uniqueItems": true});
    if let Values::Names(most) = values {
        schema["maxItems"] = json!(most);
    }
    schema
}
