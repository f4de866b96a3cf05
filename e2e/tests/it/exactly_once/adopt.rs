//! If something other than Millrace's services has changed the committed offsets or the logs in Kafka, or the tables
//! in ClickHouse, the aggregator refuses to continue and names the reason. After `stream-agg adopt`, or after the
//! change is undone, the aggregator counts every event exactly once, except events that Kafka deleted before they were
//! stored.

use std::time::{Duration, Instant};

use devstack::{Service, wait_for};
use schemas::rollup::Rollups;

use crate::oracle::{Oracle, TestEvent, now};
use crate::readiness::wait_for_readyz;
use crate::wire::produce;
use crate::world::{ADDED_ROLLUP, ADDED_ROLLUP_TOML, DEADLINE, Edge, World};

/// A world in which events have been counted and no aggregator runs.
struct Counted {
    world: World,
    edge: Edge,
    oracle: Oracle,
    rng: fastrand::Rng,
}

impl Counted {
    async fn new(name: &'static str) -> Self {
        let world = World::new(name).await;
        let edge = world.edge().await;
        let mut counted = Self { world, edge, oracle: Oracle::default(), rng: fastrand::Rng::with_seed(50) };
        counted.post_and_count().await;
        counted.post_and_count().await;
        counted
    }

    async fn post(&mut self) {
        let lines: Vec<_> = (0..60).map(|_| Some(TestEvent::random(&mut self.rng, now()))).collect();
        let text: Vec<_> = lines.iter().flatten().map(TestEvent::line).collect();
        self.oracle.record_report(&self.edge.http.post_lines(&text).await, &lines);
    }

    /// Posts events, and runs an aggregator until they are counted.
    async fn post_and_count(&mut self) {
        self.post().await;
        let mut aggregator = self.world.aggregator().await;
        self.world.assert_counted(&self.oracle.counts()).await;
        aggregator.terminate().await.unwrap();
    }

    /// Starts an aggregator, waits until its readiness text contains all of these words, and stops it.
    async fn assert_refuses_to_start(&self, words: &[&str]) {
        let mut aggregator = self.world.start("stream-agg", &[]);
        wait_for_readyz(&aggregator, words).await;
        aggregator.terminate().await.unwrap();
    }

    async fn adopt(&self, more: &[&str]) {
        let partitions = ["adopt", "0", "1", "2", "3"];
        self.world.run("stream-agg", &[&partitions, more].concat(), &[]).await.unwrap();
    }
}

#[tokio::test]
async fn a_repeat_after_a_restart_counts_once() {
    let world = World::new("once_repeat").await;
    let edge = world.edge().await;
    let mut rng = fastrand::Rng::with_seed(51);
    let mut oracle = Oracle::default();
    let made: Vec<_> = (0..40).map(|_| TestEvent::random(&mut rng, now())).collect();
    let lines: Vec<_> = made.iter().enumerate().map(|(number, made)| made.line_with_id(number)).collect();
    made.iter().for_each(|made| oracle.record(made));
    for repeats in 0..3 {
        assert_eq!(edge.http.post_lines(&lines).await.status, 200);
        let mut aggregator: Service = world.aggregator().await;
        let waited = wait_for("all repeats in the ledger", DEADLINE, async || {
            world.number("SELECT sum(duplicates) FROM ledger").await >= 40 * repeats
        });
        waited.await.unwrap();
        world.assert_counted(&oracle.counts()).await;
        aggregator.terminate().await.unwrap();
    }
}

#[tokio::test]
async fn an_offset_reset_by_a_tool_is_refused_and_after_adopt_nothing_counts_twice() {
    let mut counted = Counted::new("once_reset").await;
    counted.world.commit(0, "");
    counted
        .assert_refuses_to_start(&["partition 0", "committed without an intent", "stream-agg adopt 0"])
        .await;
    let began = Instant::now();
    counted.adopt(&[]).await;
    // `adopt` waits at least 55 s: 30 s, which is the deadline of an insert, plus 25 s, which is ClickHouse's time
    // limit for a statement. Until then, an insert that was sent before `adopt` may still write a marker.
    assert!(began.elapsed() >= Duration::from_secs(55), "`adopt` ended after {:?}", began.elapsed());
    counted.post_and_count().await;
}

#[tokio::test]
async fn an_intent_of_a_later_release_is_refused() {
    let counted = Counted::new("once_later").await;
    counted.world.commit(0, "v3 something new");
    counted.assert_refuses_to_start(&["partition 0", "version `v3`", "run the later release"]).await;
}

#[tokio::test]
async fn a_recreated_topic_is_refused_and_counted_in_addition_after_adopt() {
    let mut counted = Counted::new("once_anew").await;
    counted.edge.service.terminate().await.unwrap();
    counted.world.delete_topic().await;
    counted.world.migrate().await;
    counted.edge = counted.world.edge().await;
    counted.post().await;
    counted.assert_refuses_to_start(&["partition", "deleted and created again", "--new-log"]).await;
    counted.adopt(&["--new-log"]).await;
    counted.post_and_count().await;
}

#[tokio::test]
async fn records_deleted_by_retention_before_they_were_stored_are_reported() {
    let mut counted = Counted::new("once_retention").await;
    let before = counted.oracle.counts();
    counted.post().await;
    counted.world.delete_records().await;
    counted
        .assert_refuses_to_start(&["are not applied", "retention or an operator deleted", "stream-agg adopt"])
        .await;
    counted.adopt(&[]).await;
    counted.world.aggregator().await;
    counted.world.assert_counted(&before).await;
}

#[tokio::test]
async fn adopt_restores_the_window_even_if_the_broker_clock_went_back() {
    let world = World::new("once_clock_back").await;
    let (mut rng, mut oracle) = (fastrand::Rng::with_seed(54), Oracle::default());
    // `adopt` continues at the start of the last batch in the ledger. With these two batches, this start is offset 3,
    // so the deduplication window must be restored from the ledger rows of the first batch.
    produce_and_count(&world, &mut rng, &mut oracle, 3).await;
    produce_and_count(&world, &mut rng, &mut oracle, 1).await;
    // Changes the ledger as if the broker's clock had been two weeks ahead when the broker appended the second record.
    let second = "tenant = '*' AND kp = 0 AND ko = 1";
    let ahead = "* REPLACE (kafka_time + INTERVAL 14 DAY AS kafka_time)";
    let marker = "tenant = '' AND kp = 0 AND hwm = 3";
    world.rows(&format!("INSERT INTO ledger SELECT {ahead} FROM ledger WHERE {second} OR {marker}")).await;
    world.rows(&format!("DELETE FROM ledger WHERE {second} AND kafka_time < now() + INTERVAL 7 DAY")).await;
    world.commit_partition(0, 0, "");
    world.run("stream-agg", &["adopt", "0"], &[]).await.unwrap();
    assert_eq!(world.committed(0).0, 3);
    // If one more record is counted, the partition has continued.
    produce_and_count(&world, &mut rng, &mut oracle, 1).await;
}

/// Appends records of one line each to partition 0, and runs an aggregator until they are counted.
async fn produce_and_count(world: &World, rng: &mut fastrand::Rng, oracle: &mut Oracle, records: usize) {
    for made in (0..records).map(|_| TestEvent::random(rng, now())) {
        oracle.record(&made);
        produce(world, 0, &[made]);
    }
    let mut aggregator = world.aggregator().await;
    world.assert_counted(&oracle.counts()).await;
    aggregator.terminate().await.unwrap();
}

#[tokio::test]
async fn a_clickhouse_restored_from_an_older_backup_is_refused_and_complete_after_adopt() {
    let mut counted = Counted::new("once_restored").await;
    let tables = counted.world.rows("SELECT name FROM system.tables WHERE database = currentDatabase() AND engine LIKE '%MergeTree' AND name NOT LIKE '.inner%' AND name NOT IN ('configs', 'schema_migrations')").await;
    for table in tables.iter().flatten() {
        counted.world.rows(&format!("CREATE TABLE copy_of_{table} AS {table}")).await;
        counted.world.rows(&format!("ALTER TABLE copy_of_{table} ATTACH PARTITION ALL FROM {table}")).await;
    }
    counted.post_and_count().await;
    for table in tables.iter().flatten() {
        counted.world.rows(&format!("TRUNCATE TABLE {table}")).await;
        counted.world.rows(&format!("ALTER TABLE {table} ATTACH PARTITION ALL FROM copy_of_{table}")).await;
    }
    counted
        .assert_refuses_to_start(&["partition", "restored from an older backup", "stream-agg adopt"])
        .await;
    counted.adopt(&[]).await;
    counted.post_and_count().await;
}

#[tokio::test]
async fn nothing_is_inserted_into_a_table_with_too_small_a_deduplication_window() {
    let mut counted = Counted::new("once_tokens").await;
    let setting = "ALTER TABLE once_tokens.rollup_sums MODIFY SETTING non_replicated_deduplication_window = ";
    counted.world.rows(&format!("{setting}100")).await;
    counted.assert_refuses_to_start(&["rollup_sums`", "last 100 inserts", setting]).await;
    counted.world.rows(&format!("{setting}50000")).await;
    counted.post_and_count().await;
}

#[tokio::test]
async fn nothing_is_inserted_after_a_part_was_lost_until_an_operator_decides() {
    let mut counted = Counted::new("once_lost_part").await;
    let path =
        "SELECT data_paths[1] FROM system.tables WHERE database = currentDatabase() AND name = 'events'";
    let path = counted.world.rows(path).await.remove(0).remove(0);
    // If ClickHouse at its start cannot read a part, it detaches the part and puts `broken-on-start_` before its name.
    std::fs::create_dir_all(format!("{path}detached/broken-on-start_20260101_1_1_0")).unwrap();
    let drop = "ALTER TABLE once_lost_part.events DROP DETACHED PART 'broken-on-start_20260101_1_1_0'";
    // If an operator restored only this table, the table would lack the rows that were inserted after the backup. The
    // markers of later batches would hide that these rows are missing.
    let restore = ["restore all tables from the same backup", "`stream-agg adopt` for every partition"];
    counted
        .assert_refuses_to_start(
            &[&["events` has lost part", "broken-on-start", drop][..], &restore].concat(),
        )
        .await;
    counted.world.rows(&format!("{drop} SETTINGS allow_drop_detached = 1")).await;
    counted.post_and_count().await;
}

#[tokio::test]
async fn rows_missing_from_an_adopted_batch_are_built_under_its_declaration() {
    let world = World::new("once_adopted_cfg").await;
    let edge = world.edge().await;
    let (mut rng, mut oracle) = (fastrand::Rng::with_seed(53), Oracle::default());
    let lines: Vec<_> = (0..60).map(|_| Some(TestEvent::random(&mut rng, now()))).collect();
    let text: Vec<_> = lines.iter().flatten().map(TestEvent::line).collect();
    world.rows("ALTER TABLE events ADD CONSTRAINT closed CHECK hwm > 1000").await;
    oracle.record_report(&edge.http.post_lines(&text).await, &lines);
    // Because of the constraint, the table `events` refuses the batches. Every other table stores them.
    let mut aggregator = world.start("stream-agg", &[]);
    let recorded = "SELECT sum(lines) FROM ledger";
    wait_for("60 lines in the ledger", DEADLINE, async || world.number(recorded).await == 60).await.unwrap();
    aggregator.terminate().await.unwrap();
    let declared = world.rows("SELECT cfg FROM configs").await;
    world.rows("ALTER TABLE events DROP CONSTRAINT closed").await;
    // Commits an offset without an intent, as if the intents were lost. The next aggregator declares one more rollup.
    world.commit(0, "");
    let file = world.write("rollups.toml", &format!("{}{ADDED_ROLLUP_TOML}", Rollups::built_in()));
    let later = [("ROLLUPS_FILE", file.as_str())];
    world.migrate_with(&later).await;
    world.run("stream-agg", &["adopt", "0", "1", "2", "3"], &later).await.unwrap();
    let mut aggregator = world.start("stream-agg", &later);
    aggregator.wait_ready().await.unwrap();
    world.assert_counted(&oracle.counts()).await;
    assert_eq!(world.rows("SELECT DISTINCT cfg FROM events WHERE tenant != ''").await, declared);
    assert_eq!(world.number(&format!("SELECT count() FROM rollup.{ADDED_ROLLUP}")).await, 0);
    // Batches after the adopted batch are stored under the declaration of the new process.
    let lines: Vec<_> = (0..60).map(|_| Some(TestEvent::random(&mut rng, now()))).collect();
    let text: Vec<_> = lines.iter().flatten().map(TestEvent::line).collect();
    oracle.record_report(&edge.http.post_lines(&text).await, &lines);
    world.assert_counted(&oracle.counts()).await;
    let late = format!("SELECT sum(events) FROM rollup.{ADDED_ROLLUP}");
    wait_for("60 events in the added rollup", DEADLINE, async || world.number(&late).await == 60)
        .await
        .unwrap();
}
