//! With `Prefer: respond-async`, the edge answers 202 before Kafka has acknowledged the events. The events count once
//! even if the edge is then stopped. If the events cannot be stored, the edge counts them as lost and refuses later
//! requests.

use devstack::wait_for;

use crate::client::HttpResponse;
use crate::oracle::{Oracle, TestEvent, now};
use crate::readiness::wait_until_not_ready;
use crate::world::{DEADLINE, Edge, World};

/// Sends some events with `Prefer: respond-async`.
async fn send(edge: &Edge, rng: &mut fastrand::Rng) -> (HttpResponse, Vec<TestEvent>) {
    let made: Vec<_> = (0..10).map(|_| TestEvent::random(rng, now())).collect();
    let body = made.iter().map(TestEvent::line).collect::<Vec<_>>().join("\n");
    (edge.http.send("POST", "/v1/events", &[("prefer", "respond-async, return=minimal")], body).await, made)
}

#[tokio::test]
async fn an_event_answered_with_202_counts_once_even_if_the_edge_stops() {
    let world = World::new("accepted_stop").await;
    let (mut edge, _aggregator, _api) = world.pipeline().await;
    let mut rng = fastrand::Rng::with_seed(81);
    let mut oracle = Oracle::default();
    for _ in 0..20 {
        let (answer, made) = send(&edge, &mut rng).await;
        assert_eq!((answer.status, answer.text.as_str()), (202, ""));
        assert_eq!(answer.header("preference-applied"), "return=minimal, respond-async");
        made.iter().for_each(|made| oracle.record(made));
    }
    assert!(edge.service.terminate().await.unwrap().success());
    world.assert_counted(&oracle.counts()).await;
}

#[tokio::test]
async fn unstored_events_answered_with_202_are_counted_as_lost_and_later_ones_refused() {
    let (mut stack, world) = World::on_own_servers("accepted_lost").await;
    let mut service = world.start("ingest", &[("DURABLE_WAIT", "2s")]);
    service.wait_ready().await.unwrap();
    let edge = Edge::new(service);
    stack.kafka.kill9().unwrap();

    let mut rng = fastrand::Rng::with_seed(82);
    let mut answered = 0;
    let refused = wait_for("a refusal", DEADLINE, async || {
        let (answer, made) = send(&edge, &mut rng).await;
        answered += if answer.status == 202 { made.len() as u64 } else { 0 };
        answer.json()["code"] == "not_durable"
    });
    refused.await.unwrap();
    assert!(answered > 0, "the edge answers 202 until it notices that kafka is down");
    let none_queued = async || edge.metric("ingest_events_queued").await == 0;
    wait_for("every event to have an outcome", DEADLINE, none_queued).await.unwrap();
    assert_eq!(edge.metric("ingest_events_lost_total").await, answered);
    edge.assert_balanced().await;
    wait_until_not_ready(&edge.service, "kafka").await;
}
