//! The routes of queries: which parameters and which format a request asks for, and the headers of its answer.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Query as QueryString, State};
use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use schemas::time::UnixMillis;

use super::QueryService;
use super::budget::CachedAnswer as _;
use super::params::{self, CsvStyle, Format, MAX_JSON_LIMIT, PARAMETERS, Parameter, Query};
use super::render;
use super::shape::Shaped;
use crate::access::{KnownReader, Reader};
use crate::config::Config;
use crate::http::respond;
use crate::problem::{Kind, Problem};
use crate::rendered::{AsOf, Rendered};
use crate::state::AppState;

/// Present, with the value `true`, if rows were left out because of `limit`. The header is sent with every format,
/// because NDJSON and CSV bodies have no place for this information.
const X_TRUNCATED: HeaderName = HeaderName::from_static("x-truncated");
/// The cursor of the next page, if there is one. The header is sent with every format, because NDJSON and CSV bodies
/// have no place for the cursor.
const X_NEXT: HeaderName = HeaderName::from_static("x-next");
/// Longest body of a request, in bytes.
pub(crate) const MAX_BODY_BYTES: usize = 64 << 10;
/// The label of the route in metrics.
const ROUTE: &str = "/v1/query";

/// The paths of queries, each with the format of its answers; `None` if the request chooses the format.
pub(crate) const PATHS: [(&str, Option<Format>); 4] = [
    ("/v1/query", None),
    ("/v1/query.json", Some(Format::Json)),
    ("/v1/query.ndjson", Some(Format::Ndjson)),
    ("/v1/query.csv", Some(Format::Csv)),
];

pub(crate) fn routes(config: &Config, state: Arc<AppState>) -> Router {
    let app = Arc::new(QueryService::new(config, state));
    let route = |router: Router<Arc<QueryService>>, (path, suffix): (&'static str, Option<Format>)| {
        let answer = move |State(app): State<Arc<QueryService>>,
                           KnownReader(reader): KnownReader,
                           method: Method,
                           uri: Uri,
                           headers: HeaderMap,
                           body: Result<Bytes, BytesRejection>| async move {
            let answered = answer(&app, &reader, suffix, &method, &uri, headers, body).await;
            app.state.metrics.queries.answered(answered.as_ref().err());
            let response = answered.unwrap_or_else(Problem::into_response);
            app.state.metrics.answered(ROUTE, response.status());
            response
        };
        router.route(path, get(answer).post(answer))
    };
    PATHS.into_iter().fold(Router::new(), route).layer(DefaultBodyLimit::max(MAX_BODY_BYTES)).with_state(app)
}

async fn answer(
    app: &QueryService,
    reader: &Arc<Reader>,
    suffix: Option<Format>,
    method: &Method,
    uri: &Uri,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let query =
        Query::parse(&parameters(&PARAMETERS, method, uri, body)?)?.of_reader(reader, &app.rollups)?;
    let format = format(&query, suffix, &headers)?;
    if format == Format::Json && query.limit > MAX_JSON_LIMIT {
        let reason = format!(
            "a JSON answer has at most {MAX_JSON_LIMIT} rows; use format ndjson or csv, or page with `cursor`"
        );
        return Err(Problem::bad("limit", reason));
    }
    let shaped = app.answer(reader, &query).await?;
    let now = SystemTime::now().into();
    let stale = app.is_stale(&shaped, now);
    let bytes = shaped.bytes();
    let render = move || response(&query, &shaped, format, stale, now, &headers);
    app.long_answers.response(bytes, render).await
}

/// The parameters of a request: those after the `?`, and for POST also those of the body.
pub(crate) fn parameters<Q>(
    table: &[Parameter<Q>],
    method: &Method,
    uri: &Uri,
    body: Result<Bytes, BytesRejection>,
) -> Result<Vec<(String, String)>, Problem> {
    let read = QueryString::<Vec<(String, String)>>::try_from_uri(uri);
    let QueryString(mut pairs) = read.map_err(|error| Problem::bad("?", error.body_text()))?;
    if method == Method::POST {
        let body = body.map_err(|error| match error.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Problem::from(Kind::BodyTooLarge),
            _ => Problem::from(Kind::BadBody),
        })?;
        pairs.extend(params::of_json(table, &body)?);
    }
    Ok(pairs)
}

/// The format of the answer. The first of these that names a format decides: the path, the parameter `format`, the
/// parameter `csv=excel`, the header `Accept`. If none does, the format is JSON.
///
/// # Errors
/// `format` or `csv` contradicts the path.
fn format(query: &Query, suffix: Option<Format>, headers: &HeaderMap) -> Result<Format, Problem> {
    let excel = (query.csv == CsvStyle::Excel).then_some(Format::Csv);
    match (suffix, query.format.or(excel)) {
        (Some(suffix), Some(format)) if suffix != format => {
            let param = if query.format.is_some() { "format" } else { "csv" };
            Err(Problem::bad(param, "the suffix of the path asks for another format"))
        }
        (suffix, format) => Ok(suffix.or(format).or_else(|| accepted(headers)).unwrap_or(Format::Json)),
    }
}

/// The first media type in `Accept` that is a format of answers.
pub(crate) fn accepted(headers: &HeaderMap) -> Option<Format> {
    let accept = headers.get(ACCEPT)?.to_str().ok()?;
    accept.split(',').find_map(|range| match range.split(';').next().unwrap_or_default().trim() {
        "application/json" => Some(Format::Json),
        "application/x-ndjson" => Some(Format::Ndjson),
        "text/csv" => Some(Format::Csv),
        _ => None,
    })
}

fn response(
    query: &Query,
    shaped: &Shaped,
    format: Format,
    stale: bool,
    now: UnixMillis,
    request: &HeaderMap,
) -> Response {
    let body = render::render(query, shaped, format, stale);
    let rendered = Rendered::new(body.kind, body.bytes, &body.etag);
    let mut response = respond(&rendered, &AsOf::new(shaped.as_of), now, request);
    let headers = response.headers_mut();
    if shaped.truncated {
        headers.insert(X_TRUNCATED, HeaderValue::from_static("true"));
    }
    if let Some(next) = &shaped.next {
        let next = HeaderValue::try_from(next.to_string()).expect("a cursor is hexadecimal");
        headers.insert(X_NEXT, next);
    }
    response
}

#[cfg(test)]
mod tests;
