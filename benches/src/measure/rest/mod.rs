//! The cost at rest: the CPU time of all processes while few events arrive. Also measures how fresh answers are.
//!
//! The services run with the settings of `./dev up`, each in a process of its own. *Probes* measure the freshness: each
//! probe sends reactions with the time of a past hour that no other traffic uses, so that the reactions change only the
//! answer for that hour. Together the probes add about two events a second.

use std::array;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use bytes::Bytes;
use devstack::{Service, Stack, usage};
use tokio::task::JoinSet;

use super::SMALL_RATE;
use crate::input::{Work, requests};
use crate::load::Load;
use crate::plan::Plan;
use crate::progress;
use crate::report::goals::Bound::AtMost;
use crate::report::goals::Goal;
use crate::report::table::{self, Spread};
use crate::servers::world::{self, World};
use probe::Probe;

mod probe;

/// Requests a second in the load [`Arrival::Demo`].
const DEMO_RATE: f64 = 50.0;
/// Partitions of the topic, as `./dev up` creates it.
const PARTITIONS: u16 = 4;
/// Connections of the load generator.
const CONNECTIONS: usize = 8;
/// Maximum length of the warm-up of each load. The warm-up is never longer than a measurement window.
const WARM_UP: Duration = Duration::from_secs(20);
/// Number of probes that run at the same time.
const PROBES: i64 = 8;

/// The processes, in the order of the table.
const PROCESSES: [&str; 5] = ["ingest", "stream-agg", "query-api", "clickhouse", "kafka"];
/// The number of Millrace's services, which come first in [`PROCESSES`].
const SERVICES: usize = 3;

/// A load: how many events arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arrival {
    /// The event rate of `./dev up --demo`, sent as batches, reactions and votes.
    Demo,
    /// A small deployment: 200 requests a second of 30 events.
    Small,
}

impl Arrival {
    fn what(self) -> &'static str {
        match self {
            Self::Demo => "340 events/s of a demo",
            Self::Small => "200 requests/s of 30 events",
        }
    }

    fn load(self, edge: &Service, duration: Duration) -> anyhow::Result<Load> {
        let (rate, requests): (_, Arc<[Bytes]>) = match self {
            Self::Demo => (DEMO_RATE, requests::demo(DEMO_RATE, duration)),
            Self::Small => (SMALL_RATE, requests::batches(Work::Lean)),
        };
        Ok(Load { addr: world::addr(edge)?, connections: CONNECTIONS, rate: Some(rate), requests })
    }

    /// The goals: the number of cores that the services may keep busy, and the number that ClickHouse may keep busy.
    fn goals(self) -> [f64; 2] {
        match self {
            Self::Demo => [0.05, 0.2],
            Self::Small => [0.25, 0.45],
        }
    }
}

/// One measurement window.
#[derive(Debug, Clone)]
struct Window {
    /// Cores that each process kept busy.
    cores: [f64; PROCESSES.len()],
    /// Seconds from the acknowledgement of each reaction of a probe to the first answer that counts the reaction.
    freshness: Vec<f64>,
}

impl Window {
    fn services(&self) -> f64 {
        self.cores[..SERVICES].iter().sum()
    }
}

/// The measurements of one load.
#[derive(Debug, Clone)]
pub struct Rest {
    arrival: Arrival,
    windows: Vec<Window>,
}

impl Rest {
    fn cores(&self, of: impl Fn(&Window) -> f64) -> Spread {
        Spread::of(self.windows.iter().map(of))
    }

    fn freshness(&self) -> Spread {
        Spread::of(self.windows.iter().flat_map(|window| &window.freshness).copied())
    }

    fn cells(&self) -> [String; 8] {
        let [services, clickhouse] = self.arrival.goals();
        let cores = |at: usize| self.cores(|window| window.cores[at]).median;
        let fresh = self.freshness();
        [
            self.arrival.what().to_owned(),
            format!("{:.3}", cores(0)),
            format!("{:.3}", cores(1)),
            format!("{:.3}", cores(2)),
            format!("{:.3} (≤ {services})", self.cores(Window::services).median),
            format!("{} (≤ {clickhouse})", spread(self.cores(|window| window.cores[3]))),
            format!("{:.3}", cores(4)),
            format!("{:.1} / {:.1} (≤ {MOST_SECONDS_TO_VISIBLE})", fresh.median, fresh.max),
        ]
    }

    /// Figures that have goals.
    pub fn goals(&self) -> Vec<Goal> {
        let [services, clickhouse] = self.arrival.goals();
        let goal = |number, what: &str, measured, most| Goal {
            number,
            what: format!("{}: {what}", self.arrival.what()),
            measured,
            bound: AtMost(most),
        };
        let cores = self.cores(|window| window.cores[3]).median;
        vec![
            goal("4", "cores of ClickHouse", cores, clickhouse),
            goal("4", "cores of the three services", self.cores(Window::services).median, services),
            goal(
                "8",
                "seconds until an event is visible, at most",
                self.freshness().max,
                MOST_SECONDS_TO_VISIBLE,
            ),
        ]
    }
}

/// The goal for freshness: the maximum number of seconds from the acknowledgement of an event to the first answer that
/// counts it, with default settings.
const MOST_SECONDS_TO_VISIBLE: f64 = 8.0;

fn spread(cores: Spread) -> String {
    format!("{:.3} ({:.3}–{:.3})", cores.median, cores.min, cores.max)
}

/// The measurements as an aligned Markdown table, with one line for each load.
pub fn markdown(rests: &[Rest]) -> String {
    let header = [
        "at rest, cores: median",
        PROCESSES[0],
        PROCESSES[1],
        PROCESSES[2],
        "the three (goal)",
        "clickhouse (min–max, goal)",
        PROCESSES[4],
        "visible after s: p50 / max (goal)",
    ];
    table::aligned(&header, &rests.iter().map(Rest::cells).collect::<Vec<_>>())
}

/// The measurements as CSV, with one line for each window.
pub fn csv(rests: &[Rest]) -> String {
    let head = format!("load,window,{},fresh_p50_s,fresh_max_s,probes\n", PROCESSES.join(","));
    let lines = rests.iter().flat_map(|rest| (1..).zip(&rest.windows).map(move |window| (rest, window)));
    let lines = lines.map(|(rest, (number, window))| {
        let cores = window.cores.map(|cores| format!("{cores:.4}")).join(",");
        let fresh = Spread::of(window.freshness.iter().copied());
        let probes = window.freshness.len();
        let what = rest.arrival.what();
        format!("{what},{number},{cores},{:.3},{:.3},{probes}\n", fresh.median, fresh.max)
    });
    head + &lines.collect::<String>()
}

/// Measures both loads, each after a warm-up, in as many windows as the plan has repeats.
pub(super) async fn measure(plan: &Plan, stack: &mut Stack) -> anyhow::Result<Vec<Rest>> {
    let world = World::prepare("rest", stack)?.with_partitions(PARTITIONS);
    world.migrate().await?;
    let mut edge = world.service("ingest").await?;
    let mut aggregator = world.service("stream-agg").await?;
    let mut api = world.service("query-api").await?;
    let processes = [
        edge.process().id(),
        aggregator.process().id(),
        api.process().id(),
        stack.clickhouse.process()?.id(),
        stack.kafka.process()?.id(),
    ];
    let mut rests = Vec::new();
    for arrival in [Arrival::Demo, Arrival::Small] {
        progress::print(&format!("rest, {}, warming up", arrival.what()));
        window(arrival, &edge, &api, processes, plan.window.min(WARM_UP)).await?;
        let mut windows = Vec::new();
        for repeat in 1..=plan.repeats {
            progress::print(&format!("rest, {}, {repeat} of {}", arrival.what(), plan.repeats));
            windows.push(window(arrival, &edge, &api, processes, plan.window).await?);
        }
        rests.push(Rest { arrival, windows });
    }
    edge.terminate().await?;
    aggregator.terminate().await?;
    api.terminate().await?;
    world.remove().await?;
    Ok(rests)
}

/// Measures one window: sends the load to the edge for `duration`, and runs the probes at the same time.
async fn window(
    arrival: Arrival,
    edge: &Service,
    api: &Service,
    processes: [u32; PROCESSES.len()],
    duration: Duration,
) -> anyhow::Result<Window> {
    let load = arrival.load(edge, duration)?;
    let before = seconds(processes)?;
    let mut probes = JoinSet::new();
    for number in 0..PROBES {
        probes.spawn(Probe::new(number, edge, api)?.repeat(Instant::now() + duration));
    }
    let outcome = load.run(duration).await?;
    let after = seconds(processes)?;
    let elapsed = outcome.elapsed.as_secs_f64();
    ensure!(outcome.failed == 0, "{}: {} requests failed", arrival.what(), outcome.failed);
    let freshness = probes.join_all().await.into_iter().collect::<anyhow::Result<Vec<_>>>()?.concat();
    ensure!(
        !freshness.is_empty(),
        "no probe sent a reaction before the end of the window: set a longer `--window`"
    );
    let cores = array::from_fn(|at| (after[at] - before[at]) / elapsed);
    Ok(Window { cores, freshness })
}

fn seconds(processes: [u32; PROCESSES.len()]) -> anyhow::Result<Vec<f64>> {
    processes.into_iter().map(usage::seconds).collect()
}

#[cfg(test)]
mod tests {
    use devstack::traffic::BATCH;

    use super::*;
    use crate::input::requests::DEMO_REQUESTS;

    fn rest() -> Rest {
        let window = |clickhouse, freshness: &[f64]| Window {
            cores: [0.01, 0.02, 0.005, clickhouse, 0.03],
            freshness: freshness.to_vec(),
        };
        let windows = vec![window(1.1, &[2.0, 4.0]), window(1.0, &[7.5]), window(1.3, &[3.0, 9.0])];
        Rest { arrival: Arrival::Demo, windows }
    }

    #[test]
    fn a_line_shows_medians_beside_goals() {
        let page = markdown(&[rest()]);
        let line = page.lines().last().unwrap();
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let expected = [
            "",
            "340 events/s of a demo",
            "0.010",
            "0.020",
            "0.005",
            "0.035 (≤ 0.05)",
            "1.100 (1.000–1.300) (≤ 0.2)",
            "0.030",
            "4.0 / 9.0 (≤ 8)",
            "",
        ];
        assert_eq!(cells, expected);
    }

    #[test]
    fn every_window_is_in_the_csv() {
        let page = csv(&[rest()]);
        let last = "340 events/s of a demo,3,0.0100,0.0200,0.0050,1.3000,0.0300,6.000,9.000,2";
        assert_eq!((page.lines().count(), page.lines().last()), (4, Some(last)), "{page}");
    }

    #[test]
    fn the_loads_have_the_event_rates_that_the_goals_name() {
        // Of every `DEMO_REQUESTS` requests, one is a batch, and each of the others sends one event.
        let demo = DEMO_RATE / DEMO_REQUESTS as f64 * (BATCH + DEMO_REQUESTS - 1) as f64;
        assert_eq!([demo, SMALL_RATE * BATCH as f64], [340.0, 6_000.0]);
    }
}
