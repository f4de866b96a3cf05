//! Kafka or ClickHouse not there at start: a clear line, readiness that says so, no crash, and all well once they come.

use devstack::{Service, Stack, wait_for};

use crate::client::Http;
use crate::oracle::{Made, Oracle, now};
use crate::world::{DEADLINE, Edge, World};

/// Waits until the service is alive, not ready, and says what it lacks.
pub(crate) async fn assert_lacks(service: &Service, what: &str) {
    let admin = Http::new(service.admin());
    let mut last = String::new();
    let waited = wait_for(format!("readiness to name {what}"), DEADLINE, async || {
        let Ok(answer) = admin.try_send("GET", "/readyz", &[], "").await else { return false };
        last = answer.text.to_lowercase();
        answer.status == 503 && last.contains(what)
    });
    if let Err(overdue) = waited.await {
        panic!("{overdue}; it says {last:?}");
    }
    assert_eq!(admin.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn services_wait_for_kafka_and_clickhouse_and_then_count() {
    let mut stack = Stack::for_test("late").unwrap();
    let world = World::unmigrated("late_dependencies", stack.kafka.brokers(), stack.clickhouse.url());
    let mut edge = world.start("ingest", &[]);
    let mut aggregator = world.start("stream-agg", &[]);
    let mut api = world.start("query-api", &[]);
    assert_lacks(&edge, "kafka").await;
    assert_lacks(&aggregator, "clickhouse").await;
    assert_lacks(&api, "clickhouse").await;

    let refused = Http::new(edge.http()).post_lines(&["{\"event\":\"a\"}".to_owned()]).await;
    assert_eq!(refused.status, 503, "{}", refused.text);
    assert!(!refused.header("retry-after").is_empty());

    stack.start().await.unwrap();
    world.migrate().await;
    edge.wait_ready().await.unwrap();
    aggregator.wait_ready().await.unwrap();
    api.wait_ready().await.unwrap();

    let edge = Edge::new(edge);
    let mut oracle = Oracle::default();
    let made = Made::random(&mut fastrand::Rng::with_seed(9), now());
    oracle.reported(&edge.http.post_lines(&[made.line()]).await, &[Some(made)]);
    world.assert_counted(&oracle.counts()).await;
    edge.assert_balanced().await;

    // And when they go away later: the edge says so, reads go on.
    stack.kafka.stop().await.unwrap();
    stack.clickhouse.stop().await.unwrap();
    assert_lacks(&edge.service, "kafka").await;
    let answer = Http::new(api.http()).get(&format!("/analytics?timestamp={}", now().0)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}
