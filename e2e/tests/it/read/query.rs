//! `/v1/query`: the figures of its answers, and its pages, formats, refusals and cache.

use std::collections::BTreeSet;

use devstack::wait_for;
use schemas::rollup::Rollups;
use schemas::time::{MINUTE, UnixMillis};
use serde_json::{Value, json};

use crate::client::Http;
use crate::oracle::{Oracle, TestEvent, now};
use crate::world::{DEADLINE, World};

/// An event with this client time, name, user and country.
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
    count_more(world, http, &mut Oracle::default(), events).await;
}

/// Like [`count`], but continues with an oracle that may have counted earlier events.
pub(super) async fn count_more(world: &World, http: &Http, oracle: &mut Oracle, events: &[TestEvent]) {
    for some in events.chunks(500) {
        let text: Vec<_> = some.iter().map(TestEvent::line).collect();
        let lines: Vec<_> = some.iter().cloned().map(Some).collect();
        oracle.record_report(&http.post_lines(&text).await, &lines);
    }
    world.assert_counted(&oracle.counts()).await;
}

/// The rows in the answer to a query.
async fn rows(http: &Http, parameters: &str) -> Value {
    let answer = http.get(&format!("/v1/query?{parameters}")).await;
    assert_eq!(answer.status, 200, "{parameters}: {}", answer.text);
    answer.json()["data"].clone()
}

#[tokio::test]
async fn a_query_uses_the_days_of_its_time_zone_and_accepts_any_text_in_filters() {
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

    // Ann counts as one user of the row `others`, although two of the events in this row are hers.
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
async fn an_answer_has_its_as_of_and_a_refusal_names_the_wrong_parameter() {
    let world = World::new("query_manners").await;
    let (edge, _aggregator, api) = world.pipeline().await;
    count(&world, &edge.http, &[made("2025-11-15 17:00:00", "view", "ann", "DE")]).await;
    api.wait_until_as_of(now()).await;
    let http = &api.http;

    let path = "/v1/query?from=2025-11-15&to=2025-11-16";
    let answer = http.get(path).await;
    let meta = &answer.json()["meta"];
    let as_of = UnixMillis::parse(meta["as_of"].as_str().unwrap()).unwrap();
    assert_eq!(UnixMillis::parse(answer.header("x-as-of")), Some(as_of));
    assert_eq!(meta["complete_until"], "2025-11-16T00:00:00+00:00");
    assert_eq!(meta["rollups"], json!(["event_daily"]));
    // The query API answers 304 if the data has not changed, even if the answer would have a later `as_of`. On a busy
    // machine, the answer may become stale between the two requests. Then the query API sends the answer again, because
    // `stale` has changed.
    wait_for("an answer that is not sent again", DEADLINE, async || {
        let known = http.get(path).await;
        let again = http.send("GET", path, &[("if-none-match", known.header("etag"))], "").await;
        assert!(again.status == 304 || again.json()["meta"]["stale"] != known.json()["meta"]["stale"]);
        (again.status, again.text.as_str()) == (304, "")
    })
    .await
    .unwrap();
    // The answer repeats the query in the form that POST accepts.
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
    assert!(tehran.text.contains("needs buckets of grain 15m"), "{}", tehran.text);
    refused("grain=minute&from=2020-01-01", "too_wide", "grain").await;
    refused("measures=visits", "not_covered", "measures").await;
    let hostile = "filter=event:eq:%27%29%20OR%201%3D1%20--%20%5C%3F%00&from=2025-11-15&to=2025-11-16";
    assert_eq!(rows(http, hostile).await, json!([{"events": 0}]));
    let put = http.send("PUT", "/v1/query", &[], "").await;
    assert_eq!((put.status, put.problem()), (405, "method_not_allowed".to_owned()));
}

/// A rollup of users and events by quarter of an hour and by country.
const FINER: &str = r#"
[[rollup]]
name = "users_quarterly"
grain = "15m"
dimensions = ["country"]
measures = { users = "uniq_exact(user)", events = "count" }
"#;

#[tokio::test]
async fn hours_of_a_time_zone_are_counted_by_its_clock_from_rollups_with_fitting_buckets() {
    let world = World::new("query_zones").await;
    let file = world.write("finer.toml", &format!("{}{FINER}", Rollups::built_in()));
    let declared = [("ROLLUPS_FILE", file.as_str())];
    world.migrate_with(&declared).await;
    let (mut aggregator, mut api) =
        (world.start("stream-agg", &declared), world.start("query-api", &declared));
    let edge = world.edge().await;
    aggregator.wait_ready().await.unwrap();
    api.wait_ready().await.unwrap();
    let http = Http::new(api.http());
    let events = [
        made("2026-10-24 23:00:00", "a", "ann", "DE"),
        made("2026-10-24 23:59:59", "a", "ann", "DE"),
        made("2026-10-25 00:00:00", "a", "ann", "DE"),
        made("2026-10-25 01:00:00", "a", "ann", "FR"),
        made("2026-11-10 07:00:00", "b", "dan", "DE"),
        made("2026-11-10 07:00:00", "b", "dan", "FR"),
        made("2026-11-11 07:00:00", "b", "eve", "US"),
        made("2026-11-11 07:00:00", "b", "fay", "US"),
        made("2026-11-11 07:00:00", "b", "gus", "US"),
    ];
    count(&world, &edge.http, &events).await;

    // The day on which Berlin puts its clocks back has 25 hours.
    let berlin = rows(&http, "grain=hour&from=2026-10-25&to=2026-10-26&tz=Europe/Berlin").await;
    assert_eq!(berlin.as_array().unwrap().len(), 25);
    for (at, time, events) in [
        (1, "2026-10-25T01:00:00+02:00", 2),
        (2, "2026-10-25T02:00:00+02:00", 1),
        (3, "2026-10-25T02:00:00+01:00", 1),
        (4, "2026-10-25T03:00:00+01:00", 0),
    ] {
        assert_eq!(berlin[at], json!({"time": time, "events": events}));
    }

    let tehran = "measures=users&grain=15m&from=2026-11-10T07:00:00Z&to=2026-11-10T07:15:00Z&tz=Asia/Tehran";
    assert_eq!(rows(&http, tehran).await, json!([{"time": "2026-11-10T10:30:00+03:30", "users": 1}]));
    let hours = "measures=users&grain=hour&from=2026-11-10T07:00:00Z&to=2026-11-10T07:15:00Z&tz=Asia/Tehran";
    assert_eq!(rows(&http, hours).await, json!([{"time": "2026-11-10T10:00:00+03:30", "users": 1}]));

    // Dan counts as one user of the row `others`, although he has events in two of the countries that this row
    // combines.
    let top = "measures=users&dimensions=country&from=2026-11-10&to=2026-11-12&top=1";
    let expected = json!([{"country": "US", "users": 3}, {"country": null, "others": true, "users": 1}]);
    assert_eq!(rows(&http, top).await, expected);

    let weeks = async |week: &str| {
        let asked = format!("grain=week&from=2026-11-22&to=2026-11-23&week={week}");
        rows(&http, &asked).await[0]["time"].clone()
    };
    assert_eq!(weeks("mon").await, "2026-11-16T00:00:00+00:00");
    assert_eq!(weeks("sun").await, "2026-11-22T00:00:00+00:00");
}

#[tokio::test]
async fn a_user_active_on_several_days_counts_once_over_all_of_them() {
    let world = World::new("query_users").await;
    let (edge, _aggregator, api) = world.pipeline().await;
    let days = ["2025-11-13 23:30:00", "2025-11-14 01:00:00", "2025-11-15 12:00:00", "2025-11-17 02:00:00"];
    let mut events: Vec<_> = days.map(|time| made(time, "a", "ann", "DE")).to_vec();
    events.push(made("2025-11-15 12:00:00", "b", "bob", "DE"));
    count(&world, &edge.http, &events).await;
    let http = &api.http;

    let users = "measures=users&from=2025-11-14&to=2025-11-16";
    let users_of = async |more: &str| {
        let rows = rows(http, &format!("{users}{more}")).await;
        rows.as_array().unwrap().iter().map(|row| row["users"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(users_of("&grain=day&filter=event:eq:a").await, [1, 1]);
    assert_eq!(users_of("&filter=event:eq:a").await, [1]);
    assert_eq!(users_of("").await, [2]);

    // Whole days are read from the daily rollup, and the hours before and after them from the hourly rollup.
    let edges = "measures=users&from=2025-11-13T23:00:00Z&to=2025-11-17T03:00:00Z";
    let answer = http.get(&format!("/v1/query?{edges}")).await.json();
    assert_eq!(answer["meta"]["rollups"], json!(["users_all_daily", "users_hourly"]));
    assert_eq!(answer["data"], json!([{"users": 2}]));
    let before = "measures=users&from=2025-11-13T00:00:00Z&to=2025-11-13T23:00:00Z";
    assert_eq!(rows(http, before).await, json!([{"users": 0}]));
    let month = "measures=users&grain=month&from=2025-11-01&to=2025-12-01&tz=Europe/Berlin";
    assert_eq!(rows(http, month).await, json!([{"time": "2025-11-01T00:00:00+01:00", "users": 2}]));
}

#[tokio::test]
async fn many_users_are_estimated_from_a_sample_unless_the_query_asks_for_exact_counts() {
    let world = World::new("query_accuracy").await;
    let api = world.query_api().await;
    let http = &api.http;
    // Inserts a row with two aggregate states, as the aggregator does: `uniq1` has the hashes of all users, and
    // `sample1` has only the hashes below 2^60, which is a sixteenth of the range.
    let many = async |day: &str, users: u64| {
        let insert = format!(
            "INSERT INTO rollup_states (tenant, rollup, bucket, expires, rows, uniq1, sample1)
             SELECT 'default', 'users_all_daily', toDateTime('{day}', 'UTC'), toDate('2149-06-06'), {users},
                    uniqExactState(hash), uniqExactStateIf(hash, hash < 1152921504606846976)
             FROM (SELECT sipHash64(number) AS hash FROM numbers({users}))"
        );
        world.rows(&insert).await;
    };
    many("2025-11-14 00:00:00", 5_200_000).await;
    many("2025-11-15 00:00:00", 40_000).await;
    let ask = async |day: u32, more: &str| {
        let path = format!("/v1/query?measures=users&from=2025-11-{day}&to=2025-11-{}{more}", day + 1);
        let answer = http.get(&path).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let answer = answer.json();
        (answer["data"][0]["users"].as_u64().unwrap(), answer["meta"].clone())
    };
    let off = |found: u64, right: u64| (found as f64 - right as f64).abs() / right as f64;

    let (users, meta) = ask(14, "").await;
    let error = meta["error"]["users"].as_f64().unwrap();
    assert!((0.003..0.004).contains(&error), "{meta}");
    // Each run of the test inserts the same users, so the estimate is always the same, and this check cannot fail by
    // chance.
    assert!(users != 5_200_000 && off(users, 5_200_000) < error, "{users}");
    assert_eq!(meta["exact"], false);
    let (users, meta) = ask(14, "&accuracy=exact").await;
    assert_eq!((users, &meta["exact"], &meta["error"]), (5_200_000, &json!(true), &Value::Null));

    let (users, meta) = ask(15, "").await;
    assert_eq!((users, &meta["exact"]), (40_000, &json!(true)));
    let (users, meta) = ask(15, "&accuracy=fast").await;
    let error = meta["error"]["users"].as_f64().unwrap();
    assert!(users % 16 == 0 && off(users, 40_000) < 2.0 * error, "{users} {error}");
    assert_eq!(meta["exact"], false);
}

#[tokio::test]
async fn pages_have_each_row_once_even_if_rows_tie_and_data_arrives() {
    let world = World::new("query_pages").await;
    let (edge, _aggregator, api) = world.pipeline().await;
    let ties: Vec<_> =
        ["a", "b", "c", "d", "e"].map(|event| made("2025-11-15 12:00:00", event, "ann", "DE")).to_vec();
    count(&world, &edge.http, &ties).await;
    let page = async |cursor: &str| {
        let path = format!("/v1/query?dimensions=event&from=2025-11-15&to=2025-11-16&limit=2{cursor}");
        let answer = api.http.get(&path).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()
    };
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    for number in 0..3 {
        let answer = page(&cursor).await;
        let events = answer["data"].as_array().unwrap().iter();
        seen.extend(events.map(|row| row["event"].as_str().unwrap().to_owned()));
        assert_eq!(answer["meta"]["total_rows"], 5 + number, "{answer}");
        assert_eq!(answer["meta"]["truncated"], number < 2);
        cursor = format!("&cursor={}", answer["meta"]["next"].as_str().unwrap_or_default());
        // A new row that sorts before the rows of the next page does not shift that page.
        let arriving = made("2025-11-15 12:00:00", &format!("Z{number}"), "ann", "DE");
        let answer = edge.http.post_lines(&[arriving.line()]).await;
        assert_eq!(answer.status, 200);
        let waited =
            wait_for("the new row", DEADLINE, async || page("").await["meta"]["total_rows"] == 6 + number);
        waited.await.unwrap();
    }
    assert_eq!(seen, ["a", "b", "c", "d", "e"]);
}

#[tokio::test]
async fn the_pages_of_any_sort_order_together_equal_the_whole_answer() {
    let world = World::new("query_orders").await;
    let (edge, _aggregator, api) = world.pipeline().await;
    let mut events = Vec::new();
    for (at, event) in ["a", "b%", "c"].into_iter().enumerate() {
        for (day, country) in [("14", "DE"), ("15", "DE"), ("15", "FR"), ("15", "")] {
            let time = format!("2025-11-{day} 12:00:00");
            events.extend(std::iter::repeat_with(|| made(&time, event, "ann", country)).take(1 + at % 2));
        }
    }
    count(&world, &edge.http, &events).await;
    let base = "/v1/query?dimensions=event,country&grain=day&fill=none&from=2025-11-14&to=2025-11-16";
    for order in ["time:asc", "time:desc", "event:desc", "country:asc", "events:asc", "events:desc"] {
        let rows = async |more: &str| {
            let mut answer = api.http.get(&format!("{base}&order={order}{more}")).await.json();
            assert_eq!(answer["meta"]["total_rows"], 12, "{answer}");
            let next = answer["meta"]["next"].as_str().map(str::to_owned);
            (answer["data"].as_array_mut().unwrap().split_off(0), next)
        };
        let (whole, _) = rows("").await;
        let (mut pages, mut next) = rows("&limit=5").await;
        while let Some(cursor) = next {
            let page = rows(&format!("&limit=5&cursor={cursor}")).await;
            pages.extend(page.0);
            next = page.1;
        }
        assert_eq!(pages, whole, "{order}");
    }
}

#[tokio::test]
async fn numbers_are_exact_beyond_what_a_double_or_64_bits_hold() {
    let world = World::new("query_numbers").await;
    let (edge, _aggregator, api) = world.pipeline().await;
    let big = |event: &str, value| TestEvent { value, ..made("2025-11-15 12:00:00", event, "ann", "DE") };
    let beyond = (1 << 53) + 1;
    let events = [big("safe", beyond), big("max", i64::MAX), big("max", i64::MAX), big("max", i64::MAX)];
    let lines: Vec<_> = events.iter().map(TestEvent::line).collect();
    assert_eq!(edge.http.post_lines(&lines).await.json()["accepted"], 4);
    let path = "/v1/query?measures=value&dimensions=event&from=2025-11-15T12:00:00Z&to=2025-11-15T13:00:00Z";
    let waited = wait_for("the exact sums in the answer", DEADLINE, async || {
        let text = api.http.get(path).await.text;
        text.contains(r#"{"event":"max","value":27670116110564327421}"#)
            && text.contains(r#"{"event":"safe","value":9007199254740993}"#)
            && text.contains(r#""unsafe_integers":true"#)
    });
    waited.await.unwrap();
    let quoted = api.http.get(&format!("{path}&int64=string&filter=event:eq:safe")).await.json();
    assert_eq!(quoted["data"], json!([{"event": "safe", "value": "9007199254740993"}]));
}

#[tokio::test]
async fn an_unfinished_window_is_compared_with_an_equally_long_part() {
    let world = World::new("query_compare").await;
    let (edge, _aggregator, api) = world.pipeline().await;
    let minute = now().floor(MINUTE).0;
    let at = |minutes: i64| UnixMillis(minute - minutes * MINUTE).to_string();
    let day = 24 * 60;
    // The ages of the events: three are a day old or up to two minutes older, two are two or three minutes younger than
    // a day, two are one or two minutes old, and two are about two days old.
    let times = [
        at(day),
        at(day + 1),
        at(day + 2),
        at(day - 2),
        at(day - 3),
        at(1),
        at(2),
        at(2 * day),
        at(2 * day - 5),
    ];
    let events: Vec<_> = times.iter().map(|time| made(&time[..19], "a", "ann", "DE")).collect();
    count(&world, &edge.http, &events).await;
    api.wait_until_as_of(now()).await;
    // The minutes of the last 24 hours, each compared with the same minute of the day before. With `fill=none`, only
    // minutes with events have rows. The two rows with the events at `at(1)` and `at(2)` are compared with one event
    // each, and the other two rows with none.
    let path = "/v1/query?grain=minute&from=-1440m&compare=previous&fill=none&rollup=event_minutely";
    let answer = api.http.get(path).await.json();
    let compared: i64 =
        answer["data"].as_array().unwrap().iter().filter_map(|row| row["compare"]["events"].as_i64()).sum();
    assert_eq!(compared, 2, "{answer}");
    let total = api.http.get("/v1/query?from=-1d&compare=previous").await.json();
    let cut = &total["meta"]["compare"]["cut"];
    if cut.is_null() {
        // Until the events of the first minute of the UTC day are counted, `cut` is null: no minute of the day can be
        // compared.
        return;
    }
    let moment =
        |name: &str| UnixMillis::parse(&cut[name].as_str().unwrap()[..19].replace('T', " ")).unwrap();
    assert_eq!(moment("now").0 - moment("then").0, day * MINUTE, "{total}");
    let first_day = moment("now").floor(day * MINUTE).0;
    let between = |from: i64, to: i64| {
        let time = |time: &String| UnixMillis::parse(&time[..19]).unwrap().0;
        times.iter().map(time).filter(|time| (from..to).contains(time)).count()
    };
    let yesterday = first_day - day * MINUTE;
    let (now, then) = (between(first_day, moment("now").0), between(yesterday, moment("then").0));
    assert_eq!(total["data"][0]["compare"]["events"], then, "{total}");
    let change =
        (then > 0).then(|| now as f64 / then as f64 - 1.0).map(|change| (change * 1e4).round() / 1e4);
    assert_eq!(total["data"][0]["change"]["events"].as_f64(), change, "{total}");
}

#[tokio::test]
async fn a_bucket_for_which_the_rollup_lacks_events_is_null() {
    let world = World::new("query_since").await;
    let (edge, _aggregator, api) = world.pipeline().await;
    let events =
        ["2025-11-14 12:00:00", "2025-11-16 12:00:00"].map(|time| made(time, "a", "ann", "DE")).to_vec();
    count(&world, &edge.http, &events).await;
    let http = &api.http;
    let days = "grain=day&from=2025-11-13&to=2025-11-17&rollup=event_daily";
    let counts = async || {
        let rows = rows(http, days).await;
        rows.as_array().unwrap().iter().map(|row| row["events"].as_u64()).collect::<Vec<_>>()
    };
    assert_eq!(counts().await, [Some(0), Some(1), Some(0), Some(1)]);
    let note = "INSERT INTO rollup_since (rollup, kp, since, noted)
                VALUES ('event_daily', 0, '2025-11-14 06:00:00', now64()), ('event_daily', 1, '1970-01-01', now64())";
    world.rows(note).await;
    let waited = wait_for("null for days that lack events in the rollup", DEADLINE, async || {
        counts().await == [None, None, Some(0), Some(1)]
    });
    waited.await.unwrap();
    // If the query names no rollup, the query API answers it from a rollup that has every event.
    let answer = http.get("/v1/query?grain=day&from=2025-11-13&to=2025-11-17").await.json();
    assert_eq!(answer["meta"]["rollups"], json!(["event_hourly"]));
    assert_eq!(answer["data"][1]["events"], 1);
    let empty =
        async |asked: &str| http.get(&format!("/v1/query?{asked}")).await.json()["meta"]["empty"].clone();
    let before = "dimensions=event&from=2025-11-10&to=2025-11-11";
    assert_eq!(empty(&format!("{before}&rollup=event_daily")).await, "before_since");
    assert_eq!(empty(before).await, "no_rows");
    let unknown = "dimensions=event&from=2025-11-14&to=2025-11-15&filter=event:eq:unknown";
    assert_eq!(empty(unknown).await, "filtered");
    let history = async |rollup: &str| {
        let meta = http.get("/v1/meta").await.json();
        let rollups = meta["rollups"].as_array().unwrap();
        let found = rollups.iter().find(|meta| meta["name"] == rollup).unwrap();
        (found["history"].clone(), found["since"].clone())
    };
    assert_eq!(history("event_daily").await, (json!("since"), json!("2025-11-14T06:00:00.000Z")));
    assert_eq!(history("event_hourly").await, (json!("whole"), Value::Null));
    let none = "INSERT INTO rollup_since (rollup, kp, since, noted)
                VALUES ('event_daily', 1, '2299-12-31', now64() + 1)";
    world.rows(none).await;
    wait_for("`/v1/meta` to show the rollup as not counted", DEADLINE, async || {
        history("event_daily").await == (json!("not_counted"), Value::Null)
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn equal_concurrent_queries_share_one_clickhouse_query() {
    let world = World::new("query_shared").await;
    // The interval is so long that no second refresh happens during the test.
    let mut api = world.start("query-api", &[("REFRESH_INTERVAL", "120s")]);
    api.wait_ready().await.unwrap();
    let http = Http::new(api.http());
    let path = "/v1/query?dimensions=country&from=2025-11-14&to=2025-11-15&filter=country:nin:shared";
    let mut asking = tokio::task::JoinSet::new();
    let http = std::sync::Arc::new(http);
    for _ in 0..100 {
        let http = std::sync::Arc::clone(&http);
        asking.spawn(async move { http.get(path).await.status });
    }
    assert_eq!(asking.join_all().await.into_iter().collect::<BTreeSet<_>>(), BTreeSet::from([200]));
    let sql =
        "SELECT count() FROM system.query_log WHERE current_database = 'query_shared' AND type = 'QueryStart'
               AND query LIKE '%AS Key0%' AND query NOT LIKE '%query_log%'";
    world.rows("SYSTEM FLUSH LOGS").await;
    assert_eq!(world.number(sql).await, 1);
    let admin = Http::new(api.admin());
    assert_eq!(admin.metric("query_api_query_cache_hits_total").await, Some(99));
    assert_eq!(admin.metric("query_api_queries_total").await, Some(100));
}

#[tokio::test]
async fn results_too_large_for_one_json_document_are_sent_as_csv_or_ndjson() {
    let world = World::new("query_rows").await;
    let api = world.query_api().await;
    let insert = "INSERT INTO rollup_sums (tenant, rollup, bucket, dim1, expires, rows)
                  SELECT 'default', 'event_daily', toDateTime('2025-11-14', 'UTC'), concat('e', toString(number)),
                         toDate('2149-06-06'), 1 FROM numbers(100001)";
    world.rows(insert).await;
    let path = |form: &str, limit: u32| {
        format!("/v1/query{form}?dimensions=event&from=2025-11-14&to=2025-11-15&limit={limit}")
    };
    let answer = api.http.get(&path(".csv", 100_000)).await;
    assert_eq!((answer.status, answer.text.lines().count()), (200, 100_001));
    assert_eq!(answer.header("x-truncated"), "true");
    let events: BTreeSet<_> = answer.text.lines().skip(1).collect();
    assert_eq!(events.len(), 100_000);
    let answer = api.http.get(&path(".ndjson", 100_000)).await;
    assert_eq!((answer.status, answer.text.lines().count()), (200, 100_000));
    let answer = api.http.get(&path("", 10_001)).await;
    assert_eq!(
        (answer.problem(), &answer.json()["errors"][0]["param"]),
        ("bad_parameter".to_owned(), &json!("limit"))
    );
    let answer = api.http.get(&path("", 10)).await.json();
    assert_eq!((&answer["meta"]["rows"], &answer["meta"]["total_rows"]), (&json!(10), &json!(100_001)));
}

#[tokio::test]
async fn query_apis_answer_only_from_rollups_that_the_aggregator_declares_too() {
    let world = World::new("query_declared").await;
    let (edge, mut aggregator, api) = world.pipeline().await;
    count(&world, &edge.http, &[made("2025-11-15 12:00:00", "a", "ann", "DE")]).await;
    let file = world.write("finer.toml", &format!("{}{FINER}", Rollups::built_in()));
    let other = world.start("query-api", &[("ROLLUPS_FILE", &file)]);
    let other = Http::new(other.http());
    let path = "/v1/query?from=2025-11-15&to=2025-11-16";
    let waited = wait_for("an answer from the second query API", DEADLINE, async || {
        other.try_send("GET", path, &[], "").await.is_ok_and(|answer| answer.status == 200)
    });
    waited.await.unwrap();
    for http in [&api.http, &other] {
        assert_eq!(http.get(path).await.json()["data"], json!([{"events": 1}]));
    }
    // The aggregator does not declare the rollup `users_quarterly` and stores nothing in it, so an answer from this
    // rollup would have no users, which is wrong.
    let by_country = "/v1/query?measures=users&dimensions=country&from=2025-11-15&to=2025-11-16";
    let answer = other.get(by_country).await;
    assert_eq!((answer.status, answer.problem()), (422, "not_covered".to_owned()));
    let reason =
        "not considered, because the aggregator declares them differently or not at all: users_quarterly";
    assert!(answer.text.contains(reason), "{}", answer.text);

    assert!(aggregator.terminate().await.unwrap().success());
    let declared = [("ROLLUPS_FILE", file.as_str())];
    world.migrate_with(&declared).await;
    let mut aggregator = world.start("stream-agg", &declared);
    aggregator.wait_ready().await.unwrap();
    let waited =
        wait_for("an answer from the rollup", DEADLINE, async || other.get(by_country).await.status == 200);
    waited.await.unwrap();
    assert_eq!(api.http.get(path).await.json()["data"], json!([{"events": 1}]));
}
