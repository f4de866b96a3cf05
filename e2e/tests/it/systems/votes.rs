//! Votes: the answer to a vote has the results of its poll. ClickHouse gets at most one query per refresh interval, no
//! matter how many votes arrive.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use devstack::{Service, wait_for};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{self, Instant};

use crate::client::{Http, HttpResponse};
use crate::oracle::now;
use crate::world::{DEADLINE, Edge, QueryApi, World};

const JSON: (&str, &str) = ("content-type", "application/json");
/// The `POLL_RESULTS_INTERVAL` of the edge. It is equal to the `REFRESH_INTERVAL` that [`World`] sets.
const INTERVAL: Duration = Duration::from_millis(300);

/// Votes and voters of each option of each poll.
#[derive(Default)]
struct Results(BTreeMap<String, BTreeMap<String, (u64, BTreeSet<String>)>>);

impl Results {
    fn add(&mut self, poll: &str, option: &str, voter: Option<&str>) {
        let option = self.0.entry(poll.to_owned()).or_default().entry(option.to_owned()).or_default();
        option.0 += 1;
        option.1.extend(voter.map(str::to_owned));
    }

    /// The results that an answer must have for a poll: options with more votes first, and ties by name.
    fn of(&self, poll: &str) -> Value {
        let mut options: Vec<_> = self.0[poll].iter().collect();
        options.sort_by_key(|(option, (votes, _))| (u64::MAX - votes, *option));
        let options = options.into_iter().map(|(option, (votes, voters))| {
            let voters = voters.len();
            json!({"option": option, "votes": votes, "voters": voters})
        });
        options.collect()
    }
}

/// Starts all three services; the edge gets the results from the query API.
async fn pipeline(world: &World) -> (Edge, Service, QueryApi) {
    let (aggregator, query) = tokio::join!(world.aggregator(), async {
        let mut query = world.start("query-api", &[]);
        query.wait_ready().await.unwrap();
        query
    });
    let interval = format!("{}ms", INTERVAL.as_millis());
    let variables = [("POLL_RESULTS_URL", query.http()), ("POLL_RESULTS_INTERVAL", interval)];
    let variables = variables.each_ref().map(|(name, value)| (*name, value.as_str()));
    let mut edge = world.start("ingest", &variables);
    edge.wait_ready().await.unwrap();
    (Edge::new(edge), aggregator, QueryApi::new(query))
}

async fn vote(edge: &Edge, body: &Value) -> HttpResponse {
    edge.http.send("POST", "/v1/votes", &[JSON], body.to_string()).await
}

/// Waits until the answer of the query API for the poll at `path` has exactly the results `expected`.
async fn assert_poll(api: &QueryApi, path: &str, expected: &Value) {
    let mut last = Value::Null;
    let waited = wait_for(format!("the results of {path}"), DEADLINE, async || {
        last = api.http.get(path).await.json()["data"].take();
        last == *expected
    });
    if let Err(overdue) = waited.await {
        panic!("{overdue}; expected {expected}, the answer is {last}");
    }
}

#[tokio::test]
async fn votes_are_counted_exactly_and_shown_in_the_answer_to_the_next_vote() {
    let world = World::new("votes").await;
    let (edge, _aggregator, api) = pipeline(&world).await;
    let mut rng = fastrand::Rng::with_seed(1);
    let mut results = Results::default();
    let mut last = Value::Null;
    for _ in 0..300 {
        let poll = ["best shoe", "a/b,\"c\"", "hat"][rng.usize(..3)];
        let option = ["a", "b", "c"][rng.usize(..3)];
        let voter = (rng.u8(..4) > 0).then(|| format!("u{}", rng.u8(..20)));
        let answer = vote(&edge, &json!({"poll": poll, "option": option, "voter": voter})).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        results.add(poll, option, voter.as_deref());
        last = answer.json();
    }
    assert_eq!((&last["received"], &last["accepted"]), (&json!(1), &json!(1)));
    for (poll, path) in [("best shoe", "best%20shoe"), ("a/b,\"c\"", "a%2Fb,%22c%22"), ("hat", "hat")] {
        assert_poll(&api, &format!("/v1/polls/{path}"), &results.of(poll)).await;
    }

    // The results in the answer to the next vote have all votes before it, but not that vote itself.
    let voted = now().0 as u64;
    let waited = wait_for("results with an `as_of` after the last vote", DEADLINE, async || {
        edge.metric("ingest_poll_results_as_of_milliseconds").await > voted
    });
    waited.await.unwrap();
    let counted = results.of("best shoe");
    let answer = vote(&edge, &json!({"poll": "best shoe", "option": "a", "voter": "last"})).await.json();
    assert_eq!(answer["poll"]["poll"], "best shoe");
    assert_eq!(answer["poll"]["results"], counted);
    assert!(answer["poll"]["age_ms"].as_i64().is_some_and(|age| (0..60_000).contains(&age)), "{answer}");
    assert!(answer["poll"]["as_of"].as_str().is_some_and(|as_of| as_of.ends_with('Z')), "{answer}");
    results.add("best shoe", "a", Some("last"));
    assert_poll(&api, "/v1/polls/best%20shoe", &results.of("best shoe")).await;
    edge.assert_balanced().await;

    let all = api.http.get("/v1/polls?format=csv").await;
    assert!(all.header("content-type").starts_with("text/csv"), "{}", all.header("content-type"));
    assert!(all.text.starts_with("poll,option,votes,voters\r\n"), "{}", all.text);
    assert!(all.text.contains("\"a/b,\"\"c\"\"\",a,"), "{}", all.text);
}

#[tokio::test]
async fn an_invalid_vote_is_refused_with_the_reason_and_several_polls_get_no_result() {
    let world = World::new("votes_refused").await;
    let (edge, _aggregator, api) = pipeline(&world).await;
    for (body, code, field) in [
        (json!({"option": "a"}), "missing_field", "poll"),
        (json!({"poll": "p", "option": 1}), "bad_type", "option"),
        (json!({"poll": "p", "option": "a", "voter": "x".repeat(201)}), "too_long", "voter"),
        (json!({"poll": "p", "option": "a", "event": "click"}), "unknown_event", "event"),
    ] {
        let answer = vote(&edge, &body).await;
        assert_eq!(answer.status, 400, "{}", answer.text);
        assert_eq!(answer.json()["errors"], json!([{"line": 1, "code": code, "field": field}]));
    }
    let body = json!([{"poll": "p", "option": "a"}, {"poll": "q", "option": "a"}, {"option": "a"}]);
    let answer = vote(&edge, &body).await.json();
    assert_eq!((&answer["accepted"], &answer["rejected"]), (&json!(2), &json!(1)));
    assert_eq!(answer.get("poll"), Some(&Value::Null), "{answer}");
    let lines = "{\"poll\":\"p\",\"option\":\"a\"}\n{\"poll\":\"p\",\"option\":\"b\"}\n";
    assert_eq!(edge.http.send("POST", "/v1/votes", &[], lines).await.status, 200);
    let option = |option, votes| json!({"option": option, "votes": votes, "voters": 0});
    assert_poll(&api, "/v1/polls/p", &json!([option("a", 2), option("b", 1)])).await;
    edge.assert_balanced().await;

    assert_eq!(api.http.get("/v1/polls/never-voted-on").await.json()["data"], json!([]));
    for path in ["/v1/polls?format=xml", "/v1/polls/p?from=1"] {
        assert_eq!(api.http.get(path).await.status, 400);
    }
}

#[tokio::test]
async fn an_edge_that_cannot_reach_the_query_api_accepts_votes_without_results() {
    let world = World::new("votes_alone").await;
    let mut edge = world
        .start("ingest", &[("POLL_RESULTS_URL", "http://127.0.0.1:1"), ("POLL_RESULTS_INTERVAL", "100ms")]);
    edge.wait_ready().await.unwrap();
    let edge = Edge::new(edge);
    let waited = wait_for("a failed fetch of the poll results", DEADLINE, async || {
        edge.metric("ingest_poll_results_refreshes_total").await > 0
    });
    waited.await.unwrap();
    let answer = vote(&edge, &json!({"poll": "p", "option": "a"})).await;
    assert_eq!((answer.status, answer.json().get("poll")), (200, Some(&Value::Null)));
}

#[tokio::test]
async fn a_thousand_votes_a_second_over_a_thousand_connections_for_ten_seconds_all_succeed() {
    load("votes_10", Duration::from_secs(10)).await;
}

#[tokio::test]
#[ignore = "takes a minute: ./dev test --full"]
async fn a_thousand_votes_a_second_over_a_thousand_connections_for_sixty_seconds_all_succeed() {
    load("votes_60", Duration::from_secs(60)).await;
}

async fn load(name: &'static str, duration: Duration) {
    let world = World::new(name).await;
    let (edge, _aggregator, api) = pipeline(&world).await;
    let (began, started) = (now().0, Instant::now());
    let results = send(&edge, duration).await;
    let (elapsed, ended) = (started.elapsed(), now().0);
    assert_poll(&api, "/v1/polls/best-shoe", &results.of("best-shoe")).await;
    edge.assert_balanced().await;
    assert_eq!(edge.metric("ingest_events_delivered_total").await, 1000 * duration.as_secs());

    // During the load, ClickHouse got at most one query per refresh interval of the query API. The interval has a
    // jitter of ±10 %.
    let mut asked = 0;
    let selects = format!(
        "SELECT count() FROM system.query_log WHERE current_database = '{name}' AND type = 'QueryStart'
         AND query_kind = 'Select' AND query LIKE '%''poll_votes''%' AND query LIKE '%country_totals%'
         AND toUnixTimestamp64Milli(query_start_time_microseconds) BETWEEN {began} AND {ended}"
    );
    world.rows("SYSTEM FLUSH LOGS").await;
    let waited = wait_for("a refresh in the query log", DEADLINE, async || {
        asked = world.number(&selects).await;
        asked > 0
    });
    waited.await.unwrap();
    let most = (elapsed.as_secs_f64() / (INTERVAL.as_secs_f64() * 0.9)).floor() as u64 + 1;
    assert!(asked <= most, "ClickHouse got {asked} queries in {elapsed:?}, but at most {most} are allowed");
}

/// Sends a thousand votes per second. Each connection has its own schedule with a vote every second, so votes on other
/// connections do not wait for a slow answer. A vote is late only if the previous answer on its own connection takes
/// longer than a second.
async fn send(edge: &Edge, duration: Duration) -> Results {
    const CONNECTIONS: u32 = 1000;
    let started = Instant::now();
    let mut connections = JoinSet::new();
    for connection in 0..CONNECTIONS {
        let http = Http::new(edge.service.http());
        connections.spawn(async move {
            let first = started + Duration::from_secs(1) * connection / CONNECTIONS;
            let mut schedule = time::interval_at(first, Duration::from_secs(1));
            let mut sent = Vec::new();
            while schedule.tick().await.duration_since(started) < duration {
                let option = ["a", "b", "c"][(connection as usize + sent.len()) % 3];
                let body = json!({"poll": "best-shoe", "option": option, "voter": format!("u{connection}")});
                let answer = http.send("POST", "/v1/votes", &[JSON], body.to_string()).await;
                assert_eq!(answer.status, 200, "{}", answer.text);
                sent.push(option);
            }
            (connection, sent)
        });
    }
    let mut results = Results::default();
    for (connection, sent) in connections.join_all().await {
        for option in sent {
            results.add("best-shoe", option, Some(&format!("u{connection}")));
        }
    }
    results
}
