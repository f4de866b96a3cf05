//! The routes of prepared answers except `/v1/live`, and their handlers.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use schemas::time::UnixMillis;

use super::params::{AnalyticsParameters, Format, parameters};
use super::response::respond;
use super::wait::{SnapshotWait, longest_wait};
use crate::access::{KnownReader, Reader};
use crate::answers::polls::PollAnswer;
use crate::problem::{Kind, Problem};
use crate::snapshot::{Snapshot, TenantAnswers};
use crate::state::AppState;

/// All routes of this module. The path of one poll has no variants with the suffixes `.json` and `.csv`, because the
/// name of a poll may itself end in such a suffix.
pub(crate) fn routes(state: Arc<AppState>) -> Router {
    let (json, csv) = (Some(Format::Json), Some(Format::Csv));
    Router::new()
        .route("/analytics", get(analytics))
        .route("/v1/counters", counters(None))
        .route("/v1/counters.json", counters(json))
        .route("/v1/counters.csv", counters(csv))
        .route("/web/get.php", counters(None))
        .route("/v1/polls", all_polls(None))
        .route("/v1/polls.json", all_polls(json))
        .route("/v1/polls.csv", all_polls(csv))
        .route("/v1/polls/{poll}", get(one_poll))
        .with_state(state)
}

/// `GET /analytics?timestamp={ms}`: the hour that contains the timestamp.
async fn analytics(
    State(state): State<Arc<AppState>>,
    KnownReader(reader): KnownReader,
    request: Request,
) -> Response {
    let (head, _) = request.into_parts();
    counted(&state, "/analytics", hour(&state, &reader, &head).await)
}

/// `GET /v1/counters?format=json|csv`: for the five countries with the highest totals of all time, the counts of the
/// last 7 days.
fn counters(suffix: Option<Format>) -> MethodRouter<Arc<AppState>> {
    get(
        move |State(state): State<Arc<AppState>>, KnownReader(reader): KnownReader, request: Request| async move {
            let (head, _) = request.into_parts();
            counted(&state, "/v1/counters", country_counters(&state, &reader, suffix, &head).await)
        },
    )
}

/// `GET /v1/polls?format=json|csv`: all polls in the snapshot, by descending votes.
fn all_polls(suffix: Option<Format>) -> MethodRouter<Arc<AppState>> {
    get(
        move |State(state): State<Arc<AppState>>, KnownReader(reader): KnownReader, request: Request| async move {
            let (head, _) = request.into_parts();
            counted(&state, "/v1/polls", largest_polls(&state, &reader, suffix, &head).await)
        },
    )
}

/// `GET /v1/polls/{poll}?format=json|csv`: one poll. A poll without votes has no options.
async fn one_poll(
    State(state): State<Arc<AppState>>,
    KnownReader(reader): KnownReader,
    poll: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response {
    let (head, _) = request.into_parts();
    let answer = match poll {
        Ok(Path(name)) => self::poll(&state, &reader, &name, &head).await,
        Err(_) => Err(Problem::bad("poll", "the name in the path is not UTF-8")),
    };
    counted(&state, "/v1/polls/{poll}", answer)
}

/// Counts the response of a route.
fn counted(state: &AppState, route: &'static str, answer: Result<Response, Problem>) -> Response {
    let response = answer.unwrap_or_else(Problem::into_response);
    state.metrics.answered(route, response.status());
    response
}

async fn country_counters(
    state: &AppState,
    reader: &Reader,
    suffix: Option<Format>,
    request: &Parts,
) -> Result<Response, Problem> {
    let format = Format::parse(suffix, &parameters(&request.uri)?, &request.headers)?;
    let find = |snapshot: &Snapshot, answers: &TenantAnswers| {
        if !snapshot.has_counters {
            return Err(Kind::NotDeclared.into());
        }
        let Some(counters) = &answers.counters else { return Ok(None) };
        let now = SystemTime::now().into();
        let rendered = match format {
            Format::Json => counters.json(now, interval_ms(state), state.rollups_differ()),
            Format::Csv => &counters.csv,
        };
        Ok(Some(respond(rendered, &counters.json.as_of, now, &request.headers)))
    };
    from_snapshot(state, reader, longest_wait(&state.refresh), find).await
}

async fn largest_polls(
    state: &AppState,
    reader: &Reader,
    suffix: Option<Format>,
    request: &Parts,
) -> Result<Response, Problem> {
    let format = Format::parse(suffix, &parameters(&request.uri)?, &request.headers)?;
    let find = |snapshot: &Snapshot, answers: &TenantAnswers| {
        if !snapshot.has_polls {
            return Err(Kind::NotDeclared.into());
        }
        let Some(polls) = &answers.polls else { return Ok(None) };
        Ok(Some(poll_response(state, &polls.all, format, &request.headers)))
    };
    from_snapshot(state, reader, longest_wait(&state.refresh), find).await
}

async fn hour(state: &AppState, reader: &Reader, request: &Parts) -> Result<Response, Problem> {
    let AnalyticsParameters { hour, wait } = AnalyticsParameters::of(&request.uri)?;
    let key = || (reader.tenant.clone(), hour);
    let find = |_: &Snapshot, TenantAnswers { analytics, .. }: &TenantAnswers| {
        if let Some((rendered, as_of)) = analytics.hour(hour) {
            if !analytics.is_hot(hour) {
                // Each request keeps the cold hour in the list of wanted hours, so that refreshes go on reading it. A
                // full list is no error here: the reader gets this answer, and the next request for the hour tries
                // again to add the hour.
                let _full = state.wanted_hours.want(key(), Instant::now());
            }
            return Ok(Some(respond(rendered, as_of, SystemTime::now().into(), &request.headers)));
        }
        if !analytics.is_hot(hour) {
            state.wanted_hours.want(key(), Instant::now()).map_err(|_| Kind::TooManyKeys)?;
        }
        Ok(None)
    };
    let longest = if wait { longest_wait(&state.refresh) } else { Duration::ZERO };
    from_snapshot(state, reader, longest, find).await
}

async fn poll(state: &AppState, reader: &Reader, name: &str, request: &Parts) -> Result<Response, Problem> {
    let format = Format::parse(None, &parameters(&request.uri)?, &request.headers)?;
    let key = || (reader.tenant.clone(), name.to_owned());
    let find = |snapshot: &Snapshot, answers: &TenantAnswers| {
        if !snapshot.has_polls {
            return Err(Kind::NotDeclared.into());
        }
        let Some(polls) = &answers.polls else { return Ok(None) };
        if polls.is_wanted(name) {
            // As in `hour`, a full list of wanted polls is no error here.
            let _full = state.wanted_polls.want(key(), Instant::now());
        }
        if let Some(poll) = polls.poll(name) {
            return Ok(Some(poll_response(state, poll, format, &request.headers)));
        }
        state.wanted_polls.want(key(), Instant::now()).map_err(|_| Kind::TooManyKeys)?;
        Ok(None)
    };
    from_snapshot(state, reader, longest_wait(&state.refresh), find).await
}

/// The response that `find` finds in the answers of the reader's tenant. If `find` finds no response, if the snapshot
/// has no answers of the tenant, or if there is no snapshot yet, this function tries again with each new snapshot.
/// [`SnapshotWait`] ends the wait after `longest`, or after the maximum number of snapshots.
async fn from_snapshot(
    state: &AppState,
    reader: &Reader,
    longest: Duration,
    find: impl Fn(&Snapshot, &TenantAnswers) -> Result<Option<Response>, Problem>,
) -> Result<Response, Problem> {
    let mut wait = None;
    loop {
        if let Some(snapshot) = &*state.snapshot.load() {
            match snapshot.tenant(&reader.tenant) {
                Some(answers) => {
                    if let Some(response) = find(snapshot, answers)? {
                        return Ok(response);
                    }
                }
                None => {
                    let wanted = state.wanted_tenants.want(reader.tenant.clone(), Instant::now());
                    wanted.map_err(|_| Kind::TooManyKeys)?;
                }
            }
        }
        match &mut wait {
            // `begin` subscribes to new snapshots. The loop then looks at the latest snapshot once more before it
            // waits. Otherwise it could miss a snapshot that was published before `begin`.
            None => wait = Some(SnapshotWait::begin(state, longest)),
            Some(wait) => wait.next().await?,
        }
    }
}

fn poll_response(state: &AppState, poll: &PollAnswer, format: Format, headers: &HeaderMap) -> Response {
    let now: UnixMillis = SystemTime::now().into();
    let rendered = match format {
        Format::Json => poll.json.at(now, interval_ms(state), state.rollups_differ()),
        Format::Csv => &poll.csv,
    };
    respond(rendered, &poll.json.as_of, now, headers)
}

/// Milliseconds between two refreshes.
fn interval_ms(state: &AppState) -> i64 {
    i64::try_from(state.refresh.interval.as_millis()).unwrap_or(i64::MAX)
}
