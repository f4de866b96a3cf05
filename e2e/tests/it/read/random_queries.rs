//! Sends random queries to `/v1/query`, in every format, and compares each answer with the rows that this test computes
//! from the list of accepted events.
//!
//! The test takes the starts of hours, days, weeks and months from Python's `zoneinfo`, which is independent of the
//! calendar library of the query API.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use fastrand::Rng;
use schemas::time::{DAY, HOUR, UnixMillis};
use serde_json::{Value, json};

use super::query::count_more;
use crate::client::Http;
use crate::oracle::{Oracle, TestEvent};
use crate::world::World;

/// UTC, and three zones that put their clocks back on one of [`EVENT_DAYS`]. In Havana, the clocks go back from 01:00
/// to midnight, so that day has two midnights.
const ZONES: [&str; 4] = ["Europe/Berlin", "America/New_York", "America/Havana", "UTC"];
/// The hours for which [`CALENDAR`] prints buckets: the first hour, and the hour after the last one.
const KNOWN_HOURS: (&str, &str) = ("2025-07-20 00:00:00", "2025-12-20 00:00:00");
/// The days that have events: the first day, and the number of days.
const EVENT_DAYS: (&str, i64) = ("2025-10-24 00:00:00", 12);
/// Grains, in the order in which the Python script prints their buckets.
const GRAINS: [&str; 4] = ["hour", "day", "week", "month"];

/// A Python script that prints, for each zone, each known hour and each grain, the start of the bucket that contains
/// the hour.
const CALENDAR: &str = r#"
import json, sys
from datetime import datetime, time, timedelta, timezone
from zoneinfo import ZoneInfo
first, last, zones = sys.argv[1], sys.argv[2], sys.argv[3:]
known = {}
for name in zones:
    zone, hours = ZoneInfo(name), []
    at = datetime.fromisoformat(first).replace(tzinfo=timezone.utc)
    while at < datetime.fromisoformat(last).replace(tzinfo=timezone.utc):
        local = at.astimezone(zone)
        day = local.date()
        starts = [day, day - timedelta(days=day.weekday()), day.replace(day=1)]
        hours.append([local.isoformat()] + [datetime.combine(start, time(), zone).isoformat() for start in starts])
        at += timedelta(hours=1)
    known[name] = hours
print(json.dumps(known))
"#;

/// What [`CALENDAR`] prints. For each zone, there is a list with an item for each hour of [`KNOWN_HOURS`]. An item has
/// the start of the hour's bucket for each of [`GRAINS`].
struct Calendars(Value);

impl Calendars {
    fn new() -> Self {
        let python =
            Command::new("python3").args(["-c", CALENDAR, KNOWN_HOURS.0, KNOWN_HOURS.1]).args(ZONES).output();
        let python = python.unwrap();
        assert!(python.status.success(), "{}", String::from_utf8_lossy(&python.stderr));
        Self(serde_json::from_slice(&python.stdout).unwrap())
    }

    /// The start of the bucket that contains an hour, as answers write it, or `None` if the grain is `none`.
    fn bucket(&self, zone: usize, grain: &str, hour: usize) -> Option<String> {
        let at = GRAINS.iter().position(|name| *name == grain)?;
        Some(self.0[ZONES[zone]][hour][at].as_str().unwrap().to_owned())
    }

    /// The index of the first hour of a local day.
    fn day(&self, zone: usize, date: &str) -> usize {
        let hours = self.0[ZONES[zone]].as_array().unwrap();
        hours.iter().position(|hour| hour[1].as_str().unwrap().starts_with(date)).unwrap()
    }
}

/// The index of the hour that contains a time; the first known hour has index 0.
fn hour(time: i64) -> usize {
    ((time - UnixMillis::parse(KNOWN_HOURS.0).unwrap().0) / HOUR) as usize
}

/// The date `day` days after the first day of the events.
fn date(day: i64) -> String {
    UnixMillis(UnixMillis::parse(EVENT_DAYS.0).unwrap().0 + day * DAY).to_string()[..10].to_owned()
}

/// A random query that the built-in rollups cover.
#[derive(Debug)]
struct RandomQuery {
    measures: Vec<&'static str>,
    dimensions: Vec<&'static str>,
    grain: &'static str,
    zone: usize,
    /// The window: its first day and the day after its last one, both as a number of days after the first day with
    /// events. The days are local days of `zone`.
    days: (i64, i64),
    filters: Vec<(&'static str, &'static str, Vec<&'static str>)>,
    top: Option<usize>,
    fills: bool,
    compare: Option<&'static str>,
    accuracy: &'static str,
    form: &'static str,
}

/// What identifies a row: the start of its bucket (`None` if the grain is `none`), and its value of each dimension. In
/// a row `others`, the value of the first dimension is `None`.
type Key = (Option<String>, Vec<Option<String>>);

/// The measures of a row: their values, their values in the compared window, and the changes.
#[derive(Debug, Clone, PartialEq)]
struct Figures {
    now: Vec<i64>,
    then: Vec<Option<i64>>,
    change: Vec<Option<f64>>,
}

type Rows = BTreeMap<Key, Figures>;

impl RandomQuery {
    fn random(rng: &mut Rng) -> Self {
        let with_users = rng.bool();
        let fields: &[_] = if with_users { &["event"] } else { &["event", "country", "device_os"] };
        let all: &[_] = if with_users { &["events", "users"] } else { &["events", "value"] };
        let some = |rng: &mut Rng, of: &[&'static str]| {
            let mut some: Vec<_> = of.iter().copied().filter(|_| rng.bool()).collect();
            rng.shuffle(&mut some);
            some
        };
        let mut measures = some(rng, all);
        if measures.is_empty() {
            measures.push(all[rng.usize(..2)]);
        }
        let dimensions = some(rng, fields);
        let values = |field: &str| -> &[&str] {
            match field {
                "event" => &["app_start", "click", "impression", "play", "purchase", "other"],
                "country" => &["DE", "US", "BR", "IN", ""],
                _ => &["iOS 13.5.1", "Android 14", "Windows 11"],
            }
        };
        let mut filters = Vec::new();
        for _ in 0..rng.usize(..3) {
            let field = fields[rng.usize(..fields.len())];
            let op = ["eq", "ne", "in", "nin", "prefix", "contains"][rng.usize(..6)];
            let of = values(field);
            let values = match op {
                "in" | "nin" => (0..rng.usize(1..4)).map(|_| of[rng.usize(..of.len())]).collect(),
                "prefix" => vec![["", "p", "i", "D"][rng.usize(..4)]],
                "contains" => vec![["1", "i", "S", "s"][rng.usize(..4)]],
                _ => vec![of[rng.usize(..of.len())]],
            };
            filters.push((field, op, values));
        }
        let grain = ["none", "none", "hour", "day", "week", "month"][rng.usize(..6)];
        let (from, longest) = (rng.i64(-2..EVENT_DAYS.1), if grain == "hour" { 4 } else { 12 });
        let compare = [None, Some("previous"), Some("week"), Some("2025-10-24..2025-10-31")][rng.usize(..4)];
        Self {
            top: (!dimensions.is_empty() && rng.u8(..3) == 0).then(|| rng.usize(1..4)),
            measures,
            dimensions,
            grain,
            zone: rng.usize(..ZONES.len()),
            days: (from, from + rng.i64(1..=longest)),
            filters,
            fills: rng.bool(),
            // The query API refuses `compare=week` for `grain=month`, because a window of whole months that is moved by
            // a week does not consist of whole months.
            compare: compare.filter(|compare| *compare != "week" || grain != "month"),
            accuracy: ["auto", "exact"][rng.usize(..2)],
            form: ["json", "ndjson", "csv"][rng.usize(..3)],
        }
    }

    fn body(&self) -> String {
        let filter =
            |(field, op, values): &(&str, &str, Vec<&str>)| format!("{field}:{op}:{}", values.join("|"));
        let filters: Vec<_> = self.filters.iter().map(filter).collect();
        let fill = if self.fills { "zero" } else { "none" };
        json!({
            "measures": self.measures, "dimensions": self.dimensions, "grain": self.grain, "tz": ZONES[self.zone],
            "from": date(self.days.0), "to": date(self.days.1), "filter": filters, "top": self.top, "fill": fill,
            "compare": self.compare, "accuracy": self.accuracy, "format": self.form, "limit": 10_000,
        })
        .to_string()
    }

    fn field<'a>(made: &'a TestEvent, name: &str) -> &'a str {
        match name {
            "event" => &made.event,
            "country" => &made.country,
            _ => &made.device_os,
        }
    }

    fn is_counted(&self, made: &TestEvent) -> bool {
        self.filters.iter().all(|(field, op, values)| {
            let value = Self::field(made, field);
            match *op {
                "eq" | "in" => values.contains(&value),
                "ne" | "nin" => !values.contains(&value),
                "prefix" => value.starts_with(values[0]),
                _ => value.contains(values[0]),
            }
        })
    }

    fn figure(measure: &str, events: &[&TestEvent]) -> i64 {
        match measure {
            "events" => events.len() as i64,
            "value" => events.iter().map(|made| made.value).sum(),
            _ => {
                let users: BTreeSet<_> = events.iter().map(|made| &made.user).collect();
                users.iter().filter(|user| !user.is_empty()).count() as i64
            }
        }
    }

    /// The hours from the day `from` to the day `to` (exclusive), extended to whole buckets.
    fn hours(&self, calendars: &Calendars, from: &str, to: &str) -> (usize, usize) {
        let (mut from, mut to) = (calendars.day(self.zone, from), calendars.day(self.zone, to));
        if self.grain != "none" {
            let bucket = |hour| calendars.bucket(self.zone, self.grain, hour);
            while bucket(from - 1) == bucket(from) {
                from -= 1;
            }
            while bucket(to - 1) == bucket(to) {
                to += 1;
            }
        }
        (from, to)
    }

    /// The hours of the window with which the queried window, `(from, to)`, is compared.
    fn other_hours(
        &self,
        calendars: &Calendars,
        compare: &str,
        (from, to): (usize, usize),
    ) -> (usize, usize) {
        if let Some((from, to)) = compare.split_once("..") {
            return self.hours(calendars, from, to);
        }
        let back = |grain: &str, hour: usize, count: usize| {
            let bucket = |hour| calendars.bucket(self.zone, grain, hour);
            let (mut hour, mut passed) = (hour, 0);
            while passed < count {
                hour -= 1;
                passed += usize::from(bucket(hour - 1) != bucket(hour));
            }
            hour
        };
        if compare == "week" {
            return (back("day", from, 7), back("day", to, 7));
        }
        let unit = if self.grain == "none" { "day" } else { self.grain };
        let mut buckets: Vec<_> = (from..to).map(|hour| calendars.bucket(self.zone, unit, hour)).collect();
        buckets.dedup();
        (back(unit, from, buckets.len()), from)
    }

    /// The starts of the buckets that contain these hours.
    fn buckets(&self, calendars: &Calendars, (from, to): (usize, usize)) -> Vec<Option<String>> {
        let mut buckets: Vec<_> =
            (from..to).map(|hour| calendars.bucket(self.zone, self.grain, hour)).collect();
        buckets.dedup();
        buckets
    }

    /// The values of the first dimension that have rows of their own; all other values are combined into rows
    /// `others`. `None` if the query has no `top`: then every value has rows of its own.
    fn ranked(&self, events: &[&TestEvent]) -> Option<BTreeSet<String>> {
        let count = self.top?;
        let mut by_value: BTreeMap<&str, Vec<&TestEvent>> = BTreeMap::new();
        for made in events {
            by_value.entry(Self::field(made, self.dimensions[0])).or_default().push(made);
        }
        by_value.remove("");
        let mut ranked: Vec<_> = by_value
            .iter()
            .map(|(value, events)| (-Self::figure(self.measures[0], events), *value))
            .collect();
        ranked.sort_unstable();
        Some(ranked.iter().take(count).map(|(_, value)| (*value).to_owned()).collect())
    }

    /// The rows that the answer must have, if `all` are the accepted events.
    fn expected(&self, calendars: &Calendars, all: &[TestEvent]) -> Rows {
        let window = self.hours(calendars, &date(self.days.0), &date(self.days.1));
        let within = |(from, to): (usize, usize)| {
            let is_within = move |made: &&TestEvent| (from..to).contains(&hour(made.time.0));
            all.iter().filter(is_within).filter(|made| self.is_counted(made)).collect::<Vec<_>>()
        };
        let ranked = self.ranked(&within(window));
        // Groups events by the index of their bucket and by their dimensions.
        let grouped = |hours: (usize, usize)| {
            let buckets = self.buckets(calendars, hours);
            let mut groups: BTreeMap<(usize, Vec<Option<String>>), Vec<&TestEvent>> = BTreeMap::new();
            for made in within(hours) {
                let key = |(at, name): (usize, &&str)| {
                    let value = Self::field(made, name).to_owned();
                    let is_other = at == 0 && ranked.as_ref().is_some_and(|ranked| !ranked.contains(&value));
                    (!is_other).then_some(value)
                };
                let bucket = calendars.bucket(self.zone, self.grain, hour(made.time.0));
                let at = buckets.iter().position(|other| *other == bucket).unwrap();
                let keys = self.dimensions.iter().enumerate().map(key).collect();
                groups.entry((at, keys)).or_default().push(made);
            }
            (buckets, groups)
        };
        let (buckets, mut groups) = grouped(window);
        let others = self.compare.map(|compare| grouped(self.other_hours(calendars, compare, window)));
        if self.fills {
            let other_keys = others.iter().flat_map(|(_, groups)| groups.keys());
            // The compared window may have more buckets than the queried window. The additional buckets add no rows.
            let other_keys = other_keys.filter(|(at, _)| *at < buckets.len());
            let mut keys: BTreeSet<_> =
                groups.keys().chain(other_keys).map(|(_, keys)| keys.clone()).collect();
            if self.dimensions.is_empty() {
                keys.insert(Vec::new());
            }
            for at in 0..buckets.len() {
                for keys in &keys {
                    groups.entry((at, keys.clone())).or_default();
                }
            }
        }
        let row = |((at, keys), events): (&(usize, Vec<Option<String>>), &Vec<&TestEvent>)| {
            let none = Vec::new();
            let then = others.as_ref().map(|(buckets, groups)| {
                (*at < buckets.len()).then(|| groups.get(&(*at, keys.clone())).unwrap_or(&none))
            });
            let of = |events: &[&TestEvent]| {
                self.measures.iter().map(|measure| Self::figure(measure, events)).collect::<Vec<_>>()
            };
            let now = of(events);
            let then: Vec<_> = match then {
                None => Vec::new(),
                Some(None) => vec![None; now.len()],
                Some(Some(events)) => of(events).into_iter().map(Some).collect(),
            };
            let change = then.iter().zip(&now).map(|(then, now)| {
                let then = (*then).filter(|then| *then != 0)? as f64;
                Some((((*now as f64) - then) / then.abs() * 1e4).round() / 1e4)
            });
            ((buckets[*at].clone(), keys.clone()), Figures { change: change.collect(), now, then })
        };
        groups.iter().map(row).collect()
    }

    /// Parses an answer, which is in the format of the query. Returns its rows as JSON objects.
    fn objects(&self, text: &str) -> Vec<Value> {
        match self.form {
            "json" => {
                let answer: Value = serde_json::from_str(text).unwrap();
                let meta = &answer["meta"];
                let data = answer["data"].as_array().unwrap().clone();
                assert_eq!(
                    (&meta["truncated"], &meta["exact"], meta["rows"].as_u64(), meta["total_rows"].as_u64()),
                    (&json!(false), &json!(true), Some(data.len() as u64), Some(data.len() as u64)),
                    "{meta}"
                );
                data
            }
            "ndjson" => text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
            _ => {
                let mut lines = text.split_terminator("\r\n").map(|line| line.split(',').collect::<Vec<_>>());
                let header = lines.next().unwrap();
                lines.map(|fields| self.object(&header, &fields)).collect()
            }
        }
    }

    /// Converts a line of CSV to the object that a JSON answer has for the same row.
    fn object(&self, header: &[&str], fields: &[&str]) -> Value {
        let mut object = json!({});
        assert_eq!(header.len(), fields.len(), "{fields:?}");
        let number = |text: &str| serde_json::from_str(if text.is_empty() { "null" } else { text }).unwrap();
        for (name, text) in header.iter().zip(fields) {
            if let Some((group, measure)) = name.split_once('_').filter(|_| *name != "device_os") {
                object[group][measure] = number(text);
            } else if self.measures.contains(name) {
                object[*name] = number(text);
            } else if *name == "others" {
                object["others"] = (*text == "true").into();
            } else {
                object[*name] = (*text).into();
            }
        }
        if object["others"] == true {
            object[self.dimensions[0]] = Value::Null;
        }
        object
    }

    /// Parses the text of an answer.
    fn found(&self, text: &str) -> Rows {
        let row = |row: &Value| {
            let text = |name: &str| row[name].as_str().map(str::to_owned);
            let keys: Vec<_> = self.dimensions.iter().map(|name| text(name)).collect();
            assert_eq!(row["others"] == true, keys.iter().any(Option::is_none), "{row}");
            let measures = self.measures.iter().filter(|_| self.compare.is_some());
            let figures = Figures {
                now: self.measures.iter().map(|name| row[name].as_i64().unwrap()).collect(),
                then: measures.clone().map(|name| row["compare"][name].as_i64()).collect(),
                change: measures.map(|name| row["change"][name].as_f64()).collect(),
            };
            ((text("time"), keys), figures)
        };
        let objects = self.objects(text);
        let rows: Rows = objects.iter().map(row).collect();
        assert_eq!(rows.len(), objects.len(), "two rows have the same bucket and dimensions: {text}");
        rows
    }

    async fn check(&self, http: &Http, calendars: &Calendars, events: &[TestEvent]) {
        let headers = [("content-type", "application/json")];
        let answer = http.send("POST", "/v1/query", &headers, self.body()).await;
        assert_eq!(answer.status, 200, "{self:?}: {}", answer.text);
        let (found, expected) = (self.found(&answer.text), self.expected(calendars, events));
        for key in found.keys().chain(expected.keys()) {
            assert_eq!(found.get(key), expected.get(key), "{key:?} of {self:?}");
        }
    }
}

/// Events of few users, some without a user or a country. Every fifth hour has no events.
fn random_events(rng: &mut Rng, number: usize) -> Vec<TestEvent> {
    let first = UnixMillis::parse(EVENT_DAYS.0).unwrap().0;
    let mut events = Vec::new();
    while events.len() < number {
        let time = first + rng.i64(0..EVENT_DAYS.1 * DAY);
        if hour(time) % 5 == 2 {
            continue;
        }
        let mut made = TestEvent::random(rng, UnixMillis(time));
        made.user = if rng.u8(..8) == 0 { String::new() } else { format!("device-{}", rng.u32(..80)) };
        events.push(made);
    }
    events
}

async fn check(name: &'static str, seed: u64, queries: usize) {
    let world = World::new(name).await;
    let (edge, _aggregator, api) = world.pipeline().await;
    let (mut rng, calendars) = (Rng::with_seed(seed), Calendars::new());
    let (mut events, mut oracle) = (Vec::new(), Oracle::default());
    // The events of the second half are late: they are in hours that earlier queries have already read.
    for _ in 0..2 {
        let more = random_events(&mut rng, 1_000);
        count_more(&world, &edge.http, &mut oracle, &more).await;
        events.extend(more);
        for _ in 0..queries / 2 {
            RandomQuery::random(&mut rng).check(&api.http, &calendars, &events).await;
        }
    }
}

#[tokio::test]
async fn random_queries_are_answered_as_plain_counting_answers_them() {
    check("query_random", 3, 120).await;
}

#[tokio::test]
#[ignore = "takes minutes: ./dev test --full"]
async fn many_random_queries_are_answered_as_plain_counting_answers_them() {
    check("query_random_many", 4, 800).await;
}
