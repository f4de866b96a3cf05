//! A stream of `/v1/live` sends the whole state when a client opens it, and again with each new snapshot.

use std::time::Duration;

use serde_json::Value;
use tokio::time::{self, Instant};

use crate::oracle::now;
use crate::world::{DEADLINE, World};

/// A rollup that counts users by minute. No built-in rollup does.
const ACTIVE: &str = r#"
[[rollup]]
name = "active_minutely"
grain = "minute"
dimensions = []
measures = { users = "uniq_exact(user)" }
retention = "2d"
"#;

/// An open stream of `/v1/live`, in the format of server-sent events.
struct Stream {
    answer: reqwest::Response,
    /// The start of a message that is not complete yet.
    rest: String,
}

impl Stream {
    /// Opens a stream and accepts compressed answers, as a browser does.
    async fn open(base: &str) -> Self {
        let request = reqwest::Client::new().get(format!("{base}/v1/live"));
        let answer = request.header("accept-encoding", "gzip, zstd").send().await.unwrap();
        Self { answer, rest: String::new() }
    }

    fn header(&self, name: &str) -> &str {
        self.answer.headers().get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The id and the state of the next message; none at the end of the stream. Skips messages without data, which are
    /// comments.
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            while let Some((message, rest)) = self.rest.split_once("\n\n") {
                let message = message.to_owned();
                self.rest = rest.to_owned();
                let line = |name: &str| message.lines().find_map(|line| line.strip_prefix(name));
                if let Some(data) = line("data: ") {
                    let id = line("id: ").unwrap_or_default().to_owned();
                    return Some((id, serde_json::from_str(data).unwrap()));
                }
            }
            let bytes = time::timeout(DEADLINE, self.answer.chunk()).await.unwrap().unwrap()?;
            self.rest += str::from_utf8(&bytes).unwrap();
        }
    }
}

#[tokio::test]
async fn a_stream_shows_the_state_at_once_and_new_events_with_a_new_snapshot() {
    let world = World::new("live").await;
    let rollups = format!("{}{ACTIVE}", schemas::rollup::Rollups::built_in());
    let file = world.write("rollups.toml", &rollups);
    let declared = [("ROLLUPS_FILE", file.as_str())];
    world.migrate_with(&declared).await;
    let edge = world.edge().await;
    let mut aggregator = world.start("stream-agg", &declared);
    let mut service = world.start("query-api", &declared);
    aggregator.wait_ready().await.unwrap();
    service.wait_ready().await.unwrap();

    let opened = Instant::now();
    let mut stream = Stream::open(&service.http()).await;
    assert_eq!(stream.header("content-type"), "text/event-stream");
    assert_eq!(stream.header("content-encoding"), "");
    assert_eq!(stream.header("cache-control"), "no-store, no-transform");
    let (first, state) = stream.next().await.unwrap();
    assert!(opened.elapsed() < Duration::from_secs(1), "the first message took {:?}", opened.elapsed());
    let (instance, _) = first.split_once('-').unwrap();
    assert_eq!(state["series"]["day"]["events"], 0);
    assert_eq!(state["series"]["minutes"].as_array().unwrap().len(), 60);

    for user in ["ann", "ann", "bob"] {
        let click = format!("/analytics/{}/{user}/click", now().0);
        assert_eq!(edge.http.post(&click).await.status, 204);
    }
    let deadline = Instant::now() + DEADLINE;
    let (id, state) = loop {
        assert!(Instant::now() < deadline, "the stream does not show the events");
        let (id, state) = stream.next().await.unwrap();
        if state["series"]["day"]["events"] == 3 && state["series"]["day"]["users"] == 2 {
            break (id, state);
        }
    };
    assert!(id.starts_with(instance) && id != first);
    let day = &state["series"]["day"];
    assert_eq!(day["by_event"], serde_json::json!([{"event": "click", "events": 3}]));
    let minutes = state["series"]["minutes"].as_array().unwrap();
    assert_eq!(minutes.iter().map(|minute| minute["events"].as_u64().unwrap()).sum::<u64>(), 3);
    assert_eq!(state["active"], serde_json::json!({"minutes_5": 2, "minutes_30": 2}));
    // Tests use a short interval, so an answer can become stale at once, and `stale` may have either value.
    assert!(state["stale"].is_boolean());

    // An open stream does not delay the stop of the process, and ends when the process stops.
    let stopping = Instant::now();
    let ended = async { while stream.next().await.is_some() {} };
    let (stopped, ()) = tokio::join!(service.terminate(), ended);
    assert!(stopped.unwrap().success());
    assert!(stopping.elapsed() < Duration::from_secs(8), "the stop took {:?}", stopping.elapsed());
}
