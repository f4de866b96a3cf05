//! The answers from a snapshot contain every event from before the snapshot's `as_of`, and unchanged data is not sent
//! again. Reads of cold hours do not delay the refresh of hot hours. While ClickHouse is down, the last answers are
//! served.

use std::sync::Arc;

use devstack::wait_for;
use schemas::time::{HOUR, UnixMillis};
use serde_json::json;
use tokio::time;

use crate::client::HttpResponse;
use crate::oracle::now;
use crate::world::{DEADLINE, QueryApi, World};

/// Starts a query API with these additional variables.
async fn query_api(world: &World, more: &[(&str, &str)]) -> QueryApi {
    let mut service = world.start("query-api", more);
    service.wait_ready().await.unwrap();
    QueryApi::new(service)
}

fn as_of(answer: &HttpResponse) -> Option<UnixMillis> {
    UnixMillis::parse(answer.header("x-as-of"))
}

#[tokio::test]
async fn unchanged_data_is_not_sent_again_after_a_later_refresh_in_any_encoding() {
    let world = World::new("snapshot_etag").await;
    let (edge, _aggregator, api) = world.pipeline().await;
    let options: Vec<_> = (0..45).map(|n| format!("an option with a long name, number {n}")).collect();
    for option in &options {
        let vote = json!({"poll": "p", "option": option, "voter": "u"}).to_string();
        let sent = edge.http.send("POST", "/v1/votes", &[("content-type", "application/json")], vote).await;
        assert_eq!(sent.status, 200, "{}", sent.text);
    }
    let path = "/v1/polls/p?format=csv";
    let counted = wait_for("all votes", DEADLINE, async || {
        api.http.get(path).await.text.lines().count() == 1 + options.len()
    });
    counted.await.unwrap();

    let gzip = api.http.send("GET", path, &[("accept-encoding", "gzip")], "").await;
    assert_eq!((gzip.status, gzip.header("content-encoding")), (200, "gzip"));
    assert!(gzip.header("etag").starts_with("W/\""), "{}", gzip.header("etag"));
    let known = [("if-none-match", gzip.header("etag"))];
    let mut later = api.http.send("GET", path, &known, "").await;
    let next = wait_for("the next refresh", DEADLINE, async || {
        later = api.http.send("GET", path, &known, "").await;
        as_of(&later) > as_of(&gzip)
    });
    next.await.unwrap();
    assert_eq!((later.status, &*later.text, later.header("etag")), (304, "", gzip.header("etag")));
    assert_eq!(api.http.get(path).await.header("content-encoding"), "");
}

/// Sends clicks of different users, one after another. An answer whose `as_of` is after a click must count this click,
/// all earlier clicks, and their users.
async fn click_and_read(name: &'static str, hour: i64) {
    let world = World::new(name).await;
    let (edge, _aggregator, api) = world.pipeline().await;
    let path = format!("/analytics?timestamp={hour}");
    assert_eq!(api.http.get(&path).await.text, "unique_users,0\nclicks,0\nimpressions,0\n");
    for n in 1..=10 {
        assert_eq!(edge.http.post(&format!("/analytics/{hour}/user-{n}/click")).await.status, 204);
        let clicked = now();
        let mut answer = api.http.get(&path).await;
        let covered = wait_for(format!("an answer with an `as_of` after click {n}"), DEADLINE, async || {
            answer = api.http.get(&path).await;
            assert_eq!(answer.status, 200, "{}", answer.text);
            as_of(&answer) > Some(clicked)
        });
        covered.await.unwrap();
        assert_eq!(answer.text, format!("unique_users,{n}\nclicks,{n}\nimpressions,0\n"));
    }
}

#[tokio::test]
async fn an_answer_has_every_click_and_user_from_before_its_as_of() {
    click_and_read("snapshot_hot", now().0).await;
}

#[tokio::test]
async fn a_late_event_in_an_old_hour_is_visible_as_soon_as_one_in_a_hot_hour() {
    click_and_read("snapshot_cold", now().0 - 1000 * HOUR).await;
}

#[tokio::test]
async fn hot_hours_stay_fresh_while_old_hours_of_two_million_users_are_read() {
    read_old_hours("snapshot_many_users", 20, 100_000, &[("REFRESH_MAX_USERS", "250000")]).await;
}

#[tokio::test]
#[ignore = "takes two minutes: ./dev test --full"]
async fn hot_hours_stay_fresh_while_old_hours_of_forty_million_users_are_read() {
    // This limit is below the default, so that merging all cold hours takes more refreshes than one read waits for.
    let few = ("REFRESH_MAX_USERS", "8000000");
    read_old_hours("snapshot_most_users", 80, 500_000, &[("REFRESH_INTERVAL", "3s"), few]).await;
}

/// Reads `hours` cold hours of `users` users each, until every hour is answered. Together the hours have more users
/// than one refresh may merge. While the cold hours are read, the answer for a hot hour must stay fresh.
async fn read_old_hours(name: &'static str, hours: i64, users: u64, more: &[(&str, &str)]) {
    const MAX_AGE_MS: i64 = 10_000;
    let world = World::new(name).await;
    let (edge, _aggregator, _api) = world.pipeline().await;
    let first = now().floor(HOUR).0 - 1000 * HOUR;
    let old: Vec<_> = (0..hours).map(|n| first - n * HOUR).collect();
    for hour in &old {
        let seconds = hour / 1000;
        let key = format!(
            "'default' AS tenant, toDateTime({seconds}, 'UTC') AS bucket, 'click' AS dim1, toDate('2149-06-06') AS expires"
        );
        let events = format!(
            "INSERT INTO rollup_sums (tenant, bucket, dim1, expires, rollup, rows) SELECT {key}, 'event_hourly', {users}"
        );
        world.rows(&events).await;
        let states = format!(
            "INSERT INTO rollup_states (tenant, bucket, dim1, expires, rollup, rows, uniq1)
             SELECT {key}, 'users_hourly', {users}, uniqExactState(sipHash64({seconds}, number)) FROM numbers({users})"
        );
        world.rows(&states).await;
    }
    let api = Arc::new(query_api(&world, more).await);
    let current = now().0;
    assert_eq!(edge.http.post(&format!("/analytics/{current}/ann/click")).await.status, 204);
    let hot = format!("/analytics?timestamp={current}");
    let seen = wait_for("the click", DEADLINE, async || api.http.get(&hot).await.text.contains("clicks,1\n"));
    seen.await.unwrap();

    let expected = format!("unique_users,{users}\nclicks,{users}\nimpressions,0\n");
    let readers: Vec<_> = old
        .iter()
        .map(|hour| {
            let (api, path, expected) =
                (Arc::clone(&api), format!("/analytics?timestamp={hour}"), expected.clone());
            tokio::spawn(async move {
                // Each of these reads waits for at most two refreshes.
                let read = async {
                    let mut refused = 0;
                    loop {
                        let answer = api.http.get(&path).await;
                        if answer.status == 200 {
                            assert_eq!(answer.text, expected);
                            return refused;
                        }
                        assert_eq!((answer.status, &*answer.problem()), (503, "not_yet"));
                        refused += 1;
                    }
                };
                time::timeout(2 * DEADLINE, read).await.expect("an old hour must be answered")
            })
        })
        .collect();
    let is_read = || readers.iter().all(tokio::task::JoinHandle::is_finished);
    let watched = wait_for("all old hours", 2 * DEADLINE, async || {
        let answer = api.http.get(&hot).await;
        let age: i64 = answer.header("x-age-ms").parse().unwrap();
        assert!(answer.status == 200 && age < MAX_AGE_MS, "{age} ms");
        is_read()
    });
    watched.await.unwrap();
    let mut refused: u64 = 0;
    for reader in readers {
        refused += reader.await.unwrap();
    }
    assert!(refused > 0, "no read was refused, so a refresh merged more than `REFRESH_MAX_USERS` users");
}

#[tokio::test]
async fn reads_are_answered_and_marked_stale_while_clickhouse_is_down() {
    let (mut stack, world) = World::on_own_servers("snapshot_outage").await;
    let (edge, _aggregator, _api) = world.pipeline().await;
    // An answer is stale if its `as_of` is older than three refresh intervals. A busy machine may refresh late, so the
    // short interval of other tests could make answers stale although ClickHouse runs.
    let api = query_api(&world, &[("REFRESH_INTERVAL", "2s")]).await;
    let time = now().0;
    assert_eq!(edge.http.post(&format!("/analytics/{time}/ann/click")).await.status, 204);
    let (hour, polls) = (format!("/analytics?timestamp={time}"), "/v1/polls");
    let read = async || {
        let (hour, polls) = (api.http.get(&hour).await, api.http.get(polls).await);
        assert_eq!((hour.status, polls.status), (200, 200), "{} {}", hour.text, polls.text);
        (hour.text, polls.json()["meta"]["stale"] == json!(true))
    };
    let counted = ("unique_users,1\nclicks,1\nimpressions,0\n".to_owned(), false);
    wait_for("a fresh answer with the click", DEADLINE, async || read().await == counted).await.unwrap();

    stack.clickhouse.stop().await.unwrap();
    let stale = (counted.0.clone(), true);
    wait_for("stale answers", DEADLINE, async || read().await == stale).await.unwrap();
    let cold = api.http.get(&format!("/analytics?timestamp={}&wait=0", time - 1000 * HOUR)).await;
    assert_eq!((cold.status, &*cold.problem()), (503, "not_yet"));

    stack.clickhouse.start().await.unwrap();
    wait_for("fresh answers", DEADLINE, async || read().await == counted).await.unwrap();
}

#[tokio::test]
async fn cors_lets_other_origins_read_answers_and_their_headers() {
    let world = World::new("snapshot_cors").await;
    let api = world.query_api().await;
    let path = format!("/analytics?timestamp={}", now().0);
    let preflight = [
        ("origin", "https://page.example"),
        ("access-control-request-method", "GET"),
        ("access-control-request-headers", "authorization"),
    ];
    let answer = api.http.send("OPTIONS", &path, &preflight, "").await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (204, "*"));
    let answer = api.http.send("GET", &path, &preflight[..1], "").await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, "*"));
    for header in ["etag", "x-as-of", "x-age-ms", "retry-after"] {
        assert!(answer.header("access-control-expose-headers").contains(header), "{header}");
    }
}

#[tokio::test]
async fn the_as_of_is_known_once_every_partition_of_the_topic_has_reported() {
    let world = World::new("snapshot_as_of").await;
    let api = world.query_api().await;
    let report = async |generation: u16, partition: u16, seconds: i64| {
        let columns = "(g, kp, partitions, next_offset, as_of)";
        let row = format!("({generation}, {partition}, 2, 1, fromUnixTimestamp64Milli({seconds}000, 'UTC'))");
        world.rows(&format!("INSERT INTO progress {columns} VALUES {row}")).await;
    };
    let found = async |seconds: Option<i64>| {
        let expected = seconds.map(|seconds| UnixMillis(seconds * 1000));
        let waited = wait_for(format!("the `as_of` {expected:?}"), DEADLINE, async || {
            let hour = api.http.get(&format!("/analytics?timestamp={}", now().0)).await;
            let query = api.http.get("/v1/query").await;
            [as_of(&hour), as_of(&query)] == [expected, expected]
        });
        waited.await.unwrap();
    };
    found(None).await;
    report(0, 0, 2000).await;
    report(0, 1, 1000).await;
    found(Some(1000)).await;
    // A new topic (generation 1) has replaced the old topic, whose records are all counted. The second partition of the
    // new topic has not reported its progress yet.
    report(1, 0, 3000).await;
    found(None).await;
    report(1, 1, 4000).await;
    found(Some(3000)).await;
}
