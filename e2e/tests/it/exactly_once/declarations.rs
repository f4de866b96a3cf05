//! A declared batch is finished with the rollups of its declaration, even by a process that declares other rollups.

use std::fmt::Debug;

use devstack::{Service, wait_for};
use schemas::rollup::Rollups;
use serde_json::json;
use uuid::Uuid;

use crate::oracle::now;
use crate::readiness::wait_for_readyz;
use crate::wire::enriched;
use crate::world::{ADDED_ROLLUP, ADDED_ROLLUP_TOML, DEADLINE, STATIC_MEMBER, World};

/// Tables that refuse the first batch: the raw table, and a table with the rollups `users_hourly` and `sessions_daily`.
/// A second process, which is to finish the batch, declares `users_hourly` but not `sessions_daily`.
const CLOSED: [&str; 2] = ["events", "rollup_states"];

/// Appends a record to partition 0. Three of its events have the current time, and one has a time in the year 2010.
fn produce(world: &World) {
    let (id, time) = (Uuid::now_v7().to_string(), now().to_string());
    let line = |user: u32, time: &str| {
        enriched(
            &json!({"event": "play", "user_id": format!("u{user}"), "session": "s", "client_time": time})
                .to_string(),
        )
    };
    let lines = [line(1, &time), line(2, &time), line(3, &time), line(4, "2010-05-05 05:05:05")];
    world.produce(0, &[("v", "1"), ("n", "4"), ("id", &id)], lines.join("\n").as_bytes());
}

/// Waits until a query returns these rows.
async fn wait_until_returns<T: Debug>(world: &World, sql: &str, expected: T)
where
    Vec<Vec<String>>: PartialEq<T>,
{
    let mut found = Vec::new();
    let waited = wait_for(format!("{sql} to return {expected:?}"), DEADLINE, async || {
        found = world.rows(sql).await;
        found == expected
    });
    if let Err(overdue) = waited.await {
        panic!("{overdue}; it returns {found:?}");
    }
}

/// A world in which a declared batch is in only some of its tables, and no aggregator runs.
struct PartlyStored {
    world: World,
    /// The rollups file of the second process: the built-in rollups, which the first process declares, without
    /// `sessions_daily` but with [`ADDED_ROLLUP`].
    file: String,
}

impl PartlyStored {
    async fn new(name: &'static str) -> Self {
        let world = World::new(name).await;
        for table in CLOSED {
            world.rows(&format!("ALTER TABLE {table} ADD CONSTRAINT closed CHECK hwm > 1000")).await;
        }
        produce(&world);
        let mut first = world.start("stream-agg", &[STATIC_MEMBER]);
        // The batch stays declared but unfinished, because the tables in `CLOSED` refuse it.
        wait_until_returns(&world, "SELECT sum(events) FROM rollup.event_hourly WHERE tenant != ''", [["4"]])
            .await;
        wait_until_returns(&world, "SELECT sum(stored) FROM ledger", [["4"]]).await;
        first.kill9();
        for table in CLOSED {
            assert_eq!(world.number(&format!("SELECT count() FROM {table}")).await, 0, "{table}");
            world.rows(&format!("ALTER TABLE {table} DROP CONSTRAINT closed")).await;
        }
        let declared = Rollups::built_in().to_string();
        let kept: Vec<_> =
            declared.split("[[rollup]]").filter(|rollup| !rollup.contains("\"sessions_daily\"")).collect();
        let file = world.write("rollups.toml", &(kept.join("[[rollup]]") + ADDED_ROLLUP_TOML));
        let partly_stored = Self { world, file };
        partly_stored.world.migrate_with(&partly_stored.variables()).await;
        partly_stored
    }

    /// The variables of the second process, which also accepts a shorter range of client times than the first process.
    fn variables(&self) -> [(&str, &str); 3] {
        [STATIC_MEMBER, ("ROLLUPS_FILE", &self.file), ("EVENT_TIME_FROM", "2020-01-01T00:00:00Z")]
    }

    fn start(&self) -> Service {
        self.world.start("stream-agg", &self.variables())
    }
}

#[tokio::test]
async fn a_partly_stored_batch_is_finished_under_the_rollups_of_its_declaration() {
    let partly_stored = PartlyStored::new("declared_before").await;
    let (world, mut aggregator) = (&partly_stored.world, partly_stored.start());
    aggregator.wait_ready().await.unwrap();
    produce(world);
    let ledger = "SELECT ko, sum(stored) FROM ledger WHERE tenant != '' GROUP BY ko ORDER BY ko";
    wait_until_returns(world, ledger, [["0", "4"], ["1", "4"]]).await;
    // The column `cfg` of a raw row names a declaration. The rows of the first record have the declaration of the first
    // process, and the rows of the second record have the declaration of the second process.
    let of =
        |rollup: &str| format!("SELECT DISTINCT toString(cfg) FROM configs WHERE declared LIKE '%{rollup}%'");
    let [before, ours] = [world.rows(&of("sessions_daily")).await, world.rows(&of(ADDED_ROLLUP)).await];
    let raw = "SELECT toString(ko), toString(cfg), toString(count()) FROM events WHERE tenant != ''
               GROUP BY ko, cfg ORDER BY ko";
    wait_until_returns(world, raw, [["0", &before[0][0], "4"], ["1", &ours[0][0], "4"]]).await;
    // The rollup that both processes declare counts the events of both records. A rollup that only one process declares
    // counts only the events of the record whose batch this process declared.
    let added = format!("SELECT sum(events) FROM rollup.{ADDED_ROLLUP}");
    let sums = format!(
        "SELECT (SELECT sum(rows) FROM rollup_states WHERE rollup = 'users_hourly'),
                (SELECT sum(rows) FROM rollup_states WHERE rollup = 'sessions_daily'), ({added})"
    );
    wait_until_returns(world, &sums, [["8", "4", "4"]]).await;
    // Only the first declaration accepts a client time of 2010, so only the event of the first record counts in 2010.
    for (table, rollup) in [("rollup_sums", "event_hourly"), ("rollup_states", "users_hourly")] {
        let old =
            format!("SELECT sum(rows) FROM {table} WHERE rollup = '{rollup}' AND bucket < '2011-01-01'");
        wait_until_returns(world, &old, [["1"]]).await;
    }

    // A backfill adds the events of the first record, which was stored without the added rollup.
    world.run("stream-agg", &["backfill", ADDED_ROLLUP], &partly_stored.variables()).await.unwrap();
    wait_until_returns(world, &added, [["8"]]).await;
}

#[tokio::test]
async fn a_batch_whose_stored_declaration_was_changed_is_not_finished() {
    let partly_stored = PartlyStored::new("declared_changed").await;
    let world = &partly_stored.world;
    let change = |from: &str, to: &str| {
        format!(
            "ALTER TABLE configs UPDATE declared = replaceOne(declared, '\"earliest_ms\":{from},', '\"earliest_ms\":{to},')
             WHERE declared LIKE '%sessions_daily%' SETTINGS mutations_sync = 1"
        )
    };
    world.rows(&change("946684800000", "0")).await;
    let mut refusing = partly_stored.start();
    wait_for_readyz(&refusing, &["partition 0: the declared batch, or the records", "was changed"]).await;
    refusing.terminate().await.unwrap();
    assert_eq!(world.number("SELECT count() FROM events").await, 0);

    world.rows(&change("0", "946684800000")).await;
    let mut aggregator = partly_stored.start();
    aggregator.wait_ready().await.unwrap();
    wait_until_returns(world, "SELECT count() FROM events WHERE tenant != ''", [["4"]]).await;
}

#[tokio::test]
async fn an_aggregator_with_a_changed_definition_of_a_rollup_does_not_start() {
    let world = World::new("declared_otherwise").await;
    produce(&world);
    let mut aggregator = world.aggregator().await;
    wait_until_returns(&world, "SELECT sum(stored) FROM ledger", [["4"]]).await;
    let changed = Rollups::built_in().to_string().replace("\"device_os\"]", "\"param_str\"]");
    let file = world.write("rollups.toml", &changed);
    let declared = [("ROLLUPS_FILE", &*file), ("ADMIN_ADDR", "127.0.0.1:0")];
    let refused = world.run("stream-agg", &[], &declared).await.unwrap_err();
    let said = format!("{refused:#}");
    assert!(said.contains("rollup `event_hourly` was declared differently before"), "{said}");
    // The failed start does not disturb the running aggregator.
    produce(&world);
    wait_until_returns(&world, "SELECT sum(events) FROM rollup.event_hourly WHERE tenant != ''", [["8"]])
        .await;
    aggregator.terminate().await.unwrap();
}

#[tokio::test]
#[ignore = "takes a minute, because `drop-rollup` waits until earlier inserts have ended: ./dev test --full"]
async fn a_rollup_that_is_no_longer_declared_can_be_dropped_while_others_are_counted() {
    let world = World::new("declared_no_more").await;
    let file = world.write("rollups.toml", &format!("{}{ADDED_ROLLUP_TOML}", Rollups::built_in()));
    let with = [("ROLLUPS_FILE", &*file), ("ADMIN_ADDR", "127.0.0.1:0")];
    world.migrate_with(&with).await;
    let drop = async |rollup: &str, more: &[(&str, &str)]| {
        world.run("stream-agg", &["drop-rollup", rollup], more).await.map_err(|error| format!("{error:#}"))
    };
    let check = async |rollup: &str, more: &[(&str, &str)], words: &str| {
        let said = drop(rollup, more).await.unwrap_err();
        assert!(said.contains(words), "{said}");
    };
    let of_added = format!("SELECT sum(rows) FROM rollup_sums WHERE rollup = '{ADDED_ROLLUP}'");
    let hourly = "SELECT sum(events) FROM rollup.event_hourly WHERE tenant != ''";

    let mut aggregator = world.start("stream-agg", &with);
    produce(&world);
    wait_until_returns(&world, &of_added, [["4"]]).await;
    check(ADDED_ROLLUP, &with, "it is declared; take it out of ROLLUPS_FILE").await;
    check(ADDED_ROLLUP, &[], "partition 0 still uses a declaration with it").await;
    check("unheard_of", &[], "no such rollup was ever declared; known rollups are event_daily,").await;
    aggregator.terminate().await.unwrap();

    let mut aggregator = world.aggregator().await;
    produce(&world);
    wait_until_returns(&world, hourly, [["8"]]).await;
    let (dropped, ()) = tokio::join!(drop(ADDED_ROLLUP, &[]), async {
        for _ in 0..20 {
            produce(&world);
        }
    });
    dropped.unwrap();
    wait_until_returns(
        &world,
        &format!("SELECT count() FROM rollup_sums WHERE rollup = '{ADDED_ROLLUP}'"),
        [["0"]],
    )
    .await;
    wait_until_returns(&world, hourly, [["88"]]).await;
    world.run("stream-agg", &["audit"], &[]).await.unwrap();
    aggregator.terminate().await.unwrap();

    // The service and `migrate` are the same program, `stream-agg`, so an error of `migrate` must name this command.
    for (command, beginning) in [(&[][..], "rollup"), (&["migrate"], "migrate: rollup")] {
        let said = format!("{:#}", world.run("stream-agg", command, &with).await.unwrap_err());
        let reason = format!("`{ADDED_ROLLUP}` was dropped and cannot be declared again");
        assert!(said.contains(&reason) && said.contains(beginning), "{said}");
    }
}
