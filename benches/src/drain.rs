//! The drain: records that are in Kafka already become rows, by the aggregator and beside it by
//! ClickHouse's Kafka engine and by peers.
//!
//! All read one topic of each work, in turn, and ClickHouse's CPU counts until its merges have
//! ended, so that nobody looks cheap by leaving them for later.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use devstack::{Service, Stack, usage, wait_for};
use tokio::time;

use crate::engine;
use crate::events::Work;
use crate::goals::Bound::{AtLeast, AtMost};
use crate::goals::Goal;
use crate::measure::{Plan, say, settle};
use crate::table::{Repeat, Row, Unit};
use crate::work;
use crate::world::World;

/// Between two looks at what is stored: they cost ClickHouse CPU that is counted.
const LOOK: Duration = Duration::from_millis(500);
/// A drain that is not done by then counts as far as it came.
const PATIENCE: Duration = Duration::from_secs(180);
/// For merges that are under way when all is stored.
const MERGES: Duration = Duration::from_secs(60);

/// Our program.
const AGGREGATOR: &str = "stream-agg";
/// Spate's, of `benches/peers`.
const SPATE: &str = "peer-spate";

/// The two rollups that peers fill too.
const TWO_ROLLUPS: &str = r#"
[[rollup]]
name = "event_hourly"
grain = "hour"
dimensions = ["event", "country", "device_os"]
measures = { events = "count", value = "sum(param_int)" }

[[rollup]]
name = "users_hourly"
grain = "hour"
dimensions = ["event"]
measures = { users = "uniq_exact(user)" }
"#;

/// Who drains a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Drainer {
    /// The aggregator with all built-in rollups.
    Aggregator,
    /// The aggregator with the rollups that the others fill.
    AggregatorOfTwo,
    /// ClickHouse's Kafka engine, which has no process of its own.
    Engine,
    /// The peer of this name, if it was built.
    Spate,
}

impl Drainer {
    /// Who takes part with this work. What wrong clocks cost concerns us alone.
    fn all(work: Work, plan: &Plan) -> Vec<Self> {
        let mut all = vec![Self::Aggregator];
        if work != Work::Wild {
            all.extend([Self::AggregatorOfTwo, Self::Engine]);
            all.extend(plan.peers.then_some(Self::Spate));
        }
        all
    }

    fn what(self) -> &'static str {
        match self {
            Self::Aggregator => "aggregator → raw, ledger, all rollups",
            Self::AggregatorOfTwo => "aggregator → raw, ledger, two rollups",
            Self::Engine => "Kafka engine → raw, two rollups",
            Self::Spate => "Spate → raw, two rollups",
        }
    }

    fn is_ours(self) -> bool {
        matches!(self, Self::Aggregator | Self::AggregatorOfTwo)
    }

    /// The program that reads Kafka, if ClickHouse does not do it itself.
    fn program(self) -> Option<&'static str> {
        match self {
            Self::Aggregator | Self::AggregatorOfTwo => Some(AGGREGATOR),
            Self::Engine => None,
            Self::Spate => Some(SPATE),
        }
    }

    /// An empty database for it.
    async fn world(self, name: &str, topic: &str, work: Work, stack: &Stack) -> anyhow::Result<World> {
        let world = World::prepare(name, stack)?.reading(topic);
        let world = if self == Self::AggregatorOfTwo { world.counting(TWO_ROLLUPS)? } else { world };
        if self.is_ours() {
            world.migrate().await?;
        } else {
            world.create_database().await?;
            for statement in engine::tables(work) {
                world.query(&statement).await?;
            }
        }
        Ok(world)
    }

    /// Starts it; only ClickHouse's engine has no process.
    async fn start(self, world: &World, work: Work) -> anyhow::Result<Option<Service>> {
        match self {
            Self::Aggregator | Self::AggregatorOfTwo => world.start(AGGREGATOR).map(Some),
            Self::Spate => world.start_peer(SPATE, work).map(Some),
            Self::Engine => {
                for statement in engine::start(work, world.brokers(), world.topic(), world.name()) {
                    world.query(&statement).await?;
                }
                Ok(None)
            }
        }
    }

    /// Rows that are stored, by the cheapest question there is.
    async fn stored(self, world: &World) -> anyhow::Result<u64> {
        match self.is_ours() {
            true => world.stored_by_the_ledger().await,
            false => world.number("SELECT count() FROM events").await,
        }
    }

    /// Holds the tables to exactly `events`.
    async fn settle(self, world: &World, events: u64) -> anyhow::Result<()> {
        if self.is_ours() {
            settle(world, events).await?;
        } else {
            let stored = self.stored(world).await?;
            ensure!(stored == events, "{}: {events} events became {stored} rows", self.what());
        }
        Ok(())
    }
}

/// One who drains, and what came of it so far.
struct Contestant {
    drainer: Drainer,
    row: Row,
}

/// The lines of the table, and the goals that they are held to.
pub(crate) async fn measure(plan: &Plan, stack: &mut Stack) -> anyhow::Result<(Vec<Row>, Vec<Goal>)> {
    let (mut rows, mut goals, mut lean) = (Vec::new(), Vec::new(), None);
    for work in plan.works() {
        let contestants = of_work(work, plan, stack).await?;
        goals.extend(goals_of(work, &contestants, lean));
        if work == Work::Lean {
            lean = Some(contestants[0].row.total_cpu());
        }
        rows.extend(contestants.into_iter().map(|contestant| contestant.row));
    }
    Ok((rows, goals))
}

/// Fills one topic with this work and lets all drain it in turn.
async fn of_work(work: Work, plan: &Plan, stack: &mut Stack) -> anyhow::Result<Vec<Contestant>> {
    let name = work.name();
    let topic = format!("bench_drain_{name}");
    stack.kafka.create_topic(&topic, work::PARTITIONS).await?;
    say(&format!("drain, {name}: filling its topic"));
    let events = work::fill(&stack.kafka, &topic, work, plan.events)?;
    let row = |drainer: &Drainer| Row::new(format!("{name}: {}", drainer.what()), Unit::Events);
    let mut contestants: Vec<_> = Drainer::all(work, plan)
        .into_iter()
        .map(|drainer| Contestant { row: row(&drainer), drainer })
        .collect();
    for repeat in 1..=plan.repeats {
        for (number, Contestant { drainer, row }) in contestants.iter_mut().enumerate() {
            say(&format!("drain, {}, {repeat} of {}", row.what, plan.repeats));
            let world = drainer.world(&format!("{name}_{number}_{repeat}"), &topic, work, stack).await?;
            let drained = drain(*drainer, &world, work, events, stack).await?;
            let stopped =
                (drained.units < events).then(|| format!(", stopped after {} s", PATIENCE.as_secs()));
            row.repeats.push(drained);
            row.note = note(row) + &stopped.unwrap_or_default();
            // Its merges would go on at the cost of the next one.
            world.remove().await?;
        }
    }
    Ok(contestants)
}

/// What a row takes beside CPU.
fn note(row: &Row) -> String {
    let peak = row.peak_mib().map(|peak| format!("peak {peak:.0} MiB"));
    let bytes = row.bytes_per_unit().map(|bytes| format!("{bytes:.1} bytes an event merged"));
    [peak, bytes].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Drains `events`, or as many as are stored in time.
async fn drain(
    drainer: Drainer,
    world: &World,
    work: Work,
    events: u64,
    stack: &mut Stack,
) -> anyhow::Result<Repeat> {
    let clickhouse = stack.clickhouse.process()?.id();
    let before = usage::seconds(clickhouse)?;
    let mut service = drainer.start(world, work).await?;
    let (units, rate) = watch(drainer, world, events).await?;
    let is_done = units == events;
    if is_done {
        drainer.settle(world, events).await?;
    }
    let mut repeat = Repeat { units, rate, ..Repeat::default() };
    if let (Some(service), Some(program)) = (&mut service, drainer.program()) {
        let process = service.process().id();
        repeat.cpu_seconds.push((program, usage::seconds(process)?));
        repeat.peak_mib = Some(usage::peak_mib(process)?);
    }
    if is_done {
        world.merges_end(MERGES).await;
    }
    repeat.cpu_seconds.push(("clickhouse", usage::seconds(clickhouse)? - before));
    match &mut service {
        Some(service) if is_done => drop(service.terminate().await?),
        // What it still has to do nobody waits for.
        Some(service) => service.kill9(),
        None => {}
    }
    repeat.bytes_per_unit = Some(tables(world, units).await?);
    Ok(repeat)
}

/// Waits until all is stored or patience ends; returns how many are, and how many were a second.
async fn watch(drainer: Drainer, world: &World, events: u64) -> anyhow::Result<(u64, f64)> {
    let started = Instant::now();
    // Time counts from the first rows: joining the group takes seconds, and is no throughput.
    let mut first = None;
    let mut last = 0;
    let all = wait_for("every event to be stored", PATIENCE, async || {
        last = drainer.stored(world).await.unwrap_or(last);
        if last > 0 {
            first.get_or_insert((last, Instant::now()));
        }
        time::sleep(LOOK).await;
        last >= events
    });
    if all.await.is_err() {
        ensure!(last > 0, "{}: nothing was stored in {} s", drainer.what(), PATIENCE.as_secs());
        return Ok((last, last as f64 / started.elapsed().as_secs_f64()));
    }
    let (head, since) = first.with_context(|| format!("{}: see the first rows", drainer.what()))?;
    ensure!(head < events, "all {events} events were there at once: there must be more to measure a rate");
    ensure!(last == events, "{}: {events} events became {last} rows", drainer.what());
    Ok((events, (events - head) as f64 / since.elapsed().as_secs_f64()))
}

/// Tells what each table cost; returns the bytes of all for each event.
async fn tables(world: &World, events: u64) -> anyhow::Result<f64> {
    let (inserts, merges) = (world.cpu_of_inserts().await?, world.cpu_of_merges().await?);
    let bytes = world.merged_bytes().await?;
    let per_event = |bytes: u64| bytes as f64 / events as f64;
    for (table, bytes) in &bytes {
        let of = |all: &BTreeMap<_, (f64, u64)>| {
            let (seconds, count) = all.get(table).copied().unwrap_or_default();
            (count, seconds / events as f64 * 1e6)
        };
        let ((inserts, inserting), (merges, merging)) = (of(&inserts), of(&merges));
        // What the Kafka engine inserts is not in the log of queries.
        let inserting =
            (inserts > 0).then(|| format!("{inserts} inserts of {inserting:.3} CPU s per M events, "));
        say(&format!(
            "`{table}`: {}{merges} merges of {merging:.3}, {:.2} bytes an event",
            inserting.unwrap_or_default(),
            per_event(*bytes)
        ));
    }
    Ok(per_event(bytes.values().sum()))
}

/// What was measured with this work beside the goals; `lean` is the aggregator's CPU with that.
fn goals_of(work: Work, contestants: &[Contestant], lean: Option<f64>) -> Vec<Goal> {
    let name = work.name();
    let find = |drainer| contestants.iter().find(|other| other.drainer == drainer).map(|found| &found.row);
    let goal = |number, what: &str, measured, bound| Goal {
        number,
        what: format!("{name}: {what}"),
        measured,
        bound,
    };
    let mut goals = Vec::new();
    let Some(ours) = find(Drainer::Aggregator) else { return goals };
    if let Some(engine) = find(Drainer::Engine) {
        let share = ours.total_cpu() / engine.total_cpu();
        goals.push(goal("5", "CPU of aggregator and ClickHouse, of the Kafka engine's", share, AtMost(0.5)));
        let bytes = ours.bytes_per_unit().zip(engine.bytes_per_unit());
        goals.extend(bytes.map(|(ours, engine)| {
            goal("10", "bytes an event on disk, of the Kafka engine's", ours / engine, AtMost(1.0))
        }));
    }
    if let (Some(two), Some(spate)) = (find(Drainer::AggregatorOfTwo), find(Drainer::Spate)) {
        let share = two.total_cpu() / spate.total_cpu();
        goals.push(goal("5b", "CPU with two rollups, of Spate's", share, AtMost(1.0)));
        let share = two.percent_of(spate) / 100.0;
        goals.push(goal("5b", "events/s with two rollups, of Spate's", share, AtLeast(1.0)));
    }
    if let (Work::Wild, Some(lean)) = (work, lean) {
        goals.push(goal("5c", "CPU, of that with lean work", ours.total_cpu() / lean, AtMost(1.15)));
    }
    let peak =
        ours.peak_mib().map(|peak| goal("9", "peak memory of the aggregator, MiB", peak, AtMost(768.0)));
    goals.extend(peak);
    let most = if work == Work::Rich { 45.0 } else { 20.0 };
    let bytes = ours.bytes_per_unit();
    goals.extend(bytes.map(|bytes| goal("10", "bytes an event on disk, merged", bytes, AtMost(most))));
    goals
}

#[cfg(test)]
mod tests {
    use schemas::rollup::Rollups;

    use super::*;

    fn contestant(drainer: Drainer, seconds: f64, bytes: f64) -> Contestant {
        let repeat = Repeat {
            units: 1_000_000,
            rate: 1e6 / seconds,
            cpu_seconds: vec![("clickhouse", seconds)],
            peak_mib: Some(700.0),
            bytes_per_unit: Some(bytes),
            ..Repeat::default()
        };
        let mut row = Row::new(drainer.what(), Unit::Events);
        row.repeats.push(repeat);
        Contestant { drainer, row }
    }

    #[track_caller]
    fn check(work: Work, contestants: &[Contestant], expected: &[(&str, f64)]) {
        let goals = goals_of(work, contestants, Some(4.0));
        let figures: Vec<_> = goals.iter().map(|goal| (goal.number, goal.measured)).collect();
        assert_eq!(figures, expected);
    }

    #[test]
    fn goals_are_shares_of_those_who_took_part() {
        let ours = || contestant(Drainer::Aggregator, 4.0, 30.0);
        check(Work::Lean, &[ours()], &[("9", 700.0), ("10", 30.0)]);
        check(Work::Wild, &[ours()], &[("5c", 1.0), ("9", 700.0), ("10", 30.0)]);
        let all = [
            ours(),
            contestant(Drainer::AggregatorOfTwo, 2.0, 25.0),
            contestant(Drainer::Engine, 8.0, 40.0),
            contestant(Drainer::Spate, 4.0, 40.0),
        ];
        let expected = [("5", 0.5), ("10", 0.75), ("5b", 0.5), ("5b", 2.0), ("9", 700.0), ("10", 30.0)];
        check(Work::Rich, &all, &expected);
    }

    #[test]
    fn the_two_rollups_are_built_in_too() {
        let (two, all) = (Rollups::parse("", TWO_ROLLUPS).unwrap(), Rollups::built_in());
        for name in ["event_hourly", "users_hourly"] {
            assert_eq!(two.get(name), all.get(name));
            assert!(two.get(name).is_some());
        }
    }
}
