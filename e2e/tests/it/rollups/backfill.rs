//! A backfill adds to a rollup the events that were stored before the rollup was declared. It adds each event exactly
//! once, even if the backfill is killed and runs again.

use std::time::Duration;

use devstack::{Service, wait_for};
use schemas::rollup::Rollups;
use schemas::time::{DAY, UnixMillis};
use serde_json::json;

use crate::oracle::now;
use crate::world::{DEADLINE, Edge, World, with_sources};

/// Rollups that are declared after events were stored. The first one has a field of `props`, a condition, a sum and an
/// exact number of users. The second one has a sum, a maximum and a retention.
const PLANS: &str = r#"
[[rollup]]
name = "plans_daily"
grain = "day"
dimensions = ["props.plan", "country"]
where = { event = ["play", "purchase"] }
measures = { events = "count", value = "sum(param_int)", users = "uniq_exact(user)" }

[[rollup]]
name = "plans_of_late"
grain = "hour"
dimensions = ["event"]
measures = { value = "sum(param_int)", most = "max(sequence)" }
retention = "30d"
"#;

/// The rollups of [`PLANS`], each with a statement that reads its measures, and a statement that computes the same
/// measures from raw rows.
const COMPARED: [(&str, &str, &str); 2] = [
    (
        "plans_daily",
        "SELECT toUnixTimestamp(bucket), plan, country, sum(events), sum(value), uniqExactMerge(users)
         FROM rollup.plans_daily WHERE tenant = 'default' GROUP BY 1, 2, 3 ORDER BY ALL",
        "SELECT toUnixTimestamp(toStartOfDay(client_time)), JSONExtractString(props, 'plan'), country, count(),
                sum(param_int), uniqExact(if(user_id = '', device_id, user_id))
         FROM events WHERE tenant = 'default' AND event IN ('play', 'purchase') GROUP BY 1, 2, 3 ORDER BY ALL",
    ),
    (
        "plans_of_late",
        "SELECT toUnixTimestamp(bucket), event, sum(value), max(most)
         FROM rollup.plans_of_late WHERE tenant = 'default' GROUP BY 1, 2 ORDER BY ALL",
        "SELECT toUnixTimestamp(toStartOfHour(client_time)), event, sum(param_int), max(sequence)
         FROM events WHERE tenant = 'default' AND toStartOfDay(client_time) + INTERVAL 31 DAY > now()
         GROUP BY 1, 2 ORDER BY ALL",
    ),
];

/// A world in which the rollups of [`PLANS`] are added after events were stored.
struct Growing {
    world: World,
    edge: Edge,
    rng: fastrand::Rng,
    posted: u64,
    file: String,
}

impl Growing {
    async fn new(name: &'static str, seed: u64) -> Self {
        let world = World::new(name).await;
        let edge = world.edge().await;
        let file = world.write("rollups.toml", &format!("{}{PLANS}", Rollups::built_in()));
        Self { world, edge, rng: fastrand::Rng::with_seed(seed), posted: 0, file }
    }

    fn variables(&self) -> [(&str, &str); 1] {
        [("ROLLUPS_FILE", &self.file)]
    }

    /// Posts events of the last three months.
    async fn post(&mut self) {
        let rng = &mut self.rng;
        let lines: Vec<_> = (0..200)
            .map(|n| {
                let time = UnixMillis(now().0 - rng.i64(0..90 * DAY));
                let plans = [json!("free"), json!("a \"pro\" – plan"), json!(7), json!(1.25), json!(true)];
                let (event, country) = (["play", "purchase", "click"][n % 3], ["DE", "US"][n % 2]);
                let (device, value) = (format!("d{}", rng.u32(..9)), rng.i64(-50..50));
                let mut line = json!({
                    "event": event, "client_time": time.0, "device_id": device, "country": country,
                    "param_int": value, "sequence": n,
                });
                if let Some(plan) = plans.get(rng.usize(..=plans.len())) {
                    line["plan"] = plan.clone();
                }
                if n % 4 == 0 {
                    line["user_id"] = format!("u{}", n % 12).into();
                }
                line.to_string()
            })
            .collect();
        assert_eq!(self.edge.http.post_lines(&lines).await.status, 200);
        self.posted += lines.len() as u64;
    }

    async fn wait_until_stored(&self) {
        let waited = wait_for(format!("{} stored rows", self.posted), DEADLINE, async || {
            let stored = "SELECT (SELECT sum(stored) FROM ledger), (SELECT sum(events) FROM rollup.event_hourly WHERE tenant != '')";
            let posted = self.posted.to_string();
            self.world.rows(stored).await == [[posted.clone(), posted]]
        });
        waited.await.unwrap();
    }

    /// Starts an aggregator with the new rollups.
    async fn aggregator(&self) -> Service {
        let mut aggregator = self.world.start("stream-agg", &self.variables());
        aggregator.wait_ready().await.unwrap();
        aggregator
    }

    async fn backfill(&self, rollup: &str) -> anyhow::Result<()> {
        self.world.run("stream-agg", &["backfill", rollup], &self.variables()).await
    }

    /// Repeats the backfill of `rollup` until it succeeds. A backfill fails while a partition uses the old declaration.
    async fn backfill_until_done(&self, rollup: &str) {
        let mut last = String::new();
        let waited = wait_for(format!("`{rollup}` to be filled"), DEADLINE, async || {
            self.backfill(rollup).await.inspect_err(|error| last = format!("{error:#}")).is_ok()
        });
        if let Err(overdue) = waited.await {
            panic!("{overdue}; the last error: {last}");
        }
    }

    async fn assert_refuses_backfill(&self, rollup: &str, words: &[&str]) {
        let error = format!("{:#}", self.backfill(rollup).await.unwrap_err());
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }

    /// Waits until both statements in [`COMPARED`] return the same rows for each added rollup.
    async fn wait_until_sums_agree(&self) {
        let rollups = Rollups::parse("late", PLANS).unwrap();
        for (rollup, sums, of_raw) in COMPARED {
            let mut found = (Vec::new(), Vec::new());
            let waited = wait_for(format!("`{rollup}` to agree with raw rows"), DEADLINE, async || {
                let sums = with_sources(sums, &rollups);
                found = (self.world.rows(&sums).await, self.world.rows(of_raw).await);
                found.0 == found.1
            });
            if let Err(overdue) = waited.await {
                let differs = found.0.iter().zip(&found.1).find(|(sum, raw)| sum != raw);
                panic!(
                    "{overdue}; {} rows of the rollup, {} rows from raw rows, the first difference is {differs:?}",
                    found.0.len(),
                    found.1.len()
                );
            }
            assert!(!found.0.is_empty(), "`{rollup}` must have rows");
        }
    }
}

#[tokio::test]
async fn repeated_backfills_add_earlier_events_to_a_new_rollup_once() {
    let mut growing = Growing::new("backfill_twice", 61).await;
    let mut old = growing.world.aggregator().await;
    growing.post().await;
    growing.wait_until_stored().await;
    growing.world.migrate_with(&growing.variables()).await;

    growing
        .assert_refuses_backfill(
            "plans",
            &["no such rollup", "the declared rollups are event_minutely", "plans_daily, plans_of_late"],
        )
        .await;
    growing
        .assert_refuses_backfill("plans_daily", &["partition 0 uses ", "start aggregators that declare it"])
        .await;
    old.terminate().await.unwrap();
    growing.assert_refuses_backfill("plans_daily", &["partition 0 uses "]).await;

    let mut aggregator = growing.aggregator().await;
    growing.post().await;
    growing.wait_until_stored().await;
    for rollup in ["plans_daily", "plans_of_late", "plans_daily"] {
        growing.backfill_until_done(rollup).await;
    }
    growing.wait_until_sums_agree().await;

    // After the backfill, the running aggregator and a newly started one still count correctly.
    growing.post().await;
    growing.wait_until_stored().await;
    aggregator.terminate().await.unwrap();
    let _aggregator = growing.aggregator().await;
    growing.post().await;
    growing.wait_until_stored().await;
    growing.backfill_until_done("plans_daily").await;
    growing.wait_until_sums_agree().await;
}

#[tokio::test]
async fn partitions_without_new_records_change_to_the_new_declaration_too() {
    let mut growing = Growing::new("backfill_quiet", 62).await;
    let mut old = growing.world.aggregator().await;
    growing.post().await;
    growing.wait_until_stored().await;
    old.terminate().await.unwrap();
    growing.world.migrate_with(&growing.variables()).await;
    let _aggregator = growing.aggregator().await;
    growing.backfill_until_done("plans_daily").await;
    growing.backfill_until_done("plans_of_late").await;
    growing.wait_until_sums_agree().await;
}

/// Inserts raw rows as an aggregator stores them under the old declaration. The rows arrived on two days, and one day
/// of a Kafka partition has more rows than a backfill reads at a time.
const MANY: &str = "
    INSERT INTO events (tenant, event, client_time, server_time, device_id, country, param_int, sequence, props, cfg, kp, ko, line)
    SELECT 'default', ['play', 'purchase', 'click'][number % 3 + 1] AS event,
           now64(3) - INTERVAL number % 70 DAY AS client_time, now64(3) - INTERVAL number > 230000 DAY AS server_time,
           concat('d', toString(number % 1000)), ['DE', 'US'][number % 2 + 1], number % 17, number % 91,
           concat('{\"plan\":\"p', toString(number % 5), '\"}'), (SELECT max(cfg) FROM configs),
           number % 10 = 0, intDiv(number, 40), number % 40
    FROM numbers(260000)";

#[tokio::test]
async fn a_backfill_that_is_killed_again_and_again_and_runs_twice_at_once_counts_once() {
    let mut growing = Growing::new("backfill_killed", 63).await;
    let mut old = growing.world.aggregator().await;
    growing.post().await;
    growing.wait_until_stored().await;
    growing.world.rows(MANY).await;
    old.terminate().await.unwrap();
    growing.world.migrate_with(&growing.variables()).await;
    let _aggregator = growing.aggregator().await;
    // When this backfill has succeeded, every partition uses the new declaration, so the backfills below are not
    // refused.
    growing.backfill_until_done("plans_of_late").await;

    let mut killed = 0;
    for _ in 0..12 {
        let moment = Duration::from_millis(growing.rng.u64(100..1500));
        // If the backfill still runs at the timeout, its future is dropped, which kills the process.
        let ended = tokio::time::timeout(moment, growing.backfill("plans_daily")).await;
        killed += u32::from(ended.is_err());
        growing.post().await;
    }
    assert!(killed >= 4, "the backfill was killed only {killed} times");
    let (one, other) = tokio::join!(growing.backfill("plans_daily"), growing.backfill("plans_daily"));
    one.and(other).unwrap();
    growing.wait_until_stored().await;
    growing.wait_until_sums_agree().await;
}
