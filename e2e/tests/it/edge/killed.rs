//! The edge is killed or stopped under load. Every event that was answered with 200 counts once. An edge that is asked
//! to stop refuses no request during its `DRAIN_DELAY`.

use devstack::wait_for;
use rustix::process::Signal;
use tokio::task::JoinSet;

use super::spool::RetryingClients;
use crate::client::Http;
use crate::oracle::{Oracle, TestEvent, now};
use crate::world::{DEADLINE, Edge, World};

/// Number of clients of the edge that is stopped.
const CLIENTS: u64 = 32;
/// A client changes to another edge after this many answers with `Connection: close` from the edge that is stopped.
const CLOSES_BEFORE_CHANGE: usize = 5;
/// Number of requests that each client sends to the edge that it changed to.
const REQUESTS_AFTER_CHANGE: usize = 20;

async fn killed(name: &'static str, has_spool: bool) {
    let world = World::new(name).await;
    let directory = world.directory().join("spool");
    let spool = has_spool.then(|| ("SPOOL_DIR", directory.to_str().unwrap()));
    let mut edge = Edge::new(world.start("ingest", spool.as_slice()));
    edge.service.wait_ready().await.unwrap();
    let _aggregator = world.aggregator().await;
    let load = RetryingClients::start(&edge);
    let mut rng = fastrand::Rng::with_seed(95);
    for _ in 0..10 {
        load.until_answered(rng.u64(1..800)).await;
        edge.service.kill9();
        edge.service.restart().unwrap();
    }
    let oracle = load.stop().await;
    world.assert_counted(&oracle.counts()).await;
    edge.assert_balanced().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_is_killed_repeatedly_loses_no_event_that_it_answered_with_200() {
    killed("killed", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_with_a_spool_that_is_killed_repeatedly_loses_no_answered_event() {
    killed("killed_spool", true).await;
}

/// Sends batches to `first` until [`CLOSES_BEFORE_CHANGE`] of its answers have had `Connection: close`. Then sends
/// [`REQUESTS_AFTER_CHANGE`] batches to `second`. No request may fail.
async fn send(client: u64, first: String, second: String) -> Vec<TestEvent> {
    let mut rng = fastrand::Rng::with_seed(client);
    let (mut all, mut closes, first) = (Vec::new(), 0, Http::new(first));
    let mut post = async |http: &Http| {
        let made: Vec<_> = (0..5).map(|_| TestEvent::random(&mut rng, now())).collect();
        let answer = http.post_lines(&made.iter().map(TestEvent::line).collect::<Vec<_>>()).await;
        assert_eq!((answer.status, &answer.json()["accepted"]), (200, &5.into()), "{}", answer.text);
        all.extend(made);
        answer.header("connection") == "close"
    };
    while closes < CLOSES_BEFORE_CHANGE {
        closes += usize::from(post(&first).await);
    }
    let second = Http::new(second);
    for _ in 0..REQUESTS_AFTER_CHANGE {
        assert!(!post(&second).await);
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_stops_serves_its_clients_until_they_have_changed_to_another() {
    let world = World::new("stopped").await;
    let start = async || {
        let mut service = world.start("ingest", &[("DRAIN_DELAY", "10s")]);
        service.wait_ready().await.unwrap();
        Edge::new(service)
    };
    let (mut first, second, _aggregator) = tokio::join!(start(), start(), world.aggregator());
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        clients.spawn(send(client, first.service.http(), second.service.http()));
    }
    let flowing = async || first.metric("ingest_events_delivered_total").await > 500;
    wait_for("events in Kafka", DEADLINE, flowing).await.unwrap();
    first.service.process().signal(Signal::TERM).unwrap();
    let mut oracle = Oracle::default();
    clients.join_all().await.iter().flatten().for_each(|made| oracle.record(made));
    assert!(first.service.process().wait_for_exit(DEADLINE).await.unwrap().success());
    world.assert_counted(&oracle.counts()).await;
    second.assert_balanced().await;
}
