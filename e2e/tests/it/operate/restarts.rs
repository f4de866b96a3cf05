//! Each service is restarted under load, as in a rollout. Each request is accepted or gets a documented refusal, and
//! every accepted event is counted once.

use std::time::Duration;

use devstack::{Service, Stack, wait_for};
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use crate::client::Http;
use crate::oracle::{Oracle, TestEvent, now};
use crate::world::{DEADLINE, Edge, World};

/// Number of clients that send at the same time. Each client sends one batch after another.
const CLIENTS: u64 = 8;
/// Number of events in a batch.
const EVENTS: usize = 5;
/// Time under load before and after the restarts, and also between the start of an outage and the restarts.
const UNDER_LOAD: Duration = Duration::from_secs(2);
/// How long an edge or a query API still serves after SIGTERM. In this time, the clients of an edge see that it is not
/// ready and switch to another edge, as a balancer would.
const DRAIN: (&str, &str) = ("DRAIN_DELAY", "2s");

/// What became of the batches of one client.
#[derive(Default)]
struct Sent {
    accepted: Vec<TestEvent>,
    refused: usize,
    /// Errors of the requests without an answer, and answers that are not documented for a restart.
    failed: Vec<String>,
}

/// Sends batches until `stop`. Like a balancer, it sends each batch to an edge that is ready. It does not retry a
/// refused request: the next request has new events, so each event is sent once.
async fn send(client: u64, edges: Vec<(Http, Http)>, stop: CancellationToken) -> Sent {
    let (mut rng, mut sent) = (fastrand::Rng::with_seed(client), Sent::default());
    while !stop.is_cancelled() {
        let Some(http) = ready_edge(&edges, client).await else {
            time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let made: Vec<_> = (0..EVENTS).map(|_| TestEvent::random(&mut rng, now())).collect();
        let body = made.iter().map(TestEvent::line).collect::<Vec<_>>().join("\n");
        let headers = [("content-type", "application/x-ndjson")];
        match http.try_send("POST", "/v1/events", &headers, body).await {
            Ok(answer) if answer.status == 200 => sent.accepted.extend(made),
            Ok(answer) if answer.status == 503 && answer.problem() == "overloaded" => sent.refused += 1,
            Ok(answer) => sent.failed.push(format!("{} {}", answer.status, answer.text)),
            Err(error) => sent.failed.push(runtime::error::chain(&error)),
        }
    }
    sent
}

/// The HTTP client of an edge that is ready; none if no edge is ready. The client number chooses the edge at which the
/// search begins, so the load is spread over the edges.
async fn ready_edge(edges: &[(Http, Http)], client: u64) -> Option<&Http> {
    for turn in 0..edges.len() {
        let (http, admin) = &edges[(client as usize + turn) % edges.len()];
        if admin.try_send("GET", "/readyz", &[], "").await.is_ok_and(|answer| answer.status == 200) {
            return Some(http);
        }
    }
    None
}

/// Clients that send batches to some edges until [`Load::stop`] stops the clients.
struct Load {
    clients: tokio::task::JoinSet<Sent>,
    stop: CancellationToken,
}

impl Load {
    fn on(edges: &[&Edge]) -> Self {
        let (stop, mut clients) = (CancellationToken::new(), tokio::task::JoinSet::new());
        for client in 0..CLIENTS {
            let edges =
                edges.iter().map(|edge| (Http::new(edge.service.http()), Http::new(edge.service.admin())));
            clients.spawn(send(client, edges.collect(), stop.clone()));
        }
        Self { clients, stop }
    }

    /// Stops the load and returns the accepted events. Checks that no request failed.
    async fn stop(self) -> Oracle {
        self.stop.cancel();
        let mut oracle = Oracle::default();
        for sent in self.clients.join_all().await {
            assert!(sent.failed.is_empty(), "{:?}", sent.failed);
            sent.accepted.iter().for_each(|made| oracle.record(made));
        }
        oracle
    }
}

/// Sends SIGTERM, checks that the service exits within 40 s, and starts it again. 40 s is the longest stop that
/// `--check-config` prints for any service with default settings.
async fn restart(service: &mut Service) {
    let asked = Instant::now();
    assert!(service.terminate().await.unwrap().success());
    assert!(asked.elapsed() < Duration::from_secs(40), "{:?}", asked.elapsed());
    service.restart().unwrap();
    service.wait_ready().await.unwrap();
}

async fn edge(world: &World, spool: Option<&str>) -> Edge {
    let mut variables = vec![DRAIN];
    variables.extend(spool.map(|directory| ("SPOOL_DIR", directory)));
    let mut service = world.start("ingest", &variables);
    service.wait_ready().await.unwrap();
    Edge::new(service)
}

#[tokio::test(flavor = "multi_thread")]
async fn services_that_are_restarted_one_after_another_fail_no_request_and_count_exactly() {
    let world = World::new("restarts").await;
    let (mut first, mut second) = tokio::join!(edge(&world, None), edge(&world, None));
    let (mut one, mut two) = tokio::join!(world.aggregator(), world.aggregator());
    let mut api = world.start("query-api", &[DRAIN]);
    api.wait_ready().await.unwrap();
    let load = Load::on(&[&first, &second]);
    time::sleep(UNDER_LOAD).await;
    // The order of a rollout: the aggregators, the query APIs, then the edges.
    restart(&mut one).await;
    restart(&mut two).await;
    restart(&mut api).await;
    restart(&mut first.service).await;
    restart(&mut second.service).await;
    time::sleep(UNDER_LOAD).await;
    let oracle = load.stop().await;
    world.assert_counted(&oracle.counts()).await;
    let hour = now();
    let path = format!("/analytics?timestamp={}", hour.0);
    let answers = Http::new(api.http());
    let (users, clicks, impressions) = oracle.hour(hour);
    let expected = format!("unique_users,{users}\nclicks,{clicks}\nimpressions,{impressions}\n");
    let waited =
        wait_for(format!("{expected:?}"), DEADLINE, async || answers.get(&path).await.text == expected);
    waited.await.unwrap();
}

/// The server that is down while the test stops and starts the services.
#[derive(Clone, Copy)]
enum Outage {
    Kafka,
    ClickHouse,
}

/// Stops an aggregator, and an edge that has a spool, under load and while a server is down. Starts both services again
/// before the server is back.
async fn restart_services_during_outage(name: &'static str, outage: Outage) {
    let (mut stack, world) = World::on_own_servers(name).await;
    let spool = world.directory().join("spool");
    let (mut edge, mut aggregator) =
        tokio::join!(edge(&world, Some(spool.to_str().unwrap())), world.aggregator());
    let load = Load::on(&[&edge]);
    time::sleep(UNDER_LOAD).await;
    kill_server(&mut stack, outage).await;
    time::sleep(UNDER_LOAD).await;
    let (stopped, ()) = tokio::join!(aggregator.terminate(), async {
        let asked = Instant::now();
        assert!(
            edge.service.terminate().await.unwrap().success(),
            "the edge failed, perhaps because it lost accepted events"
        );
        // The longest stop that `--check-config` prints for an edge with default settings.
        assert!(asked.elapsed() < Duration::from_secs(36), "{:?}", asked.elapsed());
    });
    assert!(stopped.unwrap().success());
    edge.service.restart().unwrap();
    aggregator.restart().unwrap();
    start_server(&mut stack, outage).await;
    tokio::join!(async { edge.service.wait_ready().await.unwrap() }, async {
        aggregator.wait_ready().await.unwrap();
    });
    time::sleep(UNDER_LOAD).await;
    let oracle = load.stop().await;
    world.assert_counted(&oracle.counts()).await;
    edge.assert_balanced().await;
}

async fn kill_server(stack: &mut Stack, outage: Outage) {
    match outage {
        Outage::Kafka => stack.kafka.kill9().unwrap(),
        Outage::ClickHouse => stack.clickhouse.kill9().unwrap(),
    }
}

async fn start_server(stack: &mut Stack, outage: Outage) {
    match outage {
        Outage::Kafka => stack.kafka.start().await.unwrap(),
        Outage::ClickHouse => stack.clickhouse.start().await.unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute: ./dev test --full"]
async fn services_that_restart_while_clickhouse_is_down_count_exactly() {
    restart_services_during_outage("restarts_clickhouse", Outage::ClickHouse).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute: ./dev test --full"]
async fn services_that_restart_while_kafka_is_down_count_exactly() {
    restart_services_during_outage("restarts_kafka", Outage::Kafka).await;
}
