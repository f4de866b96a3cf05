//! Kafka that asks for a name and a password: any setting of its client reaches it, and a wrong password is told.

use devstack::Stack;
use devstack::kafka::LOGIN;

use crate::client::Http;
use crate::late_dependencies::assert_lacks;
use crate::oracle::{Made, Oracle, now};
use crate::world::{Edge, World};

#[tokio::test]
async fn services_log_in_to_kafka_and_say_if_it_refuses_them() {
    let mut stack = Stack::for_test("login").unwrap();
    stack.start().await.unwrap();
    let brokers = stack.kafka.brokers_with_login().unwrap();
    let world = World::unmigrated("login", &brokers, stack.clickhouse.url());
    let (user, password) = LOGIN;
    let with = |password| {
        [
            ("KAFKA_OPT_security.protocol", "SASL_PLAINTEXT"),
            ("KAFKA_OPT_sasl.mechanism", "PLAIN"),
            ("KAFKA_OPT_sasl.username", user),
            ("KAFKA_OPT_sasl.password", password),
        ]
    };
    world.migrate_with(&with(password)).await;

    let strangers = ["ingest", "stream-agg"].map(|service| world.start(service, &with("a guess")));
    for stranger in &strangers {
        assert_lacks(stranger, "authentication failed").await;
    }

    let [mut edge, mut aggregator] =
        ["ingest", "stream-agg"].map(|service| world.start(service, &with(password)));
    edge.wait_ready().await.unwrap();
    aggregator.wait_ready().await.unwrap();
    let mut oracle = Oracle::default();
    let made = Made::random(&mut fastrand::Rng::with_seed(90), now());
    oracle.reported(&Http::new(edge.http()).post_lines(&[made.line()]).await, &[Some(made)]);
    world.assert_counted(&oracle.counts()).await;
    Edge::new(edge).assert_balanced().await;
}
