//! The answers of `/v1/retention` and `/v1/funnel` are those of plain counting of the accepted events.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use fastrand::Rng;
use runtime::keys::generate;
use schemas::time::{DAY, HOUR, UnixMillis};
use serde_json::{Value, json};

use crate::client::{Http, HttpResponse};
use crate::oracle::{Oracle, TestEvent, now};
use crate::world::World;

/// Names of the events.
const EVENTS: [&str; 4] = ["signup", "open", "view", "buy"];

/// Events of a few users in the last `days` days. Some users have several events at the same millisecond.
fn random_events(rng: &mut Rng, count: usize, days: i64) -> Vec<TestEvent> {
    let today = now().floor(DAY).0;
    let first = today - (days - 1) * DAY;
    let events = (0..count).map(|_| TestEvent {
        time: UnixMillis(first + rng.i64(0..now().0 - first)),
        event: EVENTS[rng.usize(..EVENTS.len())].to_owned(),
        user: format!("user-{}", rng.u32(..40)),
        country: ["DE", "US"][rng.usize(..2)].to_owned(),
        device_os: "iOS".to_owned(),
        value: 1,
    });
    let mut events: Vec<_> = events.collect();
    for at in 1..events.len() {
        if rng.u8(..3) == 0 {
            (events[at].time, events[at].user) = (events[at - 1].time, events[at - 1].user.clone());
        } else if rng.u8(..2) == 0 {
            // This event is of the same user as the previous one and within an hour of it, so that some users complete
            // several steps of a funnel.
            let time = events[at - 1].time.0 + rng.i64(-HOUR..HOUR);
            events[at].time = UnixMillis(time.clamp(first, now().0));
            events[at].user = events[at - 1].user.clone();
        }
    }
    events
}

/// The line of an event. Some lines have a user and a device, others only a device, which then counts as the user.
fn line(rng: &mut Rng, made: &TestEvent) -> String {
    let device = if rng.bool() {
        json!({"device_id": made.user})
    } else {
        json!({"user_id": made.user, "device_id": "shared"})
    };
    let mut line = json!({
        "client_time": made.time.to_string(), "event": made.event, "country": made.country,
        "device_os": made.device_os, "param_int": made.value,
    });
    line.as_object_mut().unwrap().extend(device.as_object().unwrap().clone());
    line.to_string()
}

/// Posts these events, and waits until all tables have them.
async fn count(world: &World, http: &Http, rng: &mut Rng, events: &[TestEvent]) {
    let mut oracle = Oracle::default();
    for some in events.chunks(500) {
        let text: Vec<_> = some.iter().map(|made| line(rng, made)).collect();
        let lines: Vec<_> = some.iter().cloned().map(Some).collect();
        oracle.record_report(&http.post_lines(&text).await, &lines);
    }
    world.assert_counted(&oracle.counts()).await;
}

async fn post(http: &Http, path: &str, body: &Value) -> HttpResponse {
    http.send("POST", path, &[("content-type", "application/json")], body.to_string()).await
}

/// The users with an event `name` in the period that begins at `start` and lasts `length` milliseconds.
pub(super) fn users<'a>(events: &'a [TestEvent], name: &str, start: i64, length: i64) -> BTreeSet<&'a str> {
    let of_period = |made: &&TestEvent| made.event == name && (start..start + length).contains(&made.time.0);
    events.iter().filter(of_period).map(|made| made.user.as_str()).collect()
}

/// The result of plain counting: for each cohort, the number of its users, and for each period, how many of them have
/// the event `again` in this period. The number for a period is null if the period has not ended at `as_of`.
fn cohorts(
    events: &[TestEvent],
    (first, again): (&str, &str),
    starts: &[i64],
    length: i64,
    periods: i64,
    as_of: i64,
) -> Vec<Value> {
    let cohort = |start: &i64| {
        let cohort = users(events, first, *start, length);
        let cell = |period: i64| {
            let start = start + period * length;
            let came = users(events, again, start, length);
            (start + length <= as_of).then(|| cohort.intersection(&came).count())
        };
        json!({"size": cohort.len(), "cells": (0..=periods).map(cell).collect::<Vec<_>>()})
    };
    starts.iter().map(cohort).collect()
}

#[tokio::test]
async fn retention_is_what_plain_counting_gives() {
    let world = World::new("people_retention").await;
    let (edge, _aggregator, api) = world.pipeline().await;
    let mut rng = Rng::with_seed(7);
    let events = random_events(&mut rng, 1_500, 20);
    count(&world, &edge.http, &mut rng, &events).await;
    api.wait_until_as_of(now()).await;

    let today = now().floor(DAY).0;
    // 1970-01-01 was a Thursday, so the Monday of its week is 3 days before it.
    let monday = today - (today / DAY + 3).rem_euclid(7) * DAY;
    for (grain, length, last) in [("day", DAY, today), ("week", 7 * DAY, monday)] {
        for (first, again) in [("signup", "open"), ("view", "view"), ("open", "buy")] {
            let path = format!(
                "/v1/retention?first=event:eq:{first}&again=event:eq:{again}&grain={grain}&periods=5&from=-6{}",
                &grain[..1]
            );
            let answer = api.http.get(&path).await;
            assert_eq!(answer.status, 200, "{}", answer.text);
            let answer = answer.json();
            let as_of = UnixMillis::parse(answer["meta"]["as_of"].as_str().unwrap()).unwrap().0;
            let starts: Vec<_> = (0..6).rev().map(|back| last - back * length).collect();
            let expected = cohorts(&events, (first, again), &starts, length, 5, as_of);
            let found: Vec<_> = answer["data"]
                .as_array()
                .unwrap()
                .iter()
                .map(|row| json!({"size": row["size"], "cells": row["cells"]}))
                .collect();
            assert_eq!(found, expected, "{path}");
            assert_eq!(found[5]["cells"][0], Value::Null, "the current period is not finished");
            assert!(found.iter().any(|row| row["size"].as_u64() > Some(0)), "{path}");
            assert_eq!(answer["meta"]["rollups"], json!(["users_daily"]));
            // The answer repeats the request in the form that POST accepts.
            let posted = post(&api.http, "/v1/retention", &answer["query"]).await;
            assert_eq!(posted.json()["data"], answer["data"]);
        }
    }

    let csv = api
        .http
        .get("/v1/retention.csv?first=event:in:signup%7Cview&again=event:eq:open&periods=2&from=-1d")
        .await;
    let lines: Vec<_> = csv.text.lines().collect();
    assert_eq!(lines[0], "cohort,size,period_0,period_1,period_2");
    assert!(lines.len() == 2 && lines[1].ends_with(",,,"), "{}", csv.text);
}

#[tokio::test]
async fn days_of_another_time_zone_are_read_from_a_rollup_with_fitting_buckets() {
    let world = World::new("people_zone").await;
    let (edge, _aggregator, api) = world.pipeline().await;
    let mut rng = Rng::with_seed(8);
    let events = random_events(&mut rng, 500, 10);
    count(&world, &edge.http, &mut rng, &events).await;
    api.wait_until_as_of(now()).await;

    let ask = async |zone: &str| {
        let path = format!(
            "/v1/retention?first=event:eq:signup&again=event:eq:open&periods=3&from=-8d&to=-3d&tz={zone}"
        );
        api.http.get(&path).await
    };
    let singapore = ask("Asia/Singapore").await.json();
    assert_eq!(singapore["meta"]["rollups"], json!(["users_hourly"]));
    let as_of = UnixMillis::parse(singapore["meta"]["as_of"].as_str().unwrap()).unwrap().0;
    let today = UnixMillis(now().0 + 8 * HOUR).floor(DAY).0 - 8 * HOUR;
    let starts: Vec<_> = (3..8).rev().map(|back| today - back * DAY).collect();
    let expected = cohorts(&events, ("signup", "open"), &starts, DAY, 3, as_of);
    for (row, expected) in singapore["data"].as_array().unwrap().iter().zip(&expected) {
        assert_eq!((&row["size"], &row["cells"]), (&expected["size"], &expected["cells"]));
        assert!(row["cohort"].as_str().unwrap().ends_with("T00:00:00+08:00"));
    }
    let tehran = ask("Asia/Tehran").await;
    assert_eq!((tehran.status, tehran.problem()), (422, "not_covered".to_owned()));
    assert!(tehran.text.contains("need 15m"), "{}", tehran.text);
}

/// For each step, the number of users who reach it. A user reaches a step with a series of events: one event for each
/// step from the first to this one, in this order, all within `within` milliseconds of the first event.
pub(super) fn funnel(events: &[&TestEvent], steps: &[Vec<&str>], within: i64) -> Vec<usize> {
    let step_of = |made: &TestEvent| steps.iter().position(|events| events.contains(&made.event.as_str()));
    let mut by_user: BTreeMap<&str, Vec<(i64, usize)>> = BTreeMap::new();
    for made in events {
        if let Some(step) = step_of(made) {
            by_user.entry(&made.user).or_default().push((made.time.0, step));
        }
    }
    /// How many steps a user's events reach in order between `from` and `until`. The first step that counts is `step`.
    /// Events of two successive steps may have the same time.
    fn steps_reached(events: &[(i64, usize)], step: usize, from: i64, until: i64) -> usize {
        let next = events.iter().filter(|(time, at)| *at == step && (from..=until).contains(time));
        next.map(|(time, _)| time).min().map_or(0, |time| 1 + steps_reached(events, step + 1, *time, until))
    }
    let level = |events: &Vec<(i64, usize)>| {
        let starts = events.iter().filter(|(_, step)| *step == 0);
        starts.map(|(start, _)| 1 + steps_reached(events, 1, *start, start + within)).max().unwrap_or(0)
    };
    let levels: Vec<_> = by_user.values().map(level).collect();
    (1..=steps.len()).map(|step| levels.iter().filter(|level| **level >= step).count()).collect()
}

#[tokio::test]
async fn random_funnels_are_what_plain_counting_gives() {
    let world = World::new("people_funnel").await;
    let (edge, _aggregator, api) = world.pipeline().await;
    let mut rng = Rng::with_seed(9);
    let events = random_events(&mut rng, 1_500, 6);
    count(&world, &edge.http, &mut rng, &events).await;

    let mut lost = 0;
    for _ in 0..40 {
        let mut names = EVENTS;
        rng.shuffle(&mut names);
        let mut steps: Vec<Vec<&str>> = names.iter().map(|name| vec![*name]).collect();
        if rng.bool() {
            let last = steps.pop().unwrap();
            steps[0].extend(last);
        }
        steps.truncate(rng.usize(2..=4));
        let (within, millis) =
            [("1s", 1_000), ("30m", 30 * 60_000), ("1d", DAY), ("7d", 7 * DAY)][rng.usize(..4)];
        let country = rng.bool().then_some("DE");
        let (from, to) = (now().floor(DAY).0 - rng.i64(0..6) * DAY, now().0 - rng.i64(1..20) * HOUR);
        let (from, to) = (UnixMillis(from.min(to - HOUR)).floor(60_000), UnixMillis(to).floor(60_000));
        let moment = |moment: UnixMillis| format!("{}Z", moment.to_string().replace(' ', "T"));
        let body = json!({
            "steps": steps.iter().map(|step| format!("event:in:{}", step.join("|"))).collect::<Vec<_>>(),
            "within": within, "from": moment(from), "to": moment(to),
            "filter": country.map(|country| format!("country:eq:{country}")),
        });
        let counts = |made: &&TestEvent| {
            (from.0..to.0).contains(&made.time.0) && country.is_none_or(|country| made.country == country)
        };
        let expected = funnel(&events.iter().filter(counts).collect::<Vec<_>>(), &steps, millis);
        let answer = post(&api.http, "/v1/funnel", &body).await;
        assert_eq!(answer.status, 200, "{body}: {}", answer.text);
        let answer = answer.json();
        let found: Vec<_> = answer["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|step| step["users"].as_u64().unwrap() as usize)
            .collect();
        assert_eq!(found, expected, "{body}");
        lost += usize::from(found.last() < found.first());
    }
    assert!(lost > 10, "in only {lost} of 40 funnels, some users do not reach the last step");

    let csv =
        post(&api.http, "/v1/funnel.csv", &json!({"steps": ["event:eq:none", "event:eq:nobody"]})).await;
    assert_eq!(csv.text, "step,users,of_first,of_previous\r\nevent:eq:none,0,,\r\nevent:eq:nobody,0,,\r\n");
}

#[tokio::test]
async fn the_filter_of_a_key_restricts_retention_and_funnels() {
    let world = World::new("people_keys").await;
    let (edge, _aggregator, api) = world.pipeline().await;
    let mut rng = Rng::with_seed(11);
    let events = random_events(&mut rng, 300, 4);
    count(&world, &edge.http, &mut rng, &events).await;
    api.wait_until_as_of(now()).await;
    let (token, keys) = generate("part", "default");
    let file = world.write("read-keys.toml", &format!("{keys}filter = [\"event:ne:open\"]\n"));
    let more = [("READ_AUTH", "required"), ("READ_KEYS_FILE", file.as_str())];
    let mut service = world.start("query-api", &more);
    service.wait_ready().await.unwrap();
    let (http, bearer) = (Http::new(service.http()), format!("Bearer {token}"));

    let paths = [
        "/v1/retention?first=event:eq:view&again=event:eq:open&periods=1&from=-3d&to=-1d",
        "/v1/funnel?steps=event:eq:view&steps=event:eq:open&from=-4d&within=7d",
    ];
    for path in paths {
        let all = api.http.get(path).await;
        let restricted = http.send("GET", path, &[("authorization", &bearer)], "").await;
        let same = api.http.get(&format!("{path}&filter=event:ne:open")).await;
        assert_eq!(restricted.status, 200, "{}", restricted.text);
        assert_eq!(restricted.json()["data"], same.json()["data"], "{path}");
        assert_ne!(restricted.json()["data"], all.json()["data"], "{path}");
        assert_eq!(
            restricted.json()["query"],
            all.json()["query"],
            "`query` in the answer does not have the filter of the key"
        );
    }
}

#[tokio::test]
async fn a_funnel_of_too_many_events_is_refused_before_they_are_read() {
    let world = World::new("people_too_wide").await;
    let (edge, _aggregator, _api) = world.pipeline().await;
    let mut rng = Rng::with_seed(10);
    let events = random_events(&mut rng, 100, 2);
    count(&world, &edge.http, &mut rng, &events).await;
    let mut service = world.start("query-api", &[("FUNNEL_MAX_EVENTS", "10")]);
    service.wait_ready().await.unwrap();
    let http = Http::new(service.http());

    let refused = post(&http, "/v1/funnel", &json!({"steps": ["event:eq:view", "event:eq:buy"]})).await;
    assert_eq!((refused.status, refused.problem()), (422, "too_wide".to_owned()));
    assert!(refused.text.contains("more events of these steps than the 10"), "{}", refused.text);
    let few = post(&http, "/v1/funnel", &json!({"steps": ["event:eq:none", "event:eq:nobody"]})).await;
    assert_eq!(few.status, 200, "{}", few.text);
    world.rows("SYSTEM FLUSH LOGS").await;
    let ran = "SELECT count() FROM system.query_log WHERE current_database = 'people_too_wide' AND type = 'QueryFinish'
               AND query LIKE '%windowFunnel%' AND query NOT LIKE '%query_log%'";
    assert_eq!(world.number(ran).await, 1, "statements that read events");
}

#[tokio::test]
async fn the_examples_of_the_page_on_retention_and_funnels_work() {
    let world = World::new("people_page").await;
    let mut service = world.start("query-api", &[]);
    service.wait_ready().await.unwrap();
    let page = include_str!("../../../../docs/people.md");
    let examples: Vec<_> =
        page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(examples.len() >= 4);
    for example in examples {
        let command = example
            .replace("http://localhost:8080", &service.http())
            .replace("curl ", "curl --silent --show-error --fail-with-body ");
        let run = Command::new("sh").args(["-c", &command]).output().unwrap();
        // `--max-time` makes curl stop reading a stream that does not end; the exit code is then 28.
        let is_cut = example.contains("--max-time") && run.status.code() == Some(28);
        let said = String::from_utf8_lossy(&run.stdout);
        assert!(run.status.success() || is_cut, "{command}: {said}{}", String::from_utf8_lossy(&run.stderr));
        assert!(!said.is_empty(), "{command}");
    }
}
