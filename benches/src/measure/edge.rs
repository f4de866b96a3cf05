//! The edge, compared with two floors. Floor A reads a request and answers it. Floor B also writes the body to Kafka.

use devstack::traffic::BATCH;
use devstack::{Service, Stack};

use super::SMALL_RATE;
use crate::compare::{Candidate, compare};
use crate::input::{Work, requests};
use crate::plan::Plan;
use crate::report::table::Row;
use crate::servers::{Floor, World};

/// Number of connections in the measurement with few but busy clients.
const FEW_CONNECTIONS: usize = 32;

/// Measures single reactions, and batches of each kind of events in the plan, as fast as the edge answers them. If the
/// plan has lean events, then measures batches of them, once at a low rate and once with few connections.
pub(super) async fn measure(plan: &Plan, stack: &mut Stack) -> anyhow::Result<Vec<Row>> {
    let kafka = stack.kafka.process()?.id();
    let world = World::new("edge", stack).await?;
    let mut edge = world.service("ingest").await?;
    let mut rows = at_full_speed(plan, &world, &mut edge, kafka).await?;
    if plan.works().any(|work| work == Work::Lean) {
        rows.extend(with_few_clients(plan, &world, &mut edge, kafka).await?);
    }
    edge.terminate().await?;
    Ok(rows)
}

async fn at_full_speed(
    plan: &Plan,
    world: &World,
    edge: &mut Service,
    kafka: u32,
) -> anyhow::Result<Vec<Row>> {
    let mut read = world.floor(Floor::Read).await?;
    let mut produce = world.floor(Floor::Produce).await?;
    let (lean, reactions) = (requests::batches(Work::Lean), requests::reactions());
    let mut candidates = vec![
        Candidate::new("floor A: read 30 events, answer", "floor", &mut read, &lean)?.of_events(BATCH),
        Candidate::new("edge: single reactions, durable", "ingest", edge, &reactions)?
            .of_events(1)
            .with_process("kafka", kafka),
    ];
    for work in plan.works() {
        let (name, batches) = (work.name(), requests::batches(work));
        let floor_b = format!("floor B: read, produce, acks=all, answer, {name}");
        let ours = format!("edge: 30 events a request, durable, {name}");
        for (what, program, service) in [(floor_b, "floor", &mut produce), (ours, "ingest", &mut *edge)] {
            let candidate = Candidate::new(what, program, service, &batches)?.of_events(BATCH);
            candidates.push(candidate.with_process("kafka", kafka));
        }
    }
    let mut rows = compare(&candidates, plan).await?;
    let [floor_a, single, pairs @ ..] = &mut rows[..] else {
        unreachable!("floor A and single reactions were measured")
    };
    single.note = format!("{:.0} % of A's requests/s", single.percent_of(floor_a) * BATCH as f64);
    for pair in pairs.chunks_mut(2) {
        let [floor_b, ours] = pair else { unreachable!("floor B and the edge were measured in pairs") };
        let [of_b, of_a] = [&*floor_b, floor_a].map(|floor| ours.percent_of(floor));
        ours.note = format!("{of_b:.0} % of B, {of_a:.0} % of A");
    }
    Ok(rows)
}

async fn with_few_clients(
    plan: &Plan,
    world: &World,
    edge: &mut Service,
    kafka: u32,
) -> anyhow::Result<Vec<Row>> {
    let mut produce = world.floor(Floor::Produce).await?;
    let batches = requests::batches(Work::Lean);
    let candidate = |what, name, service: &mut Service| -> anyhow::Result<_> {
        let candidate = Candidate::new(what, name, service, &batches)?.of_events(BATCH);
        Ok(candidate.with_process("kafka", kafka))
    };
    let candidates = [
        candidate("floor B, 200 requests/s", "floor", &mut produce)?.at_rate(SMALL_RATE),
        candidate("edge: the same, 200 requests/s", "ingest", edge)?.at_rate(SMALL_RATE),
        candidate("floor B by 32 connections", "floor", &mut produce)?.with_connections(FEW_CONNECTIONS),
        candidate("edge by 32 connections, durable", "ingest", edge)?.with_connections(FEW_CONNECTIONS),
    ];
    let mut rows = compare(&candidates, plan).await?;
    let [floor_at_rate, at_rate, floor_of_few, few] = &mut rows[..] else {
        unreachable!("four candidates were measured")
    };
    let [ours, floors] = [&*at_rate, floor_at_rate].map(|row| 100.0 * row.cores());
    at_rate.note = format!("{ours:.1} % of a core, B {floors:.1} %");
    few.note = format!("{:.0} % of B with the same number of connections", few.percent_of(floor_of_few));
    Ok(rows)
}
