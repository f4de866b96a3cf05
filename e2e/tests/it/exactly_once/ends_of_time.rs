//! The settings limit the range of client times that the aggregator accepts. With the widest possible range, an event
//! at the start of the range or within a day of its end counts once, at its client time. An event outside the range
//! counts once, at the time of its arrival. None of these events stops a partition.

use devstack::{Stack, wait_for};
use schemas::rollup::Rollups;
use schemas::time::{DAY, HOUR, UnixMillis};
use serde_json::json;

use crate::oracle::now;
use crate::world::{DEADLINE, World};

/// A rollup with the longest possible retention.
const LONG_KEPT: &str = r#"
[[rollup]]
name = "long_kept"
grain = "day"
dimensions = ["event"]
measures = { events = "count" }
retention = "14600d"
"#;

#[tokio::test]
async fn events_at_the_limits_of_time_count_once_also_after_a_restart() {
    let world = World::new("ends_of_time").await;
    let file = world.write("rollups.toml", &format!("{}{LONG_KEPT}", Rollups::built_in()));
    let widest = [
        ("ROLLUPS_FILE", &*file),
        ("EVENT_TIME_FROM", "1970-01-01T00:00:00Z"),
        ("EVENT_TIME_AHEAD", "1year"),
    ];
    world.migrate_with(&widest).await;
    let edge = world.edge().await;
    let ahead = UnixMillis(now().0 + 365 * DAY);
    for posted in [5, 10] {
        let times = [
            ("trusted", "1970-01-01 00:00:00.000".to_owned()),
            ("trusted", ahead.to_string()),
            ("replaced", "1969-12-31 23:59:59.999".to_owned()),
            ("replaced", "1900-01-01 00:00:00".to_owned()),
            ("replaced", "2299-12-31 23:59:59.999".to_owned()),
        ];
        let lines = times.map(|(event, time)| json!({"event": event, "client_time": time}).to_string());
        assert_eq!(edge.http.post_lines(&lines).await.status, 200);
        let mut aggregator = world.start("stream-agg", &widest);
        aggregator.wait_ready().await.unwrap();
        let both = "SELECT (SELECT sum(events) FROM rollup.event_hourly WHERE tenant != ''), (SELECT sum(stored) FROM ledger)";
        let waited = wait_for(format!("{posted} events"), DEADLINE, async || {
            world.rows(both).await == [[posted.to_string(), posted.to_string()]]
        });
        waited.await.unwrap();
        // In the next pass, another aggregator starts at the offset that this aggregator has committed.
        assert!(aggregator.terminate().await.unwrap().success());
    }
    for table in ["events", "rollup_sums"] {
        world.rows(&format!("OPTIMIZE TABLE {table} FINAL")).await;
    }
    let hours =
        "SELECT toUnixTimestamp(bucket), event, sum(events) FROM rollup.event_hourly WHERE tenant != ''
                 GROUP BY 1, 2 ORDER BY ALL";
    let arrived = "SELECT toUnixTimestamp(toStartOfHour(server_time)), event, count() FROM events
                   WHERE event = 'replaced' GROUP BY 1, 2 ORDER BY ALL";
    let trusted = |time: i64| [(time / 1000).to_string(), "trusted".to_owned(), "2".to_owned()].to_vec();
    let expected = [vec![trusted(0)], world.rows(arrived).await, vec![trusted(ahead.floor(HOUR).0)]].concat();
    assert_eq!(world.rows(hours).await, expected);
    // `long_kept` does not have the two `trusted` events of 1970-01-01, because they are older than its retention of
    // forty years. It has the two `trusted` events with a time in the future.
    let kept = "SELECT dim1, sum(rows) FROM rollup_sums WHERE rollup = 'long_kept' AND tenant != '' GROUP BY dim1 ORDER BY dim1";
    assert_eq!(world.rows(kept).await, [["replaced", "6"], ["trusted", "2"]]);
    world.run("stream-agg", &["audit"], &widest).await.unwrap();
}

#[tokio::test]
async fn rows_without_expiry_are_kept_in_any_time_zone_of_clickhouse() {
    let name = "ends_of_time_in_tokyo";
    let mut stack = Stack::for_test(name).unwrap();
    stack.clickhouse.set_time_zone("Asia/Tokyo");
    stack.start().await.unwrap();
    let world = World::unmigrated(name, stack.kafka.brokers(), stack.clickhouse.url());
    world.migrate().await;
    assert_eq!(world.rows("SELECT serverTimeZone()").await, [["Asia/Tokyo"]]);
    let (edge, _aggregator) = tokio::join!(world.edge(), world.aggregator());
    let lines = ["2001-01-01 00:00:00", "2026-11-21 23:59:59"]
        .map(|time| json!({"event": "kept", "client_time": time}).to_string());
    assert_eq!(edge.http.post_lines(&lines).await.json()["accepted"], 2);
    let sums =
        "SELECT sum(rows), count() FROM rollup_sums WHERE rollup = 'event_daily' AND expires = '2149-06-06'";
    let kept = async || world.rows(sums).await == [["2", "2"]];
    wait_for("both events", DEADLINE, kept).await.unwrap();
    let marked = "SELECT count() FROM rollup_sums WHERE tenant = '' AND expires = '2149-06-06' AND hwm > 0";
    assert_eq!(world.number(marked).await, 1);
    for table in ["rollup_sums", "rollup_states"] {
        world.rows(&format!("OPTIMIZE TABLE {table} FINAL")).await;
    }
    assert!(kept().await);
    assert_eq!(world.number(marked).await, 1, "markers are kept too");
}
