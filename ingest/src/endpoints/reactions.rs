//! Reactions: a click or an impression of a user, told by the address alone, in
//! two forms. Each becomes an ordinary line, so it takes the way of every event.
//!
//! - `POST /analytics/{ms}/{user}/{click|impression}`
//! - `POST /analytics?timestamp={ms}&user={user}&{click|impression}`

use std::borrow::Cow;
use std::ops::RangeInclusive;

use percent_encoding::percent_decode_str;
use schemas::event::MAX_ID_BYTES;
use schemas::time::UnixMillis;

use crate::outcome::Refusal;

/// When a reaction may have happened: at another time it would count in the hour of its arrival, and the hour that its
/// sender then asks for would lack it.
pub type Times = RangeInclusive<UnixMillis>;

/// The line of a reaction in the path form, of which `path` is what follows `/analytics/`.
pub fn by_path(path: &str, times: Times) -> Result<String, Refusal> {
    let mut segments = path.split('/');
    let parts = (segments.next(), segments.next(), segments.next(), segments.next());
    let (Some(timestamp), Some(user), Some(reaction @ ("click" | "impression")), None) = parts else {
        return Err(Refusal::NotFound);
    };
    line(&percent_decoded(timestamp)?, &percent_decoded(user)?, reaction, times)
}

/// The line of a reaction in the query form. Parameters that are not ours are left alone.
pub fn by_query(query: &str, times: Times) -> Result<String, Refusal> {
    let (mut timestamp, mut user, mut reaction) = (None, None, None);
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (slot, value) = match name {
            "timestamp" => (&mut timestamp, value),
            "user" => (&mut user, value),
            // A bare flag; some clients cannot write one without `=`.
            "click" | "impression" if value.is_empty() => (&mut reaction, name),
            "click" | "impression" => return Err(bad(format!("`{name}` takes no value"))),
            _ => continue,
        };
        if slot.replace(value).is_some() {
            return Err(bad(format!("`{name}` repeats or contradicts a parameter")));
        }
    }
    let reaction = reaction.ok_or_else(|| bad("one of `click` and `impression` is missing"))?;
    let timestamp = timestamp.ok_or_else(|| bad("`timestamp` is missing"))?;
    let user = user.ok_or_else(|| bad("`user` is missing"))?.replace('+', " ");
    line(&percent_decoded(timestamp)?, &percent_decoded(&user)?, reaction, times)
}

fn line(timestamp: &str, user: &str, reaction: &str, times: Times) -> Result<String, Refusal> {
    let time = timestamp.parse().ok().map(UnixMillis).filter(|time| times.contains(time));
    let time = time.ok_or(Refusal::BadTime(*times.start(), *times.end()))?;
    if !(1..=MAX_ID_BYTES).contains(&user.len()) {
        return Err(bad(format!("`user` is not 1 to {MAX_ID_BYTES} bytes long")));
    }
    let user = serde_json::to_string(user).expect("text is written to memory");
    Ok(format!(r#"{{"event":"{reaction}","client_time":{},"user_id":{user}}}"#, time.0))
}

fn percent_decoded(text: &str) -> Result<Cow<'_, str>, Refusal> {
    percent_decode_str(text).decode_utf8().map_err(|_| bad("a parameter is not UTF-8"))
}

fn bad(reason: impl Into<Cow<'static, str>>) -> Refusal {
    Refusal::BadQuery(reason.into())
}

#[cfg(test)]
mod tests;
