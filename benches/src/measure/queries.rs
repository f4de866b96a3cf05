//! Queries of the query API's route `/v1/query` over the stored events: different queries, which ClickHouse answers,
//! and equal queries, which the query API's cache answers. Then a browser opens the query API's web page.

use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use devstack::Stack;

use super::{page, stored};
use crate::compare::{Candidate, compare};
use crate::input::{Work, records};
use crate::load;
use crate::plan::Plan;
use crate::progress;
use crate::report::goals::Bound::AtMost;
use crate::report::goals::Goal;
use crate::report::table::Row;
use crate::servers::World;
use crate::servers::world::addr_of;

/// Different queries a second, as if a page with ten panels were opened twice a second.
const QUERY_RATE: f64 = 20.0;
/// Number of connections that send the different queries.
const QUERY_CONNECTIONS: usize = 10;
/// Equal queries a second. After each refresh, only the first of them reads ClickHouse; the cache answers the others.
const CACHED_RATE: f64 = 2_000.0;
/// Number of connections that send the equal queries.
const CACHED_CONNECTIONS: usize = 32;

/// Queries of panels. A different value is appended to the filter of each request, so that no two queries are equal.
/// The filters exclude no event.
const PANELS: [&str; 5] = [
    "measures=events&grain=hour&from=-24h&filter=event:ne:",
    "measures=events&dimensions=event&top=10&from=-7d&filter=country:ne:",
    "measures=events&dimensions=country&top=10&from=-7d&filter=event:ne:",
    "measures=users&grain=hour&from=-24h&filter=event:ne:",
    "measures=events,value&dimensions=device_os,event&limit=50&from=-24h&filter=country:ne:",
];

/// Returns rows for the report's table, and the figures that have goals.
pub(super) async fn measure(plan: &Plan, stack: &mut Stack) -> anyhow::Result<(Vec<Row>, Vec<Goal>)> {
    let world = World::prepare("queries", stack)?.with_partitions(records::PARTITIONS);
    world.migrate().await?;
    progress::print("queries: filling the topic");
    let events = records::fill(&stack.kafka, world.topic(), Work::Lean, plan.events)?;
    progress::print("queries: storing the events");
    let mut aggregator = world.service("stream-agg").await?;
    stored::wait_for_exactly(&world, events).await?;
    let mut api = world.service("query-api").await?;
    let clickhouse = ("clickhouse", stack.clickhouse.process()?.id());
    let volume = format!("over {:.1} M events", events as f64 / 1e6);
    let candidates = [
        Candidate::at(
            "floor D: ClickHouse sums one rollup",
            addr_of(stack.clickhouse.url())?,
            clickhouse,
            &rollup_sum(&world),
        )
        .with_connections(QUERY_CONNECTIONS)
        .at_rate(QUERY_RATE),
        Candidate::new(
            format!("/v1/query, all different, {volume}"),
            "query-api",
            &mut api,
            &different_queries(plan),
        )?
        .with_process(clickhouse.0, clickhouse.1)
        .with_connections(QUERY_CONNECTIONS)
        .at_rate(QUERY_RATE),
        Candidate::new("/v1/query, all equal", "query-api", &mut api, &equal_queries())?
            .with_connections(CACHED_CONNECTIONS)
            .at_rate(CACHED_RATE),
    ];
    let rows = compare(&candidates, plan).await?;
    let page = page::measure(plan, &world, &mut api).await?;
    api.terminate().await?;
    aggregator.terminate().await?;
    let [_, different, cached] = &rows[..] else { unreachable!("three candidates were measured") };
    let ((p50, p99), (cached_p50, _)) = (
        different.latency().context("find the latency of queries")?,
        cached.latency().context("find the latency of equal queries")?,
    );
    let goal = |what: &str, measured, most| Goal {
        number: "7b",
        what: what.to_owned(),
        measured,
        bound: AtMost(most),
    };
    let mut goals = vec![
        goal("/v1/query: p50 in ms", p50, 10.0),
        goal("/v1/query: p99 in ms", p99, 50.0),
        goal("/v1/query, all equal: p50 in ms", cached_p50, 1.0),
    ];
    goals.extend(page);
    Ok((rows, goals))
}

/// Queries that all differ, as many as one measurement sends.
fn different_queries(plan: &Plan) -> Arc<[Bytes]> {
    let count = (QUERY_RATE * plan.duration.as_secs_f64()).ceil() as usize;
    let query = |number: usize| format!("/v1/query?{}none-{number}", PANELS[number % PANELS.len()]);
    (0..count.max(1)).map(|number| load::get(&query(number))).collect()
}

/// The smallest statement that sums one rollup, sent directly to ClickHouse.
fn rollup_sum(world: &World) -> Arc<[Bytes]> {
    let sql = "SELECT+sum(rows)+FROM+rollup_sums+WHERE+tenant=%27default%27+AND+rollup=%27event_daily%27+AND+expires=%272149-06-06%27";
    vec![load::get(&format!("/?database={}&query={sql}", world.name()))].into()
}

fn equal_queries() -> Arc<[Bytes]> {
    vec![load::get("/v1/query?measures=events&dimensions=event&top=10&from=-7d")].into()
}
