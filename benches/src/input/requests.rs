//! Prepared HTTP requests, which the load generator sends in turn.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use schemas::time::UnixMillis;

use super::{Events, Work};
use crate::load;

/// Number of different requests that are sent in turn.
const REQUESTS: usize = 2_000;
/// Number of requests in one round of [`demo`]: a batch, three reactions and a vote.
pub const DEMO_REQUESTS: usize = 5;
/// Index of the vote in a round.
const DEMO_VOTE: usize = DEMO_REQUESTS - 1;

/// Requests that each send [`BATCH`](devstack::traffic::BATCH) events of one device.
pub fn batches(work: Work) -> Arc<[Bytes]> {
    let (mut events, now) = (Events::new(work), now());
    (0..REQUESTS).map(|_| load::post("/v1/events", events.batch(now).as_bytes())).collect()
}

/// Requests that each send one person's reaction: a click or an impression.
pub fn reactions() -> Arc<[Bytes]> {
    let (mut events, now) = (Events::new(Work::Lean), now());
    (0..REQUESTS).map(|_| load::post(&events.reaction(now), b"")).collect()
}

/// A mix of all kinds of requests, in rounds: each round has a batch, three reactions and a vote. The caller sends
/// `rate` requests a second for `duration`; at 50 a second, the events arrive as fast as in `./dev up --demo`. The time
/// of an event is close to the time at which its request should be sent, except that some events are from past hours.
pub fn demo(rate: f64, duration: Duration) -> Arc<[Bytes]> {
    let (mut events, start) = (Events::new(Work::Lean), now());
    let count = (rate * duration.as_secs_f64()).ceil() as usize;
    let requests = (0..count).map(|number| {
        let at = UnixMillis(start.0 + (number as f64 / rate * 1000.0) as i64);
        match number % DEMO_REQUESTS {
            0 => load::post("/v1/events", events.batch(at).as_bytes()),
            1..DEMO_VOTE => load::post(&events.reaction(at), b""),
            _ => load::post("/v1/votes", events.vote().as_bytes()),
        }
    });
    requests.collect()
}

/// A request for the figures of the current hour.
pub fn reads() -> Arc<[Bytes]> {
    vec![load::get(&format!("/analytics?timestamp={}", now().0))].into()
}

fn now() -> UnixMillis {
    SystemTime::now().into()
}
