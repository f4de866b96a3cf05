//! The views of `bi` for analysts, with any rollups, read by users with no other rights.

use std::path::Path;
use std::process::Command;

use devstack::clickhouse::{BI_JDBC, BI_READER};
use devstack::{python, wait_for};
use runtime::vars::Vars;
use schemas::bi;
use schemas::rollup::Rollups;
use schemas::time::HOUR;
use serde_json::{Value, json};

use crate::oracle::{Oracle, TestEvent, now};
use crate::world::{DEADLINE, World};

/// Rollups with names that are keywords of SQL.
const DECLARED: &str = r#"
[[rollup]]
name = "plans"
grain = "15m"
dimensions = ["props.plan", "props.from", "props.t", "props.a.b"]

[rollup.measures]
plans = "count"
order = "sum(param_int)"
least = "min(param_int)"
group = "uniq_exact(device_id)"

[[rollup]]
name = "total"
grain = "none"
dimensions = []
measures = { sequences = "sum(sequence)" }
"#;

/// The built-in rollups and [`DECLARED`]: the text of their file, and the parsed rollups.
fn declared() -> (String, Rollups) {
    let text = format!("{}{DECLARED}", include_str!("../../../../schemas/rollups.toml"));
    let rollups = Rollups::parse("declared", &text).unwrap();
    (text, rollups)
}

#[tokio::test]
async fn analysts_read_every_view_and_nothing_else() {
    let (text, rollups) = declared();
    let (_stack, world) = World::on_own_servers_declaring("analysts", &rollups).await;
    let file = world.write("rollups.toml", &text);
    let declared = [("ROLLUPS_FILE", file.as_str())];
    // As if the file was edited after the first start: `migrate` adds the new rollups.
    world.migrate_with(&declared).await;
    let edge = world.edge().await;
    let _aggregator = world.start("stream-agg", &declared);
    let mut rng = fastrand::Rng::with_seed(8);
    let mut oracle = Oracle::default();
    let (mut events, mut value, votes) = (0_u64, 0_i64, 12_u64);

    for at in 0..20_u64 {
        let mut lines: Vec<_> = (0..30).map(|_| TestEvent::random(&mut rng, now().floor(HOUR))).collect();
        if at < votes {
            lines[0].event = "vote".to_owned();
        }
        let text: Vec<_> = lines.iter().map(line_with_props).collect();
        let lines: Vec<_> = lines.into_iter().map(Some).collect();
        oracle.record_report(&edge.http.post_lines(&text).await, &lines);
        events += lines.len() as u64;
        value += lines.iter().flatten().map(|made| made.value).sum::<i64>();
    }
    edge.http.post_lines(&[r#"{"event":7}"#.to_owned()]).await;
    let rejected = async || world.number("SELECT count() FROM dead_letters WHERE tenant != ''").await == 1;
    wait_for("the rejected line", DEADLINE, rejected).await.unwrap();
    world.assert_counted(&oracle.counts()).await;

    let expected = json!({
        "event_minutely": {"sum(events)": events},
        "event_hourly": {"sum(events)": events, "sum(value)": value},
        "event_daily": {"sum(events)": events},
        "users_hourly": {"min(users) > 0": true},
        "users_daily": {"min(users) > 0": true},
        "users_all_daily": {"min(users) > 0": true},
        "sessions_daily": {"min(sessions) > 0": true},
        "poll_votes": {"sum(votes)": votes, "groupUniqArray(concat(poll, ' ', option))": ["lunch soup"]},
        "plans": {"sum(plans)": events, "sum(order)": value, "groupUniqArray(plan)": ["pro"],
                  "groupUniqArray(from)": ["here"], "groupUniqArray(t)": ["7"],
                  "groupUniqArray(a_b)": ["deep"]},
        "total": {"sum(sequences)": events},
        "events_recent": {"count()": events, "sum(param_int)": value},
        "rejected_lines": {"any([code, field, line])": ["bad_type", "event", r#"{"event":7}"#]},
    });
    read_with_python(&world, &expected).await;
}

/// The line of an event, with fields that go to `props`.
fn line_with_props(made: &TestEvent) -> String {
    let mut line: Value = serde_json::from_str(&made.line()).unwrap();
    let props =
        json!({"plan": "pro", "from": "here", "t": 7, "a": {"b": "deep"}, "poll": "lunch", "option": "soup"});
    line.as_object_mut().unwrap().extend(props.as_object().unwrap().clone());
    line.to_string()
}

/// Runs `e2e/bi` against the views of `world`.
async fn read_with_python(world: &World, expected: &Value) {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("bi");
    let python = python::find(&Vars::from_env()).unwrap();
    let output = Command::new(&python)
        .args(["-m", "pytest", "-q", "-p", "no:cacheprovider"])
        .arg(tests)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("BI_READER_DSN", world.bi_dsn(BI_READER))
        .env("BI_JDBC_DSN", world.bi_dsn(BI_JDBC))
        .env("TABLES", world.name())
        .env("DEFINER", bi::DEFINER)
        .env("EXPECTED", expected.to_string())
        .output()
        .unwrap_or_else(|error| panic!("start {}: {error}", python.display()));
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    assert!(printed.contains(" passed") && !printed.contains("skipped"), "{printed}");
}

#[tokio::test]
async fn a_filter_on_a_view_reaches_the_key_of_its_table() {
    let world = World::new("analysts_key").await;
    let (text, rollups) = declared();
    let file = world.write("rollups.toml", &text);
    world.migrate_with(&[("ROLLUPS_FILE", &file)]).await;

    // All rows in one table partition, so that partition pruning alone cannot separate them.
    let today = &now().to_string()[..10];
    for rollup in rollups.iter() {
        let (name, table) = (&rollup.name, rollup.table().name());
        let Some(time) = bi::time_column(rollup.grain) else {
            let rows = ["a", "b"].map(|tenant| format!("'{tenant}', '{name}', '2149-06-06'"));
            insert_parts(&world, table, "tenant, rollup, expires", &rows).await;
            assert_reads_one_part(&world, name, "tenant = 'a'").await;
            continue;
        };
        let row = |(tenant, hour): (&str, &str)| {
            format!("'{tenant}', '{name}', '2149-06-06', '{today} {hour}:00:00'")
        };
        let rows = [("a", "00"), ("a", "12"), ("b", "12")].map(row);
        insert_parts(&world, table, "tenant, rollup, expires, bucket", &rows).await;
        assert_reads_one_part(&world, name, &format!("tenant = 'a' AND {time} >= '{today} 06:00:00'")).await;
    }
    let row = |(tenant, hour): (&str, &str)| format!("'{tenant}', '{today} {hour}:30:00', now()");
    let rows = [("a", "00"), ("a", "12"), ("b", "12")].map(row);
    insert_parts(&world, "events", "tenant, client_time, server_time", &rows).await;
    let filter = format!("tenant = 'a' AND client_time >= '{today} 06:00:00'");
    assert_reads_one_part(&world, bi::EVENTS_RECENT, &filter).await;
}

/// Inserts each row into its own part, and stops merges of the table.
async fn insert_parts(world: &World, table: &str, columns: &str, rows: &[String]) {
    world.rows(&format!("SYSTEM STOP MERGES {}.{table}", world.name())).await;
    for row in rows {
        world.rows(&format!("INSERT INTO {table} ({columns}) VALUES ({row})")).await;
    }
}

/// Checks that a query with this filter on `view` reads one part of its table, by the index.
async fn assert_reads_one_part(world: &World, view: &str, filter: &str) {
    let sql = format!("EXPLAIN ESTIMATE SELECT * FROM {}.{view} WHERE {filter}", world.bi_database());
    let read = world.rows(&sql).await;
    // Database, table, parts, rows, marks.
    assert_eq!(read.iter().map(|row| row[2].as_str()).collect::<Vec<_>>(), ["1"], "{sql}: {read:?}");
}
