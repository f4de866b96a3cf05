//! Reads the current figures of the demo every second, and shows them in one line of the terminal. Without a terminal,
//! prints every tenth reading. Also keeps the highest figures.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use reqwest::Client;
use schemas::time::UnixMillis;
use tokio::time::{self, Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::output;
use super::services::Addresses;

/// Interval between two readings.
const INTERVAL: Duration = Duration::from_secs(1);
/// If standard output is not a terminal, only every tenth reading is printed.
const SHOWN: u64 = 10;
/// Longest wait for the metrics of a service.
const TIMEOUT: Duration = Duration::from_millis(800);

/// The services' metrics at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reading {
    /// Events that the edge accepted since its start.
    accepted: u64,
    /// Rows that the aggregator stored since its start.
    stored: u64,
    /// Records in Kafka that are not yet in every table.
    lag: u64,
    /// The moment up to which answers are complete, once it is known.
    as_of: Option<UnixMillis>,
}

/// The rates between two readings, with the lag and the age of the answers at the later reading.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Pace {
    accepted_per_s: u64,
    stored_per_s: u64,
    lag: u64,
    /// Age of the answers in milliseconds.
    age: Option<i64>,
}

/// The highest figures of a demo.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Highest(Pace);

/// Prints the current figures until `stop`, and returns the highest ones.
pub(super) async fn show(at: Addresses, stop: CancellationToken) -> Highest {
    let client =
        Client::builder().timeout(TIMEOUT).build().expect("a client without TLS can always be built");
    let is_terminal = std::io::stdout().is_terminal();
    let mut ticks = time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut before, mut highest, mut shown) = (None, Highest::default(), 0);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        // If a service does not answer in time, this second is skipped.
        let Some(now) = read(&client, &at).await else { continue };
        let moment = Instant::now();
        if let Some((was, since)) = before.replace((now, moment)) {
            let pace = pace(&was, &now, moment - since, SystemTime::now().into());
            highest.add(&pace);
            if is_terminal {
                output::replace_line(&line(&pace));
            } else if shown % SHOWN == 0 {
                output::print_line(&line(&pace));
            }
            shown += 1;
        }
    }
    if is_terminal && shown > 0 {
        output::print_line("");
    }
    highest
}

async fn read(client: &Client, at: &Addresses) -> Option<Reading> {
    let page = async |admin: SocketAddr| {
        client.get(format!("http://{admin}/metrics")).send().await.ok()?.text().await.ok()
    };
    let (ingest, stream_agg, query_api) =
        tokio::join!(page(at.ingest.1), page(at.stream_agg), page(at.query_api.1));
    let (stream_agg, as_of) = (stream_agg?, sum(&query_api?, "query_api_as_of_milliseconds"));
    Some(Reading {
        accepted: sum(&ingest?, "ingest_events_accepted_total"),
        stored: sum(&stream_agg, "stream_agg_rows_total"),
        lag: sum(&stream_agg, "stream_agg_lag_records"),
        as_of: (as_of > 0).then(|| UnixMillis(as_of.cast_signed())),
    })
}

/// The sum of a metric over all its labels.
fn sum(page: &str, name: &str) -> u64 {
    let of_name = page.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
    let values = of_name.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    values.sum::<f64>() as u64
}

fn pace(was: &Reading, now: &Reading, elapsed: Duration, clock: UnixMillis) -> Pace {
    let per_s = |was: u64, now: u64| (now.saturating_sub(was) as f64 / elapsed.as_secs_f64()).round() as u64;
    Pace {
        accepted_per_s: per_s(was.accepted, now.accepted),
        stored_per_s: per_s(was.stored, now.stored),
        lag: now.lag,
        age: now.as_of.map(|as_of| (clock.0 - as_of.0).max(0)),
    }
}

fn line(pace: &Pace) -> String {
    let Pace { accepted_per_s, stored_per_s, lag, age } = pace;
    let age = age.map_or("no answers yet".to_owned(), |age| format!("answers {} old", seconds(age)));
    format!(
        "{accepted_per_s:>6} events/s in, {stored_per_s:>6} rows/s stored, {lag:>4} records behind, {age}"
    )
}

fn seconds(millis: i64) -> String {
    format!("{:.1} s", millis as f64 / 1000.0)
}

impl Highest {
    fn add(&mut self, pace: &Pace) {
        let Self(highest) = self;
        highest.accepted_per_s = highest.accepted_per_s.max(pace.accepted_per_s);
        highest.stored_per_s = highest.stored_per_s.max(pace.stored_per_s);
        highest.lag = highest.lag.max(pace.lag);
        highest.age = highest.age.max(pace.age);
    }

    /// Prints a line for each figure, or nothing if the age of the answers never became known.
    pub(super) fn print(&self) {
        let Pace { accepted_per_s, stored_per_s, lag, age: Some(age) } = self.0 else { return };
        output::print_line("peak values");
        output::print_line(&format!("  events accepted/s  {accepted_per_s:>8}"));
        output::print_line(&format!("  rows stored/s      {stored_per_s:>8}"));
        output::print_line(&format!("  records behind     {lag:>8}"));
        output::print_line(&format!("  age of answers     {:>8}", seconds(age)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_shows_the_rates_between_two_readings() {
        let was = Reading { accepted: 100, stored: 50, lag: 9, as_of: None };
        let now = Reading { accepted: 766, stored: 718, lag: 3, as_of: Some(UnixMillis(5000)) };
        let pace = pace(&was, &now, Duration::from_secs(2), UnixMillis(7340));
        let expected = "   333 events/s in,    334 rows/s stored,    3 records behind, answers 2.3 s old";
        assert_eq!(line(&pace), expected);
        assert!(line(&Pace { age: None, ..pace }).ends_with("no answers yet"));
    }

    #[test]
    fn the_highest_of_each_figure_is_kept() {
        let mut highest = Highest::default();
        for (accepted_per_s, lag, age) in [(5, 1, None), (3, 7, Some(400)), (4, 0, Some(90))] {
            highest.add(&Pace { accepted_per_s, stored_per_s: 2, lag, age });
        }
        assert_eq!(highest, Highest(Pace { accepted_per_s: 5, stored_per_s: 2, lag: 7, age: Some(400) }));
    }

    #[test]
    fn a_metric_is_summed_over_its_labels() {
        let page = "# HELP a_total x\na_total{route=\"b\"} 3\na_total{route=\"c\"} 4\na_total_b 9\n";
        assert_eq!((sum(page, "a_total"), sum(page, "none")), (7, 0));
    }
}
