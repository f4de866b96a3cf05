//! What `/v1/live` shows: events per minute of the last hour; events and users of the current hour and day; and,
//! where a rollup of minutes counts users, those of the last minutes.

use clickhouse::query::Query;
use schemas::time::{DAY, HOUR, UnixMillis};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::row::{Columns, SnapshotRow};
use super::{RollupSource, Scope, SnapshotAnswer, TENANT, date_time};
use crate::rendered::rfc3339;

/// Milliseconds of a minute.
const MINUTE: i64 = 60_000;
/// Minutes of the series, the current one included.
const MINUTES: i64 = 60;
/// Events of an hour and of a day that are shown: those that came most often.
const TOP: usize = 20;

/// The parts of a statement, in the column `series`.
const OF_MINUTE: u8 = 1;
const OF_HOUR: u8 = 2;
const OF_DAY: u8 = 3;
const USERS_OF_HOUR: u8 = 4;
const USERS_OF_DAY: u8 = 5;
const ACTIVE: u8 = 6;

/// The series of one refresh, as JSON: the fields `minutes`, `hour` and `day`.
#[derive(Debug)]
pub(crate) struct Series(pub(crate) Box<RawValue>);

/// `?` are: tenant, first and last minute, tenant, hour, most events, tenant, day, most events, tenant, hour, tenant,
/// day. A row without a name has the sum over all events; it is never less than another, and comes first.
const FROM: &str = " FROM (
    SELECT toUInt8(1) AS kind, toUnixTimestamp(bucket) AS at, '' AS name, sum(events) AS counted, toUInt64(0) AS people FROM {event_minutely}
    WHERE tenant = ? AND bucket >= toDateTime(?, 'UTC') AND bucket <= toDateTime(?, 'UTC') GROUP BY bucket
    UNION ALL
    SELECT toUInt8(2), toUInt32(0), name, counted, toUInt64(0) FROM (
        SELECT event AS name, sum(events) AS counted FROM {event_hourly} WHERE tenant = ? AND bucket = toDateTime(?, 'UTC')
        GROUP BY GROUPING SETS ((event), ()) ORDER BY counted DESC, name LIMIT ?)
    UNION ALL
    SELECT toUInt8(3), toUInt32(0), name, counted, toUInt64(0) FROM (
        SELECT event AS name, sum(events) AS counted FROM {event_daily} WHERE tenant = ? AND bucket = toDateTime(?, 'UTC')
        GROUP BY GROUPING SETS ((event), ()) ORDER BY counted DESC, name LIMIT ?)
    UNION ALL
    SELECT toUInt8(4), toUInt32(0), '', toUInt64(0), uniqExactMerge(users) FROM {users_hourly} WHERE tenant = ? AND bucket = toDateTime(?, 'UTC')
    UNION ALL
    SELECT toUInt8(5), toUInt32(0), '', toUInt64(0), uniqExactMerge(users) FROM {users_all_daily} WHERE tenant = ? AND bucket = toDateTime(?, 'UTC')
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
            series: "kind",
            start: "at",
            event: "name",
            events: "counted",
            users: "people",
            ..Columns::DEFAULT
        };
        columns.select() + FROM
    }

    fn bind(statement: Query, scope: &Scope) -> Query {
        let minutes = minutes(scope.now);
        let (hour, day) = (date_time(scope.now.floor(HOUR)), date_time(scope.now.floor(DAY)));
        let (first, last) = (date_time(minutes[0]), date_time(minutes[minutes.len() - 1]));
        // The first row is the sum.
        let most = TOP + 1;
        let statement = statement.bind(TENANT).bind(first).bind(last);
        let statement = statement.bind(TENANT).bind(hour).bind(most).bind(TENANT).bind(day).bind(most);
        statement.bind(TENANT).bind(hour).bind(TENANT).bind(day)
    }

    fn owns(row: &SnapshotRow) -> bool {
        (OF_MINUTE..=USERS_OF_DAY).contains(&row.series)
    }

    fn render(rows: Vec<SnapshotRow>, scope: &Scope, _: Option<UnixMillis>) -> Self {
        let events_at = |minute: UnixMillis| {
            let of = |row: &&SnapshotRow| row.series == OF_MINUTE && row.start == date_time(minute);
            rows.iter().find(of).map_or(0, |row| row.events)
        };
        let minute = |minute: UnixMillis| MinuteOfSeries { time: rfc3339(minute), events: events_at(minute) };
        let series = SeriesBody {
            minutes: minutes(scope.now).into_iter().map(minute).collect(),
            hour: Span::new(scope.now.floor(HOUR), &rows, OF_HOUR, USERS_OF_HOUR),
            day: Span::new(scope.now.floor(DAY), &rows, OF_DAY, USERS_OF_DAY),
        };
        Self(to_raw_value(&series).expect("numbers and texts become JSON"))
    }
}

/// Users of the last 5 and of the last 30 minutes, the current one included. Read where their rollup is declared; it is
/// not built in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct ActiveUsers {
    minutes_5: u64,
    minutes_30: u64,
}

/// `?` are: first of 5 minutes, last minute, tenant, first of 30 minutes, last minute.
const ACTIVE_FROM: &str = " FROM (
    SELECT uniqExactMergeIf(users, bucket >= toDateTime(?, 'UTC')) AS few, uniqExactMerge(users) AS many FROM {active_minutely}
    WHERE tenant = ? AND bucket >= toDateTime(?, 'UTC') AND bucket <= toDateTime(?, 'UTC')
)";

impl SnapshotAnswer for ActiveUsers {
    const NAME: &'static str = "users of the last minutes";
    const SOURCES: &'static [RollupSource] = &[("active_minutely", &["users"])];

    fn select() -> String {
        let columns = Columns { series: "toUInt8(6)", events: "few", users: "many", ..Columns::DEFAULT };
        columns.select() + ACTIVE_FROM
    }

    fn bind(statement: Query, scope: &Scope) -> Query {
        let now = scope.now.floor(MINUTE).0;
        let back = |minutes: i64| date_time(UnixMillis(now - (minutes - 1) * MINUTE));
        statement.bind(back(5)).bind(TENANT).bind(back(30)).bind(back(1))
    }

    fn owns(row: &SnapshotRow) -> bool {
        row.series == ACTIVE
    }

    fn render(rows: Vec<SnapshotRow>, _: &Scope, _: Option<UnixMillis>) -> Self {
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
    /// When it began.
    time: String,
    events: u64,
    users: u64,
    /// The events that came most often.
    by_event: Vec<EventCount>,
}

#[derive(Serialize)]
struct EventCount {
    event: String,
    events: u64,
}

impl Span {
    fn new(start: UnixMillis, rows: &[SnapshotRow], counts: u8, users: u8) -> Self {
        let of = |series: u8| rows.iter().filter(move |row| row.series == series);
        let mut by_event: Vec<_> = of(counts)
            .filter(|row| !row.event.is_empty())
            .map(|row| EventCount { event: row.event.clone(), events: row.events })
            .collect();
        by_event.sort_by(|a, b| b.events.cmp(&a.events).then_with(|| a.event.cmp(&b.event)));
        Self {
            time: rfc3339(start),
            events: of(counts).find(|row| row.event.is_empty()).map_or(0, |row| row.events),
            users: of(users).map(|row| row.users).sum(),
            by_event,
        }
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

    fn row(series: u8, event: &str, events: u64, users: u64) -> SnapshotRow {
        SnapshotRow { series, event: event.to_owned(), events, users, ..SnapshotRow::default() }
    }

    #[test]
    fn minutes_without_events_are_zeros_and_events_stand_by_their_number() {
        let now = UnixMillis::parse("2026-11-21 04:05:06").unwrap();
        let minute = SnapshotRow { start: date_time(now.floor(MINUTE)), ..row(OF_MINUTE, "", 3, 0) };
        let rows = vec![
            minute,
            row(OF_HOUR, "a", 4, 0),
            row(OF_HOUR, "", 13, 0),
            row(OF_HOUR, "b", 9, 0),
            row(USERS_OF_HOUR, "", 0, 5),
            row(USERS_OF_DAY, "", 0, 7),
        ];
        assert!(rows.iter().all(Series::owns));
        let scope = Scope { now, hours: Vec::new(), polls: Vec::new() };
        let found: Value = serde_json::from_str(Series::render(rows, &scope, None).0.get()).unwrap();
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
}
