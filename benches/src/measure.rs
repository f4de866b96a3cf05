//! What is measured, and beside what: the edge, reads and the whole way here, the cost at rest and the drain
//! in files of their own.

use std::time::Duration;

use anyhow::ensure;
use devstack::traffic::BATCH;
use devstack::{Service, Stack, wait_for};

use crate::contest::{Contestant, compare};
use crate::events::Work;
use crate::floors::Floor;
use crate::goals::Goal;
use crate::rest::Rest;
use crate::table::Row;
use crate::world::World;
use crate::{drain, rest, work};

/// Connections of a few busy servers.
const FEW: usize = 32;
/// Requests a second of a quiet edge: the load that the first deployment is made for.
pub(crate) const SEED_RATE: f64 = 200.0;
/// Requests a second of the whole way, each of [`BATCH`] events.
const WHOLE_WAY_RATE: f64 = 1_000.0;
/// Connections of readers.
const READERS: usize = 64;
/// For everything to be stored after a load.
const SETTLE: Duration = Duration::from_secs(120);

/// How long and how often.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Of each measurement under load.
    pub duration: Duration,
    /// Of each measurement at rest.
    pub window: Duration,
    /// Of everything.
    pub repeats: usize,
    /// That the aggregator drains each time.
    pub events: u64,
    /// What alone is measured; everything if absent.
    pub only: Option<Part>,
    /// The work alone that edge and drain are measured with; all if absent.
    pub work: Option<Work>,
    /// Whether the peers that were built take part in the drain.
    pub peers: bool,
}

impl Plan {
    /// What edge and drain are measured with.
    pub fn works(&self) -> impl Iterator<Item = Work> + use<> {
        let only = self.work;
        Work::ALL.into_iter().filter(move |work| only.is_none_or(|only| only == *work))
    }
}

/// What a run came to.
#[derive(Debug, Default)]
pub struct Report {
    /// Throughput and its cost.
    pub rows: Vec<Row>,
    /// The cost at rest.
    pub rests: Vec<Rest>,
    /// What was measured beside what it should be.
    pub goals: Vec<Goal>,
}

/// A part of what is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// What everything costs while little arrives.
    Rest,
    /// The edge beside its floors.
    Edge,
    /// Hot reads beside theirs.
    Reads,
    /// From requests to stored rows.
    WholeWay,
    /// The aggregator alone, beside peers.
    Drain,
}

/// Kafka and ClickHouse, and how they are used.
pub struct Bench {
    plan: Plan,
    stack: Stack,
}

impl Bench {
    /// Starts both.
    pub async fn start(plan: Plan) -> anyhow::Result<Self> {
        say("starting Kafka and ClickHouse");
        let mut stack = Stack::for_test("bench")?;
        stack.start().await?;
        Ok(Self { plan, stack })
    }

    /// Measures everything, stops both.
    pub async fn run(mut self) -> anyhow::Result<Report> {
        let mut report = Report::default();
        let only = self.plan.only;
        let wanted = |part| only.is_none_or(|only| only == part);
        // First, in a ClickHouse that has as little to tidy up as one that was just started.
        if wanted(Part::Rest) {
            report.rests = rest::measure(&self.plan, &mut self.stack).await?;
            report.goals.extend(report.rests.iter().flat_map(Rest::goals));
        }
        if wanted(Part::Edge) {
            report.rows.extend(self.edge().await?);
        }
        if wanted(Part::Reads) {
            report.rows.extend(self.reads().await?);
        }
        if wanted(Part::WholeWay) {
            report.rows.push(self.whole_way().await?);
        }
        if wanted(Part::Drain) {
            let (rows, goals) = drain::measure(&self.plan, &mut self.stack).await?;
            report.rows.extend(rows);
            report.goals.extend(goals);
        }
        self.stack.stop().await?;
        Ok(report)
    }

    /// The edge beside floors A and B: batches of each work and single events flat out; and with few.
    async fn edge(&mut self) -> anyhow::Result<Vec<Row>> {
        let world = World::new("edge", &self.stack).await?;
        let mut edge = world.service("ingest").await?;
        let mut rows = self.edge_flat_out(&world, &mut edge).await?;
        if self.plan.works().any(|work| work == Work::Lean) {
            rows.extend(self.edge_with_few(&world, &mut edge).await?);
        }
        edge.terminate().await?;
        Ok(rows)
    }

    async fn edge_flat_out(&mut self, world: &World, edge: &mut Service) -> anyhow::Result<Vec<Row>> {
        let kafka = self.stack.kafka.process()?.id();
        let mut read = world.floor(Floor::Read).await?;
        let mut produce = world.floor(Floor::Produce).await?;
        let (lean, reactions) = (work::batches(Work::Lean), work::reactions());
        let mut contestants = vec![
            Contestant::new("floor A: read 30 events, answer", "floor", &mut read, &lean)?.of_events(BATCH),
            Contestant::new("edge: single reactions, durable", "ingest", edge, &reactions)?
                .of_events(1)
                .with("kafka", kafka),
        ];
        for work in self.plan.works() {
            let (name, batches) = (work.name(), work::batches(work));
            let floor_b = format!("floor B: read, produce, acks=all, answer, {name}");
            let ours = format!("edge: 30 events a request, durable, {name}");
            for (what, program, service) in [(floor_b, "floor", &mut produce), (ours, "ingest", &mut *edge)] {
                let contestant = Contestant::new(what, program, service, &batches)?.of_events(BATCH);
                contestants.push(contestant.with("kafka", kafka));
            }
        }
        let mut rows = self.compare(&contestants).await?;
        let [floor_a, single, pairs @ ..] = &mut rows[..] else { unreachable!("these two took part") };
        single.note = format!("{:.0} % of A's requests/s", single.percent_of(floor_a) * BATCH as f64);
        for pair in pairs.chunks_mut(2) {
            let [floor_b, ours] = pair else { unreachable!("they took part in pairs") };
            let [of_b, of_a] = [&*floor_b, floor_a].map(|floor| ours.percent_of(floor));
            ours.note = format!("{of_b:.0} % of B, {of_a:.0} % of A");
        }
        Ok(rows)
    }

    async fn edge_with_few(&mut self, world: &World, edge: &mut Service) -> anyhow::Result<Vec<Row>> {
        let kafka = self.stack.kafka.process()?.id();
        let mut produce = world.floor(Floor::Produce).await?;
        let batches = work::batches(Work::Lean);
        let stored = |what, name, service: &mut Service| -> anyhow::Result<_> {
            Ok(Contestant::new(what, name, service, &batches)?.of_events(BATCH).with("kafka", kafka))
        };
        let mut rows = self
            .compare(&[
                stored("floor B, 200 requests/s", "floor", &mut produce)?.at(SEED_RATE),
                stored("edge: the same, 200 requests/s", "ingest", edge)?.at(SEED_RATE),
                stored("floor B by 32 connections", "floor", &mut produce)?.by(FEW),
                stored("edge by 32 connections, durable", "ingest", edge)?.by(FEW),
            ])
            .await?;
        let [floor_of_seed, seed, floor_of_few, few] = &mut rows[..] else { unreachable!("four took part") };
        let [ours, floors] = [&*seed, floor_of_seed].map(|row| 100.0 * row.cores());
        seed.note = format!("{ours:.1} % of a core, B {floors:.1} %");
        few.note = format!("{:.0} % of B by as many", few.percent_of(floor_of_few));
        Ok(rows)
    }

    /// Hot reads beside a server that answers a constant.
    async fn reads(&mut self) -> anyhow::Result<Vec<Row>> {
        let world = World::new("reads", &self.stack).await?;
        let mut constant = world.floor(Floor::Constant).await?;
        let mut api = world.service("query-api").await?;
        let reads = work::reads();
        let mut rows = self
            .compare(&[
                Contestant::new("floor C: answer a constant", "floor", &mut constant, &reads)?.by(READERS),
                Contestant::new("reads: GET /analytics, this hour", "query-api", &mut api, &reads)?
                    .by(READERS),
            ])
            .await?;
        api.terminate().await?;
        let [floor, ours] = &mut rows[..] else { unreachable!("two took part") };
        ours.note = format!("{:.0} % of C", ours.percent_of(floor));
        Ok(rows)
    }

    /// Everything at a steady rate, until the last event is stored.
    async fn whole_way(&mut self) -> anyhow::Result<Row> {
        let world = World::new("whole_way", &self.stack).await?;
        let mut edge = world.service("ingest").await?;
        let mut aggregator = world.service("stream-agg").await?;
        let contestant = Contestant::new(
            "whole way, 1,000 requests/s of 30",
            "ingest",
            &mut edge,
            &work::batches(Work::Lean),
        )?
        .of_events(BATCH)
        .at(WHOLE_WAY_RATE)
        .with("kafka", self.stack.kafka.process()?.id())
        .with("stream-agg", aggregator.process().id())
        .with("clickhouse", self.stack.clickhouse.process()?.id());
        let mut row = contestant.row();
        let mut settled = Duration::ZERO;
        for repeat in 1..=self.plan.repeats {
            say(&format!("whole way, {repeat} of {}", self.plan.repeats));
            let before = contestant.cpu()?;
            let outcome = contestant.run(self.plan.duration).await?;
            let accepted = outcome.answered * BATCH as u64 + row.units();
            settled = settled.max(settle(&world, accepted).await?);
            row.repeats.push(contestant.repeat(&outcome, &before)?);
        }
        row.note = format!("{} events, all stored {:.1} s later", row.units(), settled.as_secs_f64());
        edge.terminate().await?;
        aggregator.terminate().await?;
        world.remove().await?;
        Ok(row)
    }

    async fn compare(&self, contestants: &[Contestant]) -> anyhow::Result<Vec<Row>> {
        compare(contestants, self.plan.repeats, self.plan.duration).await
    }
}

/// Waits until `events` are stored, and holds the tables to exactly that; says how long it took.
pub(crate) async fn settle(world: &World, events: u64) -> anyhow::Result<Duration> {
    let waited = wait_for("every event to be stored", SETTLE, async || {
        world.stored_by_the_ledger().await.is_ok_and(|stored| stored >= events)
            && world.stored().await.is_ok_and(|stored| stored >= events)
    })
    .await?;
    let (rows, told) = (world.stored().await?, world.stored_by_the_ledger().await?);
    ensure!(rows == events && told == events, "{events} events became {rows} rows, {told} by the ledger");
    Ok(waited)
}

/// Progress, beside the table on standard output.
#[expect(clippy::print_stderr, reason = "long work shows progress")]
pub(crate) fn say(step: &str) {
    eprintln!("bench: {step}");
}
