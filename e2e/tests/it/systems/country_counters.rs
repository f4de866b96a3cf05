//! Counters by country: views, plays and clicks of the last seven days, for the five countries with the most events of
//! all time.

use std::collections::BTreeMap;

use devstack::wait_for;
use schemas::time::{DAY, UnixMillis};
use serde_json::{Value, json};

use crate::client::Http;
use crate::oracle::now;
use crate::world::{DEADLINE, World};

const EVENTS: [&str; 3] = ["view", "play", "click"];

/// For each country: how often it had each of [`EVENTS`] in the last seven days, and how often it had any of them over
/// all time.
#[derive(Default)]
struct Sums(BTreeMap<String, ([u64; 3], u64)>);

impl Sums {
    fn add(&mut self, country: &str, event: usize, is_recent: bool, times: u64) {
        let (recent, total) = self.0.entry(country.to_owned()).or_default();
        recent[event] += if is_recent { times } else { 0 };
        *total += times;
    }

    /// The countries that the answer must have, in the order of the answer, each with its recent counts.
    fn top(&self) -> Vec<(String, [u64; 3])> {
        let mut all: Vec<_> = self.0.iter().collect();
        all.sort_by_key(|(country, (_, total))| (u64::MAX - total, *country));
        all.into_iter().take(5).map(|(country, (recent, _))| (country.clone(), *recent)).collect()
    }

    fn json(&self) -> Value {
        let row = |(country, [view, play, click]): (String, [u64; 3])| json!({"country": country, "view": view, "play": play, "click": click});
        self.top().into_iter().map(row).collect()
    }

    fn csv(&self) -> String {
        let row = |(country, [view, play, click]): (String, [u64; 3])| {
            format!("{country},{view},{play},{click}\r\n")
        };
        std::iter::once("country,view,play,click\r\n".to_owned())
            .chain(self.top().into_iter().map(row))
            .collect()
    }
}

async fn assert_answered(api: &Http, sums: &Sums) {
    let mut last = String::new();
    let waited = wait_for("the counters of the top countries", DEADLINE, async || {
        last = api.get("/v1/counters?format=csv").await.text;
        last == sums.csv()
    });
    if let Err(overdue) = waited.await {
        panic!("{overdue}; expected {:?}, the answer is {last:?}", sums.csv());
    }
    let answer = api.get("/v1/counters").await;
    assert_eq!((answer.header("content-type"), &answer.json()["data"]), ("application/json", &sums.json()));
}

async fn post(edge: &Http, path: &str, body: String) {
    let answer = edge.send("POST", path, &[("content-type", "application/json")], body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

#[tokio::test]
async fn the_top_countries_of_all_time_are_answered_with_their_last_seven_days() {
    let world = World::new("country_counters").await;
    // The edge accepts the events before an aggregator runs, because the edge needs only Kafka.
    let edge = world.edge().await;
    let mut sums = Sums::default();
    let today = now().floor(DAY);
    // RU has the most events of all time but no recent events. DE and US have equally many events, so they are sorted
    // by name. FR and IT are not in the top five.
    let posted = [
        ("RU", 40, 30),
        ("GB", 0, 9),
        ("US", 6, 5),
        ("DE", 0, 5),
        ("JP", 7, 4),
        ("JP", 1, 3),
        ("FR", 0, 2),
        ("IT", 0, 1),
    ];
    for (country, days_ago, times) in posted {
        for (at, event) in EVENTS.into_iter().enumerate() {
            let time = UnixMillis(today.0 - days_ago * DAY);
            let line = json!({"event": event, "country": country.to_lowercase(), "client_time": time.0});
            let body = vec![line.to_string(); times as usize].join("\n");
            post(&edge.http, "/v1/counters", body).await;
            sums.add(country, at, days_ago < 7, times);
        }
    }
    post(&edge.http, "/web/post.php", json!({"country": "GB", "event": "play"}).to_string()).await;
    sums.add("GB", 1, true, 1);
    assert_eq!(world.number("SELECT count() FROM events").await, 0);
    assert_eq!(
        sums.top().iter().map(|(country, _)| country.as_str()).collect::<Vec<_>>(),
        ["RU", "GB", "JP", "DE", "US"]
    );

    let (_aggregator, api) = tokio::join!(world.aggregator(), world.query_api());
    assert_answered(&api.http, &sums).await;
    assert_eq!(api.http.get("/web/get.php?format=csv").await.text, sums.csv());

    // The answers come from rollups, so they stay the same when raw rows are dropped.
    let before = api.http.get("/v1/counters").await.json()["data"].clone();
    let parts = world.rows("SELECT DISTINCT _partition_id FROM events").await;
    for id in parts.iter().flatten() {
        world.rows(&format!("ALTER TABLE events DROP PARTITION ID '{id}'")).await;
    }
    assert_eq!(world.number("SELECT count() FROM events").await, 0);
    world.rows("SYSTEM REFRESH VIEW country_totals").await;
    world.rows("SYSTEM WAIT VIEW country_totals").await;
    post(&edge.http, "/v1/counters", json!({"country": "IT", "event": "view"}).to_string()).await;
    sums.add("IT", 0, true, 1);
    let waited = wait_for("the event that was posted last", DEADLINE, async || {
        world.number("SELECT sum(events) FROM rollup.event_daily WHERE country = 'IT'").await == 4
    });
    waited.await.unwrap();
    assert_answered(&api.http, &sums).await;
    assert_eq!(api.http.get("/v1/counters").await.json()["data"], before);
}

#[tokio::test]
async fn an_invalid_counter_is_refused_with_the_reason() {
    let world = World::new("country_refused").await;
    let edge = world.edge().await;
    for (body, code) in [
        (json!({"country": "RU", "event": "like"}), "unknown_event"),
        (json!({"event": "play"}), "bad_country"),
        (json!({"country": "R1", "event": "play"}), "bad_country"),
    ] {
        let answer = edge
            .http
            .send("POST", "/v1/counters", &[("content-type", "application/json")], body.to_string())
            .await;
        assert_eq!(answer.status, 400, "{}", answer.text);
        assert!(answer.text.contains(code), "{}", answer.text);
    }
}

#[tokio::test]
async fn an_unchanged_answer_is_not_sent_again() {
    let world = World::new("country_etag").await;
    let api = world.query_api().await;
    for (path, kind) in [("/v1/counters", "application/json"), ("/v1/counters?format=csv", "text/csv")] {
        let answer = api.http.get(path).await;
        assert!(answer.header("content-type").starts_with(kind), "{}", answer.header("content-type"));
        let (etag, body) = (answer.header("etag").to_owned(), answer.text.clone());
        let again = api.http.send("GET", path, &[("if-none-match", &etag)], "").await;
        assert_eq!((again.status, again.text.as_str()), (304, ""));
        let head = api.http.send("HEAD", path, &[], "").await;
        assert_eq!((head.status, head.text.as_str(), head.header("etag")), (200, "", etag.as_str()));
        assert_eq!(head.header("content-length"), body.len().to_string());
    }
    for path in ["/v1/counters?format=xml", "/v1/counters?fromat=csv"] {
        let answer = api.http.get(path).await;
        assert_eq!((answer.status, answer.header("content-type")), (400, "application/problem+json"));
    }
}
