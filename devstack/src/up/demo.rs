//! Sends the demo's live events and its generated history to the front port.
//!
//! Events are sent in rounds, one every [`INTERVAL`]. A round has the live events that are due, and is filled up to
//! its size with events of the history. History is sent backwards in time: first the latest two weeks, in larger
//! rounds that take about a minute in total, and then the older events.
//!
//! There is about one live event every two seconds. The history has the same rate, so that the page shows no break at
//! the start of the demo.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use reqwest::{Client, RequestBuilder};
use schemas::time::{DAY, UnixMillis};
use tokio::time::{self, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use story::{Line, SLICE_MS, Story};

mod story;

/// Interval between two rounds.
const INTERVAL: Duration = Duration::from_millis(100);
/// Number of events in a round, live and history together, once the latest two weeks of history are sent.
const EVENTS_PER_ROUND: usize = 34;
/// Number of events in a round while the latest two weeks of history are sent.
const RECENT_EVENTS_PER_ROUND: usize = 1_500;
/// Length of the history that is sent first, in larger rounds: two weeks and a day, because the page compares the last
/// week with the week before.
const RECENT_HISTORY_MS: i64 = 15 * DAY;
/// How far back the history reaches.
const HISTORY_MS: i64 = 400 * DAY;
/// Seed of the events, the same in every demo.
const SEED: u64 = 1;
/// Timeout of a request. With its default settings, the edge answers earlier.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Sends events until `stop`. Skips the first `sent` events of the history, because earlier demos have sent them.
/// `sent` is an estimate: the caller passes the number of all stored events, which also counts the live events of
/// earlier demos. A failed request is logged and not retried.
pub(super) async fn send(front: SocketAddr, sent: u64, stop: CancellationToken) {
    let client =
        Client::builder().timeout(TIMEOUT).build().expect("a client without TLS can always be built");
    let at = |path: String| client.post(format!("http://{front}{path}"));
    let start = UnixMillis::from(SystemTime::now());
    let story = Story::new(SEED, start);
    let mut past = Past::new(story, start);
    past.skip(sent);
    let mut present = Present::new(story, start);
    let mut ticks = time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let live = present.until(SystemTime::now().into());
        let size = if past.reaches(RECENT_HISTORY_MS) { EVENTS_PER_ROUND } else { RECENT_EVENTS_PER_ROUND };
        let (others, events): (Vec<_>, Vec<_>) = live.into_iter().partition(has_own_endpoint);
        let rest = size.saturating_sub(others.len() + events.len());
        for line in others {
            post(request_to_own_endpoint(&at, &line)).await;
        }
        for batch in [body(&events), body(&past.take(rest))] {
            if !batch.is_empty() {
                post(at("/v1/events".to_owned()).header("Content-Type", "application/x-ndjson").body(batch))
                    .await;
            }
        }
    }
}

/// Whether the edge has a separate endpoint for this kind of event. The demo sends live events of such a kind to that
/// endpoint, as clients do. All events of the history go to `/v1/events`.
fn has_own_endpoint(line: &Line) -> bool {
    matches!(line.event, "click" | "impression" | "vote")
}

fn request_to_own_endpoint(at: &impl Fn(String) -> RequestBuilder, line: &Line) -> RequestBuilder {
    let user = &line.user_id;
    match line.option {
        Some(option) => {
            let vote = format!(r#"{{"poll":"best-shoe","option":"{option}","voter":"{user}"}}"#);
            at("/v1/votes".to_owned()).body(vote)
        }
        None => at(format!("/analytics/{}/{user}/{}", line.client_time.0, line.event)),
    }
}

/// Events as NDJSON.
fn body(lines: &[Line]) -> String {
    lines.iter().map(|line| line.json() + "\n").collect()
}

/// The events before the start of the demo, the latest first.
struct Past {
    story: Story,
    start: UnixMillis,
    /// The number of the next slice to generate. The module [`story`] says what a slice is.
    next: i64,
    /// Events of the latest generated slice that are not sent yet, the earliest first.
    open: Vec<Line>,
}

impl Past {
    fn new(story: Story, start: UnixMillis) -> Self {
        Self { story, start, next: Story::slice_of(start), open: Vec::new() }
    }

    /// Whether all slices that begin in the last `ago` milliseconds before the start have been generated.
    fn reaches(&self, ago: i64) -> bool {
        self.next * SLICE_MS < self.start.0 - ago
    }

    /// The next `count` events, or fewer at the end of the history.
    fn take(&mut self, count: usize) -> Vec<Line> {
        let mut taken = Vec::with_capacity(count);
        while taken.len() < count {
            if let Some(line) = self.open.pop() {
                taken.push(line);
            } else if self.reaches(HISTORY_MS) {
                break;
            } else {
                let is_past = |line: &Line| line.client_time < self.start;
                self.open = self.story.slice(self.next).into_iter().filter(is_past).collect();
                self.next -= 1;
            }
        }
        taken
    }

    /// Skips the next `count` events.
    fn skip(&mut self, mut count: u64) {
        while count > 0 && !self.reaches(HISTORY_MS) {
            let taken =
                self.take(usize::try_from(count).unwrap_or(usize::MAX).min(RECENT_EVENTS_PER_ROUND)).len();
            count -= taken as u64;
        }
    }
}

/// The events since the start of the demo.
struct Present {
    story: Story,
    start: UnixMillis,
    /// The number of the next slice to generate. A slice is generated once its time has begun.
    next: i64,
    /// Events that have not happened yet, the next one first.
    coming: VecDeque<Line>,
}

impl Present {
    fn new(story: Story, start: UnixMillis) -> Self {
        Self { story, start, next: Story::slice_of(start), coming: VecDeque::new() }
    }

    /// The events that have happened by `now` and that no earlier call returned.
    fn until(&mut self, now: UnixMillis) -> Vec<Line> {
        while self.next <= Story::slice_of(now) {
            let is_present = |line: &Line| line.client_time >= self.start;
            self.coming.extend(self.story.slice(self.next).into_iter().filter(is_present));
            self.coming.make_contiguous().sort_by_key(|line| line.client_time);
            self.next += 1;
        }
        let happened = self.coming.partition_point(|line| line.client_time <= now);
        self.coming.drain(..happened).collect()
    }
}

async fn post(request: RequestBuilder) {
    match request.send().await.and_then(reqwest::Response::error_for_status) {
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "send demo traffic"),
    }
}

#[cfg(test)]
mod tests {
    use schemas::time::MINUTE;

    use super::*;

    /// 2026-01-08 15:05:00.
    const START: UnixMillis = UnixMillis(1_767_884_700_000);

    #[test]
    fn each_event_belongs_either_to_the_history_or_to_the_live_events() {
        let story = Story::new(1, START);
        let past = Past::new(story, START).take(2_000);
        let present = Present::new(story, START).until(UnixMillis(START.0 + 30 * MINUTE));
        assert!(past.iter().all(|line| line.client_time < START) && past.len() == 2_000);
        assert!(present.iter().all(|line| line.client_time >= START) && present.len() > 500);
        // No event of the slice in which the demo starts is lost or sent twice.
        let slice = story.slice(Story::slice_of(START));
        let sent = slice.iter().filter(|line| past.contains(line) != present.contains(line)).count();
        assert_eq!(sent, slice.len());
    }

    #[test]
    fn each_live_event_is_taken_exactly_once() {
        let mut present = Present::new(Story::new(1, START), START);
        let all = Present::new(Story::new(1, START), START).until(UnixMillis(START.0 + 20 * MINUTE));
        let minutes = (1..=20).flat_map(|minute| present.until(UnixMillis(START.0 + minute * MINUTE)));
        assert_eq!(minutes.collect::<Vec<_>>(), all);
    }

    #[test]
    fn a_second_demo_continues_the_history_where_the_first_one_ended() {
        let story = Story::new(1, START);
        let mut first = Past::new(story, START);
        let _sent = first.take(3_000);
        let mut second = Past::new(story, START);
        second.skip(3_000);
        assert_eq!(first.take(100), second.take(100));
    }
}
