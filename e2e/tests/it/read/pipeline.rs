//! `/v1/pipeline` has figures for operators, from the ledger, the table `progress` and the latest audit.

use std::time::{Duration, Instant};

use devstack::wait_for;
use schemas::time::UnixMillis;
use serde_json::{Value, json};

use crate::client::Http;
use crate::oracle::{TestEvent, now};
use crate::world::{DEADLINE, World};

async fn data(http: &Http) -> Value {
    let answer = http.get("/v1/pipeline").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()["data"].take()
}

#[tokio::test]
async fn figures_are_those_of_the_ledger_and_of_the_latest_audit() {
    let world = World::new("pipeline").await;
    let (edge, _aggregator, api) = world.pipeline().await;
    assert_eq!(data(&api.http).await["audit"], Value::Null);
    let mut rng = fastrand::Rng::with_seed(6);
    let lines: Vec<_> = (0..20).map(|at| TestEvent::random(&mut rng, now()).line_with_id(at)).collect();
    edge.http.post_lines(&lines).await;
    edge.http.post_lines(&[&lines[..5], &["not JSON".to_owned()]].concat()).await;

    let expected =
        json!({"received": 25, "stored": 20, "rejected": 0, "duplicates": 5, "rejected_samples": 1});
    // Partitions without records report their progress too, possibly later than the others.
    let all_partitions_reported = |data: &Value| data["partitions"]["slowest"].is_u64();
    let counted = wait_for("`/v1/pipeline` to count the posted lines", DEADLINE, async || {
        let data = data(&api.http).await;
        data["lines"] == expected && all_partitions_reported(&data)
    });
    counted.await.unwrap();
    let answer = api.http.get("/v1/pipeline").await;
    let as_of = UnixMillis::parse(answer.json()["meta"]["as_of"].as_str().unwrap()).unwrap();
    assert!(as_of <= now() && answer.header("x-age-ms").parse::<i64>().unwrap() >= 0);
    assert!(answer.json()["data"]["partitions"]["slowest"].as_u64().unwrap() < 8);

    world.run("stream-agg", &["audit"], &[]).await.unwrap();
    let audited = wait_for("a sound audit in the answer", DEADLINE, async || {
        data(&api.http).await["audit"]["sound"] == true
    });
    audited.await.unwrap();
    // Inserts the rows that an audit would write if two rows were missing: one row for the whole table `events`, and
    // one for the day of the missing rows.
    let wrong = "INSERT INTO audits (audited_at, table, part, missing)
                 SELECT now64(3) + 1, 'events', arrayJoin(['all', '2026-11-29']), 2";
    world.rows(wrong).await;
    let found = wait_for("`/v1/pipeline` to show the missing rows", DEADLINE, async || {
        let audit = data(&api.http).await["audit"].take();
        audit["sound"] == false && audit["missing"] == 2
    });
    found.await.unwrap();
}

#[tokio::test]
async fn many_requests_cost_at_most_one_statement_per_refresh() {
    let world = World::new("pipeline_ticks").await;
    let started = Instant::now();
    let mut service = world.start("query-api", &[("REFRESH_INTERVAL", "1s")]);
    service.wait_ready().await.unwrap();
    let http = Http::new(service.http());
    while started.elapsed() < Duration::from_secs(3) {
        data(&http).await;
    }
    let elapsed = started.elapsed();
    world.rows("SYSTEM FLUSH LOGS").await;
    let ran = "SELECT count() FROM system.query_log WHERE current_database = 'pipeline_ticks'
               AND type = 'QueryFinish' AND query LIKE '%audited_tables%' AND query NOT LIKE '%query_log%'";
    let statements = world.number(ran).await;
    assert!((1..=elapsed.as_secs() + 1).contains(&statements), "{statements} statements in {elapsed:?}");
}
