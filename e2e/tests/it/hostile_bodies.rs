//! Hostile bodies through all of Millrace: each is answered as it must be, exactly what was accepted
//! is stored, and nothing is the worse for it.

use std::collections::BTreeMap;
use std::time::Duration;

use devstack::wait_for;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::{Offset, TopicPartitionList};
use schemas::record::{self, Head, Kind};
use tokio::task;

use crate::client::Http;
use crate::world::{DEADLINE, World};

#[path = "../../../ingest/tests/hostile/corpus.rs"]
mod corpus;
#[path = "../../../ingest/tests/hostile/expect.rs"]
mod expect;
#[path = "../../../ingest/tests/hostile/same.rs"]
mod same;

/// All lines of events in the topic of `world`. Samples of rejected lines, which no answer waits for,
/// may still come meanwhile.
fn stored(world: &World) -> Vec<String> {
    let reader: BaseConsumer = world.kafka().set("group.id", "reader").create().unwrap();
    let metadata = reader.fetch_metadata(Some(world.name()), DEADLINE).unwrap();
    let (mut from, mut ends, mut left) = (TopicPartitionList::new(), BTreeMap::new(), 0);
    for partition in metadata.topics()[0].partitions() {
        let (start, end) = reader.fetch_watermarks(world.name(), partition.id(), DEADLINE).unwrap();
        left += end - start;
        ends.insert(partition.id(), end);
        from.add_partition_offset(world.name(), partition.id(), Offset::Beginning).unwrap();
    }
    reader.assign(&from).unwrap();
    let mut lines = Vec::new();
    while left > 0 {
        let message = reader.poll(DEADLINE).expect("every record is read").unwrap();
        if message.offset() >= ends[&message.partition()] {
            continue;
        }
        left -= 1;
        let headers = message.headers().unwrap().iter();
        let head = Head::read(headers.map(|header| (header.key, header.value.unwrap()))).unwrap();
        if head.kind == Kind::Events {
            let text = |line: &[u8]| String::from_utf8(line.to_vec()).unwrap();
            lines.extend(record::lines(message.payload().unwrap()).map(text));
        }
    }
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn every_hostile_body_is_answered_as_it_must_be_and_exactly_what_was_accepted_is_stored() {
    let world = World::new("hostile").await;
    let (edge, _aggregator, _api) = world.pipeline().await;
    let http = Http::patient(edge.service.http(), Duration::from_secs(20));
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
    let counted = wait_for("all of them in the ledger", DEADLINE, async || {
        world.number("SELECT sum(stored) FROM ledger").await == count
    });
    counted.await.unwrap();
    assert_eq!(world.number("SELECT count() FROM events WHERE tenant != ''").await, count);
    assert_eq!(world.number("SELECT sum(lines) FROM ledger").await, count, "none rejected, none a repeat");
    let refused = r#"SELECT count() FROM dead_letters WHERE startsWith(text, '{"tenant":')"#;
    assert_eq!(world.number(refused).await, 0, "what the edge accepts, the aggregator reads");
    let admin = Http::new(edge.service.admin());
    assert_eq!(admin.get("/readyz").await.status, 200);
    assert_eq!(edge.metric("ingest_inflight_bytes").await, 0);
    edge.assert_balanced().await;
}
