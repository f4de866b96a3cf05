//! The load of 500 connections that together send 200 requests per second, each with 30 events.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use schemas::time::{HOUR, UnixMillis};
use tokio::task::JoinSet;
use tokio::time::{self, Instant};

use crate::client::Http;
use crate::oracle::{Oracle, TestEvent, now};
use crate::world::{Edge, World};

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

async fn run(name: &'static str, duration: Duration) {
    let world = World::new(name).await;
    let (edge, _aggregator, api) = world.pipeline().await;
    let current = now().floor(HOUR);
    let oracle = send(&edge, current, duration).await;
    let (users, clicks, impressions) = oracle.hour(current);
    api.assert_hour(current.0, users, clicks, impressions).await;
    world.assert_counted(&oracle.counts()).await;
    edge.assert_balanced().await;
}

/// Sends events of the hour `current`, and some events of earlier hours. Each connection has its own schedule with a
/// request every 2.5 s, so requests on other connections do not wait for a slow answer. A request is late only if the
/// previous answer on its own connection takes longer than 2.5 s.
pub(crate) async fn send(edge: &Edge, current: UnixMillis, duration: Duration) -> Oracle {
    let started = Instant::now();
    let oracle = Arc::new(Mutex::new(Oracle::default()));
    let mut connections = JoinSet::new();
    for connection in 0..CONNECTIONS {
        let (http, oracle) = (Http::new(edge.service.http()), Arc::clone(&oracle));
        connections.spawn(async move {
            let mut rng = fastrand::Rng::with_seed(u64::from(connection));
            let mut requests = 0;
            let mut schedule = time::interval_at(
                started + Duration::from_secs(1) * connection / RATE,
                Duration::from_secs(1) * CONNECTIONS / RATE,
            );
            loop {
                if schedule.tick().await.duration_since(started) >= duration {
                    return requests;
                }
                // One event in twenty has the time of a past hour.
                let lines: Vec<_> = (0..EVENTS)
                    .map(|_| {
                        let back = if rng.u8(..20) == 0 { rng.i64(1..48) * HOUR } else { 0 };
                        Some(TestEvent::random(&mut rng, UnixMillis(current.0 - back)))
                    })
                    .collect();
                let text: Vec<_> = lines.iter().flatten().map(TestEvent::line).collect();
                let answer = http.post_lines(&text).await;
                oracle.lock().unwrap().record_report(&answer, &lines);
                requests += 1;
            }
        });
    }
    let requests: u64 = connections.join_all().await.iter().sum();
    assert_eq!(requests, u64::from(RATE) * duration.as_secs(), "not every scheduled request was sent");
    std::mem::take(&mut oracle.lock().unwrap())
}
