//! Rollups are declared in one file. A new rollup can be queried after the services were restarted with the new file. A
//! query API whose declarations differ from those of the aggregator does not refresh its answers.

use std::collections::{BTreeMap, BTreeSet};

use devstack::{Service, wait_for};
use schemas::rollup::Rollups;
use schemas::time::DAY;
use serde_json::json;

use crate::client::Http;
use crate::oracle::now;
use crate::world::{DEADLINE, World, with_sources};

const PLANS: &str = r#"
[[rollup]]
name = "plans_daily"
grain = "day"
dimensions = ["props.plan"]
where = { event = ["play", "purchase"] }
measures = { events = "count", value = "sum(param_int)", users = "uniq_exact(user)" }
"#;

/// Writes a file with the built-in rollups and [`PLANS`]. Returns its path.
fn with_plans(world: &World) -> String {
    world.write("rollups.toml", &format!("{}{PLANS}", Rollups::built_in()))
}

/// Starts a service with the rollups of `file` and waits until it is ready.
async fn ready(world: &World, service: &str, file: &str) -> Service {
    let mut service = world.start(service, &[("ROLLUPS_FILE", file)]);
    service.wait_ready().await.unwrap();
    service
}

async fn post(edge: &Http, line: String) {
    let answer = edge.post_lines(&[line]).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

#[tokio::test]
async fn a_rollup_over_a_field_of_props_can_be_queried_after_a_restart() {
    let world = World::new("rollups_plan").await;
    let (edge, mut aggregator, api) = world.pipeline().await;
    let time = now();
    let wait_until_stored = async |rows: u64| {
        let waited = wait_for(format!("{rows} stored rows"), DEADLINE, async || {
            world.number("SELECT sum(stored) FROM ledger").await >= rows
        });
        waited.await.unwrap();
    };
    post(&edge.http, json!({"event": "click", "user_id": "u1", "plan": "early"}).to_string()).await;
    wait_until_stored(1).await;

    let file = with_plans(&world);
    assert!(aggregator.terminate().await.unwrap().success());
    drop(api);
    world.migrate_with(&[("ROLLUPS_FILE", &file)]).await;
    let (_aggregator, api) =
        tokio::join!(ready(&world, "stream-agg", &file), ready(&world, "query-api", &file));

    let mut expected = BTreeMap::<&str, (u64, i64, BTreeSet<u32>)>::new();
    for n in 0..60 {
        let (plan, user) = (["free", "pro", "", "team"][n as usize % 4], n % 7);
        let event = ["play", "purchase", "click"][n as usize % 3];
        let mut line =
            json!({"event": event, "user_id": format!("u{user}"), "param_int": n, "client_time": time.0});
        if !plan.is_empty() {
            line["plan"] = plan.into();
        }
        post(&edge.http, line.to_string()).await;
        if event != "click" {
            let (events, value, users) = expected.entry(plan).or_default();
            (*events, *value) = (*events + 1, *value + i64::from(n));
            users.insert(user);
        }
    }
    wait_until_stored(61).await;
    let expected: Vec<_> = expected
        .into_iter()
        .map(|(plan, (events, value, users))| {
            let day = time.floor(DAY).0 / 1000;
            [day.to_string(), plan.to_owned(), events.to_string(), value.to_string(), users.len().to_string()]
                .to_vec()
        })
        .collect();
    let plans = "SELECT toUnixTimestamp(bucket), plan, sum(events), sum(value), uniqExactMerge(users) FROM rollup.plans_daily
                 WHERE tenant = 'default' GROUP BY bucket, plan ORDER BY plan";
    let plans = with_sources(plans, &Rollups::parse("plans", PLANS).unwrap());
    let mut found = Vec::new();
    let waited = wait_for("the sums of each plan", DEADLINE, async || {
        found = world.rows(&plans).await;
        found == expected
    });
    if let Err(overdue) = waited.await {
        panic!("{overdue}; expected {expected:?}, found {found:?}");
    }
    let view = format!(
        "SELECT toUnixTimestamp(toDateTime(day, 'UTC')), plan, events, value, users FROM {}.plans_daily ORDER BY plan",
        world.bi_database()
    );
    // ClickHouse compiles the expressions of a view to machine code only after several uses. So the first reads check
    // interpreted expressions, and later reads check compiled expressions.
    for _ in 0..8 {
        assert_eq!(world.rows(&view).await, expected, "the rows of the view");
    }

    let clicks = format!("unique_users,7\nclicks,{}\nimpressions,0\n", 1 + 20);
    let http = Http::new(api.http());
    let hour = format!("/analytics?timestamp={}", time.0);
    let waited = wait_for("clicks from before and after the restart", DEADLINE, async || {
        http.get(&hour).await.text == clicks
    });
    waited.await.unwrap();
}

#[tokio::test]
async fn a_query_api_with_other_rollups_logs_the_fix_and_keeps_its_last_answers() {
    let world = World::new("rollups_differ").await;
    let (edge, mut aggregator, _) = world.pipeline().await;
    let mut running = world.start("query-api", &[]);
    running.wait_ready().await.unwrap();
    let http = Http::new(running.http());
    let fresh = json!({"country": "DE", "event": "click"}).to_string();
    let post = async || edge.http.send("POST", "/v1/counters", &[], fresh.clone()).await.status;
    assert_eq!(post().await, 200);
    let counters = async || http.get("/v1/counters").await.json();
    let counted = async |clicks: u64, stale: bool| {
        let mut last = json!(null);
        let waited = wait_for(format!("{clicks} clicks, stale {stale}"), DEADLINE, async || {
            last = counters().await;
            last["data"] == json!([{"country": "DE", "view": 0, "play": 0, "click": clicks}])
                && last["meta"]["stale"] == stale
        });
        if let Err(overdue) = waited.await {
            panic!("{overdue}; the answer is {last}");
        }
    };
    counted(1, false).await;

    let file = with_plans(&world);
    let theirs = Rollups::parse("", &std::fs::read_to_string(&file).unwrap()).unwrap().hash();
    let ours = Rollups::built_in().hash();
    assert!(aggregator.terminate().await.unwrap().success());
    world.migrate_with(&[("ROLLUPS_FILE", &file)]).await;
    let _aggregator = ready(&world, "stream-agg", &file).await;
    assert_eq!(post().await, 200);
    let waited = wait_for("the second click", DEADLINE, async || {
        world.number("SELECT sum(events) FROM rollup.event_daily WHERE country = 'DE'").await == 2
    });
    waited.await.unwrap();

    // The running query API keeps its answer, marks it as stale, and logs the reason.
    counted(1, true).await;
    let reason = format!(
        "the rollups of this process (hash {ours:016x}) differ from those of stream-agg (hash {theirs:016x}): restart \
         this process with the ROLLUPS_FILE that stream-agg was started with"
    );
    let log = running.process().log_tail();
    assert!(log.contains(&reason), "{log}");
    assert_eq!(Http::new(running.admin()).get("/readyz").await.status, 200);

    // A new query API does not become ready, for the same reason.
    let starting = world.start("query-api", &[]);
    let admin = Http::new(starting.admin());
    let mut last = String::new();
    let waited = wait_for("`/readyz` to name the reason", DEADLINE, async || {
        let Ok(answer) = admin.try_send("GET", "/readyz", &[], "").await else { return false };
        last = answer.text;
        answer.status == 503 && last.contains(&reason)
    });
    if let Err(overdue) = waited.await {
        panic!("{overdue}; the last answer of `/readyz` is {last:?}");
    }
    assert_eq!(Http::new(starting.http()).get("/v1/counters").await.status, 503);

    // After a restart with the aggregator's file, the query API has fresh answers again.
    assert!(running.terminate().await.unwrap().success());
    let running = ready(&world, "query-api", &file).await;
    let data = Http::new(running.http()).get("/v1/counters").await.json()["data"].clone();
    assert_eq!(data, json!([{"country": "DE", "view": 0, "play": 0, "click": 2}]));
}

#[tokio::test]
async fn without_its_rollup_only_the_country_counters_are_unavailable() {
    let world = World::new("rollups_no_countries").await;
    let without = Rollups::built_in().to_string().replace("event_daily", "other_daily");
    let file = world.write("rollups.toml", &without);
    world.migrate_with(&[("ROLLUPS_FILE", &file)]).await;
    let api = ready(&world, "query-api", &file).await;
    let http = Http::new(api.http());
    let answer = http.get("/v1/counters").await;
    assert_eq!((answer.status, &answer.json()["type"]), (404, &json!("/problems/not_declared")));
    let hour = http.get(&format!("/analytics?timestamp={}", now().0)).await;
    assert_eq!((hour.status, hour.text.as_str()), (200, "unique_users,0\nclicks,0\nimpressions,0\n"));
}
