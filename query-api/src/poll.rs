//! Asks ClickHouse once per tick; the only file that does.
//!
//! One statement tells all: how far every table reaches, the hot hours and the hours that
//! readers asked for. `as_of` comes first and as a scalar subquery: ClickHouse evaluates it
//! before it takes the parts of the tables that follow, so the rows are never older than it says.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use anyhow::ensure;
use clickhouse::{Client, Row};
use schemas::time::UnixMillis;
use serde::Deserialize;
use tokio::time;

use crate::Shared;
use crate::config::{Config, PollConfig};
use crate::counters::{Counters, Country, counted_days};
use crate::snapshot::{Reactions, Snapshot, hot_from};

/// Tenant of everything that no key has named.
const TENANT: &str = "default";

/// The task that makes snapshots.
pub(crate) struct Poller {
    client: Client,
    config: PollConfig,
    /// Hash of the rollups that this process was told.
    rollups: u64,
    shared: Arc<Shared>,
}

/// A row of the statement: the first holds `as_of`, each other one an hour or a country.
#[derive(Row, Deserialize)]
struct Told {
    /// Milliseconds since the epoch; 0 in other rows, and while no partition has told.
    as_of: i64,
    /// Hash of the aggregator's rollups; 0 in other rows, and before one has started.
    rollups: u64,
    /// Start of the hour, in seconds since the epoch; 0 in other rows.
    hour: u32,
    users: u64,
    impressions: u64,
    clicks: u64,
    /// Empty in other rows.
    country: String,
    views: u64,
    plays: u64,
    /// Everything that was ever counted of the country.
    total: u64,
}

/// `?` are, times in seconds since the epoch: tenant, from, asked hours, tenant, from, asked hours,
/// tenant, tenant, first day, day after the last.
const STATEMENT: &str = "
SELECT assumeNotNull((SELECT toUnixTimestamp64Milli(min(as_of)) FROM (SELECT argMax(as_of, (g, as_of)) AS as_of FROM progress GROUP BY kp))) AS as_of,
       assumeNotNull((SELECT argMax(rollups, since) FROM configs)) AS rollups, toUInt32(0) AS hour, toUInt64(0) AS users, toUInt64(0) AS impressions, toUInt64(0) AS clicks,
       '' AS country, toUInt64(0) AS views, toUInt64(0) AS plays, toUInt64(0) AS total
UNION ALL
SELECT toInt64(0), toUInt64(0), toUnixTimestamp(bucket) AS hour, sum(u), sum(i), sum(c), '', toUInt64(0), toUInt64(0), toUInt64(0) FROM (
    SELECT bucket, uniqExactMerge(users) AS u, toUInt64(0) AS c, toUInt64(0) AS i FROM users_hourly
    WHERE tenant = ? AND event IN ('click', 'impression') AND (bucket >= toDateTime(?, 'UTC') OR bucket IN (SELECT toDateTime(arrayJoin(CAST(?, 'Array(UInt32)')), 'UTC')))
    GROUP BY bucket
    UNION ALL
    SELECT bucket, toUInt64(0), sumIf(events, event = 'click'), sumIf(events, event = 'impression') FROM event_hourly
    WHERE tenant = ? AND event IN ('click', 'impression') AND (bucket >= toDateTime(?, 'UTC') OR bucket IN (SELECT toDateTime(arrayJoin(CAST(?, 'Array(UInt32)')), 'UTC')))
    GROUP BY bucket
) GROUP BY bucket
UNION ALL
SELECT toInt64(0), toUInt64(0), toUInt32(0), toUInt64(0), toUInt64(0), clicks, country, views, plays, total FROM (
    SELECT CAST(country, 'String') AS country, sum(t) AS total, sum(v) AS views, sum(p) AS plays, sum(c) AS clicks FROM (
        SELECT country, events AS t, toUInt64(0) AS v, toUInt64(0) AS p, toUInt64(0) AS c FROM country_totals WHERE tenant = ?
        UNION ALL
        SELECT country, toUInt64(0), sumIf(events, event = 'view'), sumIf(events, event = 'play'), sumIf(events, event = 'click') FROM event_daily
        WHERE tenant = ? AND bucket >= toDateTime(?, 'UTC') AND bucket < toDateTime(?, 'UTC') AND event IN ('view', 'play', 'click')
        GROUP BY country
    ) GROUP BY country HAVING total > 0 ORDER BY total DESC, country LIMIT 5
)";

impl Poller {
    pub(crate) fn new(config: &Config, shared: Arc<Shared>) -> Self {
        let database = &config.clickhouse;
        let client = Client::default()
            .with_url(&database.url)
            .with_database(&database.database)
            .with_user(&database.user)
            .with_password(&database.password)
            .with_setting("max_execution_time", config.poll.deadline.as_secs().max(1).to_string());
        Self { client, config: config.poll.clone(), rollups: config.rollups.hash(), shared }
    }

    /// Makes a snapshot per tick until it is cancelled.
    pub(crate) async fn run(self) {
        // Said once per change, not once per tick.
        let mut working = None;
        loop {
            let started = Instant::now();
            let told = self.ask().await;
            let succeeded = told.is_ok();
            self.shared.metrics.polled(succeeded, started.elapsed());
            match told {
                Ok(snapshot) => {
                    self.shared.metrics.as_of(snapshot.as_of);
                    self.shared.snapshot.store(Some(Arc::new(snapshot)));
                    self.shared.ticks.send_modify(|tick| *tick += 1);
                    if working != Some(true) {
                        tracing::info!("reading from ClickHouse");
                    }
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    if working != Some(false) {
                        tracing::warn!(error, "read from ClickHouse; answers grow old, trying again");
                    }
                    self.shared.trouble.store(Some(Arc::new(error)));
                }
            }
            working = Some(succeeded);
            // Jitter keeps many instances from asking in step.
            let interval = self.config.interval.mul_f64(0.9 + fastrand::f64() / 5.0);
            time::sleep(interval.saturating_sub(started.elapsed())).await;
        }
    }

    async fn ask(&self) -> anyhow::Result<Snapshot> {
        let now = UnixMillis::from(SystemTime::now());
        let hot = hot_from(now);
        let days = counted_days(now);
        let asked = self.shared.wanted.current(Instant::now());
        let hours: Vec<u32> = asked.iter().map(|hour| seconds(*hour)).collect();
        let from = seconds(hot);
        let statement = self.client.query(STATEMENT);
        let statement = statement.bind(TENANT).bind(from).bind(&hours).bind(TENANT).bind(from).bind(&hours);
        let statement = statement.bind(TENANT).bind(TENANT).bind(seconds(days.start)).bind(seconds(days.end));
        let rows = time::timeout(self.config.deadline, statement.fetch_all::<Told>()).await??;
        self.check_rollups(rows.iter().map(|row| row.rollups).max().unwrap_or(0))?;
        let as_of = rows.iter().map(|row| row.as_of).find(|as_of| *as_of > 0).map(UnixMillis);
        let countries = rows.iter().filter(|row| !row.country.is_empty()).map(|row| Country {
            code: row.country.clone(),
            counts: [row.views, row.plays, row.clicks],
            total: row.total,
        });
        let counters = Counters::new(countries.collect(), days, as_of);
        let hours = rows.iter().filter(|row| row.hour > 0).map(|row| {
            let reactions = Reactions { users: row.users, clicks: row.clicks, impressions: row.impressions };
            (UnixMillis(i64::from(row.hour) * 1000), reactions)
        });
        Ok(Snapshot::new(as_of, hot, asked, hours, counters))
    }
}

impl Poller {
    /// Answers from tables of other rollups would be wrong without a sign.
    fn check_rollups(&self, declared: u64) -> anyhow::Result<()> {
        let ours = self.rollups;
        ensure!(
            declared == 0 || declared == ours,
            "the aggregator's rollups have the hash {declared:016x}, ours {ours:016x}: give both the same \
             ROLLUPS_FILE and restart the one that has the older"
        );
        Ok(())
    }
}

/// As ClickHouse's `DateTime` has it, as near as it comes.
fn seconds(time: UnixMillis) -> u32 {
    u32::try_from(time.0.max(0) / 1000).unwrap_or(u32::MAX)
}
