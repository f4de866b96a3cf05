//! If ClickHouse has detached a broken part, the aggregator inserts nothing until an operator has attached or dropped
//! the part. If rows of a declared batch have vanished with a part, the aggregator inserts them again with another
//! deduplication token.
//!
//! These tests change ClickHouse's files as a broken disk would.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use devstack::{Stack, wait_for};

use crate::client::Http;
use crate::oracle::{Oracle, TestEvent, now};
use crate::readiness::{wait_for_readyz, wait_for_readyz_within};
use crate::wire::produce;
use crate::world::{DEADLINE, STATIC_MEMBER, World};

/// A world in which one record of partition 0 is in all tables.
struct Counted {
    world: World,
    oracle: Oracle,
    rng: fastrand::Rng,
}

impl Counted {
    fn new(world: World) -> Self {
        Self { world, oracle: Oracle::default(), rng: fastrand::Rng::with_seed(103) }
    }

    fn append(&mut self) {
        let made: Vec<_> = (0..3).map(|_| TestEvent::random(&mut self.rng, now())).collect();
        produce(&self.world, 0, &made);
        made.iter().for_each(|made| self.oracle.record(made));
    }

    async fn assert_counted(&self) {
        self.world.assert_counted(&self.oracle.counts()).await;
    }

    /// The name of the only part of `events`, and the directory of the table.
    async fn part(&self) -> (String, PathBuf) {
        let parts = "SELECT name, path FROM system.parts
                     WHERE active AND database = currentDatabase() AND table = 'events'";
        let [part] = self.world.rows(parts).await.try_into().expect("one part");
        let [name, path] = part.try_into().expect("two columns");
        (name, Path::new(&path).parent().unwrap().to_owned())
    }

    /// Number of records in the ledger.
    async fn recorded(&self) -> u64 {
        self.world.number("SELECT count() FROM ledger WHERE tenant != ''").await
    }

    /// Appends the second record and waits until it is declared. Checks that it is still not stored some seconds later.
    async fn assert_held(&mut self, aggregator: &Http) {
        self.append();
        let declared = async || self.world.committed(0).1.contains(" L=1 ");
        wait_for("the second record to be declared", DEADLINE, declared).await.unwrap();
        // Waits until the record is 3 s late. An insert right after the declaration would have ended within this time.
        let late = async || aggregator.metric("stream_agg_lag_seconds").await.is_some_and(|lag| lag >= 3);
        wait_for("the second record to be late", DEADLINE, late).await.unwrap();
        assert_eq!(aggregator.metric("stream_agg_inserts_held").await, Some(1));
        assert_eq!(self.recorded().await, 1, "nothing is inserted into any table");
    }
}

#[tokio::test]
#[ignore = "takes a minute, because tables are checked every minute: ./dev test --full"]
async fn a_part_detached_as_broken_is_found_within_a_minute_and_stops_all_inserts() {
    let mut counted = Counted::new(World::new("lost_running").await);
    counted.append();
    let aggregator = counted.world.aggregator().await;
    counted.assert_counted().await;
    let admin = Http::new(aggregator.admin());
    assert_eq!(admin.metric("stream_agg_inserts_held").await, Some(0));

    let (name, table) = counted.part().await;
    counted.world.rows(&format!("ALTER TABLE events DETACH PART '{name}'")).await;
    // ClickHouse puts `broken_` before the name of a detached part that it could not read.
    let [detached, broken] = [&name, &format!("broken_{name}")].map(|name| table.join("detached").join(name));
    fs::rename(&detached, &broken).unwrap();
    let finding = format!(
        "`lost_running.events` has lost part broken_{name} (broken): restore all tables from the same backup"
    );
    let drop = format!("DROP DETACHED PART 'broken_{name}'");
    wait_for_readyz_within(
        &aggregator,
        &[&finding, &drop, "inserts wait until this problem is fixed"],
        Duration::from_secs(75),
    )
    .await;
    counted.assert_held(&admin).await;

    fs::rename(&broken, &detached).unwrap();
    counted.world.rows(&format!("ALTER TABLE events ATTACH PART '{name}'")).await;
    counted.assert_counted().await;
    assert_eq!(admin.metric("stream_agg_inserts_held").await, Some(0));
}

/// A world on Kafka and ClickHouse servers of its own, so that a test may change ClickHouse's files.
async fn on_own_servers(name: &'static str) -> (Stack, Counted) {
    let (stack, world) = World::on_own_servers(name).await;
    (stack, Counted::new(world))
}

#[tokio::test]
async fn a_part_that_is_unreadable_after_a_kill_is_found_before_the_next_insert() {
    let (mut stack, mut counted) = on_own_servers("lost_killed").await;
    counted.append();
    let aggregator = counted.world.aggregator().await;
    counted.assert_counted().await;
    let admin = Http::new(aggregator.admin());
    let (name, table) = counted.part().await;
    stack.clickhouse.kill9().unwrap();
    let data = table.join(&name).join("data.bin");
    let whole = fs::read(&data).unwrap();
    fs::write(&data, &whole[..whole.len() / 2]).unwrap();
    // ClickHouse is down. The second batch is declared in Kafka, but its inserts fail.
    counted.append();
    wait_for_readyz(&aggregator, &["clickhouse does not answer"]).await;
    stack.clickhouse.start().await.unwrap();
    let broken = format!("broken-on-start_{name}");
    let finding = format!("`lost_killed.events` has lost part {broken}");
    wait_for_readyz(
        &aggregator,
        &[&finding, "restore all tables from the same backup", "inserts wait until this problem is fixed"],
    )
    .await;
    assert_eq!(admin.metric("stream_agg_inserts_held").await, Some(1));
    assert_eq!(counted.recorded().await, 1, "the second batch is not inserted, not even into the ledger");

    let detached = table.join("detached");
    fs::write(detached.join(&broken).join("data.bin"), &whole).unwrap();
    fs::rename(detached.join(&broken), detached.join(&name)).unwrap();
    counted.world.rows(&format!("ALTER TABLE events ATTACH PART '{name}'")).await;
    counted.assert_counted().await;
    assert_eq!(admin.metric("stream_agg_inserts_held").await, Some(0));
}

#[tokio::test]
#[ignore = "takes two minutes, because the aggregator waits for earlier inserts of the rows to end: ./dev test --full"]
async fn rows_of_a_lost_part_whose_token_remains_are_inserted_under_another_token() {
    let (mut stack, mut counted) = on_own_servers("lost_token").await;
    let world = &counted.world;
    world.rows("ALTER TABLE rollup_states ADD CONSTRAINT closed CHECK hwm > 1000").await;
    counted.append();
    let world = &counted.world;
    // The batch stays declared, because the table `rollup_states` refuses the rows of the batch.
    let mut aggregator = world.start("stream-agg", &[STATIC_MEMBER]);
    wait_for_readyz(&aggregator, &["rollup_states", "stream-agg split 0"]).await;
    let stored = "SELECT count() FROM events WHERE tenant != ''";
    wait_for("the raw rows of the batch", DEADLINE, async || world.number(stored).await == 3).await.unwrap();
    aggregator.kill9();
    let (name, table) = counted.part().await;
    stack.clickhouse.kill9().unwrap();
    fs::remove_dir_all(table.join(name)).unwrap();
    stack.clickhouse.start().await.unwrap();
    assert_eq!(world.number(stored).await, 0);
    world.rows("ALTER TABLE rollup_states DROP CONSTRAINT closed").await;

    let aggregator = world.start("stream-agg", &[STATIC_MEMBER]);
    wait_for_readyz(
        &aggregator,
        &["`events`", "offsets 0..0", "clickhouse acknowledged the rows and does not have them"],
    )
    .await;
    let admin = Http::new(aggregator.admin());
    assert_eq!(admin.metric("stream_agg_parts_lost_total").await, Some(0), "an earlier insert may still run");
    let again = async || world.number(stored).await == 3;
    wait_for("the lost rows under another token", Duration::from_secs(180), again).await.unwrap();
    assert_eq!(admin.metric("stream_agg_parts_lost_total").await, Some(1));
    counted.assert_counted().await;
}
