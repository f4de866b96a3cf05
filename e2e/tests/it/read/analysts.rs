//! The views of `bi`, which analysts read: they show built-in and declared rollups. ClickHouse's users for analysts can
//! read these views and have no other rights.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use devstack::clickhouse::{BI_JDBC, BI_READER};
use devstack::{
    Service, Stack, bi_clients_node_modules, bi_clients_python, bi_superset_python, jdbc_jars, python,
    wait_for,
};
use runtime::vars::Vars;
use schemas::bi;
use schemas::rollup::Rollups;
use serde_json::{Value, json};

use crate::oracle::{Oracle, TestEvent, now};
use crate::world::{DEADLINE, Edge, World};

/// Rollups with measures and dimensions, some of which are named like keywords of SQL: `order`, `group`, `from`.
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
    let filled = Filled::new("analysts").await;
    let jars = jdbc_jars().unwrap();
    filled.read_with(&python::find(&Vars::from_env()).unwrap(), "bi", &[("JDBC", jars.as_os_str())]);
}

/// Uses the clients for Python, Go and JavaScript that `docs/bi.md` names. Other tests use the JDBC driver and
/// Superset.
#[tokio::test]
#[ignore = "takes minutes and needs 1 GB of packages: ./dev test --full"]
async fn the_clients_of_all_languages_read_the_views() {
    let filled = Filled::new("analysts_clients").await;
    let native = format!("127.0.0.1:{}", filled.stack.clickhouse.native_port().unwrap());
    let (packages, support) = (bi_clients_node_modules().unwrap(), tests_folder("bi"));
    let variables = [
        ("BI_NATIVE", OsStr::new(&native)),
        ("CLICKHOUSE", OsStr::new(filled.stack.clickhouse.url())),
        ("BI_NODE_MODULES", packages.as_os_str()),
        ("PYTHONPATH", support.as_os_str()),
    ];
    filled.read_with(&bi_clients_python().unwrap(), "bi_clients", &variables);
}

#[tokio::test]
#[ignore = "takes minutes and needs 1 GB of packages: ./dev test --full"]
async fn superset_reads_the_views_into_datasets_and_charts() {
    let filled = Filled::new("analysts_superset").await;
    let support = tests_folder("bi");
    filled.read_with(&bi_superset_python().unwrap(), "bi_superset", &[("PYTHONPATH", support.as_os_str())]);
}

/// A world whose views hold known events.
struct Filled {
    stack: Stack,
    world: World,
    /// The expected contents of the views: view → SQL expression over all rows of the view → value.
    expected: Value,
    _edge: Edge,
    _aggregator: Service,
}

impl Filled {
    async fn new(name: &'static str) -> Self {
        let (text, rollups) = declared();
        let (stack, world) = World::on_own_servers_declaring(name, &rollups).await;
        let file = world.write("rollups.toml", &text);
        let declared = [("ROLLUPS_FILE", file.as_str())];
        // The first `migrate` of the world created views of the built-in rollups only. This `migrate` adds the rollups
        // of [`DECLARED`], as after an edit of `ROLLUPS_FILE`.
        world.migrate_with(&declared).await;
        let edge = world.edge().await;
        let aggregator = world.start("stream-agg", &declared);
        let mut rng = fastrand::Rng::with_seed(8);
        let mut oracle = Oracle::default();
        let (mut events, mut value, votes) = (0_u64, 0_i64, 12_u64);

        for at in 0..20_u64 {
            // The events have the current time. Some panels of the Grafana dashboard show the last hour, and events at
            // the start of the current hour could be too old for them.
            let mut lines: Vec<_> = (0..30).map(|_| TestEvent::random(&mut rng, now())).collect();
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
        let rejected =
            async || world.number("SELECT count() FROM dead_letters WHERE tenant != ''").await == 1;
        wait_for("the rejected line", DEADLINE, rejected).await.unwrap();
        world.assert_counted(&oracle.counts()).await;
        let dead = "INSERT INTO dead_letters (tenant, reason, kp, ko, line, text, kafka_time) \
                    VALUES ('default', 'bad_json', 3, 7, 1, '{', now64(3))";
        world.rows(dead).await;
        let totals = format!("SELECT count() FROM {}.country_totals", world.bi_database());
        wait_for("a refresh of the totals", DEADLINE, async || world.number(&totals).await > 0)
            .await
            .unwrap();

        let expected = json!({
            "freshness": {"count()": 1, "max(as_of) > now64(3) - 300": true},
            "users_weekly": {"min(users) > 0": true},
            "users_monthly": {"min(users) > 0": true},
            "users_all_weekly": {"min(users) > 0": true},
            "users_all_monthly": {"min(users) > 0": true},
            "country_totals": {"min(events) > 0 AND min(country) > ''": true},
            "dead_letters": {"any([reason, text, toString(kafka_partition), toString(kafka_offset)])":
                             ["bad_json", "{", "3", "7"]},
            "pipeline_health": {"sum(stored)": events, "sum(lines) - sum(rejected) - sum(duplicates)": events},
            "event_minutely": {"sum(events)": events},
            "event_hourly": {"sum(events)": events, "sum(value)": value},
            "event_daily": {"sum(events)": events},
            "users_hourly": {"min(users) > 0": true},
            "users_daily": {"min(users) > 0": true},
            "users_all_daily": {"min(users) > 0": true},
            "sessions_daily": {"min(sessions) > 0": true},
            "polls": {"sum(votes)": votes, "groupUniqArray(concat(poll, ' ', option))": ["lunch soup"]},
            "plans": {"sum(plans)": events, "sum(order)": value, "groupUniqArray(plan)": ["pro"],
                      "groupUniqArray(from)": ["here"], "groupUniqArray(t)": ["7"],
                      "groupUniqArray(a_b)": ["deep"]},
            "total": {"sum(sequences)": events},
            "events_recent": {"count()": events, "sum(param_int)": value},
            "rejected_lines": {"any([code, field, line])": ["bad_type", "event", r#"{"event":7}"#]},
        });
        Self { stack, world, expected, _edge: edge, _aggregator: aggregator }
    }

    /// Runs the Python tests in a folder against the views. All must pass, and none may be skipped.
    fn read_with(&self, python: &Path, folder: &str, more: &[(&str, &OsStr)]) {
        let world = &self.world;
        let output = Command::new(python)
            .args(["-m", "pytest", "-q", "-p", "no:cacheprovider"])
            .arg(tests_folder(folder))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("BI_READER_DSN", world.bi_dsn(BI_READER))
            .env("BI_JDBC_DSN", world.bi_dsn(BI_JDBC))
            .env("TABLES", world.name())
            .env("DEFINERS", format!("{},{}", bi::Definers::DEFAULT.views, bi::Definers::DEFAULT.freshness))
            .env("EXPECTED", self.expected.to_string())
            .env("PAGES", tests_folder("../docs"))
            .env("GOLDEN", tests_folder("../schemas/golden/bi-columns.txt"))
            .envs(more.iter().copied())
            .output()
            .unwrap_or_else(|error| panic!("start {}: {error}", python.display()));
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
        assert!(printed.contains(" passed") && !printed.contains("skipped"), "{printed}");
    }
}

/// The path of `name`, which is relative to the folder of this crate.
fn tests_folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The line of an event, with additional fields that are stored in `props`.
fn line_with_props(made: &TestEvent) -> String {
    let mut line: Value = serde_json::from_str(&made.line()).unwrap();
    let props =
        json!({"plan": "pro", "from": "here", "t": 7, "a": {"b": "deep"}, "poll": "lunch", "option": "soup"});
    line.as_object_mut().unwrap().extend(props.as_object().unwrap().clone());
    line.to_string()
}

/// Inserts a row into `progress` for partition `kp` of a topic with `partitions` partitions. The row says that
/// everything that the partition had before `as_of` is counted.
async fn insert_progress(world: &World, kp: u16, partitions: u16, as_of: &str) {
    let row = format!("({kp}, {partitions}, '{as_of}')");
    world.rows(&format!("INSERT INTO progress (kp, partitions, as_of) VALUES {row}")).await;
}

#[tokio::test]
async fn a_bucket_is_complete_once_everything_before_its_end_is_counted() {
    let world = World::new("analysts_complete").await;
    let bi = world.bi_database();
    let row =
        |(rollup, bucket): (&str, &str)| format!("('default', '{rollup}', '{bucket}', '2149-06-06', 1)");
    let insert = async |table: &str, rows: &[(&str, &str)]| {
        let rows: Vec<_> = rows.iter().copied().map(row).collect();
        let columns = "tenant, rollup, bucket, expires, rows";
        world.rows(&format!("INSERT INTO {table} ({columns}) VALUES {}", rows.join(", "))).await;
    };
    let sums = [
        ("event_hourly", "2026-05-31 22:00:00"),
        ("event_hourly", "2026-05-31 23:00:00"),
        ("event_daily", "2026-05-30 00:00:00"),
        ("event_daily", "2026-05-31 00:00:00"),
    ];
    let days =
        ["2026-05-24 00:00:00", "2026-05-31 00:00:00", "2026-06-01 00:00:00"].map(|day| ("users_daily", day));
    insert("rollup_sums", &sums).await;
    insert("rollup_states", &days).await;
    let complete = async |view: &str, time: &str| {
        let sql = format!("SELECT {time}, complete FROM {bi}.{view} ORDER BY {time}");
        world.rows(&sql).await.iter().map(|row| row.join(" ")).collect::<Vec<_>>()
    };

    insert_progress(&world, 0, 2, "2026-06-02 00:00:00").await;
    assert_eq!(world.rows(&format!("SELECT as_of FROM {bi}.freshness")).await, [["1970-01-01 00:00:00.000"]]);
    assert_eq!(
        complete("event_daily", "day").await,
        ["2026-05-30 0", "2026-05-31 0"],
        "a day is complete although `progress` has no row of partition 1"
    );

    insert_progress(&world, 1, 2, "2026-05-31 23:59:59.999").await;
    let hours = ["2026-05-31 22:00:00 1", "2026-05-31 23:00:00 0"];
    assert_eq!(complete("event_hourly", "hour").await, hours);
    assert_eq!(complete("event_daily", "day").await, ["2026-05-30 1", "2026-05-31 0"]);
    let weeks = ["2026-05-18 1", "2026-05-25 0", "2026-06-01 0"];
    assert_eq!(complete("users_weekly", "week").await, weeks);
    assert_eq!(complete("users_monthly", "month").await, ["2026-05-01 0", "2026-06-01 0"]);

    insert_progress(&world, 1, 2, "2026-06-01 00:00:00").await;
    assert_eq!(complete("event_hourly", "hour").await, ["2026-05-31 22:00:00 1", "2026-05-31 23:00:00 1"]);
    assert_eq!(complete("event_daily", "day").await, ["2026-05-30 1", "2026-05-31 1"]);
    let weeks = ["2026-05-18 1", "2026-05-25 1", "2026-06-01 0"];
    assert_eq!(complete("users_weekly", "week").await, weeks);
    assert_eq!(complete("users_monthly", "month").await, ["2026-05-01 1", "2026-06-01 0"]);
}

#[tokio::test]
async fn a_user_of_several_days_counts_once_in_their_week_and_month() {
    let world = World::new("analysts_weeks").await;
    // A Sunday, the first and the last day of the following week, and the first day of the next month.
    let days =
        [("2026-05-24", "[1, 2]"), ("2026-05-25", "[2, 3]"), ("2026-05-31", "[3, 4]"), ("2026-06-01", "[4]")];
    for (day, users) in days {
        let state = format!("arrayReduce('uniqExactState', CAST({users}, 'Array(UInt64)'))");
        let columns = "tenant, rollup, bucket, dim1, expires, rows, uniq1";
        let row = format!("'default', 'users_daily', '{day} 00:00:00', 'click', '2149-06-06', 2, {state}");
        world.rows(&format!("INSERT INTO rollup_states ({columns}) SELECT {row}")).await;
    }
    let bi = world.bi_database();
    let weeks = format!("SELECT week, users FROM {bi}.users_weekly WHERE event = 'click' ORDER BY week");
    assert_eq!(world.rows(&weeks).await, [["2026-05-18", "2"], ["2026-05-25", "3"], ["2026-06-01", "1"]]);
    let months = format!("SELECT month, users FROM {bi}.users_monthly ORDER BY month");
    assert_eq!(world.rows(&months).await, [["2026-05-01", "4"], ["2026-06-01", "1"]]);
}

#[tokio::test]
async fn migrate_drops_only_its_own_views_of_rollups_that_are_no_longer_declared() {
    let world = World::new("analysts_dropped").await;
    let bi = world.bi_database();
    let (text, _) = declared();
    let file = world.write("rollups.toml", &text);
    let views = async || -> BTreeSet<String> {
        let sql = format!("SELECT name FROM system.tables WHERE database = '{bi}'");
        world.rows(&sql).await.concat().into_iter().collect()
    };
    let before = views().await;
    world.rows(&format!("CREATE VIEW {bi}.theirs AS SELECT 1 AS one")).await;
    world.rows(&format!("CREATE VIEW {bi}.other AS SELECT * FROM {bi}.event_daily")).await;
    world.migrate_with(&[("ROLLUPS_FILE", &file)]).await;
    let mut own: BTreeSet<_> = views().await.difference(&before).cloned().collect();
    let theirs = ["other", "theirs"].map(str::to_owned).into();
    assert_eq!(own, ["other", "plans", "theirs", "total"].map(str::to_owned).into());

    world.migrate().await;
    own = views().await.difference(&before).cloned().collect();
    assert_eq!(own, theirs);
    // Now a user creates a view with the name of a view that `migrate` has dropped.
    world.rows(&format!("CREATE VIEW {bi}.plans AS SELECT 1 AS one")).await;
    world.migrate().await;
    assert!(views().await.contains("plans"), "`migrate` dropped a view that it did not create");
    assert!(views().await.is_superset(&before));
}

#[tokio::test]
async fn a_view_can_be_read_while_migrate_replaces_it() {
    let world = World::new("analysts_replaced").await;
    let bi = world.bi_database();
    let replaced = async {
        for _ in 0..4 {
            world.migrate().await;
        }
    };
    tokio::pin!(replaced);
    let query = format!("SELECT count() FROM {bi}.users_weekly WHERE complete = 1");
    let mut read = 0_u32;
    loop {
        tokio::select! {
            biased;
            () = &mut replaced => break,
            rows = world.rows(&query) => {
                assert_eq!(rows, [["0"]]);
                read += 1;
            }
        }
    }
    assert!(read > 20, "only {read} queries while views were replaced");
}

/// The time column of a view, and texts for filters on it.
struct TimeColumn {
    name: &'static str,
    /// The time that each filter must find, as text and in seconds since 1970. For a bucket, its start.
    start: String,
    seconds: u64,
    /// A time before `start`, and a time after everything that the filters must find.
    from: String,
    to: String,
    is_date: bool,
}

impl TimeColumn {
    /// A column of times: of buckets of an hour or less, or of events. The filters must find noon of today.
    async fn at_noon(world: &World, name: &'static str) -> Self {
        Self::of(world, name, "toStartOfDay(now('UTC')) + INTERVAL 12 HOUR", false).await
    }

    /// A column of dates, for buckets of a day or more. The filters must find the bucket that contains today. `start`
    /// is ClickHouse's function for the start of such a bucket.
    async fn of_today(world: &World, name: &'static str, start: &str) -> Self {
        Self::of(world, name, &format!("{start}(toDate(now('UTC')))"), true).await
    }

    async fn of(world: &World, name: &'static str, start: &str, is_date: bool) -> Self {
        let text = |sql: String| async move { world.rows(&format!("SELECT {sql}")).await.concat().concat() };
        Self {
            name,
            start: text(format!("toString({start})")).await,
            seconds: world.number(&format!("SELECT toUnixTimestamp(toDateTime({start}, 'UTC'))")).await,
            from: text(format!("toString({start} - {})", if is_date { 1 } else { 7_200 })).await,
            to: text(format!("toString({start} + {})", if is_date { 1 } else { 7_200 })).await,
            is_date,
        }
    }

    /// Filters on the column, in this order: ranges and equality as people write them, what Grafana's macros expand to,
    /// and ranges as Superset writes them.
    fn filters(&self) -> Vec<String> {
        let Self { name: c, start, from, to, seconds, is_date } = self;
        let (day, until) = (&start[..10], seconds + 3_600);
        let mut filters = vec![
            format!("{c} > '{from}'"),
            format!("{c} = '{start}'"),
            format!("{c} IN ('{start}', '{to}')"),
            format!("{c} BETWEEN '{start}' AND '{to}'"),
            format!("toDate({c}) = '{day}'"),
            format!("toStartOfDay({c}) >= toDateTime('{day} 00:00:00')"),
            format!("{c} >= toDateTime({seconds}) AND {c} <= toDateTime({until})"),
            format!(
                "{c} >= fromUnixTimestamp64Milli({seconds}000) AND {c} <= fromUnixTimestamp64Milli({until}000)"
            ),
            format!("{c} >= toDateTime('{day} 00:00:00') AND {c} < toDateTime('{day} 23:00:00')"),
        ];
        if *is_date {
            filters.push(format!("{c} >= toDate('{day}') AND {c} <= toDate('{to}')"));
        }
        filters
    }
}

/// Queries that read `view` with `filter`: first one as a person writes it, then forms in which tools put such a query
/// into a subquery or a `WITH` clause.
fn wrapped(view: &str, filter: &str) -> [String; 5] {
    [
        format!("SELECT * FROM {view} WHERE {filter}"),
        format!("SELECT * FROM (SELECT * FROM {view} WHERE {filter}) AS t LIMIT 50"),
        format!("SELECT * FROM (SELECT * FROM {view}) AS t WHERE {filter} LIMIT 50"),
        // Superset queries a virtual dataset in this form.
        format!(
            "SELECT tenant AS tenant, count(*) AS `COUNT(*)` FROM (SELECT * FROM {view}) AS `virtual_table` \
             WHERE ({filter}) GROUP BY tenant ORDER BY `COUNT(*)` DESC LIMIT 1000"
        ),
        format!("WITH asked AS (SELECT * FROM {view}) SELECT count() FROM asked WHERE {filter}"),
    ]
}

/// Reads views that have a definer (`SQL SECURITY DEFINER`): future versions of ClickHouse may not push filters down
/// into such views (ClickHouse's pull request 112847). In that case, this test fails.
#[tokio::test]
async fn a_filter_on_a_view_uses_the_primary_key_of_its_table() {
    let (text, rollups) = declared();
    let (_stack, world) = World::on_own_servers_declaring("analysts_key", &rollups).await;
    let file = world.write("rollups.toml", &text);
    world.migrate_with(&[("ROLLUPS_FILE", &file)]).await;

    // All rows are in one table partition, so partition pruning alone cannot reduce the parts that are read.
    for rollup in rollups.iter() {
        let (name, table) = (&rollup.name, rollup.table().name());
        let Some(time) = bi::time_column(rollup.grain) else {
            let rows = ["a", "b"].map(|tenant| format!("'{tenant}', '{name}', '2149-06-06'"));
            insert_parts(&world, table, "tenant, rollup, expires", &rows).await;
            assert_reads_one_part(&world, bi::view_name(rollup), "tenant = 'a'").await;
            continue;
        };
        let column = if time == "day" {
            TimeColumn::of_today(&world, time, "toDate").await
        } else {
            TimeColumn::at_noon(&world, time).await
        };
        // The age of the earlier row in days. 60 days ago is always in an earlier month. The view of a rollup with a
        // retention would not show a row of this age, because the retention is shorter than 60 days.
        let earlier = if rollup.retention_days.is_some() { 3 } else { 60 };
        let row = |(tenant, days): (&str, u32)| {
            format!(
                "'{tenant}', '{name}', '2149-06-06', toDateTime({}, 'UTC') - INTERVAL {days} DAY",
                column.seconds
            )
        };
        let rows = [("a", earlier), ("a", 0), ("b", 0)].map(row);
        insert_parts(&world, table, "tenant, rollup, expires, bucket", &rows).await;
        assert_filters_read_one_part(&world, name, &column).await;
        let week = TimeColumn::of_today(&world, "week", "toMonday").await;
        let month = TimeColumn::of_today(&world, "month", "toStartOfMonth").await;
        if let "users_daily" | "users_all_daily" = name.as_str() {
            assert_filters_read_one_part(&world, &name.replace("daily", "weekly"), &week).await;
            assert_filters_read_one_part(&world, &name.replace("daily", "monthly"), &month).await;
        }
    }
    let column = TimeColumn::at_noon(&world, "client_time").await;
    let row = |(tenant, days): (&str, u32)| {
        format!("'{tenant}', toDateTime({}, 'UTC') - INTERVAL {days} DAY, now()", column.seconds)
    };
    let rows = [("a", 1), ("a", 0), ("b", 0)].map(row);
    insert_parts(&world, "events", "tenant, client_time, server_time", &rows).await;
    assert_filters_read_one_part(&world, bi::EVENTS_RECENT, &column).await;
}

#[tokio::test]
async fn a_filter_on_the_time_of_arrival_prunes_table_partitions() {
    let world = World::new("analysts_arrival").await;
    let column = TimeColumn::at_noon(&world, "server_time").await;
    let row = |days: u32| format!("'a', now(), toDateTime({}, 'UTC') - INTERVAL {days} DAY", column.seconds);
    insert_parts(&world, "events", "tenant, client_time, server_time", &[3, 2, 1, 0].map(row)).await;
    for filter in column.filters() {
        assert_reads_one_part(&world, bi::EVENTS_RECENT, &filter).await;
    }
}

/// Inserts each row as a part of its own. Stops merges of the table first, so that the parts stay separate.
async fn insert_parts(world: &World, table: &str, columns: &str, rows: &[String]) {
    world.rows(&format!("SYSTEM STOP MERGES {}.{table}", world.name())).await;
    for row in rows {
        world.rows(&format!("INSERT INTO {table} ({columns}) SELECT {row}")).await;
    }
}

async fn assert_filters_read_one_part(world: &World, view: &str, column: &TimeColumn) {
    for filter in column.filters() {
        assert_reads_one_part(world, view, &format!("tenant = 'a' AND {filter}")).await;
        assert_reads_one_part(world, view, &format!("{filter} AND tenant IN ('a')")).await;
    }
}

/// Checks that ClickHouse reads only one part of the table for queries with this filter on `view`.
async fn assert_reads_one_part(world: &World, view: &str, filter: &str) {
    for query in wrapped(&format!("{}.{view}", world.bi_database()), filter) {
        let read = world.rows(&format!("EXPLAIN ESTIMATE {query}")).await;
        // The columns are database, table, parts, rows and marks.
        assert_eq!(read.iter().map(|row| row[2].as_str()).collect::<Vec<_>>(), ["1"], "{query}: {read:?}");
    }
}
