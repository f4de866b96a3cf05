//! What is measured, and beside what: the edge, reads, the whole way, the aggregator.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use devstack::traffic::BATCH;
use devstack::{Service, Stack, usage, wait_for};
use tokio::time;

use crate::contest::{Contestant, compare};
use crate::floors::Floor;
use crate::table::{Repeat, Row, Unit};
use crate::work;
use crate::world::World;

/// Connections of a few busy servers.
const FEW: usize = 32;
/// Requests a second of a quiet edge: the load that the first deployment is made for.
const SEED_RATE: f64 = 200.0;
/// Requests a second of the whole way, each of [`BATCH`] events.
const WHOLE_WAY_RATE: f64 = 1_000.0;
/// Connections of readers.
const READERS: usize = 64;
/// Between two looks at the ledger while it fills: they cost ClickHouse CPU that is counted.
const LOOK: Duration = Duration::from_millis(500);
/// For everything to be stored after a load.
const SETTLE: Duration = Duration::from_secs(120);

/// How long and how often.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Of each measurement under load.
    pub duration: Duration,
    /// Of everything.
    pub repeats: usize,
    /// That the aggregator drains each time.
    pub events: u64,
    /// What alone is measured; everything if absent.
    pub only: Option<Part>,
}

/// A part of what is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// The edge beside its floors.
    Edge,
    /// Hot reads beside theirs.
    Reads,
    /// From requests to stored rows.
    WholeWay,
    /// The aggregator alone.
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
    pub async fn run(mut self) -> anyhow::Result<Vec<Row>> {
        let mut rows = Vec::new();
        let only = self.plan.only;
        let wanted = |part| only.is_none_or(|only| only == part);
        if wanted(Part::Edge) {
            rows.extend(self.edge().await?);
        }
        if wanted(Part::Reads) {
            rows.extend(self.reads().await?);
        }
        if wanted(Part::WholeWay) {
            rows.push(self.whole_way().await?);
        }
        if wanted(Part::Drain) {
            rows.push(self.drain().await?);
        }
        self.stack.stop().await?;
        Ok(rows)
    }

    /// The edge beside floors A and B: batches, flat out and few; single events.
    async fn edge(&mut self) -> anyhow::Result<Vec<Row>> {
        let world = World::new("edge", &self.stack).await?;
        let kafka = self.stack.kafka.process()?.id();
        let mut read = world.floor(Floor::Read).await?;
        let mut produce = world.floor(Floor::Produce).await?;
        let mut edge = world.service("ingest").await?;
        let (batches, reactions) = (work::batches(), work::reactions());

        let stored = |what, name, service: &mut Service| -> anyhow::Result<_> {
            Ok(Contestant::new(what, name, service, &batches)?.of_events(BATCH).with("kafka", kafka))
        };
        let mut rows = self
            .compare(&[
                Contestant::new("floor A: read 30 events, answer", "floor", &mut read, &batches)?
                    .of_events(BATCH),
                stored("floor B: read, produce, acks=all, answer", "floor", &mut produce)?,
                stored("edge: 30 events a request, durable", "ingest", &mut edge)?,
                stored("floor B, 200 requests/s", "floor", &mut produce)?.at(SEED_RATE),
                stored("edge: the same, 200 requests/s", "ingest", &mut edge)?.at(SEED_RATE),
                Contestant::new("edge: single reactions, durable", "ingest", &mut edge, &reactions)?
                    .of_events(1)
                    .with("kafka", kafka),
                stored("floor B by 32 connections", "floor", &mut produce)?.by(FEW),
                stored("edge by 32 connections, durable", "ingest", &mut edge)?.by(FEW),
            ])
            .await?;
        edge.terminate().await?;

        let [floor_a, floor_b, flat_out, floor_of_seed, seed, single, floor_of_few, few] = &mut rows[..]
        else {
            unreachable!("eight took part")
        };
        flat_out.note =
            format!("{:.0} % of B, {:.0} % of A", flat_out.percent_of(floor_b), flat_out.percent_of(floor_a));
        let [ours, floors] = [&*seed, floor_of_seed].map(|row| 100.0 * row.cores());
        seed.note = format!("{ours:.1} % of a core, B {floors:.1} %");
        few.note = format!("{:.0} % of B by as many", few.percent_of(floor_of_few));
        single.note = format!("{:.0} % of A's requests/s", single.percent_of(floor_a) * BATCH as f64);
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
        let contestant =
            Contestant::new("whole way, 1,000 requests/s of 30", "ingest", &mut edge, &work::batches())?
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

    /// The aggregator alone: records that are in Kafka already.
    async fn drain(&mut self) -> anyhow::Result<Row> {
        let mut row = Row::new("aggregator: Kafka → raw, ledger, all rollups", Unit::Events);
        for repeat in 1..=self.plan.repeats {
            let world = World::new(&format!("drain_{repeat}"), &self.stack).await?;
            say(&format!("aggregator, {repeat} of {}: filling its topic", self.plan.repeats));
            let events = work::fill(&self.stack.kafka, world.topic(), self.plan.events)?;
            say(&format!("aggregator, {repeat} of {}: draining it", self.plan.repeats));
            let (drained, peak) = self.drain_once(&world, events).await?;
            let (inserts, merges) = (world.cpu_of_inserts().await?, world.cpu_of_merges().await?);
            let bytes = world.merged_bytes().await?;
            // Its merges would go on at the cost of the next one.
            world.remove().await?;
            row.repeats.push(drained);
            let per_event = |bytes: u64| bytes as f64 / events as f64;
            let total = per_event(bytes.values().sum());
            row.note = format!("peak {peak:.0} MiB, {total:.1} bytes an event merged");
            for (table, bytes) in bytes {
                let of = |all: &BTreeMap<_, (f64, u64)>| {
                    let (seconds, count) = all.get(&table).copied().unwrap_or_default();
                    (count, seconds / events as f64 * 1e6)
                };
                let ((inserts, inserting), (merges, merging)) = (of(&inserts), of(&merges));
                say(&format!(
                    "`{table}`: {inserts} inserts of {inserting:.3} CPU s per M events, {merges} merges of \
                     {merging:.3}, {:.2} bytes an event",
                    per_event(bytes)
                ));
            }
        }
        Ok(row)
    }

    /// Also returns the most memory that the aggregator held, in MiB.
    async fn drain_once(&mut self, world: &World, events: u64) -> anyhow::Result<(Repeat, f64)> {
        let clickhouse = self.stack.clickhouse.process()?.id();
        let before = usage::seconds(clickhouse)?;
        let mut aggregator = world.start("stream-agg")?;
        // Time counts from the first rows: joining the group takes seconds, and is no throughput.
        let mut first = None;
        let mut last = 0;
        wait_for("the ledger to tell of every event", SETTLE, async || {
            last = world.stored_by_the_ledger().await.unwrap_or(last);
            if last > 0 {
                first.get_or_insert((last, Instant::now()));
            }
            time::sleep(LOOK).await;
            last >= events
        })
        .await?;
        let (head, since) = first.context("see the first rows")?;
        let elapsed = since.elapsed();
        ensure!(
            head < events,
            "all {events} events were there at once: there must be more to measure a rate"
        );
        settle(world, events).await?;
        let process = aggregator.process().id();
        let cpu_seconds = vec![
            ("stream-agg", usage::seconds(process)?),
            ("clickhouse", usage::seconds(clickhouse)? - before),
        ];
        let peak = usage::peak_mib(process)?;
        aggregator.terminate().await?;
        let rate = (events - head) as f64 / elapsed.as_secs_f64();
        Ok((Repeat { units: events, rate, latency: None, cpu_seconds }, peak))
    }

    async fn compare(&self, contestants: &[Contestant]) -> anyhow::Result<Vec<Row>> {
        compare(contestants, self.plan.repeats, self.plan.duration).await
    }
}

/// Waits until `events` are stored, and holds the tables to exactly that; says how long it took.
async fn settle(world: &World, events: u64) -> anyhow::Result<Duration> {
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
