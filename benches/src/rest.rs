//! The cost at rest: what all processes take while little arrives, and how fresh answers are.
//!
//! The services run as in `./dev up --demo`, each as a process of its own. Freshness is measured
//! by *probes*: reactions of one past hour each, which no other traffic has, so that each is seen
//! in the answer for its hour and in no other. They add about one event a second.

use std::array;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, ensure};
use bytes::Bytes;
use devstack::{Service, Stack, usage};
use schemas::time::{HOUR, UnixMillis};
use tokio::task::JoinSet;
use tokio::time;

use crate::events::Work;
use crate::goals::Bound::AtMost;
use crate::goals::Goal;
use crate::load::Load;
use crate::measure::{Plan, SEED_RATE, say};
use crate::table::{self, Spread};
use crate::work;
use crate::world::{self, World};

/// Requests a second of a demo.
const DEMO_RATE: f64 = 50.0;
/// Partitions of the topic, as `./dev up` makes it.
const PARTITIONS: u16 = 4;
/// Connections of either.
const CONNECTIONS: usize = 8;
/// Of each load before anything counts, or as long as it is measured if that is shorter.
const WARM_UP: Duration = Duration::from_secs(20);
/// Probes under way at once.
const PROBES: i64 = 8;
/// The first of their hours: other traffic is of a day ago at most.
const PROBES_FROM: i64 = 26;
/// Between two looks at the answer for a probe's hour.
const LOOK: Duration = Duration::from_millis(50);
/// For a probe to be seen.
const SEEN: Duration = Duration::from_secs(60);

/// The processes, in the order of the table.
const PROCESSES: [&str; 5] = ["ingest", "stream-agg", "query-api", "clickhouse", "kafka"];
/// How many of them are ours.
const OURS: usize = 3;

/// How much arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arrives {
    /// What a demo sends: batches, reactions and votes.
    Demo,
    /// 200 requests a second of 30 events.
    Seed,
}

impl Arrives {
    fn what(self) -> &'static str {
        match self {
            Self::Demo => "340 events/s of a demo",
            Self::Seed => "200 requests/s of 30 events",
        }
    }

    fn load(self, edge: &Service, duration: Duration) -> anyhow::Result<Load> {
        let (rate, requests): (_, Arc<[Bytes]>) = match self {
            Self::Demo => (DEMO_RATE, work::demo(DEMO_RATE, duration)),
            Self::Seed => (SEED_RATE, work::batches(Work::Lean)),
        };
        Ok(Load { addr: world::addr(edge)?, connections: CONNECTIONS, rate: Some(rate), requests })
    }

    /// Most cores of the services and of ClickHouse.
    fn goals(self) -> [f64; 2] {
        match self {
            Self::Demo => [0.05, 0.2],
            Self::Seed => [0.25, 0.45],
        }
    }
}

/// One window of a load.
#[derive(Debug, Clone)]
struct Window {
    /// Cores that each process kept busy.
    cores: [f64; PROCESSES.len()],
    /// Seconds from each probe's 200 to the answer that counts it.
    freshness: Vec<f64>,
}

impl Window {
    fn services(&self) -> f64 {
        self.cores[..OURS].iter().sum()
    }
}

/// What a load came to.
#[derive(Debug, Clone)]
pub struct Rest {
    arrives: Arrives,
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
        let [services, clickhouse] = self.arrives.goals();
        let cores = |at: usize| self.cores(|window| window.cores[at]).middle;
        let fresh = self.freshness();
        [
            self.arrives.what().to_owned(),
            format!("{:.3}", cores(0)),
            format!("{:.3}", cores(1)),
            format!("{:.3}", cores(2)),
            format!("{:.3} (≤ {services})", self.cores(Window::services).middle),
            format!("{} (≤ {clickhouse})", spread(self.cores(|window| window.cores[3]))),
            format!("{:.3}", cores(4)),
            format!("{:.1} / {:.1} (≤ {FRESH})", fresh.middle, fresh.greatest),
        ]
    }

    /// What was measured beside the goals.
    pub fn goals(&self) -> Vec<Goal> {
        let [services, clickhouse] = self.arrives.goals();
        let goal = |number, what: &str, measured, most| Goal {
            number,
            what: format!("{}: {what}", self.arrives.what()),
            measured,
            bound: AtMost(most),
        };
        let cores = self.cores(|window| window.cores[3]).middle;
        vec![
            goal("4", "cores of ClickHouse", cores, clickhouse),
            goal("4", "cores of the three services", self.cores(Window::services).middle, services),
            goal("8", "seconds until an event is visible, the greatest", self.freshness().greatest, FRESH),
        ]
    }
}

/// Most seconds from 200 to visible, with default settings.
const FRESH: f64 = 8.0;

fn spread(cores: Spread) -> String {
    format!("{:.3} ({:.3}–{:.3})", cores.middle, cores.least, cores.greatest)
}

/// The loads as an aligned Markdown table.
pub fn markdown(rests: &[Rest]) -> String {
    let header = [
        "at rest, cores: median",
        PROCESSES[0],
        PROCESSES[1],
        PROCESSES[2],
        "the three (goal)",
        "clickhouse (least–greatest, goal)",
        PROCESSES[4],
        "visible after s: p50 / greatest (goal)",
    ];
    table::aligned(&header, &rests.iter().map(Rest::cells).collect::<Vec<_>>())
}

/// One line for each window.
pub fn csv(rests: &[Rest]) -> String {
    let head = format!("load,window,{},fresh_p50_s,fresh_max_s,probes\n", PROCESSES.join(","));
    let lines = rests.iter().flat_map(|rest| (1..).zip(&rest.windows).map(move |window| (rest, window)));
    let lines = lines.map(|(rest, (number, window))| {
        let cores = window.cores.map(|cores| format!("{cores:.4}")).join(",");
        let fresh = Spread::of(window.freshness.iter().copied());
        let probes = window.freshness.len();
        let what = rest.arrives.what();
        format!("{what},{number},{cores},{:.3},{:.3},{probes}\n", fresh.middle, fresh.greatest)
    });
    head + &lines.collect::<String>()
}

/// Both loads, each after a warm-up, in as many windows as there are repeats.
pub(crate) async fn measure(plan: &Plan, stack: &mut Stack) -> anyhow::Result<Vec<Rest>> {
    let world = World::prepare("rest", stack)?.of_partitions(PARTITIONS);
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
    for arrives in [Arrives::Demo, Arrives::Seed] {
        say(&format!("rest, {}, warming up", arrives.what()));
        window(arrives, &edge, &api, processes, plan.window.min(WARM_UP)).await?;
        let mut windows = Vec::new();
        for repeat in 1..=plan.repeats {
            say(&format!("rest, {}, {repeat} of {}", arrives.what(), plan.repeats));
            windows.push(window(arrives, &edge, &api, processes, plan.window).await?);
        }
        rests.push(Rest { arrives, windows });
    }
    edge.terminate().await?;
    aggregator.terminate().await?;
    api.terminate().await?;
    world.remove().await?;
    Ok(rests)
}

/// Puts the edge under the load for `duration`, with probes beside.
async fn window(
    arrives: Arrives,
    edge: &Service,
    api: &Service,
    processes: [u32; PROCESSES.len()],
    duration: Duration,
) -> anyhow::Result<Window> {
    let load = arrives.load(edge, duration)?;
    let before = seconds(processes)?;
    let mut probes = JoinSet::new();
    for number in 0..PROBES {
        probes.spawn(Probe::new(number, edge, api)?.repeat(Instant::now() + duration));
    }
    let outcome = load.run(duration).await?;
    let after = seconds(processes)?;
    let elapsed = outcome.elapsed.as_secs_f64();
    ensure!(outcome.failed == 0, "{}: {} requests failed", arrives.what(), outcome.failed);
    let freshness = probes.join_all().await.into_iter().collect::<anyhow::Result<Vec<_>>>()?.concat();
    ensure!(!freshness.is_empty(), "no probe was seen: measure for longer");
    let cores = array::from_fn(|at| (after[at] - before[at]) / elapsed);
    Ok(Window { cores, freshness })
}

fn seconds(processes: [u32; PROCESSES.len()]) -> anyhow::Result<Vec<f64>> {
    processes.into_iter().map(usage::seconds).collect()
}

/// Sends reactions of one hour and looks when each is counted.
struct Probe {
    number: i64,
    /// Where a reaction goes, and where its hour is answered.
    write: String,
    read: String,
    client: reqwest::Client,
}

impl Probe {
    fn new(number: i64, edge: &Service, api: &Service) -> anyhow::Result<Self> {
        let now = UnixMillis::from(SystemTime::now());
        let hour = now.floor(HOUR).0 - (PROBES_FROM + number) * HOUR;
        Ok(Self {
            number,
            write: format!("{}/analytics?timestamp={hour}&user=probe-{number}&click", edge.http()),
            read: format!("{}/analytics?timestamp={hour}", api.http()),
            client: reqwest::Client::builder().timeout(SEEN).build().context("make an HTTP client")?,
        })
    }

    /// One after the other until `end`; a probe that is under way then is waited for.
    async fn repeat(self, end: Instant) -> anyhow::Result<Vec<f64>> {
        // An old hour joins the questions of every tick once it was asked for.
        let mut clicks = self.clicks().await?;
        let mut freshness = Vec::new();
        // Not all at the same moment, and not in step with ticks.
        time::sleep(Duration::from_millis(37 + 631 * self.number as u64)).await;
        while Instant::now() < end {
            self.client.post(&self.write).send().await?.error_for_status().context("send a probe")?;
            let sent = Instant::now();
            clicks =
                time::timeout(SEEN, self.more_than(clicks)).await.context("wait for a probe to be seen")?;
            freshness.push(sent.elapsed().as_secs_f64());
            time::sleep(Duration::from_millis(100 + 97 * (freshness.len() as u64 % 10))).await;
        }
        Ok(freshness)
    }

    /// The clicks of its hour once there are more than `before`.
    async fn more_than(&self, before: u64) -> u64 {
        loop {
            time::sleep(LOOK).await;
            match self.clicks().await {
                Ok(clicks) if clicks > before => return clicks,
                Ok(_) | Err(_) => {}
            }
        }
    }

    async fn clicks(&self) -> anyhow::Result<u64> {
        let text = self.client.get(&self.read).send().await?.error_for_status()?.text().await?;
        clicks(&text).with_context(|| format!("read the clicks in {text}"))
    }
}

/// The clicks in an answer of lines such as `clicks,12`.
fn clicks(answer: &str) -> Option<u64> {
    answer.lines().find_map(|line| line.strip_prefix("clicks,")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use devstack::traffic::BATCH;

    use super::*;
    use crate::work::DEMO_REQUESTS;

    fn rest() -> Rest {
        let window = |clickhouse, freshness: &[f64]| Window {
            cores: [0.01, 0.02, 0.005, clickhouse, 0.03],
            freshness: freshness.to_vec(),
        };
        let windows = vec![window(1.1, &[2.0, 4.0]), window(1.0, &[7.5]), window(1.3, &[3.0, 9.0])];
        Rest { arrives: Arrives::Demo, windows }
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
    fn the_loads_are_those_of_the_goals() {
        // A batch, and an event each in the other requests of a round.
        let demo = DEMO_RATE / DEMO_REQUESTS as f64 * (BATCH + DEMO_REQUESTS - 1) as f64;
        assert_eq!([demo, SEED_RATE * BATCH as f64], [340.0, 6_000.0]);
    }

    #[test]
    fn clicks_are_read_from_an_answer() {
        assert_eq!(clicks("unique_users,2\nclicks,31\nimpressions,0\n"), Some(31));
        assert_eq!(clicks("no such hour"), None);
    }
}
