//! Kafka must set the timestamps of records. An aggregator does not read a topic in which producers set them.

use crate::oracle::{Oracle, TestEvent, now};
use crate::readiness::wait_until_not_ready;
use crate::world::{Edge, World};

#[tokio::test]
async fn a_topic_with_timestamps_from_producers_is_not_read_until_it_is_reconfigured() {
    let world = World::new("record_times").await;
    world.set_topic("message.timestamp.type", "CreateTime").await;
    let edge: Edge = world.edge().await;
    let mut aggregator = world.start("stream-agg", &[]);
    let change = "--entity-name record_times --add-config message.timestamp.type=LogAppendTime";
    wait_until_not_ready(&aggregator, &change.to_lowercase()).await;
    let error = format!("{:#}", world.run("stream-agg", &["migrate"], &[]).await.unwrap_err());
    assert!(error.contains("use topic `record_times`: producers set the times of records"), "{error}");
    assert!(error.contains("kafka-configs.sh --bootstrap-server ") && error.contains(change), "{error}");

    world.set_topic("message.timestamp.type", "LogAppendTime").await;
    aggregator.wait_ready().await.unwrap();
    world.migrate().await;
    let mut oracle = Oracle::default();
    let made = TestEvent::random(&mut fastrand::Rng::with_seed(97), now());
    oracle.record_report(&edge.http.post_lines(&[made.line()]).await, &[Some(made)]);
    world.assert_counted(&oracle.counts()).await;
}
