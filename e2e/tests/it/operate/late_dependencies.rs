//! Services start while Kafka and ClickHouse are down. The readiness of each service names a missing server, no
//! service crashes, and all services work once the servers are up.

use devstack::Stack;

use crate::client::Http;
use crate::oracle::{Oracle, TestEvent, now};
use crate::readiness::wait_until_not_ready;
use crate::world::{Edge, World};

#[tokio::test]
async fn services_wait_for_kafka_and_clickhouse_and_then_count() {
    let mut stack = Stack::for_test("late").unwrap();
    let world = World::unmigrated("late_dependencies", stack.kafka.brokers(), stack.clickhouse.url());
    let mut edge = world.start("ingest", &[]);
    let mut aggregator = world.start("stream-agg", &[]);
    let mut api = world.start("query-api", &[]);
    wait_until_not_ready(&edge, "kafka").await;
    wait_until_not_ready(&aggregator, "clickhouse").await;
    wait_until_not_ready(&api, "clickhouse").await;

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
    let made = TestEvent::random(&mut fastrand::Rng::with_seed(9), now());
    oracle.record_report(&edge.http.post_lines(&[made.line()]).await, &[Some(made)]);
    world.assert_counted(&oracle.counts()).await;
    edge.assert_balanced().await;

    // When the servers stop later, the edge's readiness names Kafka, and the query API still answers reads.
    stack.kafka.stop().await.unwrap();
    stack.clickhouse.stop().await.unwrap();
    wait_until_not_ready(&edge.service, "kafka").await;
    let answer = Http::new(api.http()).get(&format!("/analytics?timestamp={}", now().0)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}
