//! The audit finds offsets that are in no ledger row, whatever the reason: a deleted row, or a control record that
//! ends a transaction in Kafka.

use devstack::wait_for;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use super::{KP, audit, latest, wait_for_finding, wait_for_progress};
use crate::client::Http;
use crate::world::{DEADLINE, World};

/// Appends records without headers to partition [`KP`]. Each record gets a row in the ledger, and its one line becomes
/// a dead letter.
fn produce(world: &World, records: usize) {
    for _ in 0..records {
        world.produce(KP, &[], b"of some other program");
    }
}

#[tokio::test]
async fn a_record_without_a_ledger_row_is_reported_as_a_gap_with_its_offsets() {
    let world = World::new("audit_gaps").await;
    let aggregator = world.start("stream-agg", &[("AUDIT_INTERVAL", "300ms")]);
    produce(&world, 12);
    wait_for_progress(&world, 12).await;
    audit(&world, &[]).await.unwrap();
    assert_eq!(latest(&world, "(expected, found)", "ledger", "offsets").await, ["(12,12)"]);
    world.rows("DELETE FROM ledger WHERE tenant = '*' AND ko IN (5, 6, 8, 11)").await;
    let words = [
        "offsets 5-6 of partition 3: in no ledger row",
        "offsets 8-8 of partition 3: in no ledger row",
        "offsets 11-11 of partition 3: in no ledger row",
        "kafka-console-consumer",
        "audit: incomplete, missing=0 duplicate=0 gaps=4",
        "0 missing, 0 duplicate, 4 offsets in no ledger row",
    ];
    wait_for_finding(&world, &[], &words).await;
    assert_eq!(latest(&world, "(expected, found)", "ledger", "offsets").await, ["(12,8)"]);
    let admin = Http::new(aggregator.admin());
    let shown = async || admin.metric("stream_agg_audit_gaps").await;
    wait_for("the metric to show the gaps", DEADLINE, async || shown().await == Some(4)).await.unwrap();
}

#[tokio::test]
async fn a_transaction_leaves_a_gap_of_one_offset_behind_its_records() {
    let world = World::new("audit_transaction").await;
    let _aggregator = world.aggregator().await;
    produce(&world, 1);
    let tool: BaseProducer = world.kafka().set("transactional.id", "a tool").create().unwrap();
    tool.init_transactions(DEADLINE).unwrap();
    tool.begin_transaction().unwrap();
    let record = BaseRecord::<(), _>::to(world.name()).partition(KP).payload(b"of a tool");
    tool.send(record).map_err(|(error, _)| error).unwrap();
    tool.commit_transaction(DEADLINE).unwrap();
    // Offset 2 is the control record with which Kafka commits the transaction. While the log has no record after this
    // control record, `progress` covers only the offsets below 2, so an audit finds no gap.
    wait_for_progress(&world, 2).await;
    audit(&world, &[]).await.unwrap();
    produce(&world, 1);
    wait_for_progress(&world, 4).await;
    let words = ["offsets 2-2 of partition 3: in no ledger row", "missing=0 duplicate=0 gaps=1"];
    wait_for_finding(&world, &[], &words).await;
}
