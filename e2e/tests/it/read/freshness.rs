//! A read never waits for ClickHouse, and all reads together cost at most one query per poll.

use std::time::{Duration, Instant};

use devstack::wait_for;
use schemas::time::HOUR;

use crate::client::Http;
use crate::oracle::now;
use crate::world::{DEADLINE, World};

#[tokio::test]
async fn many_reads_of_many_hours_cost_at_most_one_query_per_tick() {
    let world = World::new("freshness_ticks").await;
    let interval = Duration::from_secs(1);
    let started = Instant::now();
    let mut service = world.start("query-api", &[("POLL_INTERVAL", "1s")]);
    service.wait_ready().await.unwrap();
    let http = Http::new(service.http());
    let current = now().floor(HOUR).0;

    let hot = async {
        for n in 0..3000 {
            let answer = http.get(&format!("/analytics?timestamp={}", current - (n % 72) * HOUR)).await;
            assert_eq!(answer.status, 200);
        }
    };
    // Reads of old hours come all at once, and wait for the next poll together.
    let cold = async {
        let asked: Vec<_> = (0..100)
            .map(|n| {
                let http = Http::new(service.http());
                tokio::spawn(async move {
                    http.get(&format!("/analytics?timestamp={}", current - (1000 + n) * HOUR)).await.status
                })
            })
            .collect();
        for one in asked {
            assert_eq!(one.await.unwrap(), 200);
        }
    };
    tokio::join!(hot, cold);
    let elapsed = started.elapsed();
    assert!(service.terminate().await.unwrap().success());

    let mut queries = 0;
    let finished = "SELECT count() FROM system.query_log WHERE current_database = 'freshness_ticks' AND type = 'QueryFinish'
                    AND query_kind = 'Select' AND query LIKE '%users_hourly%' AND query NOT LIKE '%query_log%'";
    world.number("SELECT count() FROM (SELECT 1)").await;
    world.rows("SYSTEM FLUSH LOGS").await;
    wait_for("the query log", DEADLINE, async || {
        queries = world.number(finished).await;
        queries > 0
    })
    .await
    .unwrap();
    // The interval has a jitter of ±10 %, and the first query comes at the start.
    let most = (elapsed.as_secs_f64() / (interval.as_secs_f64() * 0.9)).floor() as u64 + 1;
    assert!(queries <= most, "{queries} queries in {elapsed:?}");
}

#[tokio::test]
async fn an_event_is_visible_within_two_ticks_and_a_flush() {
    let world = World::new("freshness_visible").await;
    let (edge, _aggregator, api) = world.pipeline().await;
    for n in 1..=5 {
        let posted = now();
        assert_eq!(edge.http.post(&format!("/analytics/{}/user-{n}/click", posted.0)).await.status, 204);
        let path = format!("/analytics?timestamp={}", posted.0);
        let expected = format!("clicks,{n}\n");
        // Here a batch closes after 200 ms and a poll comes every 300 ms; the rest is for a busy machine.
        let seen = wait_for(format!("click {n}"), Duration::from_secs(10), async || {
            api.http.get(&path).await.text.contains(&expected)
        });
        seen.await.unwrap();
    }
}
