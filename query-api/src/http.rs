//! Routes and answers: a look into the snapshot, and what HTTP wants said about it.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::header::{AGE, CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use schemas::time::{HOUR, UnixMillis};
use tokio::sync::watch;
use tokio::time;

use crate::Shared;
use crate::config::PollConfig;
use crate::polls::Forms;
use crate::problem::{self, Problem};
use crate::snapshot::{Rendered, Snapshot, rfc3339};

/// The moment an answer is true for.
const X_AS_OF: HeaderName = HeaderName::from_static("x-as-of");

#[derive(Clone)]
struct App {
    shared: Arc<Shared>,
    poll: PollConfig,
}

/// All routes.
pub(crate) fn routes(shared: Arc<Shared>, poll: PollConfig) -> Router {
    Router::new()
        .route("/analytics", get(analytics))
        .route("/v1/counters", get(counters))
        .route("/web/get.php", get(counters))
        .route("/v1/polls", get(all_polls))
        .route("/v1/polls/{poll}", get(one_poll))
        .fallback(|| async { Problem::NotFound })
        .method_not_allowed_fallback(|| async { Problem::MethodNotAllowed })
        .layer(middleware::from_fn(problem::name_requests))
        .with_state(App { shared, poll })
}

/// What stands behind the `?` of a request, in its order.
struct Parameters(Vec<(String, String)>);

impl<S: Sync> FromRequestParts<S> for Parameters {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let read = Query::try_from_uri(&parts.uri).map(|Query(parameters)| Self(parameters));
        let reason = |error: axum::extract::rejection::QueryRejection| error.body_text();
        read.map_err(|error| Problem::BadParameter("?".to_owned(), reason(error)))
    }
}

/// `GET /analytics?timestamp={ms}`: the hour that holds it.
async fn analytics(
    State(app): State<App>,
    Parameters(parameters): Parameters,
    headers: HeaderMap,
) -> Response {
    app.answer("/analytics", app.hour(&parameters, &headers).await)
}

/// `GET /v1/counters?format=json|csv`: the top countries and what they counted of late.
async fn counters(
    State(app): State<App>,
    Parameters(parameters): Parameters,
    headers: HeaderMap,
) -> Response {
    app.answer("/v1/counters", app.counters(&parameters, &headers))
}

/// `GET /v1/polls?format=json|csv`: all polls, the one with most votes first.
async fn all_polls(
    State(app): State<App>,
    Parameters(parameters): Parameters,
    headers: HeaderMap,
) -> Response {
    app.answer("/v1/polls", app.all_polls(&parameters, &headers))
}

/// `GET /v1/polls/{poll}?format=json|csv`: one poll. Without votes it has no options.
async fn one_poll(
    State(app): State<App>,
    poll: Result<Path<String>, PathRejection>,
    Parameters(parameters): Parameters,
    headers: HeaderMap,
) -> Response {
    let answered = match poll {
        Ok(Path(poll)) => app.poll(&poll, &parameters, &headers).await,
        Err(_) => {
            Err(Problem::BadParameter("poll".to_owned(), "the name in the path is not UTF-8".to_owned()))
        }
    };
    app.answer("/v1/polls/{poll}", answered)
}

impl App {
    /// What a route answers, counted.
    fn answer(&self, route: &'static str, answered: Result<Response, Problem>) -> Response {
        let response = answered.unwrap_or_else(Problem::into_response);
        self.shared.metrics.answered(route, response.status());
        response
    }

    fn all_polls(&self, parameters: &[(String, String)], headers: &HeaderMap) -> Result<Response, Problem> {
        let format = Format::parse(parameters)?;
        let snapshot = self.shared.snapshot.load();
        let snapshot = snapshot.as_ref().ok_or(Problem::NotYet)?;
        let polls = snapshot.polls.as_ref().ok_or(Problem::NotDeclared)?;
        Ok(self.form(&polls.all, format, headers))
    }

    async fn poll(
        &self,
        name: &str,
        parameters: &[(String, String)],
        headers: &HeaderMap,
    ) -> Result<Response, Problem> {
        let format = Format::parse(parameters)?;
        let mut ticks = self.shared.ticks.subscribe();
        let until = time::Instant::now() + self.patience();
        loop {
            if let Some(snapshot) = &*self.shared.snapshot.load() {
                let polls = snapshot.polls.as_ref().ok_or(Problem::NotDeclared)?;
                if polls.is_asked(name) {
                    // Too many others: it will be asked for anew when it is gone.
                    let _full = self.shared.wanted_polls.ask(name.to_owned(), Instant::now());
                }
                if let Some(forms) = polls.poll(name) {
                    return Ok(self.form(forms, format, headers));
                }
                self.shared.wanted_polls.ask(name.to_owned(), Instant::now()).map_err(|_| Problem::Busy)?;
            }
            self.next_tick(&mut ticks, until).await?;
        }
    }

    fn form(&self, forms: &Forms, format: Format, headers: &HeaderMap) -> Response {
        let now = SystemTime::now().into();
        let rendered = match format {
            Format::Json => forms.json.at(now, self.interval(), self.differs()),
            Format::Csv => &forms.csv,
        };
        found(rendered, forms.json.as_of, now, headers)
    }

    /// Waits for the next snapshot, until the reader has waited long enough.
    async fn next_tick(&self, ticks: &mut watch::Receiver<u64>, until: time::Instant) -> Result<(), Problem> {
        let _waiting = self.shared.metrics.waiting();
        let next = time::timeout_at(until, ticks.changed()).await;
        next.map_err(|_| Problem::NotYet)?.map_err(|_| Problem::NotYet)
    }

    fn counters(&self, parameters: &[(String, String)], headers: &HeaderMap) -> Result<Response, Problem> {
        let format = Format::parse(parameters)?;
        let snapshot = self.shared.snapshot.load();
        let snapshot = snapshot.as_ref().ok_or(Problem::NotYet)?;
        let counters = snapshot.counters.as_ref().ok_or(Problem::NotDeclared)?;
        let now = SystemTime::now().into();
        let rendered = match format {
            Format::Json => counters.json(now, self.interval(), self.differs()),
            Format::Csv => &counters.csv,
        };
        Ok(found(rendered, counters.json.as_of, now, headers))
    }

    /// Between two statements, in milliseconds.
    fn interval(&self) -> i64 {
        i64::try_from(self.poll.interval.as_millis()).unwrap_or(i64::MAX)
    }

    /// Whether the aggregator has other rollups by now.
    fn differs(&self) -> bool {
        self.shared.trouble.load().as_ref().is_some_and(|trouble| trouble.differs)
    }

    async fn hour(&self, parameters: &[(String, String)], headers: &HeaderMap) -> Result<Response, Problem> {
        let Asked { hour, wait } = Asked::parse(parameters)?;
        let patience = if wait { self.patience() } else { Duration::ZERO };
        // Subscribed before the look, so that no snapshot falls between the two.
        let mut ticks = self.shared.ticks.subscribe();
        let until = time::Instant::now() + patience;
        loop {
            if let Some(snapshot) = &*self.shared.snapshot.load()
                && let Some(rendered) = snapshot.hour(hour)
            {
                self.remember(hour, snapshot);
                return Ok(found(rendered, snapshot.as_of, SystemTime::now().into(), headers));
            }
            self.shared.wanted_hours.ask(hour, Instant::now()).map_err(|_| Problem::Busy)?;
            self.next_tick(&mut ticks, until).await?;
        }
    }

    /// An old hour that is asked for again stays among those that are kept fresh.
    fn remember(&self, hour: UnixMillis, snapshot: &Snapshot) {
        if !snapshot.is_hot(hour) {
            // Too many others: it will be asked for anew when it is gone.
            let _full = self.shared.wanted_hours.ask(hour, Instant::now());
        }
    }

    /// The tick that is under way may have begun without our hour, so the one after it counts.
    fn patience(&self) -> Duration {
        2 * self.poll.interval.mul_f64(1.1) + self.poll.deadline
    }
}

/// What a reader asks for.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    /// Start of the hour.
    hour: UnixMillis,
    /// Whether to wait for the next tick if the hour is not at hand.
    wait: bool,
}

impl Asked {
    fn parse(parameters: &[(String, String)]) -> Result<Self, Problem> {
        let bad =
            |parameter: &str, reason: &str| Problem::BadParameter(parameter.to_owned(), reason.to_owned());
        once_each(parameters)?;
        let (mut time, mut wait) = (None, true);
        let reason = "milliseconds since 1970, for example 1700000000000, are needed";
        for (name, value) in parameters {
            match (name.as_str(), value.as_str()) {
                ("timestamp", text) => {
                    let parsed = text.parse().ok().and_then(UnixMillis::from_integer);
                    time = Some(parsed.ok_or_else(|| bad("timestamp", reason))?);
                }
                ("wait", "0") => wait = false,
                ("wait", "1") => wait = true,
                ("wait", _) => return Err(bad("wait", "it is 0 or 1")),
                (other, _) => {
                    return Err(bad(other, "there is no such parameter; there are timestamp and wait"));
                }
            }
        }
        let hour = time.ok_or_else(|| bad("timestamp", reason))?.floor(HOUR);
        Ok(Self { hour, wait })
    }
}

/// How the counters are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    Csv,
}

impl Format {
    fn parse(parameters: &[(String, String)]) -> Result<Self, Problem> {
        let bad =
            |parameter: &str, reason: &str| Problem::BadParameter(parameter.to_owned(), reason.to_owned());
        once_each(parameters)?;
        let mut format = Self::Json;
        for (name, value) in parameters {
            format = match (name.as_str(), value.as_str()) {
                ("format", "json") => Self::Json,
                ("format", "csv") => Self::Csv,
                ("format", _) => return Err(bad("format", "it is json or csv")),
                (other, _) => return Err(bad(other, "there is no such parameter; there is format")),
            };
        }
        Ok(format)
    }
}

/// Refuses a parameter that stands there twice: which one counts would be a guess.
fn once_each(parameters: &[(String, String)]) -> Result<(), Problem> {
    let is_repeated = |(at, (name, _)): &(usize, &(String, String))| {
        parameters[..*at].iter().any(|(other, _)| other == name)
    };
    match parameters.iter().enumerate().find(is_repeated) {
        None => Ok(()),
        Some((_, (name, _))) => {
            Err(Problem::BadParameter(name.clone(), "it is given more than once".to_owned()))
        }
    }
}

/// An answer of the moment `as_of`, or word that the reader has it. No header of the request
/// decides what it is, so there is no `Vary`.
fn found(rendered: &Rendered, as_of: Option<UnixMillis>, now: UnixMillis, request: &HeaderMap) -> Response {
    let unchanged = request.get(IF_NONE_MATCH).is_some_and(|known| matches(known, &rendered.etag));
    let mut response = if unchanged {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        rendered.body.clone().into_response()
    };
    let headers = response.headers_mut();
    let text =
        |text: String| HeaderValue::try_from(text).expect("digits and ASCII punctuation make a header");
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(rendered.kind));
    headers.insert(ETAG, text(rendered.etag.clone()));
    headers.insert(
        CACHE_CONTROL,
        HeaderValue::from_static("public, max-age=1, stale-while-revalidate=30, stale-if-error=300"),
    );
    if let Some(as_of) = as_of {
        let age = (now.0 - as_of.0).max(0) / 1000;
        headers.insert(X_AS_OF, text(rfc3339(as_of)));
        headers.insert(AGE, text(age.to_string()));
    }
    response
}

/// Whether `If-None-Match` names the tag, alone or in a list.
fn matches(known: &HeaderValue, etag: &str) -> bool {
    let listed = |list: &str| {
        list.split(',').any(|tag| matches!(tag.trim(), "*") || tag.trim().trim_start_matches("W/") == etag)
    };
    known.to_str().is_ok_and(listed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(query: &[(&str, &str)], expected: Result<(i64, bool), &str>) {
        let parameters: Vec<_> =
            query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        match (Asked::parse(&parameters), expected) {
            (Ok(asked), Ok((hour, wait))) => assert_eq!(asked, Asked { hour: UnixMillis(hour), wait }),
            (Err(Problem::BadParameter(parameter, _)), Err(named)) => assert_eq!(parameter, named),
            (other, _) => panic!("{query:?} gives {other:?}"),
        }
    }

    #[test]
    fn a_moment_stands_for_its_hour() {
        check(&[("timestamp", "1700000000000")], Ok((1_699_999_200_000, true)));
        check(&[("timestamp", "1700000000000"), ("wait", "0")], Ok((1_699_999_200_000, false)));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        check(&[], Err("timestamp"));
        check(&[("timestamp", "now")], Err("timestamp"));
        check(&[("timestamp", "99999999999999999")], Err("timestamp"));
        check(&[("timestamp", "1700000000000"), ("wait", "yes")], Err("wait"));
        check(&[("timestamp", "1700000000000"), ("hour", "1")], Err("hour"));
    }

    #[test]
    fn a_parameter_that_is_given_twice_is_named() {
        check(&[("timestamp", "1700000000000"), ("timestamp", "x")], Err("timestamp"));
        check(&[("timestamp", "x"), ("timestamp", "1700000000000")], Err("timestamp"));
        check(&[("timestamp", "1700000000000"), ("wait", "0"), ("wait", "0")], Err("wait"));
        let twice =
            [("format", "csv"), ("format", "json")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert!(matches!(Format::parse(&twice), Err(Problem::BadParameter(name, _)) if name == "format"));
    }

    #[test]
    fn counters_are_json_unless_csv_is_asked_for() {
        let parse = |name: &str, value: &str| Format::parse(&[(name.to_owned(), value.to_owned())]);
        assert_eq!(Format::parse(&[]), Ok(Format::Json));
        assert_eq!((parse("format", "csv"), parse("format", "json")), (Ok(Format::Csv), Ok(Format::Json)));
        assert!(matches!(parse("format", "xml"), Err(Problem::BadParameter(name, _)) if name == "format"));
        assert!(matches!(parse("fromat", "csv"), Err(Problem::BadParameter(name, _)) if name == "fromat"));
    }

    #[test]
    fn a_known_tag_is_found_in_a_list() {
        let matches = |known: &'static str| matches(&HeaderValue::from_static(known), "\"ab\"");
        assert!(matches("\"ab\"") && matches("\"x\", W/\"ab\"") && matches("*"));
        assert!(!matches("\"abc\"") && !matches("ab"));
    }
}
