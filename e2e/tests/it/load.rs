//! System 2's load: 200 requests per second of 30 events each, at 500 connections.

use std::time::Duration;

use schemas::time::{HOUR, UnixMillis};
use tokio::task::JoinSet;
use tokio::time::{self, Instant};

use crate::client::Http;
use crate::oracle::{Made, Oracle, now};
use crate::world::World;

const RATE: u32 = 200;
const EVENTS: usize = 30;
const CONNECTIONS: u32 = 500;

#[tokio::test]
async fn two_hundred_batches_a_second_for_twenty_seconds_are_counted_exactly() {
    run("load_20", Duration::from_secs(20)).await;
}

#[tokio::test]
#[ignore = "takes more than a minute: ./dev test --full"]
async fn two_hundred_batches_a_second_for_sixty_seconds_are_counted_exactly() {
    run("load_60", Duration::from_secs(60)).await;
}

/// Open loop: every request has its time, whatever became of the ones before.
async fn run(name: &'static str, duration: Duration) {
    let world = World::new(name).await;
    let (edge, _aggregator, api) = world.pipeline().await;
    let current = now().floor(HOUR);
    let started = Instant::now();
    let mut connections = JoinSet::new();
    for connection in 0..CONNECTIONS {
        let http = Http::new(edge.service.http());
        connections.spawn(async move {
            let mut rng = fastrand::Rng::with_seed(u64::from(connection));
            let mut taken = Vec::new();
            let mut schedule = time::interval_at(
                started + Duration::from_secs(1) * connection / RATE,
                Duration::from_secs(1) * CONNECTIONS / RATE,
            );
            loop {
                if schedule.tick().await.duration_since(started) >= duration {
                    return taken;
                }
                // One event in twenty is of a past hour.
                let lines: Vec<_> = (0..EVENTS)
                    .map(|_| {
                        let back = if rng.u8(..20) == 0 { rng.i64(1..48) * HOUR } else { 0 };
                        Some(Made::random(&mut rng, UnixMillis(current.0 - back)))
                    })
                    .collect();
                let text: Vec<_> = lines.iter().flatten().map(Made::line).collect();
                taken.push((http.post_lines(&text).await, lines));
            }
        });
    }
    let mut oracle = Oracle::default();
    let mut requests = 0;
    while let Some(taken) = connections.join_next().await {
        for (answer, lines) in taken.unwrap() {
            requests += 1;
            oracle.reported(&answer, &lines);
        }
    }
    assert_eq!(requests, u64::from(RATE) * duration.as_secs(), "every request of the schedule was made");
    let (users, clicks, impressions) = oracle.hour(current);
    api.assert_hour(current.0, users, clicks, impressions).await;
    world.assert_counted(&oracle.counts()).await;
    edge.assert_balanced().await;
}
