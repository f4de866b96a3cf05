//! Connections to `CLICKHOUSE_URL` reach two ClickHouse servers in turn. The markers of one server say nothing about
//! the rows of the other server, so the aggregator must stop before it inserts into the second server.
//!
//! `serverUUID()` is zero on every ClickHouse of the local stack. So the balancer replaces `serverUUID()` with another
//! id in the requests that it forwards to the second server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use devstack::{Stack, ports};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use crate::oracle::{Oracle, TestEvent, now};
use crate::world::{DEADLINE, Edge, World};

/// Number of events in a request.
const EVENTS: usize = 20;

/// The id of each server of the local stack.
const FIRST_ID: &str = "00000000-0000-0000-0000-000000000000";
/// The id that the second server returns to a query for markers. The SQL of such a query is in the request body, so
/// the balancer makes the first replacement of [`SERVER_ID_EXPRESSIONS`] in it.
const SECOND_ID: &str = "222222222222";
/// The SQL expression for the id of a server, first as text in a request body, then percent-encoded in a URL. Each
/// form has a replacement of the same length that evaluates to an id other than [`FIRST_ID`].
const SERVER_ID_EXPRESSIONS: [(&str, &str); 2] = [
    ("toString(serverUUID())", "toString(222222222222)"),
    ("toString%28serverUUID%28%29%29", "toString%282222222222222222%29"),
];

/// Forwards bytes from the aggregator to the second server, and replaces each of [`SERVER_ID_EXPRESSIONS`] in them.
async fn forward_with_other_id(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> std::io::Result<()> {
    let mut chunk = vec![0; 1 << 20];
    loop {
        let length = from.read(&mut chunk).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        let sent = &mut chunk[..length];
        for (expression, replacement) in SERVER_ID_EXPRESSIONS {
            let found: Vec<_> = sent
                .windows(expression.len())
                .enumerate()
                .filter(|(_, window)| *window == expression.as_bytes())
                .map(|(at, _)| at)
                .collect();
            for at in found {
                sent[at..at + expression.len()].copy_from_slice(replacement.as_bytes());
            }
        }
        to.write_all(sent).await?;
    }
}

/// A balancer of TCP connections. It runs until the tokio runtime of the test ends.
struct Balancer {
    url: String,
    /// How many servers get connections: 1 for only the first server, 2 for both in turn.
    used: Arc<AtomicUsize>,
}

impl Balancer {
    /// Starts a balancer that forwards only to the first of these servers.
    async fn start(urls: [&str; 2]) -> Self {
        let servers = urls.map(|url| url.trim_start_matches("http://").to_owned());
        let at = ports::local(ports::free().unwrap());
        let listener = TcpListener::bind(at).await.unwrap();
        let used = Arc::new(AtomicUsize::new(1));
        let of_task = Arc::clone(&used);
        tokio::spawn(async move {
            for turn in 0.. {
                let (client, _) = listener.accept().await.unwrap();
                let number = turn % of_task.load(Ordering::Relaxed);
                let server = servers[number].clone();
                tokio::spawn(async move {
                    let server = TcpStream::connect(server).await.unwrap();
                    let ((from_client, mut to_client), (mut from_server, to_server)) =
                        (client.into_split(), server.into_split());
                    // Errors are ignored, because a broken connection must not make the test fail.
                    if number == 0 {
                        let (mut from_client, mut to_server) = (from_client, to_server);
                        let sending = async {
                            copy(&mut from_client, &mut to_server).await?;
                            to_server.shutdown().await
                        };
                        let _ended = tokio::join!(sending, copy(&mut from_server, &mut to_client));
                    } else {
                        let _ended = tokio::join!(
                            forward_with_other_id(from_client, to_server),
                            copy(&mut from_server, &mut to_client)
                        );
                    }
                });
            }
        });
        Self { url: format!("http://{at}"), used }
    }

    /// Forwards new connections to both servers in turn from now on.
    fn alternate(&self) {
        self.used.store(2, Ordering::Relaxed);
    }
}

async fn send(edge: &Edge, oracle: &mut Oracle) {
    let mut rng = fastrand::Rng::new();
    let made: Vec<_> = (0..EVENTS).map(|_| Some(TestEvent::random(&mut rng, now()))).collect();
    let lines: Vec<_> = made.iter().flatten().map(TestEvent::line).collect();
    oracle.record_report(&edge.http.post_lines(&lines).await, &made);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_behind_the_url_stops_the_aggregator_and_gets_no_rows() {
    let (stack, world) = World::on_own_servers("two_servers").await;
    let mut other = Stack::for_test("two_servers_other").unwrap();
    other.clickhouse.start().await.unwrap();
    world.migrate_with(&[("CLICKHOUSE_URL", other.clickhouse.url())]).await;
    let balancer = Balancer::start([stack.clickhouse.url(), other.clickhouse.url()]).await;
    let edge = world.edge().await;
    let mut aggregator = world.start("stream-agg", &[("CLICKHOUSE_URL", &balancer.url)]);
    aggregator.wait_ready().await.unwrap();
    let mut oracle = Oracle::default();
    send(&edge, &mut oracle).await;
    world.assert_counted(&oracle.counts()).await;

    balancer.alternate();
    let mut sending = tokio::time::interval(Duration::from_millis(100));
    let ended = async {
        loop {
            sending.tick().await;
            send(&edge, &mut oracle).await;
            if let Some(status) = aggregator.process().exited() {
                return status;
            }
        }
    };
    let status = tokio::time::timeout(DEADLINE, ended)
        .await
        .expect("the aggregator exits after both servers answered");
    assert_eq!(
        status.code(),
        Some(1),
        "not EX_USAGE, which says that a restart is useless: a restarted aggregator may reach only one server"
    );
    let log = std::fs::read_to_string(aggregator.process().log()).unwrap();
    let line = log.lines().last().unwrap_or_default();
    assert!(
        line.starts_with(&format!(
            "error: clickhouse answered as server `{FIRST_ID}` and later as server `{SECOND_ID}`: "
        )),
        "{line}"
    );
    let in_other =
        other.clickhouse.client().query("SELECT count() FROM two_servers.events").fetch_one::<u64>();
    let in_other = in_other.await.unwrap();
    assert_eq!(in_other, 0, "an insert based on the markers of one server fails on the other server");

    // The events that the edge accepted after the aggregator stopped are in Kafka. An aggregator that reaches only the
    // first server counts them.
    let _one_server = world.aggregator().await;
    world.assert_counted(&oracle.counts()).await;
}
