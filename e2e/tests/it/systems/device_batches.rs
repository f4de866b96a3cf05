//! Devices send batches of 30 events per request. The edge adds `tenant`, `ip` and `server_time` to each event, and
//! each event is stored.

use schemas::time::{HOUR, UnixMillis};

use crate::oracle::{Oracle, TestEvent, now};
use crate::world::World;

/// An event of the year 2020.
const SAMPLE: &str = r#"{"client_time":"2020-12-01 23:59:00","device_id":"0287D9AA-4ADF-4B37-A60F-3E9E645C821E","device_os":"iOS 13.5.1","session":"ybuRi8mAUypxjbxQ","sequence":1,"event":"app_start","param_int":0,"param_str":"some text"}"#;

#[tokio::test]
async fn an_event_of_2020_is_stored_as_sent_and_counts_in_2020() {
    let world = World::new("device_batches_2020").await;
    let (edge, _aggregator, _api) = world.pipeline().await;
    let before = now();
    let answer = edge.http.send("POST", "/api/events", &[], SAMPLE).await;
    assert_eq!(answer.json()["accepted"], 1, "{}", answer.text);

    let mut oracle = Oracle::default();
    oracle.record(&TestEvent {
        time: UnixMillis::parse("2020-12-01 23:59:00").unwrap(),
        event: "app_start".to_owned(),
        user: "0287D9AA-4ADF-4B37-A60F-3E9E645C821E".to_owned(),
        country: String::new(),
        device_os: "iOS 13.5.1".to_owned(),
        value: 0,
    });
    world.assert_counted(&oracle.counts()).await;

    let row = world
        .rows(
            "SELECT tenant, event, client_time, toUnixTimestamp64Milli(server_time), ip, device_id, device_os, session,
                    sequence, param_int, param_str, props, line FROM events WHERE tenant != ''",
        )
        .await
        .remove(0);
    let server_time: i64 = row[3].parse().unwrap();
    assert!(
        (before.0..=now().0).contains(&server_time),
        "server_time {server_time} must be the time of the request"
    );
    let others: Vec<_> =
        row.iter().enumerate().filter(|(at, _)| *at != 3).map(|(_, text)| text.as_str()).collect();
    assert_eq!(
        others,
        [
            "default",
            "app_start",
            "2020-12-01 23:59:00.000",
            "::ffff:127.0.0.1",
            "0287D9AA-4ADF-4B37-A60F-3E9E645C821E",
            "iOS 13.5.1",
            "ybuRi8mAUypxjbxQ",
            "1",
            "0",
            "some text",
            "{}",
            "0"
        ]
    );
}

#[tokio::test]
async fn accepted_events_survive_a_stop_of_the_edge_and_of_the_aggregator() {
    let world = World::new("device_batches_stop").await;
    let (mut edge, mut aggregator, api) = world.pipeline().await;
    let mut rng = fastrand::Rng::with_seed(3);
    let mut oracle = Oracle::default();
    let time = now().floor(HOUR);
    for stop in 0..3 {
        for _ in 0..20 {
            let lines: Vec<_> = (0..30).map(|_| Some(TestEvent::random(&mut rng, time))).collect();
            let text: Vec<_> = lines.iter().flatten().map(TestEvent::line).collect();
            oracle.record_report(&edge.http.post_lines(&text).await, &lines);
        }
        match stop {
            0 => {
                edge.assert_balanced().await;
                assert!(edge.service.terminate().await.unwrap().success(), "the edge exited with an error");
                edge = world.edge().await;
            }
            1 => {
                assert!(
                    aggregator.terminate().await.unwrap().success(),
                    "the aggregator exited with an error"
                );
                aggregator = world.aggregator().await;
            }
            _ => {}
        }
    }
    let (users, clicks, impressions) = oracle.hour(time);
    api.assert_hour(time.0, users, clicks, impressions).await;
    world.assert_counted(&oracle.counts()).await;
}

#[tokio::test]
async fn fields_that_are_not_known_are_kept_and_reserved_ones_are_replaced() {
    let world = World::new("device_batches_props").await;
    let (edge, _aggregator, _api) = world.pipeline().await;
    let mut oracle = Oracle::default();
    let made = TestEvent { time: now(), ..TestEvent::random(&mut fastrand::Rng::with_seed(4), now()) };
    let line = made.line();
    let line = format!(
        r#"{{"plan":{{"tier":"gold","seats":[1,2]}},"ip":"6.6.6.6","tenant":"evil","server_time":0,{}"#,
        &line[1..]
    );
    oracle.record_report(&edge.http.post_lines(&[line]).await, &[Some(made)]);
    world.assert_counted(&oracle.counts()).await;
    let rows = world.rows("SELECT props, ip, tenant FROM events WHERE tenant != ''").await;
    assert_eq!(rows, [[r#"{"plan":{"tier":"gold","seats":[1,2]}}"#, "::ffff:127.0.0.1", "default"]]);
}
