//! The spool of the edge. Every event that is answered with 200 counts once, even if Kafka is down, the edge is killed
//! or stopped, or the spool or its disk is full. If the edge cannot read the file of its spool, it renames the file,
//! begins an empty spool and serves requests.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use devstack::{Service, Stack, wait_for};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time;

use crate::client::Http;
use crate::oracle::{Oracle, TestEvent, now};
use crate::world::{DEADLINE, Edge, STATIC_MEMBER, World};

/// The page that explains the spool. A test runs the commands that the page shows.
const PAGE: &str = include_str!("../../../../docs/spool.md");

/// Number of clients that send at the same time.
const CLIENTS: u64 = 16;
/// Number of events in a request.
const EVENTS: usize = 10;
/// On average, a client makes at most one attempt in this time. This rate limits the number of events that are sent
/// during an outage.
const PAUSE: Duration = Duration::from_millis(40);

/// The arguments of each `ingest` command on the page, in the order of the page.
fn commands_of_the_page() -> Vec<Vec<&'static str>> {
    let commands = PAGE.lines().filter_map(|line| line.strip_prefix("ingest ")?.split('#').next());
    commands.map(|command| command.split_whitespace().collect()).collect()
}

/// An edge with a spool, on Kafka and ClickHouse servers of its own, because the tests stop Kafka.
struct Spooling {
    stack: Stack,
    world: World,
    edge: Edge,
}

impl Spooling {
    async fn new(name: &'static str, more: &[(&str, &str)]) -> Self {
        let (stack, world) = World::on_own_servers(name).await;
        let directory = directory(&world);
        let common = [("DURABLE_WAIT", "2s"), ("SPOOL_MIN_FREE", "0B")];
        let variables = [&[("SPOOL_DIR", directory.as_str())], &common[..], more].concat();
        let mut service = world.start("ingest", &variables);
        service.wait_ready().await.unwrap();
        let spooling = Self { stack, world, edge: Edge::new(service) };
        // The edge opens the spool once it knows the number of partitions of the topic.
        spooling.until("the spool to be open", async |edge| edge.metric("ingest_spool_up").await == 1).await;
        spooling
    }

    async fn until(&self, what: &str, condition: impl AsyncFn(&Edge) -> bool) {
        wait_for(what, DEADLINE, async || condition(&self.edge).await).await.unwrap();
    }

    async fn until_spooled(&self, events: u64) {
        let spooled = async |edge: &Edge| edge.metric("ingest_events_spooled_total").await >= events;
        self.until("events in the spool", spooled).await;
    }

    async fn until_empty(&self) {
        self.until("an empty spool", async |edge| edge.metric("ingest_spool_records").await == 0).await;
    }

    async fn post(&self, made: &[TestEvent]) -> crate::client::HttpResponse {
        self.edge.http.post_lines(&made.iter().map(TestEvent::line).collect::<Vec<_>>()).await
    }
}

fn directory(world: &World) -> String {
    world.directory().join("spool").to_str().unwrap().to_owned()
}

fn random_events(rng: &mut fastrand::Rng, count: usize) -> Vec<TestEvent> {
    (0..count).map(|_| TestEvent::random(rng, now())).collect()
}

async fn is_accepted(http: &Http, body: String) -> bool {
    let headers = [("content-type", "application/x-ndjson")];
    let answer = http.try_send("POST", "/v1/events", &headers, body).await;
    answer.is_ok_and(|answer| answer.status == 200)
}

/// Clients that repeat each batch, with the same `event_id`s, until the edge answers it with 200.
pub(crate) struct RetryingClients {
    stop: Arc<AtomicBool>,
    oracle: Arc<Mutex<Oracle>>,
    clients: JoinSet<()>,
}

impl RetryingClients {
    pub(crate) fn start(edge: &Edge) -> Self {
        let (stop, oracle) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Oracle::default())));
        let numbers = Arc::new(AtomicUsize::new(0));
        let mut clients = JoinSet::new();
        for client in 0..CLIENTS {
            let http = Http::with_timeout(edge.service.http(), Duration::from_secs(20));
            let (stop, oracle, numbers) = (Arc::clone(&stop), Arc::clone(&oracle), Arc::clone(&numbers));
            clients.spawn(async move {
                let mut rng = fastrand::Rng::with_seed(client);
                let mut tries = time::interval(PAUSE);
                while !stop.load(Ordering::Relaxed) {
                    let made = random_events(&mut rng, EVENTS);
                    let first = numbers.fetch_add(EVENTS, Ordering::Relaxed);
                    let lines: Vec<_> = (first..).zip(&made).map(|(n, made)| made.line_with_id(n)).collect();
                    tries.tick().await;
                    while !is_accepted(&http, lines.join("\n")).await {
                        tries.tick().await;
                    }
                    made.iter().for_each(|made| oracle.lock().unwrap().record(made));
                }
            });
        }
        Self { stop, oracle, clients }
    }

    /// Waits until this many more events have been answered with 200.
    pub(crate) async fn until_answered(&self, more: u64) {
        let answered = || self.oracle.lock().unwrap().counts().accepted();
        let enough = answered() + more;
        wait_for("more answers", DEADLINE, async || answered() >= enough).await.unwrap();
    }

    pub(crate) async fn stop(self) -> Oracle {
        self.stop.store(true, Ordering::Relaxed);
        time::timeout(DEADLINE, self.clients.join_all())
            .await
            .expect("the edge answers each client with 200");
        std::mem::take(&mut self.oracle.lock().unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kafka_outage_and_edge_kills_lose_nothing_and_count_nothing_twice() {
    let mut spooling = Spooling::new("spool_outage", &[]).await;
    // If an outage of Kafka is longer than the session timeout of the consumer group, only a static member gets its
    // partitions back at once.
    let mut aggregator = spooling.world.start("stream-agg", &[STATIC_MEMBER]);
    aggregator.wait_ready().await.unwrap();
    let load = RetryingClients::start(&spooling.edge);
    let flowing = async |edge: &Edge| edge.metric("ingest_events_delivered_total").await > 1000;
    spooling.until("events in Kafka", flowing).await;
    spooling.stack.kafka.kill9().unwrap();
    spooling.until_spooled(1000).await;
    for more in [0, 1000, 300, 1, 500] {
        load.until_answered(more).await;
        spooling.edge.service.kill9();
        spooling.edge.service.restart().unwrap();
        // Kafka is still down. The edge becomes ready with only its spool.
        spooling.edge.service.wait_ready().await.unwrap();
    }
    spooling.until_spooled(1000).await;
    spooling.stack.kafka.start().await.unwrap();
    let flowing = async |edge: &Edge| edge.metric("ingest_events_delivered_total").await > 1000;
    spooling.until("events in Kafka again", flowing).await;
    let oracle = load.stop().await;
    spooling.until_empty().await;
    spooling.world.assert_counted(&oracle.counts()).await;
    spooling.edge.assert_balanced().await;
    let replayed = spooling.edge.metric("ingest_spool_replayed_total").await;
    assert!(replayed >= 2000, "{replayed} events were replayed, but at least 2000 were spooled");
}

#[tokio::test]
async fn an_edge_that_stops_without_kafka_spools_everything_for_a_manual_replay() {
    let mut spooling = Spooling::new("spool_stop", &[("DURABLE_WAIT", "60s"), ("DRAIN_DELAY", "60s")]).await;
    let made = random_events(&mut fastrand::Rng::with_seed(70), 500);
    spooling.stack.kafka.kill9().unwrap();
    // The events are sent right after the kill, before the edge notices that Kafka is unreachable. So, when the edge is
    // stopped, they still wait for Kafka (for at most `DURABLE_WAIT`, 60 s) and are not in the spool yet.
    let lines: Vec<_> = made.iter().map(TestEvent::line).collect();
    let http = Http::new(spooling.edge.service.http());
    let waiting = tokio::spawn(async move {
        let _cut_off = http.try_send("POST", "/v1/events", &[], lines.join("\n")).await;
    });
    let taken = async |edge: &Edge| edge.metric("ingest_events_accepted_total").await == 500;
    spooling.until("the edge to accept the events", taken).await;
    let terminate = |service: &mut Service| service.process().signal(Signal::TERM).unwrap();
    terminate(&mut spooling.edge.service);
    let admin = Http::new(spooling.edge.service.admin());
    let draining = async |_: &Edge| admin.get("/readyz").await.text.contains("draining");
    spooling.until("the edge to drain", draining).await;
    // After a second signal, the edge stops at once.
    terminate(&mut spooling.edge.service);
    let status = spooling.edge.service.process().wait_for_exit(DEADLINE).await.unwrap();
    waiting.await.unwrap();
    let log = fs::read_to_string(spooling.edge.service.process().log()).unwrap();
    assert!(
        status.success() && log.contains("spooled 500, not durable 0, queued 0, lost 0"),
        "{status} {log}"
    );

    let variable = [("SPOOL_DIR", &*directory(&spooling.world))];
    let run = async |args: &[&str]| {
        let log = spooling.world.directory().join("ingest.log");
        let before = fs::read_to_string(&log).unwrap_or_default().len();
        spooling.world.run("ingest", args, &variable).await.unwrap();
        fs::read_to_string(&log).unwrap().split_off(before)
    };
    let [ls, export, replay] = commands_of_the_page().try_into().expect("the page has three commands");
    let json = [&ls[..], &["--json"]].concat();
    let listed: Vec<Value> = serde_json::from_str(&run(&json).await).unwrap();
    assert_eq!(listed.iter().map(|record| record["lines"].as_u64().unwrap()).sum::<u64>(), 500, "{listed:?}");
    assert!(run(&ls).await.ends_with(" bytes\n"));
    let exported = run(&export).await;
    assert_eq!(exported.lines().filter(|line| line.starts_with(r#"{"tenant":"default""#)).count(), 500);
    spooling.stack.kafka.start().await.unwrap();
    let printed = run(&replay).await;
    assert!(printed.contains("records are in kafka"), "{printed}");
    let _aggregator = spooling.world.aggregator().await;
    let mut oracle = Oracle::default();
    made.iter().for_each(|made| oracle.record(made));
    spooling.world.assert_counted(&oracle.counts()).await;
}

#[tokio::test]
async fn a_full_spool_refuses_events_and_is_emptied_once_kafka_is_back() {
    let mut spooling = Spooling::new("spool_full", &[("SPOOL_MAX_BYTES", "1MiB")]).await;
    let mut rng = fastrand::Rng::with_seed(71);
    spooling.stack.kafka.kill9().unwrap();
    let mut oracle = Oracle::default();
    let mut refused = None;
    let full = wait_for("a full spool", DEADLINE, async || {
        let made = random_events(&mut rng, 500);
        let answer = spooling.post(&made).await;
        if answer.status == 200 {
            made.iter().for_each(|made| oracle.record(made));
            return false;
        }
        let is_full = answer.json()["code"] == "spool_full";
        refused = Some(answer);
        is_full
    });
    full.await.unwrap();
    let refused = refused.unwrap();
    assert_eq!(refused.status, 503);
    assert!(refused.header("retry-after").parse::<u32>().unwrap() >= 5);
    let admin = Http::new(spooling.edge.service.admin());
    let unready = async |_: &Edge| admin.get("/readyz").await.text.contains("the spool is full");
    spooling.until("readiness to name the full spool", unready).await;

    spooling.stack.kafka.start().await.unwrap();
    spooling.edge.service.wait_ready().await.unwrap();
    spooling.until_empty().await;
    let _aggregator = spooling.world.aggregator().await;
    spooling.world.assert_counted(&oracle.counts()).await;
    spooling.edge.assert_balanced().await;
}

/// Limits the size of each file that the edge writes, as if the disk were full. `None` removes the limit.
fn limit_files(edge: &mut Edge, bytes: Option<u64>) {
    let pid = Pid::from_raw(edge.service.process().id() as i32);
    let hard = getrlimit(Resource::Fsize).maximum;
    prlimit(pid, Resource::Fsize, Rlimit { current: bytes, maximum: hard }).unwrap();
}

#[tokio::test]
async fn a_full_disk_switches_the_spool_off_and_no_answered_event_is_lost() {
    let mut spooling = Spooling::new("spool_disk", &[]).await;
    let mut rng = fastrand::Rng::with_seed(74);
    let mut oracle = Oracle::default();
    let (mut sent, mut refused) = (0, None);
    spooling.stack.kafka.kill9().unwrap();
    let file = format!("{}/{}.redb", directory(&spooling.world), spooling.world.name());
    spooling
        .until("the outage of kafka to be noticed", async |edge| edge.metric("ingest_kafka_up").await == 0)
        .await;
    limit_files(&mut spooling.edge, Some(fs::metadata(file).unwrap().len()));
    let full = wait_for("a request that fails because the disk is full", DEADLINE, async || {
        let made = random_events(&mut rng, 500);
        let lines: Vec<_> = (sent..).zip(&made).map(|(n, made)| made.line_with_id(n)).collect();
        sent += made.len();
        let answer = spooling.edge.http.post_lines(&lines).await;
        if answer.status == 200 {
            made.iter().for_each(|made| oracle.record(made));
            return false;
        }
        refused = Some((made, lines, answer));
        true
    });
    full.await.unwrap();
    let (made, lines, answer) = refused.unwrap();
    assert_eq!((answer.status, &answer.json()["code"]), (503, &Value::from("not_durable")));
    assert!(!answer.header("retry-after").is_empty());
    assert_eq!(spooling.edge.metric("ingest_spool_up").await, 0);
    let admin = Http::new(spooling.edge.service.admin());
    let readiness = admin.get("/readyz").await;
    assert!(readiness.status == 503 && readiness.text.contains("the spool is off"), "{}", readiness.text);
    let log = fs::read_to_string(spooling.edge.service.process().log()).unwrap();
    assert!(log.contains("the spool is off: use ") && log.contains("; trying again in 10s"), "{log}");
    // The edge cannot use the spool while the limit on its files remains.
    assert_eq!(spooling.edge.http.post_lines(&lines).await.status, 503);

    limit_files(&mut spooling.edge, None);
    spooling.edge.service.wait_ready().await.unwrap();
    assert_eq!(spooling.edge.metric("ingest_spool_up").await, 1);
    assert_eq!(spooling.edge.http.post_lines(&lines).await.status, 200);
    made.iter().for_each(|made| oracle.record(made));
    spooling.stack.kafka.start().await.unwrap();
    spooling.until("kafka to be up", async |edge| edge.metric("ingest_kafka_up").await == 1).await;
    spooling.until_empty().await;
    let _aggregator = spooling.world.aggregator().await;
    spooling.world.assert_counted(&oracle.counts()).await;
    spooling.edge.assert_balanced().await;
}

#[tokio::test]
async fn without_a_spool_requests_get_retry_after_while_kafka_is_unreachable() {
    let mut spooling = Spooling::new("spool_none", &[]).await;
    let without = [("DURABLE_WAIT", "1s")];
    let mut service = spooling.world.start("ingest", &without);
    service.wait_ready().await.unwrap();
    spooling.edge = Edge::new(service);
    spooling.stack.kafka.kill9().unwrap();
    let refused = spooling.post(&random_events(&mut fastrand::Rng::with_seed(72), 3)).await;
    assert_eq!((refused.status, &refused.json()["code"]), (503, &Value::from("not_durable")));
    assert!(!refused.header("retry-after").is_empty());
    spooling.edge.assert_balanced().await;
}

#[tokio::test]
async fn a_spool_that_cannot_be_read_is_set_aside_and_the_edge_serves() {
    let world = World::new("spool_corrupt").await;
    let directory = directory(&world);
    fs::create_dir(&directory).unwrap();
    fs::write(format!("{directory}/{}.redb", world.name()), "not a spool").unwrap();
    let mut service = world.start("ingest", &[("SPOOL_DIR", &directory)]);
    service.wait_ready().await.unwrap();
    let mut edge = Edge::new(service);
    let aside = async || edge.metric("ingest_spool_set_aside_total").await == 1;
    wait_for("`ingest_spool_set_aside_total` to be 1", DEADLINE, aside).await.unwrap();
    let log = fs::read_to_string(edge.service.process().log()).unwrap();
    assert!(log.contains("spool_corrupt.redb.corrupt-"), "{log}");
    let made = random_events(&mut fastrand::Rng::with_seed(73), 3);
    let answer = edge.http.post_lines(&made.iter().map(TestEvent::line).collect::<Vec<_>>()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}
