//! The measurement `drain`: a consumer stores the records that a topic already holds. This task is called a drain.
//! The aggregator is compared with ClickHouse's Kafka engine and, with `--peers`, with a program that uses the library
//! Spate.
//!
//! For each kind of events there is one topic, which all consumers read in turn. After a drain that stored all events,
//! ClickHouse's CPU time is counted until its merges have ended, for at most [`MERGES_DEADLINE`], so that the cost of a
//! consumer includes the merges that it causes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use devstack::{Service, Stack, usage, wait_for};
use tokio::time;

use super::stored;
use crate::input::{Work, records};
use crate::plan::Plan;
use crate::progress;
use crate::report::goals::Bound::{AtLeast, AtMost};
use crate::report::goals::Goal;
use crate::report::table::{Repeat, Row, Unit};
use crate::servers::{World, kafka_engine};

/// Interval between two queries for the number of stored rows. It is long because ClickHouse's CPU time for these
/// queries is counted too.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// Longest duration of a drain. A longer drain is stopped, and its figures count only the events that are stored by
/// then.
const DRAIN_DEADLINE: Duration = Duration::from_secs(180);
/// Longest wait for the merges that still run when all events are stored.
const MERGES_DEADLINE: Duration = Duration::from_secs(60);

/// The program of the aggregator.
const AGGREGATOR: &str = "stream-agg";
/// The program that uses Spate, built from `benches/peers`.
const SPATE: &str = "peer-spate";

/// The two rollups that the Kafka engine and Spate fill too.
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

/// A program that stores the records of a topic in ClickHouse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Consumer {
    /// The aggregator with all built-in rollups.
    Aggregator,
    /// The aggregator with only the two rollups that the other consumers fill.
    AggregatorTwoRollups,
    /// ClickHouse's Kafka engine, which has no process of its own.
    KafkaEngine,
    /// The program that uses Spate. It is measured only with `--peers`.
    Spate,
}

impl Consumer {
    /// The consumers that are measured with this kind of events. Wild events show only how much more CPU time the
    /// aggregator needs if some clocks are wrong, so no other consumer is measured with them.
    fn all(work: Work, plan: &Plan) -> Vec<Self> {
        let mut all = vec![Self::Aggregator];
        if work != Work::Wild {
            all.extend([Self::AggregatorTwoRollups, Self::KafkaEngine]);
            all.extend(plan.peers.then_some(Self::Spate));
        }
        all
    }

    fn what(self) -> &'static str {
        match self {
            Self::Aggregator => "aggregator → raw, ledger, all rollups",
            Self::AggregatorTwoRollups => "aggregator → raw, ledger, two rollups",
            Self::KafkaEngine => "Kafka engine → raw, two rollups",
            Self::Spate => "Spate → raw, two rollups",
        }
    }

    fn is_ours(self) -> bool {
        matches!(self, Self::Aggregator | Self::AggregatorTwoRollups)
    }

    /// The program that reads Kafka; `None` for the Kafka engine, which is part of ClickHouse.
    fn program(self) -> Option<&'static str> {
        match self {
            Self::Aggregator | Self::AggregatorTwoRollups => Some(AGGREGATOR),
            Self::KafkaEngine => None,
            Self::Spate => Some(SPATE),
        }
    }

    /// Prepares the environment for one drain by this consumer: an empty database and a consumer group for `topic`.
    async fn world(self, name: &str, topic: &str, work: Work, stack: &Stack) -> anyhow::Result<World> {
        let world = World::prepare(name, stack)?.with_topic(topic);
        let world = if self == Self::AggregatorTwoRollups { world.with_rollups(TWO_ROLLUPS)? } else { world };
        if self.is_ours() {
            world.migrate().await?;
        } else {
            world.create_database().await?;
            for statement in kafka_engine::tables(work) {
                world.query(&statement).await?;
            }
        }
        Ok(world)
    }

    /// Starts the consumer and returns its process; `None` for the Kafka engine, which runs inside ClickHouse.
    async fn start(self, world: &World, work: Work) -> anyhow::Result<Option<Service>> {
        match self {
            Self::Aggregator | Self::AggregatorTwoRollups => world.start(AGGREGATOR).map(Some),
            Self::Spate => world.start_peer(SPATE, work).map(Some),
            Self::KafkaEngine => {
                for statement in kafka_engine::start(work, world.brokers(), world.topic(), world.name()) {
                    world.query(&statement).await?;
                }
                Ok(None)
            }
        }
    }

    /// The number of stored events, read with the query that costs ClickHouse least for this consumer.
    async fn stored(self, world: &World) -> anyhow::Result<u64> {
        match self.is_ours() {
            true => world.stored_by_ledger().await,
            false => world.number("SELECT count() FROM events").await,
        }
    }

    /// Checks that exactly this number of events is stored.
    async fn check_stored(self, world: &World, events: u64) -> anyhow::Result<()> {
        if self.is_ours() {
            stored::wait_for_exactly(world, events).await?;
        } else {
            let stored = self.stored(world).await?;
            ensure!(stored == events, "{}: {events} events became {stored} rows", self.what());
        }
        Ok(())
    }
}

/// A consumer and its measurements.
struct Measured {
    consumer: Consumer,
    row: Row,
}

/// Returns rows for the report's table, and the figures that have goals.
pub(super) async fn measure(plan: &Plan, stack: &mut Stack) -> anyhow::Result<(Vec<Row>, Vec<Goal>)> {
    let (mut rows, mut goals, mut lean) = (Vec::new(), Vec::new(), None);
    for work in plan.works() {
        let measured = drain_by_all(work, plan, stack).await?;
        goals.extend(goals_of(work, &measured, lean));
        if work == Work::Lean {
            lean = Some(measured[0].row.total_cpu());
        }
        rows.extend(measured.into_iter().map(|measured| measured.row));
    }
    Ok((rows, goals))
}

/// Fills one topic with this kind of events and lets all consumers drain it in turn.
async fn drain_by_all(work: Work, plan: &Plan, stack: &mut Stack) -> anyhow::Result<Vec<Measured>> {
    let name = work.name();
    let topic = format!("bench_drain_{name}");
    stack.kafka.create_topic(&topic, records::PARTITIONS).await?;
    progress::print(&format!("drain, {name}: filling its topic"));
    let events = records::fill(&stack.kafka, &topic, work, plan.events)?;
    let row = |consumer: &Consumer| Row::new(format!("{name}: {}", consumer.what()), Unit::Events);
    let mut measured: Vec<_> = Consumer::all(work, plan)
        .into_iter()
        .map(|consumer| Measured { row: row(&consumer), consumer })
        .collect();
    for repeat in 1..=plan.repeats {
        for (number, Measured { consumer, row }) in measured.iter_mut().enumerate() {
            progress::print(&format!("drain, {}, {repeat} of {}", row.what, plan.repeats));
            let world = consumer.world(&format!("{name}_{number}_{repeat}"), &topic, work, stack).await?;
            let drained = drain(*consumer, &world, work, events, stack).await?;
            let stopped =
                (drained.units < events).then(|| format!(", stopped after {} s", DRAIN_DEADLINE.as_secs()));
            row.repeats.push(drained);
            row.note = note(row) + &stopped.unwrap_or_default();
            // Drops the tables, because their merges would use CPU time while the next consumer is measured.
            world.remove().await?;
        }
    }
    Ok(measured)
}

/// Describes the memory and the disk space that the consumer of this row needed.
fn note(row: &Row) -> String {
    let peak = row.peak_mib().map(|peak| format!("peak {peak:.0} MiB"));
    let bytes = row.bytes_per_unit().map(|bytes| format!("{bytes:.1} bytes an event after merging"));
    [peak, bytes].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Lets the consumer drain the topic, which holds `events` events. If [`DRAIN_DEADLINE`] passes first, measures only
/// the events that are stored by then.
async fn drain(
    consumer: Consumer,
    world: &World,
    work: Work,
    events: u64,
    stack: &mut Stack,
) -> anyhow::Result<Repeat> {
    let clickhouse = stack.clickhouse.process()?.id();
    let before = usage::seconds(clickhouse)?;
    let mut service = consumer.start(world, work).await?;
    let (units, rate) = wait_for_rows(consumer, world, events).await?;
    let is_done = units == events;
    if is_done {
        consumer.check_stored(world, events).await?;
    }
    let mut repeat = Repeat { units, rate, ..Repeat::default() };
    if let (Some(service), Some(program)) = (&mut service, consumer.program()) {
        let process = service.process().id();
        repeat.cpu_seconds.push((program, usage::seconds(process)?));
        repeat.peak_mib = Some(usage::peak_mib(process)?);
    }
    if is_done {
        world.wait_for_merges(MERGES_DEADLINE).await;
    }
    repeat.cpu_seconds.push(("clickhouse", usage::seconds(clickhouse)? - before));
    match &mut service {
        Some(service) if is_done => drop(service.terminate().await?),
        // The remaining events are not needed, so the service is killed instead of stopped cleanly.
        Some(service) => service.kill9(),
        None => {}
    }
    repeat.bytes_per_unit = Some(print_cost_of_tables(world, units).await?);
    Ok(repeat)
}

/// Waits until all events are stored or the deadline passes. Returns how many were stored, and how many a second.
async fn wait_for_rows(consumer: Consumer, world: &World, events: u64) -> anyhow::Result<(u64, f64)> {
    let started = Instant::now();
    // If all events are stored, the rate is measured from the first stored rows on, because the time to join the group
    // says nothing about throughput.
    let mut first = None;
    let mut last = 0;
    let all = wait_for("every event to be stored", DRAIN_DEADLINE, async || {
        last = consumer.stored(world).await.unwrap_or(last);
        if last > 0 {
            first.get_or_insert((last, Instant::now()));
        }
        time::sleep(POLL_INTERVAL).await;
        last >= events
    });
    if all.await.is_err() {
        ensure!(last > 0, "{}: nothing was stored in {} s", consumer.what(), DRAIN_DEADLINE.as_secs());
        return Ok((last, last as f64 / started.elapsed().as_secs_f64()));
    }
    let (head, since) = first.with_context(|| format!("{}: wait for the first rows", consumer.what()))?;
    ensure!(
        head < events,
        "all {events} events were stored at the first poll that found rows: set a larger `--events`"
    );
    ensure!(last == events, "{}: {events} events became {last} rows", consumer.what());
    Ok((events, (events - head) as f64 / since.elapsed().as_secs_f64()))
}

/// Merges the parts of each table, prints the cost of the table, and returns the bytes per event over all tables.
async fn print_cost_of_tables(world: &World, events: u64) -> anyhow::Result<f64> {
    let (inserts, merges) = (world.cpu_of_inserts().await?, world.cpu_of_merges().await?);
    let bytes = world.merged_bytes().await?;
    let per_event = |bytes: u64| bytes as f64 / events as f64;
    for (table, bytes) in &bytes {
        let of = |all: &BTreeMap<_, (f64, u64)>| {
            let (seconds, count) = all.get(table).copied().unwrap_or_default();
            (count, seconds / events as f64 * 1e6)
        };
        let ((inserts, inserting), (merges, merging)) = (of(&inserts), of(&merges));
        // The inserts of the Kafka engine are not in `system.query_log`, so their number is 0 here.
        let inserting =
            (inserts > 0).then(|| format!("{inserts} inserts ({inserting:.3} CPU s per M events), "));
        progress::print(&format!(
            "`{table}`: {}{merges} merges ({merging:.3} CPU s per M events), {:.2} bytes an event",
            inserting.unwrap_or_default(),
            per_event(*bytes)
        ));
    }
    Ok(per_event(bytes.values().sum()))
}

/// The figures that have goals, for this kind of events. `lean` is the CPU time of the aggregator and ClickHouse per
/// million lean events, if lean events were measured before.
fn goals_of(work: Work, measured: &[Measured], lean: Option<f64>) -> Vec<Goal> {
    let name = work.name();
    let find = |consumer| measured.iter().find(|other| other.consumer == consumer).map(|found| &found.row);
    let goal = |number, what: &str, measured, bound| Goal {
        number,
        what: format!("{name}: {what}"),
        measured,
        bound,
    };
    let mut goals = Vec::new();
    let Some(ours) = find(Consumer::Aggregator) else { return goals };
    if let Some(engine) = find(Consumer::KafkaEngine) {
        let share = ours.total_cpu() / engine.total_cpu();
        goals.push(goal(
            "5",
            "CPU of aggregator and ClickHouse, ratio to the Kafka engine",
            share,
            AtMost(0.5),
        ));
        let bytes = ours.bytes_per_unit().zip(engine.bytes_per_unit());
        goals.extend(bytes.map(|(ours, engine)| {
            goal("10", "bytes per event on disk, ratio to the Kafka engine", ours / engine, AtMost(1.0))
        }));
    }
    if let (Some(two), Some(spate)) = (find(Consumer::AggregatorTwoRollups), find(Consumer::Spate)) {
        let share = two.total_cpu() / spate.total_cpu();
        goals.push(goal("5b", "CPU with two rollups, ratio to Spate", share, AtMost(1.0)));
        let share = two.percent_of(spate) / 100.0;
        goals.push(goal("5b", "events/s with two rollups, ratio to Spate", share, AtLeast(1.0)));
    }
    if let (Work::Wild, Some(lean)) = (work, lean) {
        goals.push(goal("5c", "CPU, ratio to lean events", ours.total_cpu() / lean, AtMost(1.15)));
    }
    let peak =
        ours.peak_mib().map(|peak| goal("9", "peak memory of the aggregator, MiB", peak, AtMost(768.0)));
    goals.extend(peak);
    let most = if work == Work::Rich { 45.0 } else { 20.0 };
    let bytes = ours.bytes_per_unit();
    goals.extend(bytes.map(|bytes| goal("10", "bytes per event on disk, merged", bytes, AtMost(most))));
    goals
}

#[cfg(test)]
mod tests {
    use schemas::rollup::Rollups;

    use super::*;

    fn measured(consumer: Consumer, seconds: f64, bytes: f64) -> Measured {
        let repeat = Repeat {
            units: 1_000_000,
            rate: 1e6 / seconds,
            cpu_seconds: vec![("clickhouse", seconds)],
            peak_mib: Some(700.0),
            bytes_per_unit: Some(bytes),
            ..Repeat::default()
        };
        let mut row = Row::new(consumer.what(), Unit::Events);
        row.repeats.push(repeat);
        Measured { consumer, row }
    }

    #[track_caller]
    fn check(work: Work, measured: &[Measured], expected: &[(&str, f64)]) {
        let goals = goals_of(work, measured, Some(4.0));
        let figures: Vec<_> = goals.iter().map(|goal| (goal.number, goal.measured)).collect();
        assert_eq!(figures, expected);
    }

    #[test]
    fn goals_compare_only_the_consumers_that_were_measured() {
        let ours = || measured(Consumer::Aggregator, 4.0, 30.0);
        check(Work::Lean, &[ours()], &[("9", 700.0), ("10", 30.0)]);
        check(Work::Wild, &[ours()], &[("5c", 1.0), ("9", 700.0), ("10", 30.0)]);
        let all = [
            ours(),
            measured(Consumer::AggregatorTwoRollups, 2.0, 25.0),
            measured(Consumer::KafkaEngine, 8.0, 40.0),
            measured(Consumer::Spate, 4.0, 40.0),
        ];
        let expected = [("5", 0.5), ("10", 0.75), ("5b", 0.5), ("5b", 2.0), ("9", 700.0), ("10", 30.0)];
        check(Work::Rich, &all, &expected);
    }

    #[test]
    fn the_two_rollups_equal_the_built_in_rollups_of_their_names() {
        let (two, all) = (Rollups::parse("", TWO_ROLLUPS).unwrap(), Rollups::built_in());
        for name in ["event_hourly", "users_hourly"] {
            assert_eq!(two.get(name), all.get(name));
            assert!(two.get(name).is_some());
        }
    }
}
