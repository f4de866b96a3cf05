//! A read of `/analytics` does not send its own query to ClickHouse: all such reads together cost at most one query per
//! refresh. The first read of a cold hour waits for the next refresh. Reads of hot hours do not wait.

use std::sync::Arc;
use std::time::{Duration, Instant};

use devstack::wait_for;
use schemas::time::HOUR;

use crate::client::Http;
use crate::oracle::now;
use crate::world::{DEADLINE, World};

#[tokio::test]
async fn many_reads_of_many_hours_cost_at_most_one_query_per_refresh() {
    count_queries("freshness_ticks", 3000, 100).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute: ./dev test --full"]
async fn a_hundred_thousand_reads_and_a_thousand_old_hours_cost_at_most_one_query_per_refresh() {
    count_queries("freshness_many_ticks", 100_000, 1000).await;
}

/// Sends `reads` reads of hot hours and, at the same time, one read of each of `old` cold hours. Checks that ClickHouse
/// got at most one query per refresh.
async fn count_queries(name: &'static str, reads: i64, old: i64) {
    const READERS: i64 = 10;
    let world = World::new(name).await;
    let interval = Duration::from_secs(1);
    let started = Instant::now();
    let mut service = world.start("query-api", &[("REFRESH_INTERVAL", "1s")]);
    service.wait_ready().await.unwrap();
    let http = Arc::new(Http::new(service.http()));
    let current = now().floor(HOUR).0;

    let hot = (0..READERS).map(|reader| {
        let http = Arc::clone(&http);
        tokio::spawn(async move {
            for n in 0..reads / READERS {
                let hour = current - ((reader + n) % 72) * HOUR;
                assert_eq!(http.get(&format!("/analytics?timestamp={hour}")).await.status, 200);
            }
        })
    });
    // All reads of cold hours arrive at once, and wait together for the next refresh.
    let cold = (0..old).map(|n| {
        let http = Arc::clone(&http);
        tokio::spawn(async move {
            let hour = current - (1000 + n) * HOUR;
            assert_eq!(http.get(&format!("/analytics?timestamp={hour}")).await.status, 200);
        })
    });
    for reader in hot.chain(cold).collect::<Vec<_>>() {
        reader.await.unwrap();
    }
    let elapsed = started.elapsed();
    assert!(service.terminate().await.unwrap().success());

    let mut queries = 0;
    let finished = format!(
        "SELECT count() FROM system.query_log WHERE current_database = '{name}' AND type = 'QueryFinish'
         AND query_kind = 'Select' AND query LIKE '%users_hourly%' AND query NOT LIKE '%query_log%'"
    );
    world.number("SELECT count() FROM (SELECT 1)").await;
    world.rows("SYSTEM FLUSH LOGS").await;
    wait_for("the refreshes in `system.query_log`", DEADLINE, async || {
        queries = world.number(&finished).await;
        queries > 0
    })
    .await
    .unwrap();
    // The interval between refreshes has a jitter of ±10 %, and the first refresh is at the start.
    let most = (elapsed.as_secs_f64() / (interval.as_secs_f64() * 0.9)).floor() as u64 + 1;
    assert!(queries <= most, "{queries} queries in {elapsed:?}");
}

#[tokio::test]
async fn an_event_is_visible_within_two_refreshes_and_a_batch() {
    let world = World::new("freshness_visible").await;
    let (edge, _aggregator, api) = world.pipeline().await;
    for n in 1..=5 {
        let posted = now();
        assert_eq!(edge.http.post(&format!("/analytics/{}/user-{n}/click", posted.0)).await.status, 204);
        let path = format!("/analytics?timestamp={}", posted.0);
        let expected = format!("clicks,{n}\n");
        // In tests a batch closes after 200 ms and the query API refreshes every 300 ms. The rest of the 10 s is a
        // margin for a busy machine.
        let seen = wait_for(format!("click {n}"), Duration::from_secs(10), async || {
            api.http.get(&path).await.text.contains(&expected)
        });
        seen.await.unwrap();
    }
}
