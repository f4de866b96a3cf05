//! `/analytics`: users, clicks and impressions of one hour.
//!
//! Every refresh reads the hot hours and, unless earlier statements were too slow, the cold hours that readers asked
//! for. An hour that was read and has no row is empty: its counts are 0. An hour that no refresh has read is unknown:
//! it has no answer.
//!
//! Every refresh counts the events of the hours that it reads. It merges the `uniqExact` states of users only for the
//! hours that need it (see [`Merge`]), and the number of users that one refresh may merge is limited. Hours are merged
//! in this order: hot hours before cold hours; then hours whose number of events changed before hours whose last merge
//! is not settled; then newer hours before older hours. An hour that is not merged because of the limit keeps its
//! previous answer with the `as_of` of that answer; if it has no previous answer, it is unknown.

use std::collections::HashMap;

use clickhouse::query::Query;
use schemas::time::{HOUR, UnixMillis};

use super::merge::Merge;
use super::row::{Columns, SnapshotRow};
use super::{Refresh, RollupSource, Scope, SnapshotAnswer, date_time};
use crate::rendered::{AsOf, Rendered};

/// The number of hot hours, which every refresh reads: the current hour and the hours directly before it.
const HOT_HOURS: i64 = 72;
/// The value of `part` in rows with the events of an hour.
const EVENTS_PART: u8 = 1;
/// The value of `part` in rows with the users of an hour.
const USERS_PART: u8 = 2;

/// The rendered answers for the hours of one tenant, after one refresh.
#[derive(Debug)]
pub(crate) struct Analytics {
    /// Start of the first hot hour. The refresh read this hour and every later hour.
    hot_from: UnixMillis,
    as_of: AsOf,
    /// The answers for hours that have events, and for empty cold hours that readers asked for. An hour without an
    /// answer here is empty if it is hot and not in `waiting`; otherwise its answer is unknown.
    hours: HashMap<UnixMillis, Hour>,
    /// Hours that have events but no answer, because their users were never merged.
    waiting: Vec<UnixMillis>,
    empty: Rendered,
}

/// The answer for an hour, and the merge of users that it shows.
#[derive(Debug, Clone)]
struct Hour {
    merge: Merge,
    as_of: AsOf,
    rendered: Rendered,
}

/// The values of the `?`, in order: tenants; start of the first hot hour; tenants and starts of the cold hours that
/// readers asked for. Times are in seconds since 1970.
const COUNTED: &str = "
    SELECT tenant AS who, bucket AS hour, sumIf(events, event = 'click') AS c, sumIf(events, event = 'impression') AS i FROM {event_hourly}
    WHERE event IN ('click', 'impression') AND (tenant IN ? AND bucket >= toDateTime(?, 'UTC')
        OR (tenant, bucket) IN (SELECT W.1, toDateTime(W.2, 'UTC') FROM (SELECT arrayJoin(arrayZip(CAST(?, 'Array(String)'), CAST(?, 'Array(UInt32)'))) AS W)))
    GROUP BY who, hour
";

/// The part of the statement that merges users: the first text, then [`COUNTED`], then the second text. The value of
/// the `?` in the first text is the start of the first hot hour. The values of the `?` in the second text, in order:
/// the tenants, hours, events and users of the last merges, and whether each merge is settled; then the number of users
/// that may be merged. The last hour that is merged may bring the total above this number.
///
/// The cost of a merge is an upper estimate of the number of users in the states that it reads: the number of events,
/// or twice the users of the last merge plus the events since that merge, whichever is less. The users count twice
/// because clicks and impressions have separate states, and a user may be in both states.
const MERGED: [&str; 2] = [
    " FROM (
    SELECT tenant AS who, bucket AS hour, uniqExactMerge(users) AS people FROM {users_hourly}
    WHERE event IN ('click', 'impression') AND (tenant, bucket) IN (
        SELECT who, hour FROM (
            SELECT who, hour, cost, sum(cost) OVER (ORDER BY hour >= toDateTime(?, 'UTC') DESC, changed DESC, hour DESC, who ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS running FROM (
                SELECT who, hour, counted != known AS changed,
                    if(known = 0, counted, least(counted, 2 * people + toUInt64(abs(toInt64(counted) - toInt64(known))))) AS cost
                FROM (SELECT who, hour, c + i AS counted FROM (",
    ")) AS C LEFT JOIN (
                    SELECT K.1 AS who, toDateTime(K.2, 'UTC') AS hour, K.3 AS known, K.4 AS people, K.5 AS settled
                    FROM (SELECT arrayJoin(arrayZip(CAST(?, 'Array(String)'), CAST(?, 'Array(UInt32)'), CAST(?, 'Array(UInt64)'), CAST(?, 'Array(UInt64)'), CAST(?, 'Array(UInt8)'))) AS K)
                ) AS M USING (who, hour)
                WHERE counted != known OR NOT settled
            )
        ) WHERE running - cost < ?
    )
    GROUP BY who, hour
)",
];

impl SnapshotAnswer for Analytics {
    const NAME: &'static str = "analytics";
    const SOURCES: &'static [RollupSource] =
        &[("users_hourly", &["event", "users"]), ("event_hourly", &["event", "events"])];

    fn select() -> String {
        let events = Columns {
            part: "toUInt8(1)",
            tenant: "toString(who)",
            hour: "toUnixTimestamp(hour)",
            impressions: "i",
            clicks: "c",
            ..Columns::DEFAULT
        };
        let users = Columns {
            part: "toUInt8(2)",
            tenant: "toString(who)",
            hour: "toUnixTimestamp(hour)",
            users: "people",
            ..Columns::DEFAULT
        };
        let (events, users) = (events.select(), users.select());
        let [before, after] = MERGED;
        format!("{events} FROM ({COUNTED})\nUNION ALL\n{users}{before}{COUNTED}{after}")
    }

    fn bind(statement: Query, scope: &Scope, previous: &[(&str, &Self)]) -> Query {
        let from = date_time(hot_from(scope.now));
        let (tenants, hours): (Vec<&str>, Vec<u32>) =
            scope.read_hours().iter().map(|(tenant, hour)| (&**tenant, date_time(*hour))).unzip();
        let known = previous.iter().flat_map(|(tenant, analytics)| {
            let merged = analytics.hours.iter().filter(|(_, hour)| hour.merge.events > 0);
            merged.map(|(start, hour)| (*tenant, date_time(*start), hour.merge))
        });
        let mut known: Vec<_> = known.collect();
        known.sort_unstable_by_key(|(tenant, hour, _)| (*tenant, *hour));
        let bind_counted =
            |statement: Query| statement.bind(&scope.tenants).bind(from).bind(&tenants).bind(&hours);
        let statement = bind_counted(bind_counted(statement).bind(from));
        statement
            .bind(known.iter().map(|(tenant, ..)| *tenant).collect::<Vec<_>>())
            .bind(known.iter().map(|(_, hour, _)| *hour).collect::<Vec<_>>())
            .bind(known.iter().map(|(.., merge)| merge.events).collect::<Vec<_>>())
            .bind(known.iter().map(|(.., merge)| merge.users).collect::<Vec<_>>())
            .bind(known.iter().map(|(.., merge)| u8::from(merge.settled)).collect::<Vec<_>>())
            .bind(scope.max_users)
    }

    fn owns(row: &SnapshotRow) -> bool {
        row.part == EVENTS_PART || row.part == USERS_PART
    }

    fn render(rows: Vec<SnapshotRow>, refresh: Refresh<'_>, previous: Option<&Self>) -> Self {
        let mut events = HashMap::new();
        let mut users = HashMap::new();
        for row in rows {
            let hour = UnixMillis(i64::from(row.hour) * 1000);
            if row.part == USERS_PART {
                users.insert(hour, row.users);
            } else {
                events.insert(hour, (row.clicks, row.impressions));
            }
        }
        Self::new(&events, &users, refresh, previous)
    }
}

impl Analytics {
    /// The answers after a refresh. `events` has the clicks and impressions of each hour that was read, except hours
    /// without any; `users` has the number of distinct users of each hour whose user states were merged.
    fn new(
        events: &HashMap<UnixMillis, (u64, u64)>,
        users: &HashMap<UnixMillis, u64>,
        refresh: Refresh<'_>,
        previous: Option<&Self>,
    ) -> Self {
        let Refresh { tenant, scope, as_of, read_at } = refresh;
        let hot_from = hot_from(scope.now);
        let before = |hour: &UnixMillis| previous.and_then(|previous| previous.hours.get(hour));
        let (mut hours, mut waiting) = (HashMap::new(), Vec::new());
        for (&hour, &(clicks, impressions)) in events {
            let (before, counted) = (before(&hour), clicks + impressions);
            let merge = match (users.get(&hour), before) {
                (Some(&users), _) => {
                    let before = before.map(|before| &before.merge);
                    Some(Merge::new(before, counted, users, as_of.moment, read_at))
                }
                (None, Some(before)) if before.merge.holds(counted) => Some(before.merge),
                (None, _) => None,
            };
            let read = merge.map(|merge| {
                let reactions = Reactions { users: merge.users, clicks, impressions };
                Hour { merge, as_of: as_of.clone(), rendered: reactions.render() }
            });
            match read.or_else(|| before.cloned()) {
                Some(read) => _ = hours.insert(hour, read),
                None => waiting.push(hour),
            }
        }
        let empty = || Hour {
            merge: Merge::new(None, 0, 0, None, read_at),
            as_of: as_of.clone(),
            rendered: Reactions::default().render(),
        };
        for (_, hour) in scope.hours.iter().filter(|(of, _)| of == tenant) {
            if events.contains_key(hour) {
                continue;
            }
            if !scope.read_hours().is_empty() {
                hours.insert(*hour, empty());
            } else if let Some(before) = before(hour) {
                hours.insert(*hour, before.clone());
            }
        }
        Self { hot_from, as_of: as_of.clone(), hours, waiting, empty: Reactions::default().render() }
    }

    /// Whether every refresh reads this hour.
    pub(crate) fn is_hot(&self, hour: UnixMillis) -> bool {
        hour >= self.hot_from
    }

    /// The answer for the hour that starts at `hour`, and its `as_of`; `None` if the hour is unknown.
    pub(crate) fn hour(&self, hour: UnixMillis) -> Option<(&Rendered, &AsOf)> {
        let is_empty = || self.is_hot(hour) && !self.waiting.contains(&hour);
        match self.hours.get(&hour) {
            Some(Hour { rendered, as_of, .. }) => Some((rendered, as_of)),
            None => is_empty().then_some((&self.empty, &self.as_of)),
        }
    }
}

/// Start of the first hot hour at the moment `now`.
fn hot_from(now: UnixMillis) -> UnixMillis {
    UnixMillis(now.floor(HOUR).0 - (HOT_HOURS - 1) * HOUR)
}

/// The counts of one hour.
#[derive(Debug, Clone, Copy, Default)]
struct Reactions {
    /// Distinct users with a click or an impression.
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
    use crate::answers::LeftOut;

    /// An hour that is hot in every test.
    const HOT: UnixMillis = UnixMillis(101 * HOUR);
    /// A cold hour, which a reader of the tenant `a` asked for.
    const COLD: UnixMillis = UnixMillis(7 * HOUR);

    /// The answers of the tenant `a` after a refresh, `at` seconds after the start of hour 150. `events` has the clicks
    /// that the refresh counted in each hour, and `users` has the number of users of each hour whose users it merged.
    fn refresh(
        at: i64,
        left_out: LeftOut,
        events: &[(UnixMillis, u64)],
        users: &[(UnixMillis, u64)],
        previous: Option<&Analytics>,
    ) -> Analytics {
        let read_at = UnixMillis(150 * HOUR + at * 1000);
        let hours = vec![("a".to_owned(), COLD), ("b".to_owned(), UnixMillis(0))];
        let scope = Scope { now: read_at, hours, left_out, ..Scope::of_tenants(&["a", "b"]) };
        let as_of = AsOf::new(Some(UnixMillis(read_at.0 - 1000)));
        let refresh = Refresh { tenant: "a", scope: &scope, as_of: &as_of, read_at };
        let events = events.iter().map(|(hour, clicks)| (*hour, (*clicks, 0))).collect();
        Analytics::new(&events, &users.iter().copied().collect(), refresh, previous)
    }

    /// The number of users in the answer for an hour, and the argument `at` of the [`refresh`] that set the answer's
    /// `as_of`; `None` if the hour is unknown.
    fn found(analytics: &Analytics, hour: UnixMillis) -> Option<(u64, i64)> {
        let (rendered, as_of) = analytics.hour(hour)?;
        let text = str::from_utf8(&rendered.body).unwrap();
        let users = text.lines().next().unwrap().strip_prefix("unique_users,").unwrap();
        Some((users.parse().unwrap(), (as_of.moment.unwrap().0 - 150 * HOUR) / 1000 + 1))
    }

    #[test]
    fn a_known_hour_is_three_lines_and_an_empty_one_is_zeros() {
        let analytics = refresh(0, LeftOut::Nothing, &[(HOT, 4)], &[(HOT, 3)], None);
        let body = |hour| analytics.hour(hour).map(|(rendered, _)| rendered.body.clone()).unwrap();
        assert_eq!(body(HOT), "unique_users,3\nclicks,4\nimpressions,0\n");
        for empty in [COLD, UnixMillis(HOT.0 + HOUR), UnixMillis(200 * HOUR)] {
            assert_eq!(body(empty), "unique_users,0\nclicks,0\nimpressions,0\n");
        }
    }

    #[test]
    fn an_old_hour_that_no_reader_of_the_tenant_asked_for_is_unknown() {
        let analytics = refresh(0, LeftOut::Nothing, &[], &[], None);
        assert_eq!(found(&analytics, UnixMillis(6 * HOUR)), None);
        assert_eq!(found(&analytics, UnixMillis(0)), None, "only a reader of tenant `b` asked for this hour");
    }

    #[test]
    fn settled_users_are_kept_while_the_number_of_events_is_the_same() {
        let first = refresh(0, LeftOut::Nothing, &[(HOT, 4)], &[(HOT, 3)], None);
        let settled = refresh(5, LeftOut::Nothing, &[(HOT, 4)], &[(HOT, 4)], Some(&first));
        let later = refresh(10, LeftOut::Nothing, &[(HOT, 4)], &[], Some(&settled));
        assert_eq!(found(&later, HOT), Some((4, 10)));
    }

    #[test]
    fn an_hour_whose_users_are_not_merged_keeps_its_answer_and_as_of() {
        let first = refresh(0, LeftOut::Nothing, &[(HOT, 4)], &[(HOT, 3)], None);
        let unsettled = refresh(5, LeftOut::Nothing, &[(HOT, 4)], &[], Some(&first));
        assert_eq!(found(&unsettled, HOT), Some((3, 0)));
        let settled = refresh(5, LeftOut::Nothing, &[(HOT, 4)], &[(HOT, 4)], Some(&first));
        let changed = refresh(10, LeftOut::Nothing, &[(HOT, 5)], &[], Some(&settled));
        assert_eq!(found(&changed, HOT), Some((4, 5)));
    }

    #[test]
    fn an_hour_with_events_whose_users_were_never_merged_is_unknown() {
        let analytics = refresh(0, LeftOut::Nothing, &[(HOT, 4), (COLD, 1)], &[], None);
        assert_eq!((found(&analytics, HOT), found(&analytics, COLD)), (None, None));
    }

    #[test]
    fn a_cold_hour_that_is_left_out_keeps_its_answer_and_as_of() {
        let first = refresh(0, LeftOut::Nothing, &[(COLD, 4)], &[(COLD, 3)], None);
        let without = refresh(5, LeftOut::ColdKeys, &[], &[], Some(&first));
        assert_eq!(found(&without, COLD), Some((3, 0)));
        assert_eq!(found(&refresh(5, LeftOut::ColdKeys, &[], &[], None), COLD), None);
    }
}
