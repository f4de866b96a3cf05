//! Twelve queries of typical dashboards. They are sent to ClickHouse as the analysts' user [`BI_READER`], and read the
//! analysts' views of a week of rich events.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use devstack::clickhouse::{BI_READER, LOCAL_PASSWORD};
use devstack::{ClickHouse, Stack};
use reqwest::{Client, Url};
use schemas::access::{self, Tenants};
use schemas::bi::{Databases, Definers};
use schemas::rollup::Rollups;
use schemas::time::{DAY, MINUTE};
use tokio::time::{self, MissedTickBehavior};

use super::stored;
use crate::input::{Work, records};
use crate::plan::Plan;
use crate::progress;
use crate::report::goals::Bound::AtMost;
use crate::report::goals::Goal;
use crate::report::table::{Repeat, Row, Unit};
use crate::servers::World;

/// The databases of this measurement.
const DATABASES: Databases<'static> = Databases { tables: "bench_dashboards", views: "bi_dashboards" };

/// The declaration of a field that one of the queries reads.
const FIELD: &str = "\n[[field]]\nname = \"plan\"\npath = \"plan\"\ntype = \"string\"\n";

/// Number of times that each query is sent in one repeat.
const SENDS_PER_REPEAT: usize = 20;
/// Shortest time from the start of one repeat to the start of the next one. The analysts' user may send 600 queries a
/// minute, and a repeat sends 240.
const REPEAT_EVERY: Duration = Duration::from_secs(30);
/// The goal for a query that reads a rollup: its median latency should not exceed this number of milliseconds.
const MAX_ROLLUP_QUERY_MS: f64 = 50.0;

/// A panel of a dashboard, with its query.
struct Panel {
    name: &'static str,
    sql: &'static str,
    /// Whether the query reads a rollup instead of single events.
    reads_rollup: bool,
}

const fn of_rollup(name: &'static str, sql: &'static str) -> Panel {
    Panel { name, sql, reads_rollup: true }
}

const fn of_events(name: &'static str, sql: &'static str) -> Panel {
    Panel { name, sql, reads_rollup: false }
}

const PANELS: [Panel; 12] = [
    of_rollup(
        "7 days by event",
        "SELECT event, sum(events) AS n FROM event_daily WHERE tenant = 'default' AND day >= today() - 7 GROUP BY event \
         ORDER BY n DESC",
    ),
    of_rollup(
        "top countries of 7 days",
        "SELECT country, sum(events) AS n FROM event_daily WHERE tenant = 'default' AND day >= today() - 7 \
         AND country != '' GROUP BY country ORDER BY n DESC LIMIT 10",
    ),
    of_rollup(
        "users per hour of 3 days",
        "SELECT hour, users FROM users_hourly WHERE tenant = 'default' AND event = 'view' \
         AND hour >= now() - INTERVAL 3 DAY ORDER BY hour",
    ),
    of_rollup(
        "users per week",
        "SELECT week, users FROM users_all_weekly WHERE tenant = 'default' AND week >= toMonday(today()) - 28 ORDER BY week",
    ),
    of_rollup(
        "users per day by event",
        "SELECT day, event, users FROM users_daily WHERE tenant = 'default' AND day >= today() - 7 ORDER BY day, event",
    ),
    of_rollup(
        "events per minute of an hour",
        "SELECT minute, sum(events) AS n FROM event_minutely WHERE tenant = 'default' \
         AND minute >= now() - INTERVAL 1 HOUR GROUP BY minute ORDER BY minute",
    ),
    of_rollup(
        "sums by system of a day, as a tool wraps them",
        "SELECT device_os, sum(value) AS n FROM (SELECT * FROM event_hourly) AS t WHERE tenant = 'default' \
         AND hour >= now() - INTERVAL 1 DAY GROUP BY device_os ORDER BY n DESC LIMIT 1000",
    ),
    of_rollup(
        "countries of all time",
        "SELECT country, events FROM country_totals WHERE tenant = 'default' ORDER BY events DESC LIMIT 10",
    ),
    of_events(
        "a funnel of a day",
        "SELECT step, count() AS devices FROM (SELECT device_id, windowFunnel(3600)(toDateTime(client_time), \
         event = 'view', event = 'play', event = 'click') AS step FROM events_recent WHERE tenant = 'default' \
         AND client_time >= now() - INTERVAL 1 DAY GROUP BY device_id) GROUP BY step ORDER BY step",
    ),
    of_events(
        "a declared field of a day",
        "SELECT prop_plan, count() AS n FROM events_recent WHERE tenant = 'default' \
         AND client_time >= now() - INTERVAL 1 DAY GROUP BY prop_plan ORDER BY n DESC",
    ),
    of_events(
        "a path of props of a day",
        "SELECT JSONExtractString(props, 'app', 'channel') AS channel, count() AS n FROM events_recent \
         WHERE tenant = 'default' AND client_time >= now() - INTERVAL 1 DAY GROUP BY channel ORDER BY n DESC",
    ),
    of_events("a preview", "SELECT * FROM (SELECT * FROM events_recent) AS t LIMIT 200"),
];

/// Declares the definers of the views: the ClickHouse users with whose rights the views read the tables. Must be called
/// before a local ClickHouse server starts, because the server gets these users only at its start.
pub(super) fn declare(clickhouse: &ClickHouse) -> anyhow::Result<()> {
    let rollups = Rollups::parse("dashboards", &declaration())?;
    clickhouse.declare_users(&access::of_views(&rollups, DATABASES, Definers::DEFAULT, &Tenants::default()))
}

fn declaration() -> String {
    format!("{}{FIELD}", Rollups::built_in())
}

/// Returns rows for the report's table, and the figures that have goals.
pub(super) async fn measure(plan: &Plan, stack: &Stack) -> anyhow::Result<(Vec<Row>, Vec<Goal>)> {
    let world = World::prepare("dashboards", stack)?.with_partitions(records::PARTITIONS);
    let world = world.with_rollups(&declaration())?.with_views(DATABASES.views);
    ensure!(
        world.name() == DATABASES.tables,
        "the definers of the views may read the database `{}`, but this measurement uses `{}`",
        DATABASES.tables,
        world.name()
    );
    world.migrate().await?;
    progress::print("dashboards: filling the topic with a week of events");
    // The rollup `event_minutely` keeps 7 days. The span is 10 minutes shorter, because filling the topic and storing
    // the events takes time: the oldest `server_time` should still be within the 7 days when the queries are sent.
    let span = 7 * DAY - 10 * MINUTE;
    let events = records::fill_over(&stack.kafka, world.topic(), Work::Rich, plan.events, span)?;
    progress::print("dashboards: storing the events");
    let mut aggregator = world.service("stream-agg").await?;
    stored::wait_for_exactly(&world, events).await?;
    aggregator.terminate().await?;
    progress::print("dashboards: sending the queries");
    let mut rows: Vec<_> =
        PANELS.iter().map(|panel| Row::new(format!("bi: {}", panel.name), Unit::Requests)).collect();
    let analyst = Analyst::new(stack)?;
    let mut pace = time::interval(REPEAT_EVERY);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for _ in 0..plan.repeats {
        pace.tick().await;
        for (panel, row) in PANELS.iter().zip(&mut rows) {
            row.repeats.push(analyst.time(panel).await?);
        }
    }
    let mut goals = Vec::new();
    for (panel, row) in PANELS.iter().zip(&mut rows) {
        row.note = format!("over {:.1} M events", events as f64 / 1e6);
        let (median, _) = row.latency().context("find the latency of a query")?;
        if panel.reads_rollup {
            let what = format!("dashboards, {}: p50 in ms", panel.name);
            goals.push(Goal { number: "bi", what, measured: median, bound: AtMost(MAX_ROLLUP_QUERY_MS) });
        }
    }
    Ok((rows, goals))
}

/// A client that sends queries as the analysts' user, which has limits in ClickHouse.
struct Analyst {
    http: Client,
    url: Url,
}

impl Analyst {
    fn new(stack: &Stack) -> anyhow::Result<Self> {
        let url = Url::parse_with_params(stack.clickhouse.url(), [("database", DATABASES.views)])?;
        Ok(Self { http: Client::new(), url })
    }

    /// Sends a query [`SENDS_PER_REPEAT`] times, one after another, and checks that each answer has rows.
    async fn time(&self, panel: &Panel) -> anyhow::Result<Repeat> {
        let (mut taken, started) = (Vec::with_capacity(SENDS_PER_REPEAT), Instant::now());
        for _ in 0..SENDS_PER_REPEAT {
            let asked = Instant::now();
            let request = self.http.post(self.url.clone()).basic_auth(BI_READER, Some(LOCAL_PASSWORD));
            let answer = request.body(panel.sql).send().await?;
            let good = answer.status().is_success();
            let text = answer.text().await?;
            taken.push(asked.elapsed().as_secs_f64() * 1e3);
            ensure!(good && !text.is_empty(), "the query `{}` failed or found no rows: {text}", panel.name);
        }
        taken.sort_by(f64::total_cmp);
        Ok(Repeat {
            units: SENDS_PER_REPEAT as u64,
            rate: SENDS_PER_REPEAT as f64 / started.elapsed().as_secs_f64(),
            latency: Some((taken[SENDS_PER_REPEAT / 2], taken[SENDS_PER_REPEAT - 1])),
            ..Repeat::default()
        })
    }
}
