//! The parameters of requests.

use axum::extract::FromRequestParts;
use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use axum::http::request::Parts;
use schemas::time::{HOUR, UnixMillis};

use crate::problem::Problem;

/// The parameters after the `?` of a request, in their order.
pub(super) struct Parameters(pub(super) Vec<(String, String)>);

impl<S: Sync> FromRequestParts<S> for Parameters {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let read = Query::try_from_uri(&parts.uri).map(|Query(parameters)| Self(parameters));
        let reason = |error: QueryRejection| error.body_text();
        read.map_err(|error| Problem::bad("?", reason(error)))
    }
}

/// The parameters of `/analytics`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AnalyticsParameters {
    /// Start of the hour.
    pub(super) hour: UnixMillis,
    /// Whether to wait for the next snapshot if the latest does not have the hour.
    pub(super) wait: bool,
}

impl AnalyticsParameters {
    pub(super) fn parse(parameters: &[(String, String)]) -> Result<Self, Problem> {
        once_each(parameters)?;
        let (mut time, mut wait) = (None, true);
        let reason = "write milliseconds since 1970, for example 1700000000000";
        for (name, value) in parameters {
            match (name.as_str(), value.as_str()) {
                ("timestamp", text) => {
                    let parsed = text.parse().ok().and_then(UnixMillis::from_integer);
                    time = Some(parsed.ok_or_else(|| Problem::bad("timestamp", reason))?);
                }
                ("wait", "0") => wait = false,
                ("wait", "1") => wait = true,
                ("wait", _) => return Err(Problem::bad("wait", "it must be 0 or 1")),
                (other, _) => {
                    let reason = "there is no such parameter; the parameters are timestamp and wait";
                    return Err(Problem::bad(other, reason));
                }
            }
        }
        let hour = time.ok_or_else(|| Problem::bad("timestamp", reason))?.floor(HOUR);
        Ok(Self { hour, wait })
    }
}

/// The parameter `format` of counters and polls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Csv,
}

impl Format {
    pub(super) fn parse(parameters: &[(String, String)]) -> Result<Self, Problem> {
        once_each(parameters)?;
        let mut format = Self::Json;
        for (name, value) in parameters {
            format = match (name.as_str(), value.as_str()) {
                ("format", "json") => Self::Json,
                ("format", "csv") => Self::Csv,
                ("format", _) => return Err(Problem::bad("format", "it must be json or csv")),
                (other, _) => {
                    return Err(Problem::bad(
                        other,
                        "there is no such parameter; the only parameter is format",
                    ));
                }
            };
        }
        Ok(format)
    }
}

/// Refuses a parameter that is given twice: which of the two counts would be a guess.
fn once_each(parameters: &[(String, String)]) -> Result<(), Problem> {
    let is_repeated = |(at, (name, _)): &(usize, &(String, String))| {
        parameters[..*at].iter().any(|(other, _)| other == name)
    };
    match parameters.iter().enumerate().find(is_repeated) {
        None => Ok(()),
        Some((_, (name, _))) => Err(Problem::bad(name, "it is given more than once")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(query: &[(&str, &str)], expected: Result<(i64, bool), &str>) {
        let parameters: Vec<_> =
            query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        match (AnalyticsParameters::parse(&parameters), expected) {
            (Ok(asked), Ok((hour, wait))) => {
                assert_eq!(asked, AnalyticsParameters { hour: UnixMillis(hour), wait });
            }
            (Err(problem), Err(named)) => assert_eq!(problem.errors[0].param, named),
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
        assert_eq!(Format::parse(&twice).unwrap_err().errors[0].param, "format");
    }

    #[test]
    fn counters_are_json_unless_csv_is_asked_for() {
        let parse = |name: &str, value: &str| Format::parse(&[(name.to_owned(), value.to_owned())]);
        assert_eq!(Format::parse(&[]), Ok(Format::Json));
        assert_eq!((parse("format", "csv"), parse("format", "json")), (Ok(Format::Csv), Ok(Format::Json)));
        assert_eq!(parse("format", "xml").unwrap_err().errors[0].param, "format");
        assert_eq!(parse("fromat", "csv").unwrap_err().errors[0].param, "fromat");
    }
}
