//! The whole pipeline: requests arrive at a steady rate, and CPU time is counted until the last event is stored.

use std::time::Duration;

use devstack::Stack;
use devstack::traffic::BATCH;

use super::stored;
use crate::compare::Candidate;
use crate::input::{Work, requests};
use crate::plan::Plan;
use crate::progress;
use crate::report::table::Row;
use crate::servers::World;

/// Requests a second, each of [`BATCH`] events.
const RATE: f64 = 1_000.0;

pub(super) async fn measure(plan: &Plan, stack: &mut Stack) -> anyhow::Result<Row> {
    let world = World::new("whole_way", stack).await?;
    let mut edge = world.service("ingest").await?;
    let mut aggregator = world.service("stream-agg").await?;
    let batches = requests::batches(Work::Lean);
    let candidate = Candidate::new("whole way, 1,000 requests/s of 30", "ingest", &mut edge, &batches)?
        .of_events(BATCH)
        .at_rate(RATE)
        .with_process("kafka", stack.kafka.process()?.id())
        .with_process("stream-agg", aggregator.process().id())
        .with_process("clickhouse", stack.clickhouse.process()?.id());
    let mut row = candidate.row();
    let mut longest_wait = Duration::ZERO;
    for repeat in 1..=plan.repeats {
        progress::print(&format!("whole way, {repeat} of {}", plan.repeats));
        let before = candidate.cpu()?;
        let outcome = candidate.run(plan.duration).await?;
        let accepted = outcome.answered * BATCH as u64 + row.units();
        longest_wait = longest_wait.max(stored::wait_for_exactly(&world, accepted).await?);
        row.repeats.push(candidate.repeat(&outcome, &before)?);
    }
    row.note = format!(
        "{} events, stored at most {:.1} s after the last answer",
        row.units(),
        longest_wait.as_secs_f64()
    );
    edge.terminate().await?;
    aggregator.terminate().await?;
    world.remove().await?;
    Ok(row)
}
