//! `/analytics`: users, clicks and impressions of one hour.
//!
//! Every refresh reads the hot hours and those that readers asked for. An hour without a row is known to
//! be empty; an hour that was not read is unknown, never empty.

use std::collections::HashMap;

use clickhouse::query::Query;
use schemas::time::{HOUR, UnixMillis};

use super::row::{Columns, SnapshotRow};
use super::{RollupSource, Scope, SnapshotAnswer, TENANT, date_time};
use crate::rendered::Rendered;

/// Hours that every refresh reads: the current one and those before it.
const HOT_HOURS: i64 = 72;

/// The hours of one refresh, rendered.
#[derive(Debug)]
pub(crate) struct Analytics {
    /// Every hour from this one on was read.
    hot_from: UnixMillis,
    /// Hours before it that were read because readers asked for them; sorted.
    wanted: Vec<UnixMillis>,
    hours: HashMap<UnixMillis, Rendered>,
    empty: Rendered,
}

/// `?` are, times in seconds since 1970: tenant, start of the hot window, wanted hours, and the same again.
const FROM: &str = " FROM (
    SELECT bucket, uniqExactMerge(users) AS u, toUInt64(0) AS c, toUInt64(0) AS i FROM {users_hourly}
    WHERE tenant = ? AND event IN ('click', 'impression') AND (bucket >= toDateTime(?, 'UTC') OR bucket IN (SELECT toDateTime(arrayJoin(CAST(?, 'Array(UInt32)')), 'UTC')))
    GROUP BY bucket
    UNION ALL
    SELECT bucket, toUInt64(0), sumIf(events, event = 'click'), sumIf(events, event = 'impression') FROM {event_hourly}
    WHERE tenant = ? AND event IN ('click', 'impression') AND (bucket >= toDateTime(?, 'UTC') OR bucket IN (SELECT toDateTime(arrayJoin(CAST(?, 'Array(UInt32)')), 'UTC')))
    GROUP BY bucket
) GROUP BY bucket";

impl SnapshotAnswer for Analytics {
    const NAME: &'static str = "analytics";
    const SOURCES: &'static [RollupSource] =
        &[("users_hourly", &["event", "users"]), ("event_hourly", &["event", "events"])];

    fn select() -> String {
        let columns = Columns {
            hour: "toUnixTimestamp(bucket)",
            users: "sum(u)",
            impressions: "sum(i)",
            clicks: "sum(c)",
            ..Columns::DEFAULT
        };
        columns.select() + FROM
    }

    fn bind(statement: Query, scope: &Scope) -> Query {
        let from = date_time(hot_from(scope.now));
        let hours: Vec<u32> = scope.hours.iter().copied().map(date_time).collect();
        statement.bind(TENANT).bind(from).bind(&hours).bind(TENANT).bind(from).bind(&hours)
    }

    fn owns(row: &SnapshotRow) -> bool {
        row.hour > 0
    }

    fn render(rows: Vec<SnapshotRow>, scope: &Scope, _: Option<UnixMillis>) -> Self {
        let hours = rows.into_iter().map(|row| {
            let hour = UnixMillis(i64::from(row.hour) * 1000);
            (hour, Reactions { users: row.users, clicks: row.clicks, impressions: row.impressions })
        });
        Self::new(hot_from(scope.now), scope.hours.clone(), hours)
    }
}

impl Analytics {
    fn new(
        hot_from: UnixMillis,
        wanted: Vec<UnixMillis>,
        hours: impl IntoIterator<Item = (UnixMillis, Reactions)>,
    ) -> Self {
        let hours = hours.into_iter().map(|(hour, reactions)| (hour, reactions.render())).collect();
        Self { hot_from, wanted, hours, empty: Reactions::default().render() }
    }

    /// Whether every refresh reads this hour.
    pub(crate) fn is_hot(&self, hour: UnixMillis) -> bool {
        hour >= self.hot_from
    }

    /// The answer for the hour that starts at `hour`; `None` if it was not read.
    pub(crate) fn hour(&self, hour: UnixMillis) -> Option<&Rendered> {
        let known = self.is_hot(hour) || self.wanted.binary_search(&hour).is_ok();
        known.then(|| self.hours.get(&hour).unwrap_or(&self.empty))
    }
}

/// Start of the hot window at the moment `now`.
fn hot_from(now: UnixMillis) -> UnixMillis {
    UnixMillis(now.floor(HOUR).0 - (HOT_HOURS - 1) * HOUR)
}

/// Reactions of one hour.
#[derive(Debug, Clone, Copy, Default)]
struct Reactions {
    /// Distinct users over clicks and impressions.
    users: u64,
    clicks: u64,
    impressions: u64,
}

impl Reactions {
    fn render(self) -> Rendered {
        let Self { users, clicks, impressions } = self;
        Rendered::text(format!("unique_users,{users}\nclicks,{clicks}\nimpressions,{impressions}\n"))
    }
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
        let analytics = Analytics::new(
            hours(100),
            vec![hours(5), hours(7)],
            [(hours(101), reactions), (hours(7), reactions)],
        );
        assert_eq!(
            analytics.hour(hours(hour)).map(|rendered| &*rendered.body),
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
}
