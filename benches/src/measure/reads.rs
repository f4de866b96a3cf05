//! Reads of the current hour, compared with floor C: a server that answers with a constant.

use anyhow::Context;
use devstack::Stack;

use crate::compare::{Candidate, compare};
use crate::input::requests;
use crate::plan::Plan;
use crate::report::goals::Bound::{AtLeast, AtMost};
use crate::report::goals::Goal;
use crate::report::table::Row;
use crate::servers::{Floor, World};

/// Number of connections of the readers.
const READERS: usize = 64;
/// The rate, in reads a second, at which there is a goal for the latency.
const STEADY_RATE: f64 = 20_000.0;

/// Returns rows for the report's table, and the figures that have goals.
pub(super) async fn measure(plan: &Plan, stack: &Stack) -> anyhow::Result<(Vec<Row>, Vec<Goal>)> {
    let world = World::new("reads", stack).await?;
    let mut constant = world.floor(Floor::Constant).await?;
    let mut api = world.service("query-api").await?;
    let reads = requests::reads();
    let candidates = [
        Candidate::new("floor C: answer a constant", "floor", &mut constant, &reads)?
            .with_connections(READERS),
        Candidate::new("reads: GET /analytics, this hour", "query-api", &mut api, &reads)?
            .with_connections(READERS),
        Candidate::new("floor C at 20,000 requests/s", "floor", &mut constant, &reads)?
            .with_connections(READERS)
            .at_rate(STEADY_RATE),
        Candidate::new("reads at 20,000 requests/s", "query-api", &mut api, &reads)?
            .with_connections(READERS)
            .at_rate(STEADY_RATE),
    ];
    let mut rows = compare(&candidates, plan).await?;
    api.terminate().await?;
    let [floor, ours, _, steady] = &mut rows[..] else { unreachable!("four candidates were measured") };
    let share = ours.percent_of(floor);
    ours.note = format!("{share:.0} % of C");
    let (_, p99) = steady.latency().context("find the latency of reads")?;
    let goal = |what: &str, measured, bound| Goal { number: "7", what: what.to_owned(), measured, bound };
    let goals = vec![
        goal("hot reads in per cent of a constant", share, AtLeast(90.0)),
        goal("hot reads at 20,000 requests/s: p99 in ms", p99, AtMost(1.0)),
    ];
    Ok((rows, goals))
}
