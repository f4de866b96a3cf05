//! A reaction is a click or an impression of a user that a client sends in a URL, without a body. It is rewritten into
//! an ordinary line, which is then handled like any other event. The URL has one of two forms:
//!
//! - `POST /analytics/{ms}/{user}/{click|impression}`
//! - `POST /analytics?timestamp={ms}&user={user}&{click|impression}`

use std::borrow::Cow;
use std::ops::RangeInclusive;

use ::http::Uri;
use percent_encoding::percent_decode_str;
use runtime::vars::{VarError, Vars};
use schemas::event::MAX_ID_BYTES;
use schemas::row::{Ahead, Earliest, TimeLimits};
use schemas::time::UnixMillis;

use crate::outcome::Refusal;

/// The range of timestamps that a reaction may have. The edge refuses a reaction with any other timestamp, because the
/// aggregator would count it in the hour of its arrival, and a query for the hour of its timestamp would not find it.
pub type Times = RangeInclusive<UnixMillis>;

/// Earliest `timestamp` of a reaction: `EVENT_TIME_FROM`, default 2000-01-01T00:00:00Z. An earlier one gets
/// `400 bad_time`. Set it to the same value as in the aggregator.
const EARLIEST: &str = "EVENT_TIME_FROM";
/// How far ahead of the edge's clock the `timestamp` of a reaction may be: `EVENT_TIME_AHEAD`, default 1day, at most
/// 1year. A later one gets `400 bad_time`. Set it to the same value as in the aggregator.
const AHEAD: &str = "EVENT_TIME_AHEAD";

/// The limits on the `timestamp` of a reaction, from [`EARLIEST`] and [`AHEAD`]. The aggregator uses a client's time
/// only within these limits.
pub fn time_limits(vars: &Vars) -> Result<TimeLimits, VarError> {
    let TimeLimits { earliest, ahead } = TimeLimits::default();
    Ok(TimeLimits {
        earliest: vars.parsed_or(EARLIEST, Earliest(earliest))?.0,
        ahead: vars.parsed_or(AHEAD, Ahead(ahead))?.0,
    })
}

/// Returns the line of a reaction from a URL of either form.
pub fn line_of(uri: &Uri, times: Times) -> Result<String, Refusal> {
    match uri.path().strip_prefix("/analytics/") {
        Some(path) => by_path(path, times),
        None => by_query(uri.query().unwrap_or_default(), times),
    }
}

/// The line of a reaction in the path form; `path` is the part after `/analytics/`.
pub fn by_path(path: &str, times: Times) -> Result<String, Refusal> {
    let mut segments = path.split('/');
    let parts = (segments.next(), segments.next(), segments.next(), segments.next());
    let (Some(timestamp), Some(user), Some(reaction @ ("click" | "impression")), None) = parts else {
        return Err(Refusal::NotFound);
    };
    line(&percent_decoded(timestamp)?, &percent_decoded(user)?, reaction, times)
}

/// The line of a reaction in the query form. Unknown parameters are ignored.
pub fn by_query(query: &str, times: Times) -> Result<String, Refusal> {
    let (mut timestamp, mut user, mut reaction) = (None, None, None);
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (slot, value) = match name {
            "timestamp" => (&mut timestamp, value),
            "user" => (&mut user, value),
            // These parameters have no value, but some clients add `=` to every parameter.
            "click" | "impression" if value.is_empty() => (&mut reaction, name),
            "click" | "impression" => return Err(bad(format!("`{name}` must not have a value"))),
            _ => continue,
        };
        if slot.replace(value).is_some() {
            return Err(bad(format!("`{name}` is repeated or contradicts another parameter")));
        }
    }
    let reaction = reaction.ok_or_else(|| bad("exactly one of `click` and `impression` is required"))?;
    let timestamp = timestamp.ok_or_else(|| bad("`timestamp` is missing"))?;
    let user = user.ok_or_else(|| bad("`user` is missing"))?.replace('+', " ");
    line(&percent_decoded(timestamp)?, &percent_decoded(&user)?, reaction, times)
}

fn line(timestamp: &str, user: &str, reaction: &str, times: Times) -> Result<String, Refusal> {
    let time = timestamp.parse().ok().map(UnixMillis).filter(|time| times.contains(time));
    let time = time.ok_or(Refusal::BadTime(*times.start(), *times.end()))?;
    if !(1..=MAX_ID_BYTES).contains(&user.len()) {
        return Err(bad(format!("`user` must be 1 to {MAX_ID_BYTES} bytes long")));
    }
    let user = serde_json::to_string(user).expect("text is written to memory");
    Ok(format!(r#"{{"event":"{reaction}","client_time":{},"user_id":{user}}}"#, time.0))
}

fn percent_decoded(text: &str) -> Result<Cow<'_, str>, Refusal> {
    percent_decode_str(text).decode_utf8().map_err(|_| bad("a parameter is not valid UTF-8"))
}

fn bad(reason: impl Into<Cow<'static, str>>) -> Refusal {
    Refusal::BadQuery(reason.into())
}

#[cfg(test)]
mod tests;
