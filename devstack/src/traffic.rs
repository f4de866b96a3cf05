//! Generates traffic from a seed: devices that send batches, and people who send clicks, impressions and votes.
//!
//! Pure: the caller owns the clock and sends the requests.

use std::borrow::Cow;

use fastrand::Rng;
use schemas::time::{HOUR, MINUTE, SECOND, UnixMillis};
use serde::Serialize;
use uuid::Builder;

/// Number of events in a batch. A client sends a batch in one request.
pub const BATCH: usize = 30;
/// On average, one in `REPLACED_ONE_IN` batches comes from a new device, which replaces an active device.
const REPLACED_ONE_IN: u32 = 20;
/// On average, one in `HISTORIC_ONE_IN` events has a time in a past hour.
const HISTORIC_ONE_IN: u32 = 20;
/// Events with a time in a past hour are spread over this number of hours.
const PAST_HOURS: i64 = 24;

/// Event names, the frequent ones first.
const EVENTS: [&str; 10] = [
    "view",
    "impression",
    "play",
    "click",
    "level_start",
    "level_end",
    "login",
    "share",
    "purchase",
    "crash",
];
/// Countries, the frequent ones first.
const COUNTRIES: [&str; 30] = [
    "US", "IN", "BR", "DE", "ID", "JP", "GB", "FR", "MX", "RU", "TR", "IT", "ES", "CA", "KR", "PL", "VN",
    "PH", "TH", "NL", "AR", "EG", "AU", "CO", "UA", "SE", "CZ", "RO", "PT", "CH",
];
/// Options of the poll on which the people vote, the frequent ones first.
const OPTIONS: [&str; 4] = ["boot", "sneaker", "sandal", "clog"];
/// Operating systems, the frequent ones first.
const SYSTEMS: [&str; 4] = ["android", "ios", "windows", "linux"];

/// An endless stream of requests. The same seed, the same number of devices and the same calls give the same requests.
pub struct Traffic {
    rng: Rng,
    active: Vec<Device>,
}

/// A device in a session.
struct Device {
    id: String,
    session: String,
    system: &'static str,
    country: &'static str,
    sequence: u64,
}

/// A line of a batch.
#[derive(Debug, Clone, Serialize)]
pub struct Line<'a> {
    /// When the event happened.
    pub client_time: String,
    device_id: &'a str,
    device_os: &'a str,
    session: &'a str,
    sequence: u64,
    /// The name of the event.
    pub event: &'a str,
    country: &'a str,
    param_int: u32,
    /// A text of the sender's choice.
    pub param_str: Cow<'a, str>,
    /// Identity for deduplication, if the sender gives one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_id: Option<String>,
}

impl Line<'_> {
    /// The line as it is sent, without a line break.
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("numbers and texts are JSON")
    }
}

impl Traffic {
    /// Creates traffic in which `devices` devices are active at a time. Now and then a new device replaces one of them.
    pub fn new(seed: u64, devices: usize) -> Self {
        let mut rng = Rng::with_seed(seed);
        let active = (0..devices).map(|_| Device::new(&mut rng)).collect();
        Self { rng, active }
    }

    /// The next [`BATCH`] events of a random active device, as NDJSON.
    pub fn batch(&mut self, now: UnixMillis) -> String {
        self.lines(now, BATCH).iter().map(|line| line.json() + "\n").collect()
    }

    /// The next `count` events of a random active device.
    pub fn lines(&mut self, now: UnixMillis, count: usize) -> Vec<Line<'_>> {
        let rng = &mut self.rng;
        let device = rng.choice(&mut self.active).expect("there are devices");
        if rng.u32(..REPLACED_ONE_IN) == 0 {
            *device = Device::new(rng);
        }
        device.lines(rng, now, count)
    }

    /// The path of a request that reports a click or an impression of a random user.
    pub fn reaction(&mut self, now: UnixMillis) -> String {
        let user = self.rng.u32(..20_000);
        let kind = if self.rng.u32(..4) == 0 { "click" } else { "impression" };
        format!("/analytics/{}/user-{user}/{kind}", moment(&mut self.rng, now).0)
    }

    /// The body of a request with a vote of a random user.
    pub fn vote(&mut self) -> String {
        let (voter, option) = (self.rng.u32(..20_000), skewed(&mut self.rng, &OPTIONS));
        format!(r#"{{"poll":"best-shoe","option":"{option}","voter":"user-{voter}"}}"#)
    }
}

impl Device {
    fn new(rng: &mut Rng) -> Self {
        let uuid =
            |rng: &mut Rng| Builder::from_random_bytes(rng.u128(..).to_be_bytes()).into_uuid().to_string();
        Self {
            id: uuid(rng),
            session: uuid(rng),
            system: skewed(rng, &SYSTEMS),
            country: skewed(rng, &COUNTRIES),
            sequence: 0,
        }
    }

    fn lines(&mut self, rng: &mut Rng, now: UnixMillis, count: usize) -> Vec<Line<'_>> {
        let first = self.sequence + 1;
        self.sequence += count as u64;
        let line = |sequence| Line {
            client_time: moment(rng, now).to_string(),
            device_id: &self.id,
            device_os: self.system,
            session: &self.session,
            sequence,
            event: skewed(rng, &EVENTS),
            country: self.country,
            param_int: rng.u32(..1000),
            param_str: Cow::Borrowed("made up by the demo"),
            event_id: None,
        };
        (first..=self.sequence).map(line).collect()
    }
}

/// A random time in the second before `now`. One in [`HISTORIC_ONE_IN`] calls, on average, returns a time that is about
/// 1 to [`PAST_HOURS`] hours earlier.
fn moment(rng: &mut Rng, now: UnixMillis) -> UnixMillis {
    let ago = match rng.u32(..HISTORIC_ONE_IN) {
        0 => rng.i64(1..=PAST_HOURS) * HOUR + rng.i64(0..MINUTE),
        _ => rng.i64(0..SECOND),
    };
    UnixMillis(now.0 - ago)
}

/// Picks one of `choices`, the earlier ones more often: half of all picks are from the first quarter of the choices.
fn skewed(rng: &mut Rng, choices: &[&'static str]) -> &'static str {
    let place = rng.f64().powi(2) * choices.len() as f64;
    choices[place as usize]
}

#[cfg(test)]
mod tests {
    use schemas::event;

    use super::*;

    /// 2026-01-01 00:30:00.
    const NOW: UnixMillis = UnixMillis(1_767_227_400_000);

    #[test]
    fn the_same_seed_gives_the_same_traffic() {
        let requests = || {
            let mut traffic = Traffic::new(7, 10);
            [traffic.batch(NOW), traffic.reaction(NOW), traffic.vote(), traffic.batch(NOW)]
        };
        assert_eq!(requests(), requests());
    }

    #[test]
    fn every_line_is_one_that_the_edge_accepts() {
        let batch = Traffic::new(1, 10).batch(NOW);
        assert_eq!(batch.lines().count(), BATCH);
        for line in batch.lines() {
            let parsed = event::parse::<()>(line);
            assert!(parsed.is_ok(), "{line}");
        }
    }

    #[test]
    fn about_one_event_in_twenty_has_the_time_of_a_past_hour() {
        let mut rng = Rng::with_seed(3);
        let historic = (0..10_000).filter(|_| moment(&mut rng, NOW).0 <= NOW.0 - HOUR).count();
        assert!((400..600).contains(&historic), "{historic}");
    }
}
