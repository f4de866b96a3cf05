//! The parameters of requests.

use axum::extract::Query;
use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, Uri};
use schemas::time::{HOUR, UnixMillis};

use super::accept::preferred;
use crate::problem::Problem;

/// The parameters after the `?` of a request, in their order.
pub(super) fn parameters(uri: &Uri) -> Result<Vec<(String, String)>, Problem> {
    let read = Query::try_from_uri(uri).map(|Query(parameters)| parameters);
    read.map_err(|error| Problem::bad("?", error.body_text()))
}

/// The parameters of `/analytics`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AnalyticsParameters {
    /// Start of the hour.
    pub(super) hour: UnixMillis,
    /// Whether to wait for the next snapshot if the hour is unknown in the latest one.
    pub(super) wait: bool,
}

impl AnalyticsParameters {
    /// Parses the parameters of a request.
    pub(super) fn of(uri: &Uri) -> Result<Self, Problem> {
        // Nearly all requests have only the timestamp. They are read here without allocating a list of parameters.
        let digits = uri.query().and_then(|query| query.strip_prefix("timestamp="));
        let digits = digits.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        match digits.and_then(|digits| digits.parse().ok()).and_then(UnixMillis::from_integer) {
            Some(time) => Ok(Self { hour: time.floor(HOUR), wait: true }),
            None => Self::parse(&parameters(uri)?),
        }
    }

    fn parse(parameters: &[(String, String)]) -> Result<Self, Problem> {
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

/// The format of counters and polls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Csv,
}

impl Format {
    /// The format that the request asks for: by the suffix of the path, else by the parameter `format`, else by the
    /// header `Accept`; JSON if the request asks for neither format.
    pub(super) fn parse(
        suffix: Option<Self>,
        parameters: &[(String, String)],
        headers: &HeaderMap,
    ) -> Result<Self, Problem> {
        once_each(parameters)?;
        let mut format = suffix;
        for (name, value) in parameters {
            let named = match (name.as_str(), value.as_str()) {
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
            if suffix.is_some_and(|suffix| suffix != named) {
                return Err(Problem::bad("format", "the suffix of the path asks for another format"));
            }
            format = Some(named);
        }
        let accepted = || {
            let list = headers.get(ACCEPT)?.to_str().ok()?;
            preferred(list, |media_type| match media_type {
                "application/json" => Some(Self::Json),
                "text/csv" => Some(Self::Csv),
                _ => None,
            })
        };
        Ok(format.or_else(accepted).unwrap_or(Self::Json))
    }
}

/// Refuses a parameter that is given twice: the service would have to guess which of the two values is meant.
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
    use axum::http::HeaderValue;

    use super::*;

    #[track_caller]
    fn check(query: &[(&str, &str)], expected: Result<(i64, bool), &str>) {
        let parameters: Vec<_> =
            query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        match (AnalyticsParameters::parse(&parameters), expected) {
            (Ok(parameters), Ok((hour, wait))) => {
                assert_eq!(parameters, AnalyticsParameters { hour: UnixMillis(hour), wait });
            }
            (Err(problem), Err(named)) => assert_eq!(problem.errors[0].param, named),
            (other, _) => panic!("{query:?} gives {other:?}"),
        }
    }

    #[test]
    fn a_timestamp_selects_the_hour_that_contains_it() {
        check(&[("timestamp", "1700000000000")], Ok((1_699_999_200_000, true)));
        check(&[("timestamp", "1700000000000"), ("wait", "0")], Ok((1_699_999_200_000, false)));
    }

    #[test]
    fn a_timestamp_alone_is_read_like_a_timestamp_in_a_list() {
        for query in ["timestamp=1700000000000", "timestamp=-5", "timestamp=%31&wait=1"] {
            let uri: Uri = format!("/analytics?{query}").parse().unwrap();
            assert_eq!(AnalyticsParameters::of(&uri), AnalyticsParameters::parse(&parameters(&uri).unwrap()));
        }
        for query in ["timestamp=+1", "timestamp=", "timestamp=1&timestamp=2", "timestamp=99999999999999999"]
        {
            let uri: Uri = format!("/analytics?{query}").parse().unwrap();
            assert!(AnalyticsParameters::of(&uri).is_err(), "{query}");
        }
    }

    #[test]
    fn a_missing_invalid_or_unknown_parameter_is_named() {
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
        assert_eq!(Format::parse(None, &twice, &HeaderMap::new()).unwrap_err().errors[0].param, "format");
    }

    #[test]
    fn the_suffix_then_the_parameter_then_the_header_decides_the_format() {
        let parse = |suffix, pairs: &[(&str, &str)], accept: &'static str| {
            let pairs: Vec<_> =
                pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
            Format::parse(suffix, &pairs, &headers).map_err(|problem| problem.errors[0].param.clone())
        };
        assert_eq!(parse(None, &[], "*/*"), Ok(Format::Json));
        assert_eq!(parse(None, &[], "text/html, text/csv;q=0.9, */*;q=0.8"), Ok(Format::Csv));
        assert_eq!(parse(None, &[("format", "json")], "text/csv"), Ok(Format::Json));
        assert_eq!(parse(None, &[("format", "csv")], "application/json"), Ok(Format::Csv));
        assert_eq!(parse(Some(Format::Csv), &[], "application/json"), Ok(Format::Csv));
        assert_eq!(parse(Some(Format::Csv), &[("format", "csv")], ""), Ok(Format::Csv));
        assert_eq!(parse(Some(Format::Csv), &[("format", "json")], ""), Err("format".to_owned()));
        assert_eq!(parse(None, &[("format", "xml")], ""), Err("format".to_owned()));
        assert_eq!(parse(None, &[("fromat", "csv")], ""), Err("fromat".to_owned()));
    }
}
