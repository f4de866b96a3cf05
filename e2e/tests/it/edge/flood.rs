//! Floods the edge with large bodies: in one test with slow bodies, in another with compressed bodies. The edge stays
//! within its memory limit: it answers requests that would exceed the limit with 503 and `Retry-After`. After the
//! flood, it serves normally.

use std::collections::BTreeMap;
use std::future::pending;
use std::io::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use devstack::{usage, wait_for};
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::io::{self, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{self, Instant};

use crate::oracle::{TestEvent, now};
use crate::world::{DEADLINE, Edge, World};

/// Number of concurrent bodies. If each has [`BODY_BYTES`], they have almost 16 times the 256 MiB that the edge may
/// hold for all bodies.
const CONNECTIONS: usize = 500;
/// Size of the largest body that the edge allows, in bytes as sent.
const BODY_BYTES: usize = 8 << 20;
/// Number of pieces in which a body is sent.
const PIECES: usize = 128;
/// Largest allowed peak memory of the edge, in MiB.
const MOST_MIB: f64 = 384.0;
/// The outcome of requests that the edge shed because a limit was reached, such as the memory for all bodies.
const OVERLOADED: &str = "503 overloaded, retry";
/// The outcome of requests whose events were stored.
const STORED: &str = "200";

/// The requests of a flood.
#[derive(Clone)]
struct Flood {
    encoding: &'static str,
    bodies: Vec<Arc<[u8]>>,
    /// Time from the first to the last byte of a body.
    body_takes: Duration,
    /// Time from the start of the flood until clients stop sending new requests.
    lasts: Duration,
}

/// Number of answers by [`RawAnswer::outcome`].
type OutcomeCounts = BTreeMap<String, usize>;

impl Flood {
    /// Runs clients until the flood ends. After each answer, a client waits for the time in `Retry-After`, or for 1 s
    /// if the answer has no such header.
    async fn run(&self, address: &str) -> OutcomeCounts {
        let counts = Arc::new(Mutex::new(OutcomeCounts::new()));
        let end = Instant::now() + self.lasts;
        let mut clients = JoinSet::new();
        for client in 0..CONNECTIONS {
            let (flood, address, counts) = (self.clone(), address.to_owned(), Arc::clone(&counts));
            clients.spawn(async move {
                while Instant::now() < end {
                    let body = &flood.bodies[client % flood.bodies.len()];
                    let answer = flood.request(&address, body).await;
                    *counts.lock().unwrap().entry(answer.outcome()).or_default() += 1;
                    time::sleep(answer.retry_after()).await;
                }
            });
        }
        clients.join_all().await;
        std::mem::take(&mut counts.lock().unwrap())
    }

    /// Sends a request over a new connection, and returns the answer.
    async fn request(&self, address: &str, body: &[u8]) -> RawAnswer {
        let stream = TcpStream::connect(address).await.unwrap();
        let start = Instant::now();
        let (mut from, mut to) = stream.into_split();
        let sending = async {
            let (encoding, length) = (self.encoding, body.len());
            let head = format!(
                "POST /v1/events HTTP/1.1\r\nhost: edge\r\ncontent-encoding: {encoding}\r\n\
                 content-length: {length}\r\n\r\n"
            );
            to.write_all(head.as_bytes()).await?;
            let mut pace = time::interval(self.body_takes / PIECES as u32);
            for piece in body.chunks(length.div_ceil(PIECES)) {
                pace.tick().await;
                to.write_all(piece).await?;
            }
            // Keeps the connection open until the answer has arrived.
            pending::<io::Result<()>>().await
        };
        let mut answer = RawAnswer::default();
        let reading = async {
            let mut buffer = [0; 4096];
            while !answer.is_whole() {
                match from.read(&mut buffer).await {
                    Ok(read) if read > 0 => answer.0 += str::from_utf8(&buffer[..read]).unwrap(),
                    _closed => break,
                }
            }
        };
        tokio::pin!(sending, reading);
        tokio::select! {
            () = &mut reading => {}
            // Sending failed because the edge has stopped reading the body. The edge's answer has the reason.
            _refused = &mut sending => reading.await,
        }
        answer.1 = start.elapsed();
        answer
    }
}

/// The text of an answer, and the time from the opening of the connection to the end of the answer. The text is empty
/// if the edge closed the connection without an answer.
#[derive(Default)]
struct RawAnswer(String, Duration);

impl RawAnswer {
    fn header(&self, name: &str) -> Option<&str> {
        let head = self.0.split("\r\n\r\n").next()?;
        head.lines()
            .find_map(|line| line.split_once(": ").filter(|(found, _)| *found == name))
            .map(|(_, value)| value)
    }

    fn is_whole(&self) -> bool {
        let length = self.header("content-length").and_then(|length| length.parse().ok());
        self.0.split_once("\r\n\r\n").is_some_and(|(_, body)| Some(body.len()) == length)
    }

    /// The status, the code of an error, and whether the answer has `Retry-After`. For an incomplete answer, a text
    /// that says so.
    fn outcome(&self) -> String {
        if !self.is_whole() {
            return format!("cut off after {} s: {:?}", self.1.as_secs(), self.0);
        }
        let body: serde_json::Value = serde_json::from_str(self.0.split_once("\r\n\r\n").unwrap().1).unwrap();
        let status = self.0.split(' ').nth(1).unwrap();
        match (body["code"].as_str(), self.header("retry-after")) {
            (None, _) => status.to_owned(),
            (Some(code), None) => format!("{status} {code}"),
            (Some(code), Some(_)) => format!("{status} {code}, retry"),
        }
    }

    fn retry_after(&self) -> Duration {
        Duration::from_secs(self.header("retry-after").map_or(1, |seconds| seconds.parse().unwrap()))
    }
}

/// `count` lines of `line_bytes` each, line break included. Of the text in each line, `compressible` percent compresses
/// to almost nothing, and the rest is random.
fn lines(rng: &mut fastrand::Rng, count: usize, line_bytes: usize, compressible: usize) -> Vec<u8> {
    let (head, tail) = (r#"{"event":"flood","x":""#, "\"}\n");
    let text = line_bytes - head.len() - tail.len();
    let same = text * compressible / 100;
    let mut all = String::with_capacity(count * line_bytes);
    for _ in 0..count {
        all += head;
        all.extend((0..text - same).map(|_| rng.alphanumeric()));
        all.extend(std::iter::repeat_n('y', same));
        all += tail;
    }
    all.into_bytes()
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

/// Runs a flood. The edge must stay within [`MOST_MIB`], and it must store the events of some requests and refuse other
/// requests with `Retry-After`. Afterwards it must release all memory and serve normally.
async fn check(edge: &mut Edge, flood: Flood) {
    let address = edge.service.http().replace("http://", "");
    let counts = flood.run(&address).await;
    let peak = usage::peak_mib(edge.service.process().id()).unwrap();
    let occurred = |answer: &str| counts.contains_key(answer);
    assert!(peak <= MOST_MIB && occurred(STORED) && occurred(OVERLOADED), "{peak} MiB; {counts:?}");
    // `not_durable` occurs if Kafka is slow, and `decoded_too_large` for a body that decompresses to too many bytes.
    let allowed = [STORED, OVERLOADED, "503 not_durable, retry", "413 decoded_too_large"];
    assert!(counts.keys().all(|answer| allowed.contains(&answer.as_str())), "{counts:?}");

    let quiet =
        async || edge.metric("ingest_inflight_bytes").await + edge.metric("ingest_events_queued").await == 0;
    wait_for("all memory to be released", DEADLINE, quiet).await.unwrap();
    let made = TestEvent::random(&mut fastrand::Rng::with_seed(90), now());
    let start = Instant::now();
    assert_eq!(edge.http.post_lines(&[made.line()]).await.status, 200);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    edge.assert_balanced().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_bodies_beyond_the_limit_get_retry_after_and_memory_stays_bounded() {
    let world = World::new("flood_slow").await;
    let mut edge = world.edge().await;
    let body = lines(&mut fastrand::Rng::with_seed(91), BODY_BYTES / 1024, 1024, 50);
    assert_eq!(body.len(), BODY_BYTES);
    let seconds = Duration::from_secs;
    let flood = Flood {
        encoding: "identity",
        bodies: vec![body.into()],
        body_takes: seconds(10),
        lasts: seconds(15),
    };
    check(&mut edge, flood).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_bodies_count_with_their_decompressed_size() {
    let world = World::new("flood_bombs").await;
    let mut edge = world.edge().await;
    // The first body is valid, and nearly as long as a decompressed body may be. The second exceeds the allowed
    // compression ratio.
    let good = gzip(&lines(&mut fastrand::Rng::with_seed(92), 9900, 3300, 97));
    let bomb = gzip(&vec![b' '; 64 << 20]);
    let seconds = Duration::from_secs;
    let flood = Flood {
        encoding: "gzip",
        bodies: vec![good.into(), bomb.into()],
        body_takes: seconds(1),
        lasts: seconds(15),
    };
    check(&mut edge, flood).await;
}
