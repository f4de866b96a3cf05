//! Sends hostile bodies through the whole pipeline. Each gets the right answer, exactly the accepted lines are stored,
//! and the edge stays ready.

use std::time::Duration;

use devstack::wait_for;
use schemas::record::{self, Kind};
use tokio::task;

use crate::client::Http;
use crate::world::{DEADLINE, World};

#[path = "../../../../ingest/tests/hostile/corpus.rs"]
mod corpus;
#[path = "../../../../ingest/tests/hostile/expect.rs"]
mod expect;
#[path = "../../../../ingest/tests/hostile/same.rs"]
mod same;

/// The lines of all events in the topic of `world`.
fn stored(world: &World) -> Vec<String> {
    let records = world.records().into_iter().filter(|(head, _)| head.kind == Kind::Events);
    let text = |line: &[u8]| String::from_utf8(line.to_vec()).unwrap();
    records.flat_map(|(_, value)| record::lines(&value).map(text).collect::<Vec<_>>()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_hostile_body_gets_the_right_answer_and_only_accepted_lines_are_stored() {
    let world = World::new("hostile").await;
    let (edge, _aggregator, _api) = world.pipeline().await;
    let http = Http::with_timeout(edge.service.http(), Duration::from_secs(20));
    let mut accepted = Vec::new();
    for case in corpus::cases() {
        let headers = [("content-type", case.content_type), ("content-encoding", case.encoding)];
        match http.try_send("POST", "/v1/events", &headers, case.body.clone()).await {
            Ok(answer) => expect::assert_answer(&case, "whole", answer.status, &answer.json()),
            Err(error) => panic!("{}: {error}", case.name),
        }
        accepted.extend(expect::accepted(&case).cloned());
    }

    let mut stored = task::block_in_place(|| stored(&world));
    stored.sort_by_cached_key(|line| same::fields(line));
    accepted.sort_by_cached_key(|line| same::fields(line));
    assert_eq!(stored.len(), accepted.len());
    stored.iter().zip(&accepted).for_each(|(stored, sent)| same::assert_same(stored, sent));

    let count = accepted.len() as u64;
    let (raw, ledger) = ("SELECT count() FROM events WHERE tenant != ''", "SELECT sum(stored) FROM ledger");
    // The cells of a batch become visible one by one, so the test waits for both tables.
    let counted = wait_for("all accepted lines in `events` and `ledger`", DEADLINE, async || {
        world.number(ledger).await >= count && world.number(raw).await >= count
    });
    counted.await.unwrap();
    assert_eq!((world.number(ledger).await, world.number(raw).await), (count, count));
    assert_eq!(
        world.number("SELECT sum(lines) FROM ledger").await,
        count,
        "the ledger has no rejected line and no repeat"
    );
    // A dead letter that the aggregator makes has the enriched line, which begins with the tenant. A sample has the
    // client's line.
    let unreadable = r#"SELECT count() FROM dead_letters WHERE startsWith(text, '{"tenant":')"#;
    assert_eq!(world.number(unreadable).await, 0, "the aggregator can read every line that the edge accepts");
    let admin = Http::new(edge.service.admin());
    assert_eq!(admin.get("/readyz").await.status, 200);
    assert_eq!(edge.metric("ingest_inflight_bytes").await, 0);
    edge.assert_balanced().await;
}
