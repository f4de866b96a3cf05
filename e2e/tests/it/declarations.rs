//! A batch is finished under the declaration that it was declared with, whatever the next process declares.

use std::fmt::Debug;

use devstack::{Service, wait_for};
use schemas::rollup::Rollups;
use serde_json::json;
use uuid::Uuid;

use crate::client::Http;
use crate::oracle::now;
use crate::wire::enriched;
use crate::world::{DEADLINE, World};

/// What only the second process declares.
const PLANS: &str = r#"
[[rollup]]
name = "plans_daily"
grain = "day"
dimensions = ["props.plan"]
measures = { events = "count" }
"#;

/// Tables that refuse the first batch: of raw rows, of a rollup of both, and of one that only the first
/// process declares.
const CLOSED: [&str; 3] = ["events", "users_hourly", "sessions_daily"];

/// Appends a record to partition 0: three events of now, and one of 2010.
fn produce(world: &World) {
    let (id, time) = (Uuid::now_v7().to_string(), now().to_string());
    let line = |user: u32, time: &str| {
        enriched(&json!({"event": "play", "user_id": format!("u{user}"), "session": "s", "plan": "pro", "client_time": time}).to_string())
    };
    let lines = [line(1, &time), line(2, &time), line(3, &time), line(4, "2010-05-05 05:05:05")];
    world.produce(0, &[("v", "1"), ("n", "4"), ("id", &id)], lines.join("\n").as_bytes());
}

/// Waits until the aggregator says all of these words.
async fn says(aggregator: &Service, words: &[&str]) {
    let admin = Http::new(aggregator.admin());
    let mut seen = String::new();
    let waited = wait_for(format!("{words:?}"), DEADLINE, async || {
        if let Ok(answer) = admin.try_send("GET", "/readyz", &[], "").await {
            seen = answer.text;
        }
        words.iter().all(|word| seen.contains(word))
    });
    if let Err(overdue) = waited.await {
        panic!("{overdue}; it says {seen}");
    }
}

/// Waits until a query gives these rows.
async fn gives<T: Debug>(world: &World, sql: &str, expected: T)
where
    Vec<Vec<String>>: PartialEq<T>,
{
    let mut found = Vec::new();
    let waited = wait_for(format!("{sql} to give {expected:?}"), DEADLINE, async || {
        found = world.rows(sql).await;
        found == expected
    });
    if let Err(overdue) = waited.await {
        panic!("{overdue}; it gives {found:?}");
    }
}

#[tokio::test]
async fn a_batch_that_is_stored_in_part_is_finished_under_the_rollups_that_it_was_declared_with() {
    let world = World::new("declared_before").await;
    for table in CLOSED {
        world.rows(&format!("ALTER TABLE {table} ADD CONSTRAINT closed CHECK hwm > 1000")).await;
    }
    produce(&world);
    let place = ("GROUP_INSTANCE_ID", "the-only-one");
    let mut first = world.start("stream-agg", &[place]);
    gives(&world, "SELECT sum(events) FROM event_hourly WHERE tenant != ''", [["4"]]).await;
    gives(&world, "SELECT sum(stored) FROM ledger", [["4"]]).await;
    let (offset, metadata) = world.committed(0);
    assert!(offset == 0 && metadata.contains(" L=0 "), "{metadata}");
    first.kill9();
    for table in CLOSED {
        assert_eq!(world.number(&format!("SELECT count() FROM {table}")).await, 0, "{table}");
        world.rows(&format!("ALTER TABLE {table} DROP CONSTRAINT closed")).await;
    }

    // One rollup more, one less, and another reach of client clocks.
    let declared = Rollups::built_in().to_string();
    let kept: Vec<_> =
        declared.split("[[rollup]]").filter(|rollup| !rollup.contains("\"sessions_daily\"")).collect();
    let file = world.write("rollups.toml", &(kept.join("[[rollup]]") + PLANS));
    let second = [place, ("ROLLUPS_FILE", &*file), ("EVENT_TIME_FROM", "2020-01-01T00:00:00Z")];
    world.migrate_with(&second).await;

    // Nobody finishes it under a declaration that was changed.
    let change = |from: &str, to: &str| {
        format!(
            "ALTER TABLE configs UPDATE declared = replaceOne(declared, '\"earliest_ms\":{from},', '\"earliest_ms\":{to},')
             WHERE declared LIKE '%sessions_daily%' SETTINGS mutations_sync = 1"
        )
    };
    world.rows(&change("946684800000", "0")).await;
    let mut refusing = world.start("stream-agg", &second);
    says(&refusing, &["partition 0: what is declared cannot be finished", "was changed"]).await;
    refusing.terminate().await.unwrap();
    assert_eq!(world.number("SELECT count() FROM events").await, 0);
    world.rows(&change("0", "946684800000")).await;

    let mut aggregator = world.start("stream-agg", &second);
    aggregator.wait_ready().await.unwrap();
    produce(&world);
    gives(
        &world,
        "SELECT ko, sum(stored) FROM ledger WHERE tenant != '' GROUP BY ko ORDER BY ko",
        &[&["0", "4"], &["1", "4"]],
    )
    .await;
    // Raw rows say under what: the first record under the first declaration, the second under ours.
    let of =
        |rollup: &str| format!("SELECT DISTINCT toString(cfg) FROM configs WHERE declared LIKE '%{rollup}%'");
    let [before, ours] = [world.rows(&of("sessions_daily")).await, world.rows(&of("plans_daily")).await];
    let raw = "SELECT toString(ko), toString(cfg), toString(count()) FROM events WHERE tenant != '' GROUP BY ko, cfg ORDER BY ko";
    gives(&world, raw, [["0", &before[0][0], "4"], ["1", &ours[0][0], "4"]]).await;
    let declared = format!(" cfg={:016x} ", before[0][0].parse::<u64>().unwrap());
    assert!(metadata.contains(&declared), "{metadata}");
    // The rollup of both has all, that of the first only the first, that of the second only the second.
    let sums = "SELECT (SELECT sum(rows) FROM users_hourly WHERE tenant != ''),
                       (SELECT sum(rows) FROM sessions_daily WHERE tenant != ''),
                       (SELECT sum(events) FROM plans_daily WHERE tenant != '')";
    gives(&world, sums, [["8", "4", "4"]]).await;
    // Only the first declaration believes a clock of 2010.
    let old = "SELECT sum(events) FROM event_hourly WHERE tenant != '' AND bucket < '2011-01-01'";
    gives(&world, old, [["1"]]).await;

    // What was finished under the first declaration is what a backfill finds lacking.
    world.run("stream-agg", &["backfill", "plans_daily"], &second).await.unwrap();
    gives(&world, "SELECT sum(events) FROM plans_daily WHERE tenant != ''", [["8"]]).await;
}
