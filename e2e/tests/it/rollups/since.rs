//! If a rollup is declared after events were stored, readers can see from which moment on the rollup has every event.

use devstack::{Service, wait_for};
use schemas::rollup::Rollups;
use schemas::time::{DAY, UnixMillis};

use crate::oracle::{Oracle, TestEvent, now};
use crate::readiness::wait_for_readyz;
use crate::wire::produce;
use crate::world::{ADDED_ROLLUP, ADDED_ROLLUP_TOML, DEADLINE, STATIC_MEMBER, World};

/// The partitions to which [`Late::produce`] appends. The topic has two more partitions.
const USED: [i32; 2] = [0, 2];
/// The moment in `rollup_since` for a rollup that currently does not count the events of a partition.
const NOT_COUNTED: &str = "2299-12-31 00:00:00.000";

/// A world in which aggregators with and without [`ADDED_ROLLUP`] run.
struct Late {
    world: World,
    rng: fastrand::Rng,
    oracle: Oracle,
    /// The path of the `ROLLUPS_FILE` that declares [`ADDED_ROLLUP`].
    file: String,
}

impl Late {
    async fn new(name: &'static str) -> Self {
        let world = World::new(name).await;
        let file = world.write("rollups.toml", &format!("{}{ADDED_ROLLUP_TOML}", Rollups::built_in()));
        Self { world, rng: fastrand::Rng::with_seed(77), oracle: Oracle::default(), file }
    }

    fn variables(&self) -> [(&str, &str); 2] {
        [STATIC_MEMBER, ("ROLLUPS_FILE", &self.file)]
    }

    /// Appends an event to each partition in [`USED`].
    fn produce(&mut self) {
        for partition in USED {
            let made = [TestEvent::random(&mut self.rng, now())];
            produce(&self.world, partition, &made);
            made.iter().for_each(|made| self.oracle.record(made));
        }
    }

    /// Appends events and waits until they are counted.
    async fn count(&mut self) {
        self.produce();
        self.world.assert_counted(&self.oracle.counts()).await;
    }

    /// Starts an aggregator that does not declare [`ADDED_ROLLUP`].
    async fn start_without_rollup(&self) -> Service {
        let mut aggregator = self.world.start("stream-agg", &[STATIC_MEMBER]);
        aggregator.wait_ready().await.unwrap();
        aggregator
    }

    /// Starts an aggregator that declares [`ADDED_ROLLUP`].
    async fn start_with_rollup(&self) -> Service {
        let mut aggregator = self.world.start("stream-agg", &self.variables());
        aggregator.wait_ready().await.unwrap();
        aggregator
    }

    /// The rows of `rollup_since` for [`ADDED_ROLLUP`]: the partition, the moment from which on the rollup has every
    /// event of the partition, and the version of the row.
    async fn noted(&self) -> Vec<Vec<String>> {
        let sql = format!(
            "SELECT kp, toString(since), toString(noted) FROM rollup_since FINAL \
             WHERE rollup = '{ADDED_ROLLUP}' ORDER BY kp"
        );
        self.world.rows(&sql).await
    }

    /// Waits until `rollup_since` has exactly these pairs of a partition and a moment.
    async fn wait_for_moments(&self, expected: &[[String; 2]]) {
        let mut found = Vec::new();
        let waited = wait_for("the moments of the rollup", DEADLINE, async || {
            found = self.noted().await.into_iter().map(|row| [row[0].clone(), row[1].clone()]).collect();
            found == expected
        });
        if let Err(overdue) = waited.await {
            panic!("{overdue}; expected {expected:?}, found {found:?}");
        }
    }

    /// The moments of a rollup that does not count the newest record of each partition in the ledger, but counts every
    /// later record. For each partition in the ledger, the moment is one millisecond after this newest record.
    async fn after_all_records(&self) -> Vec<[String; 2]> {
        let sql = "SELECT kp, toString(max(kafka_time) + INTERVAL 1 MILLISECOND) FROM ledger WHERE tenant = '*' \
                   GROUP BY kp ORDER BY kp";
        self.world.rows(sql).await.into_iter().map(|row| row.try_into().unwrap()).collect()
    }

    fn not_counted() -> [[String; 2]; 2] {
        USED.map(|partition| [partition.to_string(), NOT_COUNTED.to_owned()])
    }
}

#[tokio::test]
async fn an_added_rollup_begins_after_the_last_uncounted_event_and_earlier_after_backfill() {
    let mut late = Late::new("since_added").await;
    let mut old = late.start_without_rollup().await;
    late.count().await;
    old.terminate().await.unwrap();
    late.world.migrate_with(&late.variables()).await;
    let begins = late.after_all_records().await;
    let mut new = late.start_with_rollup().await;
    late.wait_for_moments(&begins).await;
    late.count().await;
    for [partition, since] in &begins {
        let later = format!(
            "SELECT countIf(ko = 0 AND kafka_time < '{since}'), countIf(ko = 1 AND kafka_time >= '{since}'), count()
             FROM ledger WHERE tenant = '*' AND kp = {partition}"
        );
        assert_eq!(late.world.rows(&later).await, [["1", "1", "2"]], "partition {partition}");
    }

    // If an aggregator restarts with the same rollups, it does not note the moments again.
    let noted = late.noted().await;
    new.terminate().await.unwrap();
    let _new = late.start_with_rollup().await;
    late.count().await;
    assert_eq!(late.noted().await, noted);
    let others = format!("SELECT count() FROM rollup_since WHERE rollup != '{ADDED_ROLLUP}'");
    assert_eq!(late.world.number(&others).await, 0, "`rollup_since` must name only the added rollup");

    late.world.run("stream-agg", &["backfill", ADDED_ROLLUP], &late.variables()).await.unwrap();
    let first_day = now().floor(DAY).0 - 31 * DAY;
    let days = [first_day, first_day + DAY].map(|day| UnixMillis(day).to_string());
    let moved = late.noted().await;
    assert_eq!(moved.len(), USED.len());
    assert!(moved.iter().all(|row| days.contains(&row[1])), "{moved:?} must have one of the days {days:?}");
    let all = format!("SELECT sum(events) FROM rollup.{ADDED_ROLLUP}");
    assert_eq!(late.world.number(&all).await, 6);
}

#[tokio::test]
async fn a_rollup_is_incomplete_while_a_process_without_it_owns_a_partition() {
    let mut late = Late::new("since_back").await;
    let mut old = late.start_without_rollup().await;
    late.count().await;
    old.terminate().await.unwrap();
    late.world.migrate_with(&late.variables()).await;
    let mut new = late.start_with_rollup().await;
    late.count().await;
    new.terminate().await.unwrap();

    let mut old = late.start_without_rollup().await;
    late.wait_for_moments(&Late::not_counted()).await;
    late.count().await;
    late.wait_for_moments(&Late::not_counted()).await;
    old.terminate().await.unwrap();

    let begins = late.after_all_records().await;
    let _new = late.start_with_rollup().await;
    late.wait_for_moments(&begins).await;
}

#[tokio::test]
async fn a_rollup_is_incomplete_until_processes_with_it_own_all_partitions() {
    let late = Late::new("since_rolling").await;
    let (mut rng, mut oracle) = (fastrand::Rng::with_seed(78), Oracle::default());
    for partition in 0..4 {
        let made = [TestEvent::random(&mut rng, now())];
        produce(&late.world, partition, &made);
        made.iter().for_each(|made| oracle.record(made));
    }
    let mut old = late.world.aggregator().await;
    late.world.assert_counted(&oracle.counts()).await;
    let declared = [("ROLLUPS_FILE", late.file.as_str())];
    late.world.migrate_with(&declared).await;
    let _new = late.world.start("stream-agg", &declared);
    // Each of the two processes gets two partitions. The rollup counts only the events of the partitions of `_new`.
    let counts = async |expected: [usize; 2]| {
        let mut found = Vec::new();
        let waited =
            wait_for(format!("{expected:?} partitions (not counted, counted)"), DEADLINE, async || {
                found = late.noted().await;
                let open = found.iter().filter(|row| row[1] == NOT_COUNTED).count();
                [open, found.len() - open] == expected
            });
        if let Err(overdue) = waited.await {
            panic!("{overdue}; found {found:?}");
        }
    };
    counts([2, 2]).await;
    // In `progress`, each process also stores the number of partitions of the topic, so that readers see whether every
    // partition has reported its progress.
    let progress = "SELECT kp, partitions FROM progress FINAL ORDER BY kp";
    let all: [[String; 2]; 4] = std::array::from_fn(|partition| [partition.to_string(), "4".to_owned()]);
    assert_eq!(late.world.rows(progress).await, all);
    old.terminate().await.unwrap();
    counts([0, 4]).await;
}

#[tokio::test]
async fn a_process_that_dies_before_it_notes_the_moment_leaves_the_rollup_incomplete() {
    let mut late = Late::new("since_killed").await;
    let mut old = late.start_without_rollup().await;
    late.count().await;
    old.terminate().await.unwrap();
    late.world.migrate_with(&late.variables()).await;
    let closed = format!("ADD CONSTRAINT closed CHECK since = '{NOT_COUNTED}'");
    late.world.rows(&format!("ALTER TABLE rollup_since {closed}")).await;

    // By a commit, the process begins to use the declaration with the new rollup. Because of the constraint, the
    // process cannot store the moment from which on the rollup has every event. Until the process has stored this
    // moment, it inserts no events.
    let mut dying = late.world.start("stream-agg", &late.variables());
    wait_for_readyz(&dying, &["Constraint `closed`"]).await;
    late.wait_for_moments(&Late::not_counted()).await;
    late.produce();
    wait_for_readyz(&dying, &["Constraint `closed`"]).await;
    assert_eq!(late.world.number("SELECT count() FROM events WHERE tenant != ''").await, 2);
    dying.kill9();

    late.world.rows("ALTER TABLE rollup_since DROP CONSTRAINT closed").await;
    let begins = late.after_all_records().await;
    let _new = late.start_with_rollup().await;
    late.world.assert_counted(&late.oracle.counts()).await;
    late.wait_for_moments(&begins).await;
}
