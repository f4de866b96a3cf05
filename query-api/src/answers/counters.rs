//! `/v1/counters`: views, plays and clicks of the last seven UTC days, for the five countries with the
//! highest totals of all time.
//!
//! The ranking comes from a view that ClickHouse refreshes every few seconds. So the counters may be older than the
//! rest of the snapshot, and their rows have their own `as_of`.

use std::fmt::Write as _;
use std::ops::Range;

use clickhouse::query::Query;
use schemas::event::COUNTER_EVENTS;
use schemas::tables::{self, COUNTRY_TOTALS};
use schemas::time::{DAY, UnixMillis};
use serde::Serialize;

use super::row::{Columns, SnapshotRow};
use super::{Refresh, RollupSource, Scope, SnapshotAnswer, date_time};
use crate::rendered::{AgingBody, AsOf, Rendered, rfc3339};

/// The number of days that are counted: today and the days directly before it.
const DAYS: i64 = 7;

/// The counters of one tenant after one refresh, in both formats.
#[derive(Debug)]
pub(crate) struct Counters {
    /// `{"data":[…],"meta":{…}}`.
    pub(crate) json: AgingBody,
    /// A line `country,view,play,click`, then a line for each country.
    pub(crate) csv: Rendered,
}

/// The value of `part` in rows of the counters.
const COUNTRIES_PART: u8 = 3;

/// The values of the `?`, in order: tenants, tenants, first day, day after the last day.
const FROM: &str = " FROM (
    SELECT who, CAST(country, 'String') AS country, max(moment) AS as_of, sum(t) AS total, sum(v) AS views, sum(p) AS plays, sum(c) AS clicks FROM (
        SELECT tenant AS who, country, toUnixTimestamp64Milli(as_of) AS moment, events AS t, toUInt64(0) AS v, toUInt64(0) AS p, toUInt64(0) AS c FROM country_totals WHERE tenant IN ?
        UNION ALL
        SELECT tenant, country, toInt64(0), toUInt64(0), sumIf(events, event = 'view'), sumIf(events, event = 'play'), sumIf(events, event = 'click') FROM {event_daily}
        WHERE tenant IN ? AND bucket >= toDateTime(?, 'UTC') AND bucket < toDateTime(?, 'UTC') AND event IN ('view', 'play', 'click')
        GROUP BY tenant, country
    ) GROUP BY who, country HAVING total > 0 ORDER BY total DESC, country LIMIT 5 BY who
)";

impl SnapshotAnswer for Counters {
    const NAME: &'static str = "country counters";
    const SOURCES: &'static [RollupSource] = &[(COUNTRY_TOTALS.rollup, COUNTRY_TOTALS.columns)];

    fn select() -> String {
        let columns = Columns {
            part: "toUInt8(3)",
            tenant: "toString(who)",
            as_of: "as_of",
            clicks: "clicks",
            country: "country",
            views: "views",
            plays: "plays",
            total: "total",
            ..Columns::DEFAULT
        };
        columns.select() + FROM
    }

    fn bind(statement: Query, scope: &Scope, _: &[(&str, &Self)]) -> Query {
        let days = counted_days(scope.now);
        let statement = statement.bind(&scope.tenants).bind(&scope.tenants);
        statement.bind(date_time(days.start)).bind(date_time(days.end))
    }

    fn owns(row: &SnapshotRow) -> bool {
        row.part == COUNTRIES_PART
    }

    fn render(rows: Vec<SnapshotRow>, refresh: Refresh<'_>, _: Option<&Self>) -> Self {
        let as_of = rows.iter().map(|row| row.as_of).min().filter(|as_of| *as_of > 0).map(UnixMillis);
        let country = |row: SnapshotRow| CountryCounts {
            code: row.country,
            view: row.views,
            play: row.plays,
            click: row.clicks,
            total: row.total,
        };
        Self::new(rows.into_iter().map(country).collect(), counted_days(refresh.scope.now), as_of)
    }
}

impl Counters {
    /// Sorts the countries by descending total, and countries with equal totals by code; then renders them.
    fn new(mut countries: Vec<CountryCounts>, days: Range<UnixMillis>, as_of: Option<UnixMillis>) -> Self {
        countries.sort_by(|a, b| b.total.cmp(&a.total).then_with(|| a.code.cmp(&b.code)));
        let window = Window { from: rfc3339(days.start), to: rfc3339(days.end), tz: "UTC" };
        let meta = |as_of: Option<UnixMillis>, stale| Meta {
            as_of: as_of.map(rfc3339),
            stale,
            exact: true,
            window: &window,
            rows: countries.len(),
        };
        Self { json: AgingBody::new(&AsOf::new(as_of), &countries, meta), csv: csv(&countries) }
    }

    /// The JSON body to send at `now`. `interval` (milliseconds between two refreshes) and `rollups_differ` (whether
    /// the aggregator declares other rollups than this process) decide whether the body says that it is stale.
    pub(crate) fn json(&self, now: UnixMillis, interval: i64, rollups_differ: bool) -> &Rendered {
        // ClickHouse refreshes the view that ranks the countries only once per `REFRESH`, so a shorter `interval`
        // would report fresh answers as stale.
        self.json.at(now, interval.max(tables::REFRESH.as_millis() as i64), rollups_differ)
    }
}

/// The days that are counted at `now`, in UTC.
fn counted_days(now: UnixMillis) -> Range<UnixMillis> {
    let today = now.floor(DAY).0;
    UnixMillis(today - (DAYS - 1) * DAY)..UnixMillis(today + DAY)
}

/// One of the top countries: its events in the counted days, and its total over all time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct CountryCounts {
    #[serde(rename = "country")]
    code: String,
    view: u64,
    play: u64,
    click: u64,
    /// Views, plays and clicks of all time.
    #[serde(skip)]
    total: u64,
}

#[derive(Serialize)]
struct Meta<'a> {
    as_of: Option<String>,
    stale: bool,
    exact: bool,
    window: &'a Window,
    rows: usize,
}

#[derive(Serialize)]
struct Window {
    from: String,
    to: String,
    tz: &'static str,
}

fn csv(countries: &[CountryCounts]) -> Rendered {
    let mut body = format!("country,{}\r\n", COUNTER_EVENTS.join(","));
    for CountryCounts { code, view, play, click, .. } in countries {
        // Writing to a String cannot fail. A code holds only letters, so it needs no quotes.
        let _ = write!(body, "{code},{view},{play},{click}\r\n");
    }
    Rendered::csv(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(countries: &[(&str, u64)], as_of: Option<&str>) -> Counters {
        let country = |(code, total): &(&str, u64)| CountryCounts {
            code: (*code).to_owned(),
            view: 1,
            play: 2,
            click: total - 3,
            total: *total,
        };
        let days = counted_days(UnixMillis::parse("2026-11-21 04:05:06").unwrap());
        let as_of = as_of.map(|text| UnixMillis::parse(text).unwrap());
        Counters::new(countries.iter().map(country).collect(), days, as_of)
    }

    #[track_caller]
    fn check_stale(as_of: Option<&str>, now: &str, differs: bool, stale: bool) {
        let counters = counters(&[("US", 5)], as_of);
        let json = counters.json(UnixMillis::parse(now).unwrap(), 6000, differs);
        let found: serde_json::Value = serde_json::from_slice(&json.body).unwrap();
        assert_eq!(found["meta"]["stale"], stale);
    }

    #[test]
    fn countries_are_sorted_by_total_and_then_by_code() {
        let counters = counters(&[("US", 5), ("DE", 5), ("RU", 9)], None);
        let csv = "country,view,play,click\r\nRU,1,2,6\r\nDE,1,2,2\r\nUS,1,2,2\r\n";
        assert_eq!(counters.csv.body, csv);
    }

    #[test]
    fn json_has_its_as_of_and_its_window() {
        let counters = counters(&[("US", 5)], Some("2026-11-21 04:05:06"));
        let json = &counters.json(UnixMillis::parse("2026-11-21 04:05:06").unwrap(), 5000, false).body;
        assert_eq!(
            str::from_utf8(json).unwrap(),
            r#"{"data":[{"country":"US","view":1,"play":2,"click":2}],"meta":{"as_of":"2026-11-21T04:05:06.000Z","stale":false,"exact":true,"window":{"from":"2026-11-15T00:00:00.000Z","to":"2026-11-22T00:00:00.000Z","tz":"UTC"},"rows":1}}"#
        );
    }

    #[test]
    fn without_events_the_answer_has_no_countries() {
        let counters = counters(&[], None);
        assert_eq!(counters.csv.body, "country,view,play,click\r\n");
        let json = &counters.json(UnixMillis(0), 5000, false).body;
        assert!(json.starts_with(br#"{"data":[],"meta":{"as_of":null,"#));
    }

    #[test]
    fn an_answer_is_stale_when_two_refreshes_should_have_replaced_it() {
        check_stale(Some("2026-11-21 04:05:00"), "2026-11-21 04:05:18", false, false);
        check_stale(Some("2026-11-21 04:05:00"), "2026-11-21 04:05:18.001", false, true);
        check_stale(None, "2026-11-21 04:05:00", false, true);
    }

    #[test]
    fn an_answer_is_stale_at_once_if_the_aggregator_declares_other_rollups() {
        check_stale(Some("2026-11-21 04:05:00"), "2026-11-21 04:05:00", true, true);
    }
}
