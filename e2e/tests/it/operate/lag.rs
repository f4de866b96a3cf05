//! The lag metrics of the aggregator: the lag grows while ClickHouse is down, and is 0 again once everything is stored.

use devstack::wait_for;
use schemas::time::SECOND;

use crate::client::Http;
use crate::oracle::{Oracle, TestEvent, now};
use crate::world::{DEADLINE, World};

#[tokio::test(flavor = "multi_thread")]
async fn the_lag_in_seconds_grows_while_clickhouse_is_down() {
    let (mut stack, world) = World::on_own_servers("lag").await;
    let (edge, aggregator) = tokio::join!(world.edge(), world.aggregator());
    let shown = Http::new(aggregator.admin());
    let metric = async |name: &str| shown.metric(&format!("stream_agg_{name}")).await.unwrap_or_default();
    let (mut rng, mut oracle) = (fastrand::Rng::with_seed(64), Oracle::default());
    let mut send = async || {
        let made: Vec<_> = (0..50).map(|_| Some(TestEvent::random(&mut rng, now()))).collect();
        let lines: Vec<_> = made.iter().flatten().map(TestEvent::line).collect();
        oracle.record_report(&edge.http.post_lines(&lines).await, &made);
    };

    let start = now().0 / SECOND;
    send().await;
    let stored = async || metric("watermark_timestamp_seconds").await as i64 > start;
    wait_for("the watermark to pass the start of the test", DEADLINE, stored).await.unwrap();
    assert!(metric("lag_seconds").await <= 4, "lag_seconds, summed over four partitions, is above 4");

    stack.clickhouse.kill9().unwrap();
    send().await;
    // `metric` adds up the lags of the four partitions, each of which has some of the events.
    wait_for("the lag to grow", DEADLINE, async || metric("lag_seconds").await >= 8).await.unwrap();
    let held = metric("watermark_timestamp_seconds").await as i64;
    stack.clickhouse.start().await.unwrap();
    let caught_up = async || {
        metric("lag_seconds").await == 0 && metric("watermark_timestamp_seconds").await as i64 > held
    };
    wait_for("the lag to be 0 again", DEADLINE, caught_up).await.unwrap();
    world.assert_counted(&oracle.counts()).await;
    // After the outage, the aggregator checks the tables before its first insert. After this check, it counts the parts
    // of the tables and sets the metric.
    wait_for("the metric of parts to be set", DEADLINE, async || metric("parts").await > 0).await.unwrap();
}
