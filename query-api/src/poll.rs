//! Asks ClickHouse once per tick; the only file that does.
//!
//! One statement tells all: how far every table reaches, the hot hours and the hours that
//! readers asked for. `as_of` comes first and as a scalar subquery: ClickHouse evaluates it
//! before it takes the parts of the tables that follow, so the rows are never older than it says.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use clickhouse::{Client, Row};
use schemas::time::UnixMillis;
use serde::Deserialize;
use tokio::time;

use crate::Shared;
use crate::config::{Config, PollConfig};
use crate::snapshot::{Reactions, Snapshot, hot_from};

/// Tenant of everything that no key has named.
const TENANT: &str = "default";

/// The task that makes snapshots.
pub(crate) struct Poller {
    client: Client,
    config: PollConfig,
    shared: Arc<Shared>,
}

/// A row of the statement: the first holds `as_of`, each other one an hour.
#[derive(Row, Deserialize)]
struct Told {
    /// Milliseconds since the epoch; 0 in rows of hours, and while no partition has told.
    as_of: i64,
    /// Start of the hour, in seconds since the epoch; 0 in the first row.
    hour: u32,
    users: u64,
    clicks: u64,
    impressions: u64,
}

/// `?` are: from, asked hours, from, asked hours, in seconds since the epoch.
const STATEMENT: &str = "
SELECT assumeNotNull((SELECT toUnixTimestamp64Milli(min(as_of)) FROM (SELECT max(as_of) AS as_of FROM progress GROUP BY g, kp))) AS as_of,
       toUInt32(0) AS hour, toUInt64(0) AS users, toUInt64(0) AS clicks, toUInt64(0) AS impressions
UNION ALL
SELECT toInt64(0), toUnixTimestamp(bucket) AS hour, sum(u), sum(c), sum(i) FROM (
    SELECT bucket, uniqExactMerge(users) AS u, toUInt64(0) AS c, toUInt64(0) AS i FROM users_hourly
    WHERE tenant = ? AND event IN ('click', 'impression') AND (bucket >= toDateTime(?, 'UTC') OR bucket IN (SELECT toDateTime(arrayJoin(CAST(?, 'Array(UInt32)')), 'UTC')))
    GROUP BY bucket
    UNION ALL
    SELECT bucket, toUInt64(0), sumIf(events, event = 'click'), sumIf(events, event = 'impression') FROM event_hourly
    WHERE tenant = ? AND event IN ('click', 'impression') AND (bucket >= toDateTime(?, 'UTC') OR bucket IN (SELECT toDateTime(arrayJoin(CAST(?, 'Array(UInt32)')), 'UTC')))
    GROUP BY bucket
) GROUP BY bucket";

impl Poller {
    pub(crate) fn new(config: &Config, shared: Arc<Shared>) -> Self {
        let database = &config.clickhouse;
        let client = Client::default()
            .with_url(&database.url)
            .with_database(&database.database)
            .with_user(&database.user)
            .with_password(&database.password)
            .with_setting("max_execution_time", config.poll.deadline.as_secs().max(1).to_string());
        Self { client, config: config.poll.clone(), shared }
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
                Err(error) if working != Some(false) => {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "read from ClickHouse; answers grow old, trying again"
                    );
                }
                Err(_) => {}
            }
            working = Some(succeeded);
            // Jitter keeps many instances from asking in step.
            let interval = self.config.interval.mul_f64(0.9 + fastrand::f64() / 5.0);
            time::sleep(interval.saturating_sub(started.elapsed())).await;
        }
    }

    async fn ask(&self) -> anyhow::Result<Snapshot> {
        let hot = hot_from(SystemTime::now().into());
        let asked = self.shared.wanted.current(Instant::now());
        let seconds: Vec<u32> = asked.iter().filter_map(|hour| u32::try_from(hour.0 / 1000).ok()).collect();
        let from = u32::try_from(hot.0 / 1000).unwrap_or(0);
        let statement = self.client.query(STATEMENT);
        let statement =
            statement.bind(TENANT).bind(from).bind(&seconds).bind(TENANT).bind(from).bind(&seconds);
        let rows = time::timeout(self.config.deadline, statement.fetch_all::<Told>()).await??;
        let as_of = rows.iter().map(|row| row.as_of).find(|as_of| *as_of > 0).map(UnixMillis);
        let hours = rows.into_iter().filter(|row| row.hour > 0).map(|row| {
            let reactions = Reactions { users: row.users, clicks: row.clicks, impressions: row.impressions };
            (UnixMillis(i64::from(row.hour) * 1000), reactions)
        });
        Ok(Snapshot::new(as_of, hot, asked, hours))
    }
}
