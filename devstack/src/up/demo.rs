//! Sends made-up traffic to the front port at a steady rate.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use reqwest::{Client, RequestBuilder};
use tokio::time::{self, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::traffic::Traffic;

/// Between two rounds: a batch of [`BATCH`](crate::traffic::BATCH) events, [`REACTIONS`] and a vote.
const INTERVAL: Duration = Duration::from_millis(100);
/// Reactions of a round.
const REACTIONS: usize = 3;
/// Devices at once.
const DEVICES: usize = 500;
/// Seed of the traffic, the same in every demo.
const SEED: u64 = 1;
/// Longest wait for an answer: more than the edge takes.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Sends until `stop`. A request that is refused is logged and not sent again.
pub(super) async fn send(front: SocketAddr, stop: CancellationToken) {
    let client = Client::builder().timeout(TIMEOUT).build().expect("a client without TLS needs nothing");
    let mut traffic = Traffic::new(SEED, DEVICES);
    let mut ticks = time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let batch =
            client.post(format!("http://{front}/v1/events")).header("Content-Type", "application/x-ndjson");
        post(batch.body(traffic.batch(SystemTime::now().into()))).await;
        for _ in 0..REACTIONS {
            post(client.post(format!("http://{front}{}", traffic.reaction(SystemTime::now().into())))).await;
        }
        post(client.post(format!("http://{front}/v1/votes")).body(traffic.vote())).await;
    }
}

async fn post(request: RequestBuilder) {
    match request.send().await.and_then(reqwest::Response::error_for_status) {
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "send demo traffic"),
    }
}
