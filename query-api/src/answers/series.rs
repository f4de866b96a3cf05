//! What `/v1/live` shows: events per minute of the last hour; events and users of the current hour and day; and the
//! users of the last minutes, if the operator declares a rollup that counts users per minute.

use clickhouse::query::Query;
use schemas::time::{DAY, HOUR, UnixMillis};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::merge::Merge;
use super::row::{Columns, SnapshotRow};
use super::{Refresh, RollupSource, Scope, SnapshotAnswer, date_time};
use crate::rendered::rfc3339;

/// Milliseconds in a minute.
const MINUTE: i64 = 60_000;
/// How many minutes the series has, including the current minute.
const MINUTES: i64 = 60;
/// How many event names are shown for the hour and for the day. The most frequent names are shown.
const TOP: usize = 20;

/// The value of `part` in rows with the events of a minute. The next four constants are for rows with the events
/// of the hour, the events of the day, the users of the hour and the users of the day.
const MINUTE_EVENTS_PART: u8 = 6;
const HOUR_EVENTS_PART: u8 = 7;
const DAY_EVENTS_PART: u8 = 8;
const HOUR_USERS_PART: u8 = 9;
const DAY_USERS_PART: u8 = 10;
/// The value of `part` in the row with the users of the last minutes.
const ACTIVE_USERS_PART: u8 = 11;

/// What `/v1/live` shows to the readers of one tenant, except [`ActiveUsers`].
#[derive(Debug)]
pub(crate) struct Series {
    /// As JSON: the fields `minutes`, `hour` and `day`.
    pub(crate) body: Box<RawValue>,
    /// The last merges of the users of the hour and of the day.
    spans: [SpanMerge; 2],
}

/// The last merge of the users of the hour or the day that begins at `start`.
#[derive(Debug, Clone, Copy)]
struct SpanMerge {
    start: UnixMillis,
    merge: Merge,
}

/// The values of the `?`, in order: tenants, first and last minute; tenants, hour, maximum number of rows per tenant;
/// tenants, day, maximum number of rows per tenant; then, once for the users of the hour and once for the users of the
/// day: tenants, start, tenants, start, and the tenants and events of the last merges that are settled. Times are in
/// seconds since 1970. For the hour and for the day, the row without an event name has the sum over all events. The
/// sort order puts this row first, so `LIMIT` always keeps it.
const FROM: &str = " FROM (
    SELECT toUInt8(6) AS kind, tenant AS who, toUnixTimestamp(bucket) AS at, '' AS name, sum(events) AS counted, toUInt64(0) AS people FROM {event_minutely}
    WHERE tenant IN ? AND bucket >= toDateTime(?, 'UTC') AND bucket <= toDateTime(?, 'UTC') GROUP BY tenant, bucket
    UNION ALL
    SELECT toUInt8(7), who, toUInt32(0), name, counted, toUInt64(0) FROM (
        SELECT tenant AS who, event AS name, sum(events) AS counted FROM {event_hourly} WHERE tenant IN ? AND bucket = toDateTime(?, 'UTC')
        GROUP BY GROUPING SETS ((tenant, event), (tenant)) ORDER BY counted DESC, name LIMIT ? BY who)
    UNION ALL
    SELECT toUInt8(8), who, toUInt32(0), name, counted, toUInt64(0) FROM (
        SELECT tenant AS who, event AS name, sum(events) AS counted FROM {event_daily} WHERE tenant IN ? AND bucket = toDateTime(?, 'UTC')
        GROUP BY GROUPING SETS ((tenant, event), (tenant)) ORDER BY counted DESC, name LIMIT ? BY who)
    UNION ALL
    SELECT toUInt8(9), tenant, toUInt32(0), '', toUInt64(0), uniqExactMerge(users) FROM {users_hourly} WHERE tenant IN ? AND bucket = toDateTime(?, 'UTC')
        AND tenant NOT IN (SELECT tenant FROM {event_hourly} WHERE tenant IN ? AND bucket = toDateTime(?, 'UTC') GROUP BY tenant HAVING (toString(tenant), sum(events)) IN (
            SELECT K.1, K.2 FROM (SELECT arrayJoin(arrayZip(CAST(?, 'Array(String)'), CAST(?, 'Array(UInt64)'))) AS K)))
    GROUP BY tenant
    UNION ALL
    SELECT toUInt8(10), tenant, toUInt32(0), '', toUInt64(0), uniqExactMerge(users) FROM {users_all_daily} WHERE tenant IN ? AND bucket = toDateTime(?, 'UTC')
        AND tenant NOT IN (SELECT tenant FROM {event_daily} WHERE tenant IN ? AND bucket = toDateTime(?, 'UTC') GROUP BY tenant HAVING (toString(tenant), sum(events)) IN (
            SELECT K.1, K.2 FROM (SELECT arrayJoin(arrayZip(CAST(?, 'Array(String)'), CAST(?, 'Array(UInt64)'))) AS K)))
    GROUP BY tenant
)";

impl SnapshotAnswer for Series {
    const NAME: &'static str = "the series of /v1/live";
    const SOURCES: &'static [RollupSource] = &[
        ("event_minutely", &["events"]),
        ("event_hourly", &["event", "events"]),
        ("event_daily", &["event", "events"]),
        ("users_hourly", &["users"]),
        ("users_all_daily", &["users"]),
    ];

    fn select() -> String {
        let columns = Columns {
            part: "kind",
            tenant: "toString(who)",
            start: "at",
            event: "name",
            events: "counted",
            users: "people",
            ..Columns::DEFAULT
        };
        columns.select() + FROM
    }

    fn bind(statement: Query, scope: &Scope, previous: &[(&str, &Self)]) -> Query {
        let minutes = minutes(scope.now);
        let (hour, day) = (scope.now.floor(HOUR), scope.now.floor(DAY));
        let (first, last) = (date_time(minutes[0]), date_time(minutes[minutes.len() - 1]));
        // One row more than `TOP`: the row with the sum over all events.
        let most = TOP + 1;
        let tenants = &scope.tenants;
        let mut statement = statement.bind(tenants).bind(first).bind(last);
        for start in [hour, day] {
            statement = statement.bind(tenants).bind(date_time(start)).bind(most);
        }
        for (place, start) in [hour, day].into_iter().enumerate() {
            let spans = previous.iter().map(|(tenant, series)| (*tenant, series.spans[place]));
            let settled = spans.filter(|(_, span)| span.start == start && span.merge.settled);
            let (of, events): (Vec<&str>, Vec<u64>) =
                settled.map(|(tenant, span)| (tenant, span.merge.events)).unzip();
            let at = date_time(start);
            statement = statement.bind(tenants).bind(at).bind(tenants).bind(at).bind(of).bind(events);
        }
        statement
    }

    fn owns(row: &SnapshotRow) -> bool {
        (MINUTE_EVENTS_PART..=DAY_USERS_PART).contains(&row.part)
    }

    fn render(rows: Vec<SnapshotRow>, refresh: Refresh<'_>, previous: Option<&Self>) -> Self {
        let now = refresh.scope.now;
        let events_at = |minute: UnixMillis| {
            let of = |row: &&SnapshotRow| row.part == MINUTE_EVENTS_PART && row.start == date_time(minute);
            rows.iter().find(of).map_or(0, |row| row.events)
        };
        let minute = |minute: UnixMillis| MinuteOfSeries { time: rfc3339(minute), events: events_at(minute) };
        let merge = |start, counts, users, previous: Option<&SpanMerge>| {
            let previous = previous.filter(|previous| previous.start == start).map(|previous| previous.merge);
            SpanMerge { start, merge: merge(&rows, counts, users, refresh, previous) }
        };
        let hour = merge(
            now.floor(HOUR),
            HOUR_EVENTS_PART,
            HOUR_USERS_PART,
            previous.map(|series| &series.spans[0]),
        );
        let day =
            merge(now.floor(DAY), DAY_EVENTS_PART, DAY_USERS_PART, previous.map(|series| &series.spans[1]));
        let series = SeriesBody {
            minutes: minutes(now).into_iter().map(minute).collect(),
            hour: Span::new(hour, &rows, HOUR_EVENTS_PART),
            day: Span::new(day, &rows, DAY_EVENTS_PART),
        };
        Self { body: to_raw_value(&series).expect("numbers and texts become JSON"), spans: [hour, day] }
    }
}

/// The users of an hour or a day: from this refresh if it merged them, else from the last merge, else 0. A refresh
/// skips a merge only if the last merge still holds or there is nothing to merge.
fn merge(
    rows: &[SnapshotRow],
    counts: u8,
    users: u8,
    refresh: Refresh<'_>,
    previous: Option<Merge>,
) -> Merge {
    let merged = rows.iter().find(|row| row.part == users).map(|row| row.users);
    let new = |users| {
        Merge::new(previous.as_ref(), all_events(rows, counts), users, refresh.as_of.moment, refresh.read_at)
    };
    match (merged, previous) {
        (Some(users), _) => new(users),
        (None, Some(previous)) => previous,
        (None, None) => new(0),
    }
}

/// The number of events of all names, from the row whose `event` is empty; 0 if there is no such row.
fn all_events(rows: &[SnapshotRow], counts: u8) -> u64 {
    rows.iter().find(|row| row.part == counts && row.event.is_empty()).map_or(0, |row| row.events)
}

/// Users of the last 5 and of the last 30 minutes, including the current minute. A refresh reads them only if the
/// operator declares the rollup `active_minutely`, which is not built in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct ActiveUsers {
    minutes_5: u64,
    minutes_30: u64,
}

/// The values of the `?`, in order: the start of the last 5 minutes; tenants; the start of the last 30 minutes; the
/// start of the current minute. The column `events` returns the users of the last 5 minutes, and the column `users`
/// returns the users of the last 30 minutes.
const ACTIVE_FROM: &str = " FROM (
    SELECT tenant AS who, uniqExactMergeIf(users, bucket >= toDateTime(?, 'UTC')) AS few, uniqExactMerge(users) AS many FROM {active_minutely}
    WHERE tenant IN ? AND bucket >= toDateTime(?, 'UTC') AND bucket <= toDateTime(?, 'UTC') GROUP BY tenant
)";

impl SnapshotAnswer for ActiveUsers {
    const NAME: &'static str = "users of the last minutes";
    const SOURCES: &'static [RollupSource] = &[("active_minutely", &["users"])];

    fn select() -> String {
        let columns = Columns {
            part: "toUInt8(11)",
            tenant: "toString(who)",
            events: "few",
            users: "many",
            ..Columns::DEFAULT
        };
        columns.select() + ACTIVE_FROM
    }

    fn bind(statement: Query, scope: &Scope, _: &[(&str, &Self)]) -> Query {
        let now = scope.now.floor(MINUTE).0;
        let back = |minutes: i64| date_time(UnixMillis(now - (minutes - 1) * MINUTE));
        statement.bind(back(5)).bind(&scope.tenants).bind(back(30)).bind(back(1))
    }

    fn owns(row: &SnapshotRow) -> bool {
        row.part == ACTIVE_USERS_PART
    }

    fn render(rows: Vec<SnapshotRow>, _: Refresh<'_>, _: Option<&Self>) -> Self {
        let row = rows.first();
        Self { minutes_5: row.map_or(0, |row| row.events), minutes_30: row.map_or(0, |row| row.users) }
    }
}

/// The fields in the order in which they are sent.
#[derive(Serialize)]
struct SeriesBody {
    minutes: Vec<MinuteOfSeries>,
    hour: Span,
    day: Span,
}

#[derive(Serialize)]
struct MinuteOfSeries {
    time: String,
    events: u64,
}

/// The current hour or day.
#[derive(Serialize)]
struct Span {
    /// The start of the hour or day.
    time: String,
    events: u64,
    users: u64,
    /// The most frequent events.
    by_event: Vec<EventCount>,
}

#[derive(Serialize)]
struct EventCount {
    event: String,
    events: u64,
}

impl Span {
    fn new(SpanMerge { start, merge }: SpanMerge, rows: &[SnapshotRow], counts: u8) -> Self {
        let mut by_event: Vec<_> = rows
            .iter()
            .filter(|row| row.part == counts && !row.event.is_empty())
            .map(|row| EventCount { event: row.event.clone(), events: row.events })
            .collect();
        by_event.sort_by(|a, b| b.events.cmp(&a.events).then_with(|| a.event.cmp(&b.event)));
        Self { time: rfc3339(start), events: all_events(rows, counts), users: merge.users, by_event }
    }
}

/// Starts of the minutes of the series.
fn minutes(now: UnixMillis) -> Vec<UnixMillis> {
    let last = now.floor(MINUTE).0;
    (0..MINUTES).rev().map(|back| UnixMillis(last - back * MINUTE)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::rendered::AsOf;

    fn row(part: u8, event: &str, events: u64, users: u64) -> SnapshotRow {
        SnapshotRow { part, event: event.to_owned(), events, users, ..SnapshotRow::default() }
    }

    /// The series of a refresh at `now` whose `as_of` is also `now`.
    fn render(now: UnixMillis, rows: Vec<SnapshotRow>, previous: Option<&Series>) -> Series {
        assert!(rows.iter().all(Series::owns));
        let scope = Scope { now, ..Scope::of_tenants(&["a"]) };
        let refresh = Refresh { tenant: "a", scope: &scope, as_of: &AsOf::new(Some(now)), read_at: now };
        Series::render(rows, refresh, previous)
    }

    fn body(series: &Series) -> Value {
        serde_json::from_str(series.body.get()).unwrap()
    }

    #[test]
    fn minutes_without_events_are_zeros_and_event_names_are_sorted_by_count() {
        let now = UnixMillis::parse("2026-11-21 04:05:06").unwrap();
        let minute = SnapshotRow { start: date_time(now.floor(MINUTE)), ..row(MINUTE_EVENTS_PART, "", 3, 0) };
        let rows = vec![
            minute,
            row(HOUR_EVENTS_PART, "a", 4, 0),
            row(HOUR_EVENTS_PART, "", 13, 0),
            row(HOUR_EVENTS_PART, "b", 9, 0),
            row(HOUR_USERS_PART, "", 0, 5),
            row(DAY_USERS_PART, "", 0, 7),
        ];
        let found = body(&render(now, rows, None));
        let minutes = found["minutes"].as_array().unwrap();
        assert_eq!(minutes.len(), 60);
        assert_eq!(minutes[59], json!({"time": "2026-11-21T04:05:00.000Z", "events": 3}));
        assert_eq!(minutes[0], json!({"time": "2026-11-21T03:06:00.000Z", "events": 0}));
        assert_eq!(
            found["hour"],
            json!({
                "time": "2026-11-21T04:00:00.000Z", "events": 13, "users": 5,
                "by_event": [{"event": "b", "events": 9}, {"event": "a", "events": 4}],
            })
        );
        assert_eq!((&found["day"]["users"], &found["day"]["events"]), (&json!(7), &json!(0)));
    }

    #[test]
    fn users_that_were_not_merged_again_are_those_of_the_last_merge_of_the_same_hour() {
        let now = UnixMillis::parse("2026-11-21 04:05:06").unwrap();
        let events = || row(HOUR_EVENTS_PART, "", 13, 0);
        let users = |series: &Series| body(series)["hour"]["users"].clone();
        let first = render(now, vec![events(), row(HOUR_USERS_PART, "", 0, 5)], None);
        let second = render(UnixMillis(now.0 + 3_000), vec![events()], Some(&first));
        assert_eq!(users(&second), 5);
        let later = render(UnixMillis(now.0 + HOUR), Vec::new(), Some(&second));
        assert_eq!(users(&later), 0);
    }
}
