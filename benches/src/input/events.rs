//! The kinds of events that the measurements use: lean, rich and wild.
//!
//! Pure: the caller passes the time. For the same times, the events must never change, because the results of runs on
//! different days are compared; a test checks the exact text of some lines. No two bodies are equal: a Kafka producer
//! compresses several records together, so equal bodies would compress better than the bodies of real clients.

use std::fmt::Write as _;

use devstack::traffic::{BATCH, Traffic};
use fastrand::Rng;
use schemas::time::{DAY, UnixMillis};

/// Number of simulated devices.
const DEVICES: usize = 100_000;
/// On average, one of this many wild events comes from a device with a wrong clock.
const WRONG_CLOCK_ONE_IN: u32 = 100;
/// A wrong clock shows a random time within this many past days.
const WILD_DAYS: i64 = 2_000;

/// A kind of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Work {
    /// Device events that have only known fields, 230 to 290 bytes a line.
    Lean,
    /// Lean events with eight further fields, which Millrace stores in the column `props`: 420 to 500 bytes a line.
    Rich,
    /// Lean events, of which one in a hundred has a random time in the last 2,000 days.
    Wild,
}

impl Work {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Lean, Self::Rich, Self::Wild];

    /// The name on the command line and in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lean => "lean",
            Self::Rich => "rich",
            Self::Wild => "wild",
        }
    }
}

/// The fields that a rich event has in addition to those of a lean event, each with the type of its column in
/// ClickHouse. The Kafka engine and Spate need a column for each field; Millrace stores these fields in one column.
pub(crate) const PROPS: [(&str, &str); 8] = [
    ("plan", "LowCardinality(String)"),
    ("screen", "LowCardinality(String)"),
    ("search", "String"),
    ("item", "String"),
    ("price", "Decimal(18, 2)"),
    ("level", "UInt32"),
    ("app", "String"),
    ("premium", "Bool"),
];
const PLANS: [&str; 4] = ["free", "basic", "plus", "family"];
const SCREENS: [&str; 12] = [
    "home",
    "search",
    "product",
    "basket",
    "checkout",
    "account",
    "settings",
    "level_map",
    "shop",
    "friends",
    "inbox",
    "help",
];
const WORDS: [&str; 16] = [
    "red",
    "blue",
    "running",
    "winter",
    "leather",
    "cheap",
    "light",
    "women",
    "kids",
    "trail",
    "waterproof",
    "shoes",
    "boots",
    "sneaker",
    "sandals",
    "laces",
];
/// Number of different values of the field `item`.
const ITEMS: u32 = 50_000;
const CHANNELS: [&str; 3] = ["stable", "beta", "nightly"];

/// An endless stream of batches. The same kind of events and the same times give the same batches.
pub struct Events {
    work: Work,
    traffic: Traffic,
    rng: Rng,
}

impl Events {
    /// The stream of this kind of events.
    pub fn new(work: Work) -> Self {
        Self { work, traffic: Traffic::new(1, DEVICES), rng: Rng::with_seed(2) }
    }

    /// [`BATCH`] events of one device as NDJSON.
    pub fn batch(&mut self, now: UnixMillis) -> String {
        let (mut body, rng) = (String::with_capacity(BATCH * 512), &mut self.rng);
        for mut line in self.traffic.lines(now, BATCH) {
            if self.work == Work::Wild && rng.u32(..WRONG_CLOCK_ONE_IN) == 0 {
                line.client_time = UnixMillis(now.0 - rng.i64(0..WILD_DAYS * DAY)).to_string();
            }
            body.push_str(&line.json());
            if self.work == Work::Rich {
                assert_eq!(body.pop(), Some('}'), "a line is a JSON object");
                write_props(rng, &mut body);
                body.push('}');
            }
            body.push('\n');
        }
        body
    }

    /// The path of a `POST` request that sends one person's reaction: a click or an impression.
    pub fn reaction(&mut self, now: UnixMillis) -> String {
        self.traffic.reaction(now)
    }

    /// The body of a request that sends one person's vote.
    pub fn vote(&mut self) -> String {
        self.traffic.vote()
    }
}

/// Appends the fields of [`PROPS`] in their order.
fn write_props(rng: &mut Rng, body: &mut String) {
    let mut pick = |from: &[&'static str]| from[rng.usize(..from.len())];
    let (plan, screen, channel) = (pick(&PLANS), pick(&SCREENS), pick(&CHANNELS));
    let words = [pick(&WORDS), pick(&WORDS), pick(&WORDS)].join(" ");
    let (item, price, level) = (rng.u32(..ITEMS), rng.u32(100..20_000), rng.u32(1..100));
    let (version, build, premium) = (rng.u32(..40), 41_000 + rng.u32(..400), rng.u32(..5) == 0);
    // Writing to a String cannot fail.
    let _ = write!(
        body,
        r#","plan":"{plan}","screen":"{screen}","search":"{words} {level}","item":"product-{item:08}","#
    );
    let _ = write!(
        body,
        r#""price":{}.{:02},"level":{level},"app":{{"version":"4.{version}.1","build":{build},"channel":"{channel}"}},"premium":{premium}"#,
        price / 100,
        price % 100
    );
}

#[cfg(test)]
mod tests {
    use schemas::event;

    use super::*;

    /// 2026-01-01 00:30:00.
    const NOW: UnixMillis = UnixMillis(1_767_227_400_000);

    fn lines(work: Work, batches: usize) -> Vec<String> {
        let mut events = Events::new(work);
        (0..batches).flat_map(|_| events.batch(NOW).lines().map(str::to_owned).collect::<Vec<_>>()).collect()
    }

    const FIRST: &str = r#"{"client_time":"2026-01-01 00:29:59.073","device_id":"07e0d3a3-e30c-411c-bcbc-4e4baa328160","device_os":"android","session":"9a546451-5b45-4a23-b293-f2abd8fc9e37","sequence":1,"event":"view","country":"DE","param_int":278,"param_str":"made up by the demo""#;
    const FIRST_PROPS: &str = r#","plan":"free","screen":"inbox","search":"light shoes light 14","item":"product-00022758","price":125.64,"level":14,"app":{"version":"4.5.1","build":41296,"channel":"nightly"},"premium":false"#;

    #[test]
    fn lines_are_the_same_for_ever() {
        let [lean, rich, wild] = Work::ALL.map(|work| lines(work, 20));
        assert_eq!(lean[0], format!("{FIRST}}}"));
        assert_eq!(rich[0], format!("{FIRST}{FIRST_PROPS}}}"));
        let other = lean.iter().zip(&wild).find(|(lean, wild)| lean != wild).unwrap();
        assert!(other.1.starts_with(r#"{"client_time":"2022-05-23 15:27:24.895","#), "{}", other.1);
    }

    #[test]
    fn the_edge_accepts_every_line() {
        for line in Work::ALL.into_iter().flat_map(|work| lines(work, 50)) {
            assert!(event::parse::<()>(&line).is_ok(), "{line}");
        }
    }

    #[track_caller]
    fn check_length(work: Work, least: usize, greatest: usize) {
        let lengths: Vec<_> = lines(work, 100).iter().map(String::len).collect();
        let average = lengths.iter().sum::<usize>() / lengths.len();
        assert!((least..=greatest).contains(&average), "{average} bytes a line");
    }

    #[test]
    fn lines_are_as_long_as_stated() {
        check_length(Work::Lean, 230, 290);
        check_length(Work::Rich, 420, 500);
        check_length(Work::Wild, 230, 290);
    }

    #[test]
    fn about_one_wild_event_in_a_hundred_is_older_than_two_days() {
        let old = NOW.0 - 2 * DAY;
        let parsed = |line: &String| event::parse::<()>(line).unwrap().event.client_time.unwrap();
        let wrong = |work| lines(work, 1_000).iter().filter(|line| parsed(line).0 < old).count();
        assert_eq!(wrong(Work::Lean), 0);
        assert!((200..400).contains(&wrong(Work::Wild)), "{} of 30,000", wrong(Work::Wild));
    }
}
