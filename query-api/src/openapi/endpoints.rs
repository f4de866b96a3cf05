//! The endpoints: their paths, parameters and answers.

use serde_json::{Value, json};

use super::schemas;
use crate::people::{self, FUNNEL_PARAMETERS, RETENTION_PARAMETERS};
use crate::query::{self, Format, PARAMETERS, Shape, Values};

/// One method of one path.
pub(super) struct Endpoint {
    pub(super) path: &'static str,
    pub(super) method: &'static str,
    pub(super) summary: &'static str,
    pub(super) parameters: Vec<Value>,
    /// The schema of the body; `None` if the request has no body.
    pub(super) body: Option<Value>,
    /// The media types of the answers, each with the schema of the answer.
    pub(super) answers: Vec<(&'static str, Value)>,
    /// Statuses of refusals that this endpoint can return, without the statuses that `document` lists for every path.
    pub(super) refusals: &'static [u16],
    /// Whether answers have an `as_of`, and thus the headers `X-As-Of` and `X-Age-Ms`.
    pub(super) has_as_of: bool,
}

/// A parameter of a path whose handler parses its parameters itself. Requests to `/v1/query`, `/v1/retention` and
/// `/v1/funnel` are parsed with tables of [`query::Parameter`] instead.
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
    doc: "A moment in milliseconds since 1970. The answer is for the hour that contains it.",
};

const WAIT: Parameter = Parameter {
    name: "wait",
    place: "query",
    required: false,
    values: Values::OneOf(&["0", "1"]),
    doc: "`0`: if no refresh has read the hour yet, the request is refused at once instead of waiting.",
};

const FORMAT: Parameter = Parameter {
    name: "format",
    place: "query",
    required: false,
    values: Values::OneOf(&["json", "csv"]),
    doc: "The format of the answer, `json` by default.",
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
pub(super) const EVENT_STREAM: &str = "text/event-stream";

/// The required parameters of a path, each with example values.
type Required = [(&'static str, &'static [&'static str])];
const RETENTION_REQUIRED: &Required = &[("first", &["event:eq:signup"]), ("again", &["event:eq:open"])];
const FUNNEL_REQUIRED: &Required = &[("steps", &["event:eq:view", "event:eq:buy"])];

/// Every method of every path.
pub(super) fn endpoints() -> Vec<Endpoint> {
    let analytics = Endpoint {
        path: "/analytics",
        method: "get",
        summary: "Distinct users, clicks and impressions of an hour",
        parameters: described(&[TIMESTAMP, WAIT]),
        body: None,
        answers: vec![("text/plain", schemas::hour())],
        refusals: &[503],
        has_as_of: true,
    };
    let counters = |path| Endpoint {
        path,
        method: "get",
        summary: "Events of the last 7 days, by country, for the top 5 countries",
        parameters: described(&[FORMAT]),
        body: None,
        answers: vec![(JSON, schemas::counters()), (CSV, schemas::text())],
        refusals: &[404, 503],
        has_as_of: true,
    };
    let polls = |path, summary, parameters: &[Parameter], data| Endpoint {
        path,
        method: "get",
        summary,
        parameters: described(parameters),
        body: None,
        answers: vec![(JSON, schemas::polls(data)), (CSV, schemas::text())],
        refusals: &[404, 503],
        has_as_of: true,
    };
    let mut endpoints = vec![
        analytics,
        counters("/v1/counters"),
        counters("/web/get.php"),
        polls("/v1/polls", "The polls with the most votes", &[FORMAT], schemas::option_of_a_poll()),
        polls("/v1/polls/{poll}", "The result of a poll", &[POLL, FORMAT], schemas::option()),
    ];
    for (path, format) in query::PATHS {
        let answers = match format {
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
            has_as_of: true,
        };
        let all = PARAMETERS.iter().map(|parameter| query_parameter(parameter, &[])).collect();
        endpoints.push(query("get", "Any measure of a rollup over any window", all, None, &[422, 503]));
        let body = Some(body(&PARAMETERS, &[]));
        endpoints.push(query(
            "post",
            "The same as GET, with the parameters as a JSON body",
            Vec::new(),
            body,
            &[413, 422, 503],
        ));
    }
    endpoints.extend(people_endpoints());
    endpoints.push(Endpoint {
        path: "/v1/live",
        method: "get",
        summary: "The current counts of events and users, sent again after each refresh",
        parameters: Vec::new(),
        body: None,
        answers: vec![(EVENT_STREAM, schemas::text())],
        refusals: &[503],
        has_as_of: false,
    });
    let document = |path, summary, schema| Endpoint {
        path,
        method: "get",
        summary,
        parameters: Vec::new(),
        body: None,
        answers: vec![(JSON, schema)],
        refusals: &[],
        has_as_of: false,
    };
    endpoints.push(document("/v1/meta", "What can be asked for, and what the key permits", schemas::meta()));
    endpoints.push(Endpoint {
        refusals: &[503],
        has_as_of: true,
        ..document("/v1/pipeline", "The state of the pipeline, for operators", schemas::pipeline())
    });
    endpoints.push(document("/openapi.json", "This document", json!({"type": "object"})));
    endpoints
}

/// The endpoints of retention and funnels.
fn people_endpoints() -> Vec<Endpoint> {
    let mut endpoints = Vec::new();
    for (paths, summary, row, parameters, schema) in [
        (
            people::RETENTION_PATHS,
            "How many users of a day or week came back in later days or weeks",
            schemas::cohort(),
            query_parameters(&RETENTION_PARAMETERS, RETENTION_REQUIRED),
            body(&RETENTION_PARAMETERS, RETENTION_REQUIRED),
        ),
        (
            people::FUNNEL_PATHS,
            "How many users did several steps in a given order",
            schemas::step(),
            query_parameters(&FUNNEL_PARAMETERS, FUNNEL_REQUIRED),
            body(&FUNNEL_PARAMETERS, FUNNEL_REQUIRED),
        ),
    ] {
        for (path, format) in paths {
            let answers = [(JSON, schemas::table(row.clone())), (CSV, schemas::text())];
            let kind = format.map(|format| if format == Format::Csv { CSV } else { JSON });
            let answers: Vec<_> =
                answers.into_iter().filter(|(media, _)| kind.is_none_or(|kind| kind == *media)).collect();
            let get = Endpoint {
                path,
                method: "get",
                summary,
                parameters: parameters.clone(),
                body: None,
                answers: answers.clone(),
                refusals: &[422, 503],
                has_as_of: true,
            };
            let post = Endpoint {
                path,
                method: "post",
                summary: "The same as GET, with the parameters as a JSON body",
                parameters: Vec::new(),
                body: Some(schema.clone()),
                answers,
                refusals: &[413, 422, 503],
                has_as_of: true,
            };
            endpoints.extend([get, post]);
        }
    }
    endpoints
}

fn described(parameters: &[Parameter]) -> Vec<Value> {
    let described = |Parameter { name, place, required, values, doc }: &Parameter| json!({"name": name, "in": place, "required": required, "description": doc, "schema": of_text(*values)});
    parameters.iter().map(described).collect()
}

fn query_parameters<Q>(parameters: &[query::Parameter<Q>], required: &Required) -> Vec<Value> {
    parameters.iter().map(|parameter| query_parameter(parameter, required)).collect()
}

/// The OpenAPI description of a URL parameter, generated from its entry in a table of parameters.
fn query_parameter<Q>(parameter: &query::Parameter<Q>, required: &Required) -> Value {
    let query::Parameter { name, default, doc, shape, values, .. } = parameter;
    let mut schema = match shape {
        Shape::One => of_text(*values),
        Shape::List => array_of_names(*values),
        Shape::Many => json!({"type": "array", "items": of_text(*values), "maxItems": query::LIMITS.filters}),
    };
    if let Some(default) = default {
        schema["default"] = match (shape, values) {
            (Shape::One, Values::Number(..)) => json!(default.parse::<u64>().expect("a valid number")),
            (Shape::One, _) => json!(default),
            (Shape::List | Shape::Many, _) => json!(default.split(',').collect::<Vec<_>>()),
        };
    }
    let mut described = json!({"name": name, "in": "query", "description": doc, "schema": schema});
    if let Some((_, example)) = required.iter().find(|(required, _)| required == name) {
        described["required"] = json!(true);
        described["example"] = example_of(*shape, example);
        if *shape == Shape::Many {
            described["schema"]["minItems"] = json!(example.len());
        }
    }
    if *shape == Shape::List {
        (described["style"], described["explode"]) = (json!("form"), json!(false));
    }
    described
}

fn example_of(shape: Shape, values: &[&str]) -> Value {
    match shape {
        Shape::One => json!(values[0]),
        Shape::List | Shape::Many => json!(values),
    }
}

/// The schema of a JSON body that has these parameters as members. A member name may occur only once in an object, so
/// the body may have an array for a parameter that may be repeated in the URL.
fn body<Q>(parameters: &[query::Parameter<Q>], required: &Required) -> Value {
    let is_required = |name: &str| required.iter().any(|(required, _)| *required == name);
    let property = |query::Parameter { name, doc, shape, values, .. }: &query::Parameter<Q>| {
        let text = of_text(*values);
        let schema = match shape {
            Shape::One if matches!(values, Values::Number(..)) => {
                json!({"anyOf": [text, {"type": "string", "pattern": "^[0-9]+$"}, {"type": "null"}]})
            }
            Shape::One => json!({"anyOf": [text, {"type": "null"}]}),
            Shape::List => json!({"anyOf": [array_of_names(*values), {"type": "string"}, {"type": "null"}]}),
            Shape::Many => json!({"anyOf": [{"type": "array", "items": text}, text, {"type": "null"}]}),
        };
        let mut schema = schema;
        schema["description"] = json!(doc);
        ((*name).to_owned(), schema)
    };
    let properties: serde_json::Map<_, _> = parameters.iter().map(property).collect();
    let mut body = json!({"type": "object", "properties": properties, "additionalProperties": false});
    if !required.is_empty() {
        let given = parameters.iter().filter(|parameter| is_required(parameter.name));
        let shape =
            |name: &str| given.clone().find(|parameter| parameter.name == name).map(|found| found.shape);
        let example = required
            .iter()
            .filter_map(|(name, values)| Some(((*name).to_owned(), example_of(shape(name)?, values))));
        body["required"] = required.iter().map(|(name, _)| *name).collect();
        body["examples"] = json!([example.collect::<serde_json::Map<_, _>>()]);
    }
    body
}

fn of_text(values: Values) -> Value {
    match values {
        Values::Text("") | Values::Names(_) => json!({"type": "string"}),
        Values::Text(pattern) => json!({"type": "string", "pattern": pattern}),
        Values::OneOf(all) => json!({"type": "string", "enum": all}),
        Values::Number(least, most) => json!({"type": "integer", "minimum": least, "maximum": most}),
    }
}

/// The schema of an array of names. In the URL, the names are separated by commas.
fn array_of_names(values: Values) -> Value {
    let mut schema =
        json!({"type": "array", "items": {"type": "string", "pattern": "^[^,]+$"}, "uniqueItems": true});
    if let Values::Names(most) = values {
        schema["maxItems"] = json!(most);
    }
    schema
}
