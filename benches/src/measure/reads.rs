//! Reads of the current hour, beside floor C: a server that answers a constant.

use devstack::Stack;

use crate::compare::{Candidate, compare};
use crate::input::requests;
use crate::plan::Plan;
use crate::report::table::Row;
use crate::servers::{Floor, World};

/// Connections of readers.
const READERS: usize = 64;

pub(super) async fn measure(plan: &Plan, stack: &Stack) -> anyhow::Result<Vec<Row>> {
    let world = World::new("reads", stack).await?;
    let mut constant = world.floor(Floor::Constant).await?;
    let mut api = world.service("query-api").await?;
    let reads = requests::reads();
    let candidates = [
        Candidate::new("floor C: answer a constant", "floor", &mut constant, &reads)?
            .with_connections(READERS),
        Candidate::new("reads: GET /analytics, this hour", "query-api", &mut api, &reads)?
            .with_connections(READERS),
    ];
    let mut rows = compare(&candidates, plan).await?;
    api.terminate().await?;
    let [floor, ours] = &mut rows[..] else { unreachable!("two were measured") };
    ours.note = format!("{:.0} % of C", ours.percent_of(floor));
    Ok(rows)
}
