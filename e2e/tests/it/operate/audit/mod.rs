//! The audit finds rows that were removed from the tables or added to them, and reports nothing else.

use devstack::{Service, wait_for};
use schemas::rollup::Rollups;
use schemas::time::UnixMillis;

use crate::client::Http;
use crate::oracle::{Oracle, TestEvent, now};
use crate::world::{ADDED_ROLLUP, ADDED_ROLLUP_TOML, DEADLINE, Edge, World};

mod ages;

mod gaps;

/// The Kafka partition of records that the tests append themselves.
const KP: i32 = 3;

/// A world with counted events, in which the edge and the aggregator still run.
struct Counted {
    world: World,
    edge: Edge,
    aggregator: Service,
}

impl Counted {
    async fn new(name: &'static str) -> Self {
        let world = World::new(name).await;
        let (edge, aggregator) = tokio::join!(world.edge(), world.aggregator());
        let mut oracle = Oracle::default();
        post(&edge, &mut oracle, 60).await;
        world.assert_counted(&oracle.counts()).await;
        Self { world, edge, aggregator }
    }

    async fn wait_for_finding(&self, words: &[&str]) {
        wait_for_finding(&self.world, &[], words).await;
    }

    async fn audit(&self) -> anyhow::Result<()> {
        audit(&self.world, &[]).await
    }
}

async fn audit(world: &World, more: &[&str]) -> anyhow::Result<()> {
    world.run("stream-agg", &[&["audit"], more].concat(), &[]).await
}

/// Runs audits until one fails with an error that contains all of `words`. Earlier audits may find fewer differences or
/// other ones: an audit compares only records that `progress` covers, and `progress` may not cover all records yet.
async fn wait_for_finding(world: &World, more: &[&str], words: &[&str]) {
    let mut seen = String::new();
    let waited = wait_for(format!("an audit with {words:?}"), DEADLINE, async || {
        seen = match audit(world, more).await {
            Ok(()) => "the audit found nothing".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        words.iter().all(|word| seen.contains(word))
    });
    if let Err(overdue) = waited.await {
        panic!("{overdue}; the last output is {seen}");
    }
}

/// Adds a row to `configs` as if the first rollups had been declared 60 days earlier. To the audit, the tables then
/// look older than their retention.
async fn make_tables_look_old(world: &World) {
    let age =
        "INSERT INTO configs SELECT cfg, rollups, declared, since - INTERVAL 60 DAY FROM configs LIMIT 1";
    world.rows(age).await;
}

/// Waits until `progress` shows that every table has all records of partition [`KP`] below the offset `next`.
async fn wait_for_progress(world: &World, next: u64) {
    let reached = format!("SELECT max(next_offset) FROM progress WHERE kp = {KP}");
    let what = format!("`progress` to cover partition {KP} below offset {next}");
    wait_for(what, DEADLINE, async || world.number(&reached).await >= next).await.unwrap();
}

/// The value of an SQL expression over the columns of `audits`, from the newest row with this `table` and `part`. The
/// column `part` says what of the table was audited.
async fn latest(world: &World, value: &str, table: &str, part: &str) -> Vec<String> {
    let sql =
        format!("SELECT argMax({value}, audited_at) FROM audits WHERE table = '{table}' AND part = '{part}'");
    world.rows(&sql).await.remove(0)
}

/// Runs audits until one finds `events` raw rows. No audit may find a difference.
async fn wait_for_clean_audit_of(world: &World, more: &[&str], events: u64) {
    let waited = wait_for(format!("an audit of {events} events"), DEADLINE, async || {
        audit(world, more).await.unwrap();
        latest(world, "found", "events", "all").await == [events.to_string()]
    });
    if let Err(overdue) = waited.await {
        panic!(
            "{overdue}; the last audit found {:?}",
            latest(world, "(found, expected, note)", "events", "all").await
        );
    }
}

/// Posts events, every fifth of them with a time in 2020 and the others with the current time, so that the tables have
/// several table partitions.
async fn post(edge: &Edge, oracle: &mut Oracle, count: usize) {
    let mut rng = fastrand::Rng::with_seed(70);
    let old = UnixMillis::parse("2020-12-01 23:59:00").unwrap();
    let at = |number: usize| if number.is_multiple_of(5) { old } else { now() };
    let lines: Vec<_> = (0..count).map(|number| Some(TestEvent::random(&mut rng, at(number)))).collect();
    let text: Vec<_> = lines.iter().flatten().map(TestEvent::line).collect();
    oracle.record_report(&edge.http.post_lines(&text).await, &lines);
}

#[tokio::test]
async fn an_audit_of_correct_tables_finds_nothing_at_rest_and_under_load() {
    let counted = Counted::new("audit_sound").await;
    counted.audit().await.unwrap();
    let mut oracle = Oracle::default();
    let load = async {
        for _ in 0..40 {
            post(&counted.edge, &mut oracle, 300).await;
        }
    };
    let audits = async {
        for _ in 0..8 {
            counted.audit().await.unwrap();
        }
    };
    tokio::join!(load, audits);
    let waited = wait_for("an audit that finds all events", DEADLINE, async || {
        counted.audit().await.unwrap();
        let latest = "SELECT argMax(found, audited_at) FROM audits WHERE part = 'all' AND table";
        let found = async |table: &str| counted.world.number(&format!("{latest} = '{table}'")).await;
        found("events").await == 60 + 40 * 300 && found("users_hourly").await == 60 + 40 * 300
    });
    waited.await.unwrap();
    assert_eq!(counted.world.number("SELECT sum(missing + duplicate) FROM audits").await, 0);
}

#[tokio::test]
async fn a_missing_raw_row_is_reported_once_and_only_in_its_table() {
    let counted = Counted::new("audit_raw").await;
    let take = "DELETE FROM events WHERE (kp, ko, line) = \
                (SELECT kp, ko, line FROM events WHERE tenant != '' ORDER BY kp, ko, line LIMIT 1)";
    counted.world.rows(take).await;
    counted
        .wait_for_finding(&["events, offsets 0-9999 of partition", "1 missing, 0 duplicate", "missing=1 "])
        .await;
}

#[tokio::test]
async fn a_duplicate_raw_row_is_found_even_if_another_row_is_missing() {
    let counted = Counted::new("audit_raw_twice").await;
    let rows = "SELECT kp, ko, line FROM events WHERE tenant != '' ORDER BY kp, ko, line LIMIT 2";
    let rows = counted.world.rows(rows).await;
    let is = |row: &[String]| format!("tenant != '' AND (kp, ko, line) = ({})", row.join(", "));
    counted.world.rows(&format!("INSERT INTO events SELECT * FROM events WHERE {}", is(&rows[0]))).await;
    counted
        .wait_for_finding(&["events, offsets 0-9999", "0 missing, 1 duplicate", "missing=0 duplicate=1 "])
        .await;
    counted.world.rows(&format!("DELETE FROM events WHERE {}", is(&rows[1]))).await;
    counted.wait_for_finding(&["missing=1 duplicate=1 "]).await;
}

#[tokio::test]
async fn a_ledger_row_whose_lines_do_not_add_up_is_found() {
    let counted = Counted::new("audit_balance").await;
    let row = "(kp, ko) = (SELECT kp, ko FROM ledger WHERE tenant = '*' ORDER BY kp, ko LIMIT 1)";
    for (change, found) in [("lines + 3", "3 missing, 0 duplicate"), ("lines - 5", "0 missing, 2 duplicate")]
    {
        let sql = format!(
            "ALTER TABLE ledger UPDATE lines = {change} WHERE tenant = '*' AND {row} SETTINGS mutations_sync = 1"
        );
        counted.world.rows(&sql).await;
        counted.wait_for_finding(&["ledger, offsets 0-9999 of partition", found]).await;
    }
}

#[tokio::test]
async fn after_some_days_have_expired_the_remaining_days_are_still_compared() {
    let counted = Counted::new("audit_old").await;
    make_tables_look_old(&counted.world).await;
    let compared =
        "SELECT count() FROM audits WHERE table = 'events' AND found = 60 AND note LIKE 'compared from % on'";
    let waited = wait_for("an audit of all rows below progress", DEADLINE, async || {
        counted.audit().await.unwrap();
        counted.world.number(compared).await > 0
    });
    waited.await.unwrap();
    counted
        .world
        .rows("DELETE FROM rollup_sums WHERE rollup = 'event_daily' AND toYear(bucket) = 2020")
        .await;
    counted.wait_for_finding(&["event_daily, events of 2020-12-01: 12 missing, 0 duplicate"]).await;
}

#[tokio::test]
async fn a_rollup_declared_late_passes_the_audit_before_and_after_its_backfill() {
    let mut counted = Counted::new("audit_late").await;
    counted.aggregator.terminate().await.unwrap();
    let world = &counted.world;
    let file = world.write("rollups.toml", &format!("{}{ADDED_ROLLUP_TOML}", Rollups::built_in()));
    let more = [("ROLLUPS_FILE", file.as_str())];
    world.migrate_with(&more).await;
    let mut aggregator = world.start("stream-agg", &more);
    aggregator.wait_ready().await.unwrap();
    let mut oracle = Oracle::default();
    post(&counted.edge, &mut oracle, 40).await;

    let latest = format!(
        "SELECT argMax(found, audited_at) FROM audits WHERE table = '{ADDED_ROLLUP}' AND part = 'all'"
    );
    for (filled, events) in [(false, 40), (true, 100)] {
        let waited = wait_for(format!("an audit of {events} events"), DEADLINE, async || {
            let ready = !filled || world.run("stream-agg", &["backfill", ADDED_ROLLUP], &more).await.is_ok();
            world.run("stream-agg", &["audit"], &more).await.unwrap();
            ready && world.number(&latest).await == events
        });
        waited.await.unwrap();
    }
    world
        .rows(&format!(
            "INSERT INTO rollup_sums SELECT * FROM rollup_sums WHERE rollup = '{ADDED_ROLLUP}' AND tenant != ''"
        ))
        .await;
    let error = world.run("stream-agg", &["audit"], &more).await.unwrap_err();
    assert!(format!("{error:#}").contains("missing=0 duplicate=100"), "{error:#}");
}

/// A rollup of the events in which the field `a.b` has certain values. A line can have this field as `{"a.b": …}`, as
/// `{"a": {"b": …}}`, or in both forms.
const OF_A_FIELD: &str = r#"
[[rollup]]
name = "of_a_field"
grain = "day"
dimensions = ["event"]
where = { "props.a.b" = ["it's", "true"] }
measures = { events = "count" }
"#;

#[tokio::test]
async fn a_rollup_whose_where_reads_props_is_audited_too() {
    let world = World::new("audit_props").await;
    let file = world.write("rollups.toml", &format!("{}{OF_A_FIELD}", Rollups::built_in()));
    let more = [("ROLLUPS_FILE", file.as_str())];
    world.migrate_with(&more).await;
    let edge = world.edge().await;
    let mut aggregator = world.start("stream-agg", &more);
    aggregator.wait_ready().await.unwrap();
    let lines = [
        r#"{"event":"e","a":{"b":"it's"}}"#,
        r#"{"event":"e","a.b":"it's","a":{"b":"other"}}"#,
        r#"{"event":"e","a":{"b":true}}"#,
        r#"{"event":"e","a.b":{"c":1},"a":{"b":"it's"}}"#,
        r#"{"event":"e","a.b":"other","a":{"b":"it's"}}"#,
        r#"{"event":"e","a":{"b":"true "}}"#,
        r#"{"event":"e","a":"it's"}"#,
        r#"{"event":"e"}"#,
    ];
    assert_eq!(edge.http.post_lines(&lines.map(str::to_owned)).await.status, 200);
    let found = "SELECT argMax(found, audited_at) FROM audits WHERE table = 'of_a_field' AND part = 'all'";
    let waited = wait_for("an audit of the events with the field", DEADLINE, async || {
        world.run("stream-agg", &["audit"], &more).await.unwrap();
        world.number(found).await == 4
    });
    waited.await.unwrap();
    let again = "INSERT INTO rollup_sums SELECT * FROM rollup_sums WHERE rollup = 'of_a_field'";
    world.rows(again).await;
    let error = world.run("stream-agg", &["audit"], &more).await.unwrap_err();
    assert!(format!("{error:#}").contains("missing=0 duplicate=4"), "{error:#}");
}

#[tokio::test]
async fn a_duplicate_ledger_row_is_found() {
    let counted = Counted::new("audit_ledger").await;
    let again = "INSERT INTO ledger SELECT * FROM ledger WHERE tenant != '' ORDER BY kp, ko LIMIT 1";
    counted.world.rows(again).await;
    counted.wait_for_finding(&["ledger, offsets 0-9999 of partition", "0 missing, 1 duplicate"]).await;
}

#[tokio::test]
async fn duplicate_rows_of_a_rollup_are_found_and_recorded_in_the_table_audits() {
    let counted = Counted::new("audit_rollup").await;
    let again = "INSERT INTO rollup_sums SELECT * FROM rollup_sums WHERE rollup = 'event_hourly' AND toYear(bucket) = 2020";
    counted.world.rows(again).await;
    counted.wait_for_finding(&["event_hourly, events of 2020-12-01", "0 missing, 12 duplicate"]).await;
    let kept =
        "SELECT max(duplicate) FROM audits WHERE table = 'event_hourly' AND part = 'events of 2020-12-01'";
    assert_eq!(counted.world.number(kept).await, 12);
}

#[tokio::test]
async fn the_aggregator_audits_periodically_and_shows_missing_rows_in_its_metrics() {
    let world = World::new("audit_self").await;
    let edge = world.edge().await;
    let mut aggregator = world.start("stream-agg", &[("AUDIT_INTERVAL", "300ms")]);
    aggregator.wait_ready().await.unwrap();
    let mut oracle = Oracle::default();
    post(&edge, &mut oracle, 60).await;
    world.assert_counted(&oracle.counts()).await;
    let admin = Http::new(aggregator.admin());
    let shown = async |name: &str| admin.metric(&format!("stream_agg_{name}")).await.unwrap();
    let first = async || shown("last_audit_timestamp_seconds").await > 0;
    wait_for("an audit", DEADLINE, first).await.unwrap();
    assert_eq!((shown("audit_missing").await, shown("audit_duplicate").await), (0, 0));

    world.rows("DELETE FROM rollup_states WHERE rollup = 'users_daily' AND toYear(bucket) = 2020").await;
    let missing = async || shown("audit_missing").await == 12;
    wait_for("the metric to show the missing events", DEADLINE, missing).await.unwrap();
    assert_eq!(shown("audit_duplicate").await, 0);
}
