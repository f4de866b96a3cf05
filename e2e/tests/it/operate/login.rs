//! A Kafka that requires TLS and a login. The services use the configured client settings, and their readiness names a
//! failed login or TLS handshake.

use devstack::Stack;
use devstack::kafka::LOGIN;

use crate::client::Http;
use crate::oracle::{Oracle, TestEvent, now};
use crate::readiness::wait_until_not_ready;
use crate::world::{Edge, World};

#[tokio::test]
async fn services_log_in_to_kafka_over_tls_and_report_which_step_fails() {
    let mut stack = Stack::for_test("login").unwrap();
    stack.start().await.unwrap();
    let (brokers, certificate) = stack.kafka.brokers_with_login().unwrap();
    let certificate = certificate.to_str().unwrap();
    let world = World::unmigrated("login", &brokers, stack.clickhouse.url());
    let (user, password) = LOGIN;
    let with = |password| {
        [
            ("KAFKA_OPT_security.protocol", "SASL_SSL"),
            ("KAFKA_OPT_ssl.ca.location", certificate),
            ("KAFKA_OPT_sasl.mechanism", "PLAIN"),
            ("KAFKA_OPT_sasl.username", user),
            ("KAFKA_OPT_sasl.password", password),
        ]
    };
    world.migrate_with(&with(password)).await;

    // Without `ssl.ca.location` the client trusts the system's certificate authorities, which did not sign this
    // broker's certificate.
    let [protocol, _, login @ ..] = with(password);
    let distrusting = [&[protocol][..], &login[..]].concat();
    for (settings, reason) in
        [(&with("a guess")[..], "authentication failed"), (&distrusting, "tls handshake")]
    {
        let rejected = ["ingest", "stream-agg"].map(|service| world.start(service, settings));
        for service in &rejected {
            wait_until_not_ready(service, reason).await;
        }
    }

    let [mut edge, mut aggregator] =
        ["ingest", "stream-agg"].map(|service| world.start(service, &with(password)));
    edge.wait_ready().await.unwrap();
    aggregator.wait_ready().await.unwrap();
    let mut oracle = Oracle::default();
    let made = TestEvent::random(&mut fastrand::Rng::with_seed(90), now());
    oracle.record_report(&Http::new(edge.http()).post_lines(&[made.line()]).await, &[Some(made)]);
    world.assert_counted(&oracle.counts()).await;
    Edge::new(edge).assert_balanced().await;
}
