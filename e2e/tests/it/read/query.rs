//! `/v1/query` answers what plain counting of the accepted events gives.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use schemas::time::{DAY, HOUR, UnixMillis};
use serde_json::{Value, json};

use crate::client::Http;
use crate::oracle::{Oracle, TestEvent};
use crate::world::World;

/// An event of a user, at a time.
fn made(time: &str, event: &str, user: &str, country: &str) -> TestEvent {
    TestEvent {
        time: UnixMillis::parse(time).unwrap(),
        event: event.to_owned(),
        user: user.to_owned(),
        country: country.to_owned(),
        device_os: "=1+1".to_owned(),
        value: 7,
    }
}

/// Posts these events, and waits until all tables have them.
async fn count(world: &World, http: &Http, events: &[TestEvent]) {
    let mut oracle = Oracle::default();
    for some in events.chunks(500) {
        let text: Vec<_> = some.iter().map(TestEvent::line).collect();
        let lines: Vec<_> = some.iter().cloned().map(Some).collect();
        oracle.record_report(&http.post_lines(&text).await, &lines);
    }
    world.assert_counted(&oracle.counts()).await;
}

/// The rows that a query has.
async fn rows(http: &Http, parameters: &str) -> Value {
    let answer = http.get(&format!("/v1/query?{parameters}")).await;
    assert_eq!(answer.status, 200, "{parameters}: {}", answer.text);
    answer.json()["data"].clone()
}

#[tokio::test]
async fn a_query_counts_by_the_days_of_its_zone_and_by_any_text() {
    let world = World::new("query").await;
    let (edge, _aggregator, api) = world.pipeline().await;
    let events = [
        made("2025-11-15 17:00:00", "view", "ann", "DE"),
        made("2025-11-17 17:00:00", "a", "ann", "FR"),
        made("2025-11-17 17:00:00", "a|b", "ann", "IT"),
        made("2025-11-17 17:00:00", "b", "bob", ""),
    ];
    count(&world, &edge.http, &events).await;
    let http = &api.http;

    let singapore = "grain=day&from=2025-11-15&to=2025-11-19&tz=Asia/Singapore";
    assert_eq!(
        rows(http, singapore).await,
        json!([
            {"time": "2025-11-15T00:00:00+08:00", "events": 0},
            {"time": "2025-11-16T00:00:00+08:00", "events": 1},
            {"time": "2025-11-17T00:00:00+08:00", "events": 0},
            {"time": "2025-11-18T00:00:00+08:00", "events": 3},
        ])
    );
    let days = "from=2025-11-15&to=2025-11-18&grain=day";
    let counts = rows(http, days).await;
    let counts: Vec<_> =
        counts.as_array().unwrap().iter().map(|row| row["events"].as_u64().unwrap()).collect();
    assert_eq!(counts, [1, 0, 3]);

    let window = "from=2025-11-15&to=2025-11-18";
    let filtered = format!("{window}&dimensions=event&filter=event:in:a%5C%7Cb");
    assert_eq!(rows(http, &filtered).await, json!([{"event": "a|b", "events": 1}]));
    let both = format!("{window}&dimensions=event&filter=event:in:a%7Cb&order=event:asc");
    assert_eq!(rows(http, &both).await, json!([{"event": "a", "events": 1}, {"event": "b", "events": 1}]));

    // Ann is one user of the others, though she did two of their events.
    let top =
        format!("{window}&measures=users,events&dimensions=event&top=1&filter=event:ne:b&order=event:asc");
    assert_eq!(
        rows(http, &top).await,
        json!([
            {"event": "a", "users": 1, "events": 1},
            {"event": null, "others": true, "users": 1, "events": 2},
        ])
    );

    let csv = format!("/v1/query.csv?{window}&dimensions=device_os");
    assert_eq!(http.get(&csv).await.text, "device_os,events\r\n=1+1,4\r\n");
    let excel = http.get(&format!("{csv}&csv=excel")).await;
    assert_eq!(excel.text, "\u{feff}device_os,events\r\n'=1+1,4\r\n");
    assert!(excel.header("content-type").starts_with("text/csv"));
    let ndjson = http.get(&format!("/v1/query?{window}&format=ndjson&int64=string")).await;
    assert_eq!(ndjson.text, "{\"events\":\"4\"}\n");
}

#[tokio::test]
async fn an_answer_has_its_moment_and_a_refusal_names_its_parameter() {
    let world = World::new("query_manners").await;
    let (edge, _aggregator, api) = world.pipeline().await;
    count(&world, &edge.http, &[made("2025-11-15 17:00:00", "view", "ann", "DE")]).await;
    let http = &api.http;

    let path = "/v1/query?from=2025-11-15&to=2025-11-16";
    let answer = http.get(path).await;
    let meta = &answer.json()["meta"];
    let as_of = UnixMillis::parse(meta["as_of"].as_str().unwrap()).unwrap();
    assert_eq!(UnixMillis::parse(answer.header("x-as-of")), Some(as_of));
    assert_eq!(meta["complete_until"], "2025-11-16T00:00:00+00:00");
    assert_eq!((&meta["rollups"], &meta["stale"]), (&json!(["event_daily"]), &json!(false)));
    // Equal data is not sent again, whatever the moment.
    let again = http.send("GET", path, &[("if-none-match", answer.header("etag"))], "").await;
    assert_eq!((again.status, again.text.as_str()), (304, ""));
    // The answer repeats the query as POST takes it.
    let query = answer.json()["query"].to_string();
    let posted = http.send("POST", "/v1/query", &[("content-type", "application/json")], query).await;
    assert_eq!(posted.json()["data"], answer.json()["data"]);

    let refused = async |parameters: &str, code: &str, param: &str| {
        let answer = http.get(&format!("/v1/query?{parameters}")).await;
        assert_eq!(answer.problem(), code, "{parameters}");
        assert_eq!(answer.json()["errors"][0]["param"], param, "{}", answer.text);
        answer
    };
    assert_eq!(refused("measure=events", "bad_parameter", "measure").await.status, 400);
    refused("grain=day&grain=day", "bad_parameter", "grain").await;
    let tehran = refused("measures=users&grain=hour&tz=Asia/Tehran", "not_covered", "grain").await;
    assert_eq!(tehran.status, 422);
    assert!(tehran.text.contains("needs 15m"), "{}", tehran.text);
    refused("grain=minute&from=2020-01-01", "too_wide", "grain").await;
    refused("measures=visits", "not_covered", "measures").await;
    let hostile = "filter=event:eq:%27%29%20OR%201%3D1%20--%20%5C%3F%00&from=2025-11-15&to=2025-11-16";
    assert_eq!(rows(http, hostile).await, json!([{"events": 0}]));
    let put = http.send("PUT", "/v1/query", &[], "").await;
    assert_eq!((put.status, put.problem()), (405, "method_not_allowed".to_owned()));
}

/// Zones without another offset in the year of the test.
const ZONES: [(&str, i64, &str); 3] =
    [("UTC", 0, "+00:00"), ("Asia/Singapore", 8, "+08:00"), ("America/Sao_Paulo", -3, "-03:00")];

/// A random query of what the built-in rollups cover.
#[derive(Debug)]
struct Asked {
    measures: Vec<&'static str>,
    dimensions: Vec<&'static str>,
    grain: &'static str,
    zone: usize,
    /// Local days after the first of the events.
    days: (i64, i64),
    filters: Vec<(&'static str, &'static str, Vec<&'static str>)>,
    top: Option<usize>,
    fills: bool,
}

/// The first day of the events.
const FIRST_DAY: &str = "2026-03-10 00:00:00";

/// Bucket and dimensions of a row.
type Key = (Option<String>, Vec<Option<String>>);
type Rows = BTreeMap<Key, Vec<i64>>;

impl Asked {
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
            measures.push(all[0]);
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
        let from = rng.i64(-1..3);
        Self {
            top: (!dimensions.is_empty() && rng.u8(..3) == 0).then(|| rng.usize(1..4)),
            measures,
            dimensions,
            grain: ["none", "day", "hour"][rng.usize(..3)],
            zone: rng.usize(..ZONES.len()),
            days: (from, from + rng.i64(1..4)),
            filters,
            fills: rng.bool(),
        }
    }

    /// Start of a local day.
    fn day(&self, day: i64) -> i64 {
        UnixMillis::parse(FIRST_DAY).unwrap().0 + day * DAY - ZONES[self.zone].1 * HOUR
    }

    fn body(&self) -> String {
        let date = |day: i64| {
            let (year, month, day) = UnixMillis(UnixMillis::parse(FIRST_DAY).unwrap().0 + day * DAY).civil();
            format!("{year:04}-{month:02}-{day:02}")
        };
        let filter =
            |(field, op, values): &(&str, &str, Vec<&str>)| format!("{field}:{op}:{}", values.join("|"));
        let filters: Vec<_> = self.filters.iter().map(filter).collect();
        let fill = if self.fills { "zero" } else { "none" };
        json!({
            "measures": self.measures, "dimensions": self.dimensions, "grain": self.grain, "tz": ZONES[self.zone].0,
            "from": date(self.days.0), "to": date(self.days.1), "filter": filters, "top": self.top, "fill": fill,
            "limit": 10_000,
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

    fn counts(&self, made: &TestEvent) -> bool {
        let meets = |(field, op, values): &(&'static str, &'static str, Vec<&'static str>)| {
            let value = Self::field(made, field);
            match *op {
                "eq" | "in" => values.contains(&value),
                "ne" | "nin" => !values.contains(&value),
                "prefix" => value.starts_with(values[0]),
                _ => value.contains(values[0]),
            }
        };
        (self.day(self.days.0)..self.day(self.days.1)).contains(&made.time.0)
            && self.filters.iter().all(meets)
    }

    fn figure(measure: &str, events: &[&TestEvent]) -> i64 {
        match measure {
            "events" => events.len() as i64,
            "value" => events.iter().map(|made| made.value).sum(),
            _ => events.iter().map(|made| &made.user).collect::<BTreeSet<_>>().len() as i64,
        }
    }

    /// The values of the first dimension that have rows of their own; all if none is asked for.
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

    /// The bucket of a time, as the answer writes it.
    fn bucket(&self, time: i64) -> Option<String> {
        let (_, hours, offset) = ZONES[self.zone];
        let length = match self.grain {
            "day" => DAY,
            "hour" => HOUR,
            _ => return None,
        };
        let local = UnixMillis(time + hours * HOUR).floor(length).to_string();
        Some(format!("{}T{}{offset}", &local[..10], &local[11..19]))
    }

    /// What plain counting gives.
    fn expected(&self, all: &[TestEvent]) -> Rows {
        let events: Vec<_> = all.iter().filter(|made| self.counts(made)).collect();
        let ranked = self.ranked(&events);
        let mut groups: BTreeMap<Key, Vec<&TestEvent>> = BTreeMap::new();
        for made in &events {
            let key = |(at, name): (usize, &&str)| {
                let value = Self::field(made, name).to_owned();
                let is_other = at == 0 && ranked.as_ref().is_some_and(|ranked| !ranked.contains(&value));
                (!is_other).then_some(value)
            };
            let keys = self.dimensions.iter().enumerate().map(key).collect();
            groups.entry((self.bucket(made.time.0), keys)).or_default().push(made);
        }
        if self.fills {
            let mut keys: BTreeSet<_> = groups.keys().map(|(_, keys)| keys.clone()).collect();
            if self.dimensions.is_empty() {
                keys.insert(Vec::new());
            }
            let hours = (self.day(self.days.0)..self.day(self.days.1)).step_by(HOUR as usize);
            for bucket in hours.map(|hour| self.bucket(hour)) {
                for keys in &keys {
                    groups.entry((bucket.clone(), keys.clone())).or_default();
                }
            }
        }
        let figures = |events: &Vec<&TestEvent>| {
            self.measures.iter().map(|measure| Self::figure(measure, events)).collect::<Vec<_>>()
        };
        groups.iter().map(|(key, events)| (key.clone(), figures(events))).collect()
    }

    /// What the answer says.
    fn found(&self, answer: &Value) -> Rows {
        let data = answer["data"].as_array().unwrap();
        let row = |row: &Value| {
            let text = |name: &str| row[name].as_str().map(str::to_owned);
            let keys: Vec<_> = self.dimensions.iter().map(|name| text(name)).collect();
            assert_eq!(row["others"] == true, keys.iter().any(Option::is_none), "{row}");
            let figures = self.measures.iter().map(|name| row[name].as_i64().unwrap()).collect();
            ((text("time"), keys), figures)
        };
        let rows: Rows = data.iter().map(row).collect();
        assert_eq!(rows.len(), data.len(), "a key stands in two rows: {answer}");
        assert_eq!(answer["meta"]["truncated"], false);
        rows
    }
}

#[tokio::test]
async fn random_queries_are_answered_as_plain_counting_answers_them() {
    let world = World::new("query_random").await;
    let (edge, _aggregator, api) = world.pipeline().await;
    let mut rng = Rng::with_seed(3);
    let first = UnixMillis::parse(FIRST_DAY).unwrap().0;
    let events: Vec<_> = (0..2_000).map(|_| UnixMillis(first + rng.i64(0..3 * DAY))).collect::<Vec<_>>();
    let events: Vec<_> = events.into_iter().map(|time| TestEvent::random(&mut rng, time)).collect();
    count(&world, &edge.http, &events).await;
    for _ in 0..100 {
        let asked = Asked::random(&mut rng);
        let headers = [("content-type", "application/json")];
        let answer = api.http.send("POST", "/v1/query", &headers, asked.body()).await;
        assert_eq!(answer.status, 200, "{asked:?}: {}", answer.text);
        assert_eq!(asked.found(&answer.json()), asked.expected(&events), "{asked:?}\n{}", answer.text);
    }
}
