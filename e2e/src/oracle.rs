//! The oracle: the expected counts, computed from the answers of the edge.

use std::collections::{BTreeMap, BTreeSet};

use schemas::time::{HOUR, UnixMillis};
use serde_json::json;

use crate::client::HttpResponse;

/// An event of a test. It always has a time, so that the oracle knows its hour.
#[derive(Debug, Clone)]
pub struct TestEvent {
    /// When the event happened.
    pub time: UnixMillis,
    /// The name of the event.
    pub event: String,
    /// The device id, which also identifies the user, because the line has no `user_id`; empty for none.
    pub user: String,
    /// The country.
    pub country: String,
    /// The operating system of the device.
    pub device_os: String,
    /// The `param_int`.
    pub value: i64,
}

impl TestEvent {
    /// An event at this time with random fields.
    pub fn random(rng: &mut fastrand::Rng, time: UnixMillis) -> Self {
        let pick = |rng: &mut fastrand::Rng, of: &[&str]| of[rng.usize(..of.len())].to_owned();
        Self {
            time,
            event: pick(rng, &["app_start", "click", "impression", "play", "purchase"]),
            user: format!("device-{}", rng.u32(..500)),
            country: pick(rng, &["DE", "US", "BR", "IN", ""]),
            device_os: pick(rng, &["iOS 13.5.1", "Android 14", "Windows 11"]),
            value: rng.i64(-1000..1000),
        }
    }

    /// The event as a line of a request.
    pub fn line(&self) -> String {
        json!({
            "client_time": self.time.to_string(), "device_id": self.user, "device_os": self.device_os,
            "session": format!("s-{}", self.user), "sequence": 1, "event": self.event,
            "param_int": self.value, "param_str": "some text", "country": self.country,
        })
        .to_string()
    }

    /// The line, with an `event_id` made from a number.
    pub fn line_with_id(&self, number: usize) -> String {
        format!(r#"{{"event_id":"0192f0c1-0000-7000-8000-{number:012}",{}"#, &self.line()[1..])
    }
}

type HourlyKey = (i64, String, String, String);

/// The number of events and the sum of their `param_int` by hour, event, country and operating system; the number of
/// users by hour and event.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Counts {
    events: BTreeMap<HourlyKey, (u64, i64)>,
    users: BTreeMap<(i64, String), u64>,
}

impl Counts {
    /// Number of all events.
    pub fn accepted(&self) -> u64 {
        self.events.values().map(|(events, _)| events).sum()
    }

    /// The counts from rows of two rollups. A row of `events` has hour, event, country, operating system, number of
    /// events and sum of `param_int`. A row of `users` has hour, event and number of users.
    pub fn from_rows(events: &[Vec<String>], users: &[Vec<String>]) -> Self {
        let events = events.iter().map(|row| {
            let key = (row[0].parse().unwrap(), row[1].clone(), row[2].clone(), row[3].clone());
            (key, (row[4].parse().unwrap(), row[5].parse().unwrap()))
        });
        let users =
            users.iter().map(|row| ((row[0].parse().unwrap(), row[1].clone()), row[2].parse().unwrap()));
        // If no event of an hour and name has a user, the row of this hour and name has 0 users. The oracle has no
        // entry for such an hour and name, so the row is left out.
        Self { events: events.collect(), users: users.filter(|(_, users)| *users > 0).collect() }
    }
}

/// Counts the events that the edge accepted.
#[derive(Debug, Default)]
pub struct Oracle {
    events: BTreeMap<HourlyKey, (u64, i64)>,
    users: BTreeMap<(i64, String), BTreeSet<String>>,
}

impl Oracle {
    /// Records the edge's answer to a batch of lines. A valid line is `Some`, and a line that is invalid on purpose is
    /// `None`. Checks that the edge accepted exactly the valid lines.
    #[track_caller]
    pub fn record_report(&mut self, answer: &HttpResponse, lines: &[Option<TestEvent>]) {
        assert_eq!(answer.status, 200, "{}", answer.text);
        let report = answer.json();
        let good = lines.iter().flatten().count();
        assert_eq!(
            (report["received"].as_u64(), report["accepted"].as_u64()),
            (Some(lines.len() as u64), Some(good as u64)),
            "{report}"
        );
        let bad: Vec<usize> = (1..=lines.len()).filter(|line| lines[line - 1].is_none()).collect();
        let rejected: Vec<usize> = report["errors"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|e| e["line"].as_u64().unwrap() as usize)
            .collect();
        assert_eq!(rejected, bad[..bad.len().min(20)], "{report}");
        lines.iter().flatten().for_each(|made| self.record(made));
    }

    /// Records an accepted event.
    pub fn record(&mut self, made: &TestEvent) {
        let hour = made.time.floor(HOUR).0 / 1000;
        let key = (hour, made.event.clone(), made.country.clone(), made.device_os.clone());
        let (events, value) = self.events.entry(key).or_default();
        *events += 1;
        *value += made.value;
        if !made.user.is_empty() {
            self.users.entry((hour, made.event.clone())).or_default().insert(made.user.clone());
        }
    }

    /// The counts that the tables must hold.
    pub fn counts(&self) -> Counts {
        let users = self.users.iter().filter(|(_, users)| !users.is_empty());
        Counts {
            events: self.events.clone(),
            users: users.map(|(key, users)| (key.clone(), users.len() as u64)).collect(),
        }
    }

    /// The numbers of users, clicks and impressions in the hour of `time`. A user counts if the user has a click or an
    /// impression in this hour.
    pub fn hour(&self, time: UnixMillis) -> (u64, u64, u64) {
        let hour = time.floor(HOUR).0 / 1000;
        let count = |event: &str| -> u64 {
            self.events
                .iter()
                .filter(|((at, name, _, _), _)| *at == hour && name == event)
                .map(|(_, (events, _))| events)
                .sum()
        };
        let users: BTreeSet<_> = ["click", "impression"]
            .iter()
            .filter_map(|event| self.users.get(&(hour, (*event).to_owned())))
            .flatten()
            .collect();
        (users.len() as u64, count("click"), count("impression"))
    }
}

/// The current time of this machine.
pub fn now() -> UnixMillis {
    std::time::SystemTime::now().into()
}
