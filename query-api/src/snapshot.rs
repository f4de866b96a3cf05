//! All answers of one tick, rendered.
//!
//! Pure: what [`crate::poll`] read goes in, what [`crate::http`] sends comes out.

use std::collections::HashMap;

use bytes::Bytes;
use schemas::time::{HOUR, UnixMillis};
use xxhash_rust::xxh3::xxh3_64;

use crate::counters::Counters;
use crate::polls::Polls;

/// Hours that every statement asks for: the current one and those before it.
pub const HOT_HOURS: i64 = 72;

/// Start of the hot window at the moment `now`.
pub fn hot_from(now: UnixMillis) -> UnixMillis {
    UnixMillis(now.floor(HOUR).0 - (HOT_HOURS - 1) * HOUR)
}

/// Reactions of one hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reactions {
    /// Distinct users over clicks and impressions.
    pub users: u64,
    /// Clicks.
    pub clicks: u64,
    /// Impressions.
    pub impressions: u64,
}

/// One body, ready to be sent, and the name of its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// Its media type.
    pub kind: &'static str,
    /// The bytes of the body.
    pub body: Bytes,
    /// Strong ETag, quotes included.
    pub etag: String,
}

impl Rendered {
    /// A body of this media type.
    pub fn new(kind: &'static str, body: String) -> Self {
        let etag = format!("\"{:016x}\"", xxh3_64(body.as_bytes()));
        Self { kind, body: body.into(), etag }
    }
}

/// A body that says itself whether it is stale. That turns once, so there are two.
///
/// The age of an answer stands in its headers: in the body it would change the ETag with
/// every request.
#[derive(Debug)]
pub struct Aging {
    /// All that was in Kafka before this moment is counted; none while nothing is.
    pub as_of: Option<UnixMillis>,
    fresh: Rendered,
    stale: Rendered,
}

impl Aging {
    /// The two that `render` makes, told whether it is stale.
    pub fn new(as_of: Option<UnixMillis>, render: impl Fn(bool) -> Rendered) -> Self {
        Self { as_of, fresh: render(false), stale: render(true) }
    }

    /// The one for the moment `now`, made anew each `interval` milliseconds; `differs` if the
    /// aggregator has other rollups by now. Stale is what should have been renewed twice.
    pub fn at(&self, now: UnixMillis, interval: i64, differs: bool) -> &Rendered {
        let limit = interval.saturating_mul(3);
        let fresh = self.as_of.is_some_and(|as_of| now.0 - as_of.0 <= limit);
        if fresh && !differs { &self.fresh } else { &self.stale }
    }
}

/// What one statement told.
#[derive(Debug)]
pub struct Snapshot {
    /// All that was in Kafka before this moment is counted; none while no partition has told.
    pub as_of: Option<UnixMillis>,
    /// From this hour on, an hour without a row is known to be empty.
    hot_from: UnixMillis,
    /// Hours before it that were asked for.
    asked: Vec<UnixMillis>,
    hours: HashMap<UnixMillis, Rendered>,
    empty: Rendered,
    /// The country counters; none where what they are read from is not declared.
    pub counters: Option<Counters>,
    /// The polls, likewise.
    pub polls: Option<Polls>,
}

impl Snapshot {
    /// Renders what a statement told about the hot window from `hot_from` and the hours in `asked` (sorted).
    pub fn new(
        as_of: Option<UnixMillis>,
        hot_from: UnixMillis,
        asked: Vec<UnixMillis>,
        reactions: impl IntoIterator<Item = (UnixMillis, Reactions)>,
        counters: Option<Counters>,
        polls: Option<Polls>,
    ) -> Self {
        let hours = reactions.into_iter().map(|(hour, reactions)| (hour, render(reactions))).collect();
        Self { as_of, hot_from, asked, hours, empty: render(Reactions::default()), counters, polls }
    }

    /// Whether every statement asks for this hour.
    pub fn is_hot(&self, hour: UnixMillis) -> bool {
        hour >= self.hot_from
    }

    /// The answer for the hour that starts at `hour`; none if this snapshot does not know it.
    pub fn hour(&self, hour: UnixMillis) -> Option<&Rendered> {
        let known = self.is_hot(hour) || self.asked.binary_search(&hour).is_ok();
        known.then(|| self.hours.get(&hour).unwrap_or(&self.empty))
    }
}

fn render(reactions: Reactions) -> Rendered {
    let Reactions { users, clicks, impressions } = reactions;
    let body = format!("unique_users,{users}\nclicks,{clicks}\nimpressions,{impressions}\n");
    Rendered::new("text/plain; charset=utf-8", body)
}

/// A moment as JSON and headers have it.
pub fn rfc3339(moment: UnixMillis) -> String {
    format!("{moment}Z").replace(' ', "T")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(n: i64) -> UnixMillis {
        UnixMillis(n * HOUR)
    }

    #[track_caller]
    fn check(hour: i64, body: Option<&str>) {
        let reactions = Reactions { users: 3, clicks: 3, impressions: 0 };
        let snapshot = Snapshot::new(
            None,
            hours(100),
            vec![hours(5), hours(7)],
            [(hours(101), reactions), (hours(7), reactions)],
            None,
            None,
        );
        assert_eq!(
            snapshot.hour(hours(hour)).map(|rendered| &*rendered.body),
            body.map(str::as_bytes),
            "hour {hour}"
        );
    }

    #[test]
    fn a_known_hour_is_three_lines_and_an_empty_one_is_zeros() {
        check(101, Some("unique_users,3\nclicks,3\nimpressions,0\n"));
        check(7, Some("unique_users,3\nclicks,3\nimpressions,0\n"));
        check(100, Some("unique_users,0\nclicks,0\nimpressions,0\n"));
        check(5, Some("unique_users,0\nclicks,0\nimpressions,0\n"));
    }

    #[test]
    fn an_hour_that_begins_after_the_statement_is_zeros_and_an_old_one_is_unknown() {
        check(200, Some("unique_users,0\nclicks,0\nimpressions,0\n"));
        check(99, None);
        check(6, None);
    }

    #[test]
    fn equal_answers_have_equal_etags() {
        let one = render(Reactions { users: 1, ..Reactions::default() });
        assert_eq!(one.etag, render(Reactions { users: 1, ..Reactions::default() }).etag);
        assert_ne!(one.etag, render(Reactions::default()).etag);
    }
}
