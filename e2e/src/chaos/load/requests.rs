//! Generates requests from a seed, with the events that each request adds to the tables.
//!
//! Invariants: with the same seed and the same times, [`RequestStream`] makes the same requests in the same
//! order, so a journal needs only the time and the outcome of each request. All lines of a request belong to one
//! user and fit into one Kafka record. The edge therefore puts them into one record, and the tables hold either all
//! good lines of the request or none. Every stored event names its request. Pure.

use devstack::traffic::Traffic;
use fastrand::Rng;
use schemas::time::{DAY, HOUR, MINUTE, SECOND, UnixMillis};

use crate::hostile;

/// Each event contains the number of its request, after this prefix.
pub const TAG: &str = "chaos-";
/// Number of devices that send events at the same time.
const DEVICES: usize = 200;
/// 2020-12-01 00:00 UTC. Some events have a time in the three hours after it.
const LONG_AGO: UnixMillis = UnixMillis(1_606_780_800_000);
/// A line that the edge rejects.
const BAD_LINE: &str = r#"{"event":1}"#;
/// Number of lines of a large request. They fit into one record.
pub const LARGE_LINES: usize = 2000;
/// One request in this many is large.
const LARGE_ONE_IN: u32 = 150;
/// In requests that are not large, about one line in this many has hostile fields: valid JSON that a database may
/// reject, change or misread, see [`hostile`].
const HOSTILE_ONE_IN: u32 = 10;

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The number. The first request has the number 1.
    pub number: u32,
    /// Path and query of its URL.
    pub path: String,
    /// The body.
    pub body: String,
    /// The lines of the events that the request adds if it is stored.
    pub events: Vec<String>,
    /// Number of lines of the body that the edge rejects.
    pub bad: usize,
    /// Number of events with hostile fields.
    pub hostile: usize,
    /// Whether the request may be retried after an attempt that reached the edge. If so, each event has an `event_id`.
    /// An attempt that did not reach the edge is repeated for every request.
    pub repeatable: bool,
}

/// An endless stream of requests.
pub struct RequestStream {
    seed: u64,
    event_ids: bool,
    /// Whether requests whose events have ids may be retried.
    retries: bool,
    rng: Rng,
    traffic: Traffic,
    made: u32,
}

/// In requests that are not large, one line in this many comes from a device with a wrong clock.
const WRONG_CLOCK_ONE_IN: u8 = 100;
/// How far a wrong clock is behind, in milliseconds. The shortest lag is much longer than 7 days, the only retention of
/// a rollup in a run, so each event from a wrong clock is clearly too old for that rollup when it is sent.
const WRONG_CLOCK_LAG_MS: std::ops::Range<i64> = 30 * DAY..2000 * DAY;

impl RequestStream {
    /// The requests of this seed. With `event_ids`, half of the batches may be retried.
    pub fn new(seed: u64, event_ids: bool) -> Self {
        let rng = Rng::with_seed(seed);
        Self { seed, event_ids, retries: event_ids, rng, traffic: Traffic::new(seed, DEVICES), made: 0 }
    }

    /// Forbids retries of all later requests. Does not change which events have ids.
    pub fn stop_retries(&mut self) {
        self.retries = false;
    }

    /// The next request, made at `now`.
    pub fn next(&mut self, now: UnixMillis) -> Request {
        self.made += 1;
        if self.rng.u32(..LARGE_ONE_IN) == 0 {
            self.large(now)
        } else if self.rng.u8(..5) == 0 {
            self.reaction(now)
        } else {
            self.batch(now)
        }
    }

    /// A request with [`LARGE_LINES`] short lines of one user.
    fn large(&mut self, now: UnixMillis) -> Request {
        let Self { seed, event_ids, retries, made: number, rng, .. } = self;
        let has_ids = *event_ids && rng.bool();
        let line = |at: usize| {
            let id = if has_ids {
                format!(r#""event_id":"{}","#, event_id(*seed, *number, at))
            } else {
                String::new()
            };
            let (time, sequence, value) = (now.0 - rng.i64(0..SECOND), at + 1, rng.u8(..));
            format!(
                r#"{{{id}"event":"bulk","client_time":{time},"user_id":"{TAG}{number}","sequence":{sequence},"param_int":{value},"nonce":"{number}-{at}"}}"#
            )
        };
        let events: Vec<String> = (0..LARGE_LINES).map(line).collect();
        let (path, body) = ("/v1/events".to_owned(), events.join("\n"));
        Request { number: *number, path, body, events, bad: 0, hostile: 0, repeatable: has_ids && *retries }
    }

    fn reaction(&mut self, now: UnixMillis) -> Request {
        let Self { made: number, rng, .. } = self;
        let back = if rng.u8(..20) == 0 { rng.i64(1..=24) * HOUR } else { 0 };
        let time = now.0 - back - rng.i64(0..SECOND);
        let kind = if rng.u8(..4) == 0 { "click" } else { "impression" };
        let path = if rng.bool() {
            format!("/analytics/{time}/{TAG}{number}/{kind}")
        } else {
            format!("/analytics?timestamp={time}&user={TAG}{number}&{kind}")
        };
        let event = format!(r#"{{"event":"{kind}","client_time":{time},"user_id":"{TAG}{number}"}}"#);
        let (body, events) = (String::new(), vec![event]);
        Request { number: *number, path, body, events, bad: 0, hostile: 0, repeatable: false }
    }

    fn batch(&mut self, now: UnixMillis) -> Request {
        let Self { made: number, rng, .. } = self;
        let count = match rng.u8(..4) {
            0 => 30,
            1 => rng.usize(4..=12),
            _ => rng.usize(1..=3),
        };
        let has_ids = self.event_ids && rng.bool();
        // One batch in a hundred has no good line.
        let count = if rng.u8(..100) == 0 { 0 } else { count };
        let mut hostile = 0;
        let lines = self.traffic.lines(now, count).into_iter().enumerate().map(|(at, mut line)| {
            line.param_str = format!("{TAG}{number}").into();
            line.event_id = has_ids.then(|| event_id(self.seed, *number, at));
            if rng.u8(..WRONG_CLOCK_ONE_IN) == 0 {
                // The event must not be a click or an impression: verification asks the query API for each hour that
                // has one of these, and events from wrong clocks would add many such hours.
                line.event = "play";
                line.client_time = UnixMillis(now.0 - rng.i64(WRONG_CLOCK_LAG_MS)).to_string();
            } else if rng.u8(..30) == 0 {
                line.client_time =
                    UnixMillis(LONG_AGO.0 + rng.i64(0..3) * HOUR + rng.i64(0..MINUTE)).to_string();
            }
            if rng.u8(..25) == 0 {
                line.event = "vote";
                return vote(rng, &line.json());
            }
            if rng.u32(..HOSTILE_ONE_IN) == 0 {
                hostile += 1;
                return format!("{{{},{}", hostile::fields(rng), &line.json()[1..]);
            }
            line.json()
        });
        let events: Vec<String> = lines.collect();
        let bad = usize::from(count == 0 || rng.u8(..10) == 0);
        let mut lines: Vec<_> = events.iter().map(String::as_str).collect();
        (0..bad).for_each(|_| lines.insert(rng.usize(..=lines.len()), BAD_LINE));
        let (path, body) = ("/v1/events".to_owned(), lines.join("\n"));
        Request { number: *number, path, body, events, bad, hostile, repeatable: has_ids && self.retries }
    }
}

/// An id that no other event of the run has. If two seeds differ in the lower 32 bits, their runs share no id.
fn event_id(seed: u64, number: u32, line: usize) -> String {
    format!("{:08x}-0000-4000-8000-{number:08x}{line:04x}", seed as u32)
}

/// Adds the fields of a vote in a poll to a line.
fn vote(rng: &mut Rng, line: &str) -> String {
    format!(
        r#"{{"poll":"poll-{}","option":"{}",{}"#,
        rng.u8(..3),
        rng.choice(["yes", "no"]).expect("there are two options"),
        &line[1..]
    )
}

#[cfg(test)]
mod tests {
    use schemas::event;
    use std::collections::BTreeSet;

    use super::*;

    /// 2026-01-01 00:30:00.
    const NOW: UnixMillis = UnixMillis(1_767_227_400_000);

    fn requests(seed: u64, event_ids: bool) -> Vec<Request> {
        let mut stream = RequestStream::new(seed, event_ids);
        (0..2000).map(|n| stream.next(UnixMillis(NOW.0 + n))).collect()
    }

    #[test]
    fn the_same_seed_and_times_give_the_same_requests() {
        assert!(requests(1, true) == requests(1, true));
        assert!(requests(1, true) != requests(2, true));
    }

    #[test]
    fn every_event_names_its_request_and_all_events_of_a_request_have_one_user() {
        for request in requests(3, true) {
            let tag = format!("{TAG}{}", request.number);
            let parsed: Vec<_> =
                request.events.iter().map(|line| event::parse::<()>(line).unwrap().event).collect();
            assert!(parsed.iter().all(|event| event.param_str == tag || event.user_id == tag));
            assert!(parsed.iter().all(|event| event.client_time.is_some()));
            assert!(parsed.iter().all(|event| event.event_id.is_some() == request.repeatable));
            assert!(request.hostile <= request.events.len());
            let users: BTreeSet<_> = parsed.iter().map(|event| event.user().unwrap()).collect();
            assert!(users.len() <= 1, "{users:?}");
            let places: BTreeSet<_> = parsed.iter().map(|event| event.sequence).collect();
            assert_eq!(places.len(), request.events.len(), "two lines have the same `sequence`");
        }
    }

    #[test]
    fn the_load_has_every_kind_of_request_and_event_ids_only_if_enabled() {
        let mixed = requests(4, true);
        let share = |holds: &dyn Fn(&Request) -> bool| mixed.iter().filter(|r| holds(r)).count();
        assert!((300..500).contains(&share(&|r| r.body.is_empty())), "too few or too many reactions");
        assert!((600..1000).contains(&share(&|r| r.repeatable)), "too few or too many repeatable requests");
        assert!(share(&|r| r.bad > 0 && !r.events.is_empty()) > 50, "too few requests have a bad line");
        let has_wrong_clock = |line: &String| {
            let time = event::parse::<()>(line).unwrap().event.client_time.unwrap();
            LONG_AGO.0 + DAY < time.0 && time.0 < NOW.0 - 30 * DAY
        };
        assert!(share(&|r| r.events.iter().any(has_wrong_clock)) > 20, "too few events from wrong clocks");
        assert!(share(&|r| r.events.is_empty()) > 5, "too few requests have only bad lines");
        assert!(
            share(&|r| r.body.contains("\"vote\"")) > 50 && share(&|r| r.body.contains("2020-12-01")) > 50
        );
        assert!(
            (5..30).contains(&share(&|r| r.events.len() == LARGE_LINES)),
            "too few or too many large requests"
        );
        assert!(share(&|r| r.hostile > 0) > 200, "too few requests have hostile fields");
        assert!(requests(4, false).iter().all(|r| !r.repeatable));
    }

    #[test]
    fn a_large_request_fits_into_one_record() {
        // What the edge adds to each line. It also adds a line break, which is the `+ 1` below.
        let added =
            r#""tenant":"default","ip":"127.0.0.1","server_time":"2026-01-01 00:30:00.000","country":"DE","#;
        let large = requests(5, true).into_iter().filter(|request| request.events.len() == LARGE_LINES);
        for request in large {
            let bytes: usize = request.events.iter().map(|line| line.len() + added.len() + 1).sum();
            assert!(bytes < schemas::record::MAX_BYTES, "{bytes}");
        }
    }
}
