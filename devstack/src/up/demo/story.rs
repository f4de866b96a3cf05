//! What happens in the demo: people who find an app, sign up or leave, come back and buy.
//!
//! Time is divided into slices of ten minutes. The sessions of a slice depend only on the number of the slice, the
//! seed and the start of the demo, so slices can be generated in any order. No person is stored: when someone comes
//! back, the same person is computed once more from the slice of their first visit. This module is pure: it reads no
//! clock and sends nothing.
//!
//! The numbers are chosen so that the page shows these facts:
//!
//! - Traffic depends on the hour and the weekday, and the audience grows.
//! - Some visitors sign up, and fewer of them buy.
//! - Some people come back, and each day fewer of them do.
//! - The audience in Brazil grew in the last week.
//! - The version that was released two days ago crashes more often than the older ones, and its users buy more often.

use std::f64::consts::TAU;

use fastrand::Rng;
use schemas::time::{DAY, HOUR, MINUTE, UnixMillis};
use serde::Serialize;

/// Length of a slice in milliseconds.
pub(super) const SLICE_MS: i64 = 10 * MINUTE;
/// Number of sessions in a slice, before the factors for the hour, the weekday and the growth; see [`Story::sessions`].
const SESSIONS_PER_SLICE: f64 = 66.0;
/// Growth of the number of sessions from one day to the next: 0.015 is 1.5 %. The number grows from 120 days before the
/// start of the demo to 30 days after the start.
const DAILY_GROWTH: f64 = 0.015;
/// How long before the start of the demo the new version was released.
const RELEASE_AGE_MS: i64 = 2 * DAY;
/// How long after its release the new version reaches its final share of the sessions.
const ADOPTION_MS: i64 = DAY;
/// How long before the start of the demo a campaign in Brazil began. Since then the audience in Brazil grows.
const CAMPAIGN_AGE_MS: i64 = 6 * DAY;
/// The share of sessions that are meant for people who come back. If no such person is found, a new person gets the
/// session.
const RETURNING_SHARE: f64 = 0.55;
/// After how many days people come back, on average.
const RETURN_AFTER_DAYS: f64 = 3.0;
/// The share of new people who begin to sign up, and the share of those people who then finish.
const SIGNUP_BEGUN_SHARE: f64 = 0.46;
const SIGNUP_DONE_SHARE: f64 = 0.68;

/// Countries with their shares of all people, in percent.
const COUNTRIES: [(&str, u32); 14] = [
    ("US", 24),
    ("IN", 14),
    ("BR", 8),
    ("DE", 11),
    ("GB", 9),
    ("ID", 7),
    ("JP", 6),
    ("FR", 5),
    ("MX", 4),
    ("TR", 3),
    ("ES", 3),
    ("PL", 2),
    ("NL", 2),
    ("KR", 2),
];
/// From the beginning of the campaign in Brazil, this percentage of the new people come because of it.
const CAMPAIGN_PERCENT: u32 = 14;
const SYSTEMS: [(&str, u32); 5] = [("android", 44), ("ios", 29), ("windows", 16), ("macos", 8), ("linux", 3)];
const PLANS: [(&str, u32); 3] = [("free", 74), ("pro", 19), ("team", 7)];
/// Screens that are viewed, with their shares of all views, in percent.
const SCREENS: [(&str, u32); 6] =
    [("catalogue", 36), ("product", 30), ("search", 14), ("basket", 9), ("account", 7), ("help", 4)];
/// Prices of the products in cents, with their shares of all purchases, in percent.
const PRICES: [(u32, u32); 4] = [(1_990, 46), (4_900, 30), (8_950, 17), (15_900, 7)];
/// The older versions of the app, each with its share of the sessions that do not use the new version, in percent.
const OLD_VERSIONS: [(&str, u32); 3] = [("4.7.2", 71), ("4.7.1", 21), ("4.6.0", 8)];
const NEW_VERSION: &str = "4.8.0";
/// Options of the poll, with their shares of all votes, in percent.
const OPTIONS: [(&str, u32); 4] = [("boot", 41), ("sneaker", 33), ("sandal", 18), ("clog", 8)];

/// An event of the story.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Line {
    /// When the event happens.
    #[serde(serialize_with = "as_text")]
    pub(super) client_time: UnixMillis,
    pub(super) event: &'static str,
    pub(super) user_id: String,
    session: String,
    sequence: u32,
    country: &'static str,
    device_os: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    param_int: Option<u32>,
    version: &'static str,
    plan: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    screen: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    price: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    poll: Option<&'static str>,
    /// The option of the poll that a vote chooses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) option: Option<&'static str>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn as_text<S: serde::Serializer>(time: &UnixMillis, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

impl Line {
    /// The line as it is sent, without a line break.
    pub(super) fn json(&self) -> String {
        serde_json::to_string(self).expect("numbers and texts are JSON")
    }
}

/// Generates the events before and after the start of the demo.
#[derive(Debug, Clone, Copy)]
pub(super) struct Story {
    seed: u64,
    start: UnixMillis,
}

/// A person, generated from the slice of their first visit.
struct Person {
    id: String,
    country: &'static str,
    system: &'static str,
    plan: &'static str,
    has_begun_signup: bool,
    has_signed_up: bool,
}

impl Story {
    pub(super) fn new(seed: u64, start: UnixMillis) -> Self {
        Self { seed, start }
    }

    /// The number of the slice that contains a moment.
    pub(super) fn slice_of(at: UnixMillis) -> i64 {
        at.0.div_euclid(SLICE_MS)
    }

    /// All events of the sessions that begin in a slice, in the order of the events' times. The last events may be some
    /// minutes after the end of the slice.
    pub(super) fn slice(&self, slice: i64) -> Vec<Line> {
        let mut rng = self.rng(slice, 0);
        let mut lines = Vec::new();
        let mut new = 0;
        for number in 0..self.sessions(slice) {
            let is_back = rng.f64() < RETURNING_SHARE;
            let person = is_back.then(|| self.returning(slice, &mut rng)).flatten();
            let (person, is_new) = match person {
                Some(person) => (person, false),
                None => {
                    new += 1;
                    (self.person(slice, new), true)
                }
            };
            let begin = UnixMillis(slice * SLICE_MS + rng.i64(0..SLICE_MS));
            let mut session = Session {
                rng: Rng::with_seed(rng.u64(..)),
                version: self.version(begin, &mut rng),
                name: format!("{slice:x}-{number}"),
                now: begin,
                person,
                lines: Vec::new(),
            };
            session.run(is_new);
            lines.append(&mut session.lines);
        }
        lines.sort_by_key(|line| line.client_time);
        lines
    }

    /// How many sessions begin in a slice. Depends on the hour, the day of the week and the growth.
    fn sessions(&self, slice: i64) -> usize {
        let at = slice * SLICE_MS;
        let hour = at.rem_euclid(DAY) as f64 / HOUR as f64;
        // Quiet at 4 in the morning, busy at 4 in the afternoon (UTC).
        let of_day = 1.0 - 0.55 * ((hour - 4.0) / 24.0 * TAU).cos();
        // 1 January 1970, day 0, was a Thursday. With 4 added, the remainder 0 is a Sunday and 6 is a Saturday.
        let is_weekend = matches!((at.div_euclid(DAY) + 4).rem_euclid(7), 0 | 6);
        let of_week = if is_weekend { 0.8 } else { 1.08 };
        let days = (at - self.start.0) as f64 / DAY as f64;
        let noise = 0.9 + 0.2 * self.rng(slice, 1).f64();
        (SESSIONS_PER_SLICE * of_day * of_week * noise * (1.0 + DAILY_GROWTH).powf(days.clamp(-120.0, 30.0)))
            .round() as usize
    }

    /// The new person with this number in a slice.
    fn person(&self, slice: i64, number: u64) -> Person {
        let mut rng = self.rng(slice, 1 + number);
        let is_of_campaign =
            slice * SLICE_MS > self.start.0 - CAMPAIGN_AGE_MS && rng.u32(..100) < CAMPAIGN_PERCENT;
        let country = if is_of_campaign { "BR" } else { pick(&mut rng, &COUNTRIES) };
        let has_begun_signup = rng.f64() < SIGNUP_BEGUN_SHARE;
        Person {
            id: format!("u-{slice:x}-{number}"),
            country,
            system: pick(&mut rng, &SYSTEMS),
            has_begun_signup,
            has_signed_up: has_begun_signup && rng.f64() < SIGNUP_DONE_SHARE,
            plan: pick(&mut rng, &PLANS),
        }
    }

    /// A person who signed up before a slice; `None` if a few attempts find no such person.
    fn returning(&self, slice: i64, rng: &mut Rng) -> Option<Person> {
        (0..4).find_map(|_| {
            let days = -RETURN_AFTER_DAYS * (1.0 - rng.f64()).ln();
            let ago = (days * DAY as f64) as i64 / SLICE_MS;
            let first = slice - 1 - ago;
            let new = (self.sessions(first) as f64 * (1.0 - RETURNING_SHARE)) as u64;
            let person = self.person(first, 1 + rng.u64(..new.max(1)));
            person.has_signed_up.then_some(person)
        })
    }

    /// Picks the version of the app for a session that begins at this time. From its release on, the probability of the
    /// new version rises from 0 to 85 % within [`ADOPTION_MS`], and then stays at 85 %.
    fn version(&self, at: UnixMillis, rng: &mut Rng) -> &'static str {
        let age = at.0 - (self.start.0 - RELEASE_AGE_MS);
        let adopted = (age as f64 / ADOPTION_MS as f64).clamp(0.0, 1.0) * 0.85;
        if rng.f64() < adopted { NEW_VERSION } else { pick(rng, &OLD_VERSIONS) }
    }

    fn rng(&self, slice: i64, purpose: u64) -> Rng {
        // The first numbers of fastrand are similar for neighbouring seeds, so the seed is mixed first.
        let mixed = (slice.cast_unsigned() ^ self.seed.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut rng = Rng::with_seed(mixed ^ purpose.wrapping_mul(0xd1b5_4a32_d192_ed03));
        Rng::with_seed(rng.u64(..))
    }
}

/// A session whose events are being generated.
struct Session {
    rng: Rng,
    person: Person,
    name: String,
    version: &'static str,
    now: UnixMillis,
    lines: Vec<Line>,
}

impl Session {
    fn run(&mut self, is_new: bool) {
        if is_new {
            self.event("visit");
        } else {
            self.event("login");
        }
        for _ in 0..self.rng.u32(1..4) {
            let screen = pick(&mut self.rng, &SCREENS);
            self.event("view").screen = Some(screen);
            if self.rng.u32(..4) == 0 {
                let kind = if self.rng.u32(..3) == 0 { "click" } else { "impression" };
                self.event(kind);
            }
        }
        let crashes = if self.version == NEW_VERSION { 0.06 } else { 0.012 };
        if self.rng.f64() < crashes {
            self.event("crash");
            return;
        }
        if is_new && self.person.has_begun_signup {
            self.event("signup_start");
            if self.person.has_signed_up {
                self.event("signup");
            }
        }
        if self.person.has_signed_up && self.rng.u32(..100) < 30 {
            self.buy();
        }
        if self.rng.u32(..100) < 9 {
            let option = pick(&mut self.rng, &OPTIONS);
            let vote = self.event("vote");
            (vote.poll, vote.option) = (Some("best-shoe"), Some(option));
        }
        if self.rng.u32(..100) < 5 {
            self.event("share");
        }
    }

    fn buy(&mut self) {
        self.event("checkout").screen = Some("basket");
        let bought = if self.version == NEW_VERSION { 0.66 } else { 0.54 };
        if self.rng.f64() < bought {
            let cents = pick(&mut self.rng, &PRICES);
            let purchase = self.event("purchase");
            (purchase.param_int, purchase.price) = (Some(cents), Some(f64::from(cents) / 100.0));
        }
    }

    /// Adds an event some seconds after the previous one, and returns it so that the caller can set more fields.
    fn event(&mut self, event: &'static str) -> &mut Line {
        self.now = UnixMillis(self.now.0 + self.rng.i64(2_000..45_000));
        let sequence = self.lines.len() as u32 + 1;
        self.lines.push(Line {
            client_time: self.now,
            event,
            user_id: self.person.id.clone(),
            session: self.name.clone(),
            sequence,
            country: self.person.country,
            device_os: self.person.system,
            param_int: None,
            version: self.version,
            plan: if self.person.has_signed_up { self.person.plan } else { "none" },
            screen: None,
            price: None,
            poll: None,
            option: None,
        });
        self.lines.last_mut().expect("a line was pushed")
    }
}

/// Picks one of the choices, with a probability in proportion to its weight.
fn pick<T: Copy>(rng: &mut Rng, choices: &[(T, u32)]) -> T {
    let sum: u32 = choices.iter().map(|(_, weight)| weight).sum();
    let mut at = rng.u32(..sum);
    for (choice, weight) in choices {
        match at.checked_sub(*weight) {
            Some(rest) => at = rest,
            None => return *choice,
        }
    }
    unreachable!("the number is below the sum of all weights")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use schemas::event;

    use super::*;

    /// 2026-01-08 15:05:00.
    const START: UnixMillis = UnixMillis(1_767_884_700_000);

    fn story() -> Story {
        Story::new(7, START)
    }

    /// All events of the day that ends `ago` days before the start.
    fn day(ago: i64) -> Vec<Line> {
        let last = Story::slice_of(UnixMillis(START.0 - ago * DAY));
        (last - DAY / SLICE_MS..last).flat_map(|slice| story().slice(slice)).collect()
    }

    fn users<'a>(lines: &'a [Line], event: &str) -> BTreeSet<&'a str> {
        lines.iter().filter(|line| line.event == event).map(|line| line.user_id.as_str()).collect()
    }

    #[test]
    fn a_slice_is_the_same_whenever_it_is_made_and_every_line_is_accepted() {
        let slice = Story::slice_of(START);
        assert_eq!(story().slice(slice), story().slice(slice));
        assert_ne!(story().slice(slice), story().slice(slice - 1));
        for line in story().slice(slice) {
            let json = line.json();
            let parsed = event::parse::<()>(&json).unwrap();
            assert_eq!(parsed.event.client_time, Some(line.client_time), "{json}");
            let begin = slice * SLICE_MS;
            assert!((begin..begin + 2 * SLICE_MS).contains(&line.client_time.0), "{}", line.client_time);
        }
    }

    #[test]
    fn each_step_of_the_funnel_loses_people() {
        let day = day(0);
        let steps =
            ["visit", "signup_start", "signup", "checkout", "purchase"].map(|event| users(&day, event).len());
        assert!(steps[..3].is_sorted_by(|a, b| a > b) && steps[3] > steps[4] && steps[4] > 100, "{steps:?}");
    }

    #[test]
    fn people_come_back_and_fewer_each_day() {
        let signed_up = day(6);
        let signed_up = users(&signed_up, "signup");
        let back = |ago| {
            let later = day(ago);
            users(&later, "login").intersection(&signed_up).count()
        };
        let (next, last) = (back(5), back(1));
        assert!(
            next > 2 * last && last > 10,
            "of {} people, {next} came back after 1 day and {last} after 5 days",
            signed_up.len()
        );
    }

    #[test]
    fn the_new_version_crashes_more_often_and_brazil_grows() {
        let (before, after) = (day(8), day(0));
        let part = |lines: &[Line], is: &dyn Fn(&Line) -> bool| {
            lines.iter().filter(|line| is(line)).count() as f64 / lines.len() as f64
        };
        let crash = |line: &Line| line.event == "crash";
        assert!(part(&after, &crash) > 2.0 * part(&before, &crash));
        let brazil = |line: &Line| line.country == "BR";
        assert!(part(&after, &brazil) > 1.5 * part(&before, &brazil));
        let released = |line: &Line| line.version == NEW_VERSION;
        assert!(part(&before, &released) == 0.0 && part(&after, &released) > 0.7);
    }

    #[test]
    fn a_day_has_so_few_events_that_two_weeks_are_sent_in_a_minute() {
        let events = day(1).len();
        assert!((25_000..60_000).contains(&events), "{events}");
    }
}
