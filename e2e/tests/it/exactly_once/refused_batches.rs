//! If ClickHouse refuses a declared batch permanently, an operator can split the batch or skip records.
//!
//! In most of these tests, constraints on the tables make ClickHouse refuse rows.

use std::fs;
use std::time::Duration;

use devstack::wait_for;
use uuid::Uuid;

use crate::oracle::{Oracle, TestEvent, now};
use crate::profile::{LOADER, Profiled};
use crate::readiness::{wait_for_readyz, wait_for_readyz_within};
use crate::wire::{enriched, produce};
use crate::world::{DEADLINE, World};

/// Time after which the group removes a member that was killed.
const SESSION: Duration = Duration::from_secs(45);
/// Before a command changes anything, it waits at most this long for the inserts of earlier processes to end.
const INSERTS_END: Duration = Duration::from_secs(60);

fn random_events(rng: &mut fastrand::Rng, count: usize) -> Vec<TestEvent> {
    (0..count).map(|_| TestEvent::random(rng, now())).collect()
}

/// Runs a command that changes the commit of a partition. Repeats the command while it fails because the killed
/// aggregator is still a member of the group.
async fn run_offline(world: &World, arguments: &[&str]) {
    wait_for(format!("{arguments:?} to be done"), SESSION + INSERTS_END + DEADLINE, async || {
        match world.run("stream-agg", arguments, &[]).await {
            Ok(_) => true,
            Err(error) if format!("{error:#}").contains("a killed aggregator stays a member") => false,
            Err(error) => panic!("{error:#}"),
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_record_of_an_unknown_format_is_a_dead_letter_once_an_operator_skips_it() {
    let world = World::new("refused_format").await;
    let mut rng = fastrand::Rng::with_seed(90);
    let made = [random_events(&mut rng, 2), random_events(&mut rng, 3)];
    produce(&world, 0, &made[0]);
    let id = Uuid::now_v7().to_string();
    world.produce(0, &[("v", "99"), ("n", "2"), ("id", &id)], b"one\ntwo");
    produce(&world, 0, &made[1]);
    let mut aggregator = world.start("stream-agg", &[]);
    wait_for_readyz(&aggregator, &["offset 1", "`stream-agg skip 0 --offset 1`"]).await;
    let running = world.run("stream-agg", &["skip", "0", "--offset", "1"], &[]).await.unwrap_err();
    assert!(format!("{running:#}").contains("stop all aggregators"), "{running:#}");
    aggregator.terminate().await.unwrap();
    for (offset, reason) in [("0", "is in every table already"), ("7", "there is no record at offset 7")] {
        let refused = world.run("stream-agg", &["skip", "0", "--offset", offset], &[]).await.unwrap_err();
        assert!(format!("{refused:#}").contains(reason), "{refused:#}");
    }
    world.run("stream-agg", &["skip", "0", "--offset", "1"], &[]).await.unwrap();
    let _aggregator = world.aggregator().await;
    let mut oracle = Oracle::default();
    made.iter().flatten().for_each(|made| oracle.record(made));
    world.assert_counted(&oracle.counts()).await;
    let letters = "SELECT ko, line, reason, text FROM dead_letters WHERE tenant != '' ORDER BY ko, line";
    wait_for("two dead letters", DEADLINE, async || world.rows(letters).await.len() == 2).await.unwrap();
    assert_eq!(world.rows(letters).await, [["1", "0", "skipped", "one"], ["1", "1", "skipped", "two"]]);
}

#[tokio::test]
async fn split_fails_if_no_batch_is_declared() {
    let world = World::new("refused_nothing").await;
    let none = world.run("stream-agg", &["split", "0"], &[]).await.unwrap_err();
    assert!(format!("{none:#}").contains("no offset is committed"), "{none:#}");
    produce(&world, 0, &random_events(&mut fastrand::Rng::with_seed(91), 2));
    let mut aggregator = world.aggregator().await;
    wait_for("a commit without a batch", DEADLINE, async || {
        world.try_committed(0).is_some_and(|(offset, metadata)| offset == 1 && metadata.contains(" idle "))
    })
    .await
    .unwrap();
    aggregator.terminate().await.unwrap();
    let none = world.run("stream-agg", &["split", "0"], &[]).await.unwrap_err();
    assert!(format!("{none:#}").contains("there is nothing to split"), "{none:#}");
}

#[tokio::test]
async fn a_command_does_not_undo_the_commit_of_another_command() {
    let world = World::new("refused_twice").await;
    let mut rng = fastrand::Rng::with_seed(95);
    (0..3).for_each(|_| produce(&world, 0, &random_events(&mut rng, 1)));
    // The first two records are declared as one batch.
    world.commit_partition(0, 0, "v2 L=1 cfg=0000000000000000 g=0 S=0 W=0 h=0-0");
    let log = world.directory().join("stream-agg.log");
    let split_waits = || fs::read_to_string(&log).is_ok_and(|text| text.contains("can still store rows"));
    let skip = async {
        wait_for("`split` to wait for inserts", DEADLINE, async || split_waits()).await.unwrap();
        // The record at offset 2 is in no batch, so `skip` commits without a wait.
        world.run("stream-agg", &["skip", "0", "--offset", "2"], &[]).await.unwrap();
    };
    let (split, ()) = tokio::join!(world.run("stream-agg", &["split", "0"], &[]), skip);
    let split = format!("{:#}", split.unwrap_err());
    assert!(split.contains("another process committed while the command ran"), "{split}");
    let (offset, metadata) = world.committed(0);
    assert!(offset == 0 && metadata.ends_with(" X=2"), "{metadata}");
}

#[tokio::test]
#[ignore = "takes three minutes, because `split` waits until earlier inserts have ended: ./dev test --full"]
async fn a_refused_batch_can_be_split_down_to_one_record_which_can_be_skipped() {
    let world = World::new("refused_split").await;
    let mut rng = fastrand::Rng::with_seed(92);
    let mut made: Vec<_> = (0..5).map(|_| random_events(&mut rng, 3)).collect();
    made[3][1].event = "poison".to_owned();
    world.rows("ALTER TABLE events ADD CONSTRAINT antidote CHECK event != 'poison'").await;
    made.iter().for_each(|made| produce(&world, 0, made));
    // The batch stays open for 3 s, so it gets all records.
    let mut aggregator = world.start("stream-agg", &[("BATCH_MAX_AGE", "3s")]);
    let split = "stop all aggregators and run `stream-agg split 0`";
    wait_for_readyz(&aggregator, &["events", split]).await;
    assert_eq!(
        world.number("SELECT count() FROM events WHERE tenant != ''").await,
        0,
        "raw rows of a refused batch"
    );
    // The ledger has the rows of the batch, and the raw table does not.
    aggregator.kill9();
    run_offline(&world, &["split", "0"]).await;
    let mut aggregator = world.start("stream-agg", &[("BATCH_MAX_AGE", "3s")]);
    let stored = "SELECT count() FROM events WHERE tenant != ''";
    wait_for("the rows of the first half", DEADLINE, async || world.number(stored).await == 6).await.unwrap();
    wait_for_readyz(&aggregator, &["events", "`stream-agg skip 0"]).await;
    aggregator.terminate().await.unwrap();
    let (offset, metadata) = world.committed(0);
    assert!(offset == 0 && metadata.contains(" P=2"), "{metadata}");
    // `skip` refuses the record, because other tables already have its rows.
    let stored = world.run("stream-agg", &["skip", "0", "--offset", "3"], &[]).await.unwrap_err();
    assert!(format!("{stored:#}").contains("rows of offset 3 may be stored"), "{stored:#}");
    world.rows("ALTER TABLE events DROP CONSTRAINT antidote").await;
    let _aggregator = world.aggregator().await;
    let mut oracle = Oracle::default();
    made.iter().flatten().for_each(|made| oracle.record(made));
    world.assert_counted(&oracle.counts()).await;
}

#[tokio::test]
#[ignore = "takes two minutes, because `skip` waits until earlier inserts have ended: ./dev test --full"]
async fn a_record_that_every_table_refuses_is_skipped_and_its_neighbours_count() {
    let world = World::new("refused_skip").await;
    let mut rng = fastrand::Rng::with_seed(93);
    let made: Vec<_> = (0..3).map(|_| random_events(&mut rng, 2)).collect();
    // All tables refuse the batch, even the ledger.
    let tables = ["ledger", "events", "rollup_sums", "rollup_states"];
    for table in tables {
        world.rows(&format!("ALTER TABLE {table} ADD CONSTRAINT closed CHECK hwm > 1000")).await;
    }
    made.iter().for_each(|made| produce(&world, 0, made));
    let mut aggregator = world.start("stream-agg", &[("BATCH_MAX_AGE", "3s")]);
    wait_for_readyz(&aggregator, &["`stream-agg split 0`"]).await;
    aggregator.kill9();
    run_offline(&world, &["skip", "0", "--offset", "1"]).await;
    for table in tables {
        world.rows(&format!("ALTER TABLE {table} DROP CONSTRAINT closed")).await;
    }
    let _aggregator = world.aggregator().await;
    let mut oracle = Oracle::default();
    [&made[0], &made[2]].into_iter().flatten().for_each(|made| oracle.record(made));
    world.assert_counted(&oracle.counts()).await;
    let letters = "SELECT ko, reason FROM dead_letters WHERE tenant != '' ORDER BY line";
    wait_for("two dead letters", DEADLINE, async || world.rows(letters).await.len() == 2).await.unwrap();
    assert_eq!(world.rows(letters).await, [["1", "skipped"], ["1", "skipped"]]);
}

/// Memory limit of an insert in bytes: less than the 98 MB that the batch of [`LARGE`] needs, but enough for half of
/// it.
const INSERT_MEMORY_BYTES: &str = "70000000";
/// A large batch: number of records, number of lines in each record, and bytes of random text in each line.
const LARGE: (usize, usize, usize) = (16, 15, 50_000);

#[tokio::test]
#[ignore = "takes three minutes, because inserts are retried and `split` waits for their end: ./dev test --full"]
async fn a_batch_too_large_for_clickhouse_memory_is_retried_and_can_be_stored_after_split() {
    let limits = [("max_memory_usage", INSERT_MEMORY_BYTES)];
    let Profiled { stack: _stack, world } = Profiled::new("refused_memory", &limits).await;
    let (mut rng, mut oracle) = (fastrand::Rng::with_seed(94), Oracle::default());
    let mut append = |records: usize| {
        for _ in 0..records {
            let made: Vec<_> = (0..LARGE.1).map(|_| TestEvent::random(&mut rng, now())).collect();
            let lines: Vec<_> = made
                .iter()
                .map(|made| {
                    let text: String = (0..LARGE.2).map(|_| rng.alphanumeric()).collect();
                    enriched(&made.line()).replacen('{', &format!(r#"{{"filler":"{text}","#), 1)
                })
                .collect();
            let (id, n) = (Uuid::now_v7().to_string(), LARGE.1.to_string());
            world.produce(0, &[("v", "1"), ("n", &n), ("id", &id)], lines.join("\n").as_bytes());
            made.iter().for_each(|made| oracle.record(made));
        }
    };
    append(LARGE.0);
    // The batch stays open for 10 s, so it gets all records.
    let variables = [LOADER.as_slice(), &[("BATCH_MAX_AGE", "10s")]].concat();
    let mut aggregator = world.start("stream-agg", &variables);
    let busy = wait_for_readyz_within(&aggregator, &["clickhouse refused: Code: 241."], DEADLINE).await;
    assert!(!busy.contains("stream-agg split"), "a server that is out of memory may only be busy: {busy}");
    let words = ["`events`", "Code: 241.", "stop all aggregators and run `stream-agg split 0`"];
    wait_for_readyz_within(&aggregator, &words, 2 * DEADLINE).await;
    let stored = "SELECT count() FROM events WHERE tenant != ''";
    assert_eq!(world.number(stored).await, 0, "raw rows of a refused batch");
    aggregator.terminate().await.unwrap();
    let (offset, metadata) = world.committed(0);
    assert!(offset == 0 && metadata.contains(" L=15 "), "all records must be in one batch: {metadata}");
    world.run("stream-agg", &["split", "0"], &LOADER).await.unwrap();
    let _aggregator = world.start("stream-agg", &variables);
    world.assert_counted(&oracle.counts()).await;
    assert_eq!(
        world.number("SELECT uniqExact(hwm) FROM events WHERE tenant = ''").await,
        2,
        "one insert for each half"
    );
}
