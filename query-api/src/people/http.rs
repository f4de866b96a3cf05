//! The routes of retention and funnels, and which format a request asks for.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use schemas::time::UnixMillis;
use serde::Serialize;

use super::funnel::params::{self as funnel_params, Funnel};
use super::render::{self, Answer, Meta, Table};
use super::retention::params::{self as retention_params, Retention};
use super::{PeopleService, funnel, retention};
use crate::access::{KnownReader, Reader};
use crate::config::Config;
use crate::http::respond;
use crate::problem::Problem;
use crate::query::http::{MAX_BODY_BYTES, accepted, parameters};
use crate::query::params::Format;
use crate::rendered::AsOf;
use crate::state::AppState;

/// The paths of retention, each with the format that its suffix names.
pub(crate) const RETENTION_PATHS: [(&str, Option<Format>); 3] = [
    ("/v1/retention", None),
    ("/v1/retention.json", Some(Format::Json)),
    ("/v1/retention.csv", Some(Format::Csv)),
];
/// The paths of funnels, each with the format that its suffix names.
pub(crate) const FUNNEL_PATHS: [(&str, Option<Format>); 3] =
    [("/v1/funnel", None), ("/v1/funnel.json", Some(Format::Json)), ("/v1/funnel.csv", Some(Format::Csv))];

/// The parts of a request that a handler needs.
struct Request {
    reader: Arc<Reader>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
    /// The format that the suffix of the path names; `None` without a suffix.
    suffix: Option<Format>,
}

/// The routes of retention and funnels.
pub(crate) fn routes(config: &Config, state: Arc<AppState>) -> Router {
    let service = Arc::new(PeopleService::new(config, state));
    let mut router = Router::new();
    for (path, format) in RETENTION_PATHS {
        router = router.route(path, handler("/v1/retention", format, retention));
    }
    for (path, format) in FUNNEL_PATHS {
        router = router.route(path, handler("/v1/funnel", format, funnel));
    }
    router.layer(DefaultBodyLimit::max(MAX_BODY_BYTES)).with_state(service)
}

fn handler<A, F>(
    route: &'static str,
    suffix: Option<Format>,
    answer: A,
) -> axum::routing::MethodRouter<Arc<PeopleService>>
where
    A: Fn(Arc<PeopleService>, Request) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Response, Problem>> + Send,
{
    let handle = move |State(service): State<Arc<PeopleService>>,
                       KnownReader(reader): KnownReader,
                       method: Method,
                       uri: Uri,
                       headers: HeaderMap,
                       body: Result<Bytes, BytesRejection>| async move {
        let request = Request { reader, method, uri, headers, body, suffix };
        let state = Arc::clone(&service.state);
        let answered = answer(service, request).await;
        state.metrics.people.answered(answered.as_ref().err());
        let response = answered.unwrap_or_else(Problem::into_response);
        state.metrics.answered(route, response.status());
        response
    };
    get(handle.clone()).post(handle)
}

async fn retention(service: Arc<PeopleService>, request: Request) -> Result<Response, Problem> {
    let Request { reader, method, uri, headers, body, suffix } = request;
    let request = Retention::parse(&parameters(&retention_params::PARAMETERS, &method, &uri, body)?)?;
    let request = request.of_reader(&reader, &service.rollups)?;
    let format = format(suffix, request.format, &headers)?;
    let answer = retention::answer(&service, &reader, &request).await?;
    Ok(response(&service, &answer, &request.given, format, &headers))
}

async fn funnel(service: Arc<PeopleService>, request: Request) -> Result<Response, Problem> {
    let Request { reader, method, uri, headers, body, suffix } = request;
    let request = Funnel::parse(&parameters(&funnel_params::PARAMETERS, &method, &uri, body)?)?;
    let request = request.of_reader(&reader, &service.rollups)?;
    let format = format(suffix, request.format, &headers)?;
    let answer = funnel::answer(&service, &reader, &request).await?;
    Ok(response(&service, &answer, &request.given, format, &headers))
}

/// The format of the answer. The suffix of the path decides, then the parameter `format`, then the header `Accept`; if
/// none of them names a format, it is JSON.
///
/// # Errors
/// `format` contradicts the suffix.
fn format(suffix: Option<Format>, parameter: Option<Format>, headers: &HeaderMap) -> Result<Format, Problem> {
    match (suffix, parameter) {
        (Some(suffix), Some(parameter)) if suffix != parameter => {
            Err(Problem::bad("format", "the suffix of the path asks for another format"))
        }
        (suffix, parameter) => Ok(suffix.or(parameter).or_else(|| accepted(headers)).unwrap_or(Format::Json)),
    }
}

fn response<T: Table>(
    service: &PeopleService,
    answer: &Answer<T>,
    query: &impl Serialize,
    format: Format,
    headers: &HeaderMap,
) -> Response {
    let now = SystemTime::now().into();
    let rendered = match format {
        // Only the header `Accept` can ask for NDJSON here. The table is small, so it is sent as JSON instead.
        Format::Json | Format::Ndjson => render::json(answer, query, is_stale(service, &answer.meta, now)),
        Format::Csv => render::csv(&answer.data),
    };
    respond(&rendered, &AsOf::new(answer.meta.as_of), now, headers)
}

/// Whether the answer is stale. It is stale in three cases:
/// - Its `as_of` is not known.
/// - Its `as_of` is longer ago than [`Lane::longest_age`](super::lane::Lane::longest_age), so a later answer should
///   have replaced this answer.
/// - The aggregator declares other rollups than this process.
fn is_stale(service: &PeopleService, meta: &Meta, now: UnixMillis) -> bool {
    let limit = i64::try_from(service.lane.longest_age().as_millis()).unwrap_or(i64::MAX);
    let is_young = meta.as_of.is_some_and(|as_of| now.0 - as_of.0 <= limit);
    !is_young || meta.rollups_differ
}

#[cfg(test)]
mod tests;
