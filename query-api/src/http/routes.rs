//! Routes, and how each answers.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use schemas::time::UnixMillis;

use super::params::{AnalyticsParameters, Format, Parameters};
use super::response::respond;
use super::wait::{SnapshotWait, patience};
use crate::answers::polls::PollAnswer;
use crate::problem::{Kind, Problem};
use crate::state::AppState;

/// All routes.
pub(crate) fn routes(state: Arc<AppState>) -> Router {
    Router::new()
        .route("/analytics", get(analytics))
        .route("/v1/counters", get(counters))
        .route("/web/get.php", get(counters))
        .route("/v1/polls", get(all_polls))
        .route("/v1/polls/{poll}", get(one_poll))
        .with_state(state)
}

/// `GET /analytics?timestamp={ms}`: the hour that contains the timestamp.
async fn analytics(
    State(state): State<Arc<AppState>>,
    Parameters(parameters): Parameters,
    headers: HeaderMap,
) -> Response {
    counted(&state, "/analytics", hour(&state, &parameters, &headers).await)
}

/// `GET /v1/counters?format=json|csv`: the top countries and their counts of the last days.
async fn counters(
    State(state): State<Arc<AppState>>,
    Parameters(parameters): Parameters,
    headers: HeaderMap,
) -> Response {
    let answer = || {
        let format = Format::parse(&parameters)?;
        let snapshot = state.snapshot.load();
        let snapshot = snapshot.as_ref().ok_or(Kind::NotYet)?;
        let counters = snapshot.counters.as_ref().ok_or(Kind::NotDeclared)?;
        let now = SystemTime::now().into();
        let rendered = match format {
            Format::Json => counters.json(now, interval(&state), state.rollups_differ()),
            Format::Csv => &counters.csv,
        };
        Ok(respond(rendered, counters.json.as_of, now, &headers))
    };
    counted(&state, "/v1/counters", answer())
}

/// `GET /v1/polls?format=json|csv`: all polls, by descending votes.
async fn all_polls(
    State(state): State<Arc<AppState>>,
    Parameters(parameters): Parameters,
    headers: HeaderMap,
) -> Response {
    let answer = || {
        let format = Format::parse(&parameters)?;
        let snapshot = state.snapshot.load();
        let snapshot = snapshot.as_ref().ok_or(Kind::NotYet)?;
        let polls = snapshot.polls.as_ref().ok_or(Kind::NotDeclared)?;
        Ok(poll_response(&state, &polls.all, format, &headers))
    };
    counted(&state, "/v1/polls", answer())
}

/// `GET /v1/polls/{poll}?format=json|csv`: one poll. Without votes it has no options.
async fn one_poll(
    State(state): State<Arc<AppState>>,
    poll: Result<Path<String>, PathRejection>,
    Parameters(parameters): Parameters,
    headers: HeaderMap,
) -> Response {
    let answer = match poll {
        Ok(Path(name)) => self::poll(&state, &name, &parameters, &headers).await,
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

async fn hour(
    state: &AppState,
    parameters: &[(String, String)],
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let AnalyticsParameters { hour, wait } = AnalyticsParameters::parse(parameters)?;
    let longest = if wait { patience(&state.refresh) } else { Duration::ZERO };
    let mut wait = SnapshotWait::begin(state, longest);
    loop {
        if let Some(snapshot) = &*state.snapshot.load()
            && let Some(rendered) = snapshot.analytics.hour(hour)
        {
            if !snapshot.analytics.is_hot(hour) {
                // An old hour that is asked for again stays fresh. If others leave no room for it, it is
                // read again once somebody asks for it.
                let _full = state.wanted_hours.want(hour, Instant::now());
            }
            return Ok(respond(rendered, snapshot.as_of, SystemTime::now().into(), headers));
        }
        state.wanted_hours.want(hour, Instant::now()).map_err(|_| Kind::TooManyKeys)?;
        wait.next().await?;
    }
}

async fn poll(
    state: &AppState,
    name: &str,
    parameters: &[(String, String)],
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let format = Format::parse(parameters)?;
    let mut wait = SnapshotWait::begin(state, patience(&state.refresh));
    loop {
        if let Some(snapshot) = &*state.snapshot.load() {
            let polls = snapshot.polls.as_ref().ok_or(Kind::NotDeclared)?;
            if polls.is_wanted(name) {
                // As for an old hour.
                let _full = state.wanted_polls.want(name.to_owned(), Instant::now());
            }
            if let Some(poll) = polls.poll(name) {
                return Ok(poll_response(state, poll, format, headers));
            }
            state.wanted_polls.want(name.to_owned(), Instant::now()).map_err(|_| Kind::TooManyKeys)?;
        }
        wait.next().await?;
    }
}

fn poll_response(state: &AppState, poll: &PollAnswer, format: Format, headers: &HeaderMap) -> Response {
    let now: UnixMillis = SystemTime::now().into();
    let rendered = match format {
        Format::Json => poll.json.at(now, interval(state), state.rollups_differ()),
        Format::Csv => &poll.csv,
    };
    respond(rendered, poll.json.as_of, now, headers)
}

/// Milliseconds between two refreshes.
fn interval(state: &AppState) -> i64 {
    i64::try_from(state.refresh.interval.as_millis()).unwrap_or(i64::MAX)
}
