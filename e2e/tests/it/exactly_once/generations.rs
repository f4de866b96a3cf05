//! The markers of one generation of the log say nothing about the rows of another generation.

use devstack::wait_for;

use crate::oracle::{Oracle, TestEvent, now};
use crate::wire::produce;
use crate::world::{DEADLINE, STATIC_MEMBER, World};

/// The topic is deleted and created again, so it has a second log. These tables refuse rows of the second log until the
/// first aggregator that reads this log is killed.
const CLOSED: [&str; 3] = ["events", "rollup_sums", "rollup_states"];

#[tokio::test]
async fn markers_of_the_previous_log_prove_nothing_about_a_partly_stored_batch() {
    let world = World::new("generations").await;
    let (mut rng, mut oracle) = (fastrand::Rng::with_seed(102), Oracle::default());
    let mut append = |records: usize| {
        for _ in 0..records {
            let made = [TestEvent::random(&mut rng, now()), TestEvent::random(&mut rng, now())];
            produce(&world, 0, &made);
            made.iter().for_each(|made| oracle.record(made));
        }
        oracle.counts()
    };
    let first = append(5);
    let mut aggregator = world.aggregator().await;
    world.assert_counted(&first).await;
    aggregator.terminate().await.unwrap();
    world.delete_topic().await;
    world.migrate().await;
    world.run("stream-agg", &["adopt", "0", "--new-log"], &[]).await.unwrap();

    // In each table of `CLOSED`, the highest marker of the first log is at offset 5, beyond the end of the second log,
    // which is offset 2.
    let both = append(2);
    for table in CLOSED {
        world.rows(&format!("ALTER TABLE {table} ADD CONSTRAINT closed CHECK g = 0")).await;
    }
    let mut aggregator = world.start("stream-agg", &[STATIC_MEMBER]);
    let recorded = "SELECT count() FROM ledger WHERE tenant != '' AND g = 1";
    wait_for("a record of the second log", DEADLINE, async || world.number(recorded).await > 0)
        .await
        .unwrap();
    aggregator.kill9();
    for table in CLOSED {
        assert_eq!(world.number(&format!("SELECT count() FROM {table} WHERE g = 1")).await, 0, "{table}");
        let marker = format!("SELECT max(hwm) FROM {table} WHERE g = 0 AND kp = 0");
        assert_eq!(world.number(&marker).await, 5, "{table}");
        world.rows(&format!("ALTER TABLE {table} DROP CONSTRAINT closed")).await;
    }
    let (_, metadata) = world.committed(0);
    assert!(metadata.contains(" L=") && metadata.contains(" g=1"), "declared: {metadata}");
    let _aggregator = world.start("stream-agg", &[STATIC_MEMBER]);
    world.assert_counted(&both).await;
}
