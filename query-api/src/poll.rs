//! Asks ClickHouse once per tick; the only file that does.
//!
//! One statement tells all: how far every table reaches, what the aggregator declares, the hot
//! hours, the hours that readers asked for, and the country counters and polls where they are declared.
//! `as_of` comes first and as a scalar subquery: ClickHouse evaluates it before it takes the
//! parts of the tables that follow, so the rows are never older than it says. The countries are
//! ranked by a view that is made every few seconds, so their rows have an `as_of` of their own.
//! Invariant: what an aggregator with other rollups has stored is never shown as if it were ours.

use std::mem;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use clickhouse::{Client, Row};
use runtime::error::chain;
use schemas::rollup::Rollups;
use schemas::tables::COUNTRY_TOTALS;
use schemas::time::UnixMillis;
use serde::Deserialize;
use tokio::time;

use crate::config::{Config, PollConfig};
use crate::counters::{Counters, Country, counted_days};
use crate::polls::{self, MAX_OPTIONS, MAX_POLLS, Polls, Tally};
use crate::snapshot::{Reactions, Snapshot, hot_from};
use crate::{Shared, Trouble};

/// Tenant of everything that no key has named.
const TENANT: &str = "default";

/// The task that makes snapshots.
pub(crate) struct Poller {
    client: Client,
    config: PollConfig,
    /// Hash of the rollups that this process was told.
    rollups: u64,
    /// What is asked, where all that it reads is declared.
    statement: Result<String, &'static str>,
    /// Whether what the country counters are read from is declared.
    counters: bool,
    /// Whether what polls are read from is.
    polls: bool,
    shared: Arc<Shared>,
}

/// Why a tick made no snapshot.
#[derive(Debug, thiserror::Error)]
enum PollError {
    /// The answer, or the lack of one.
    #[error("read from clickhouse")]
    ClickHouse(#[from] clickhouse::error::Error),
    /// None within the deadline.
    #[error("read from clickhouse in time")]
    Deadline(#[from] time::error::Elapsed),
    /// Nothing can be asked.
    #[error("rollup `{0}` is not declared, from which reactions are read: add it to the ROLLUPS_FILE")]
    NotDeclared(&'static str),
    /// The tables hold what we would not ask for.
    #[error(
        "this process has rollups {ours:016x}, stream-agg has {theirs:016x}: restart this one with the \
         ROLLUPS_FILE that stream-agg was started with"
    )]
    OtherRollups {
        /// Hash of those that we were told.
        ours: u64,
        /// Hash of those that the aggregator started with last.
        theirs: u64,
    },
}

/// A row of the statement: the first holds `as_of`, each other one an hour or a country.
#[derive(Row, Deserialize)]
struct Told {
    /// Milliseconds since the epoch; 0 in rows of hours, and while no partition has told.
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
    /// Empty in other rows.
    poll: String,
    option: String,
    votes: u64,
    voters: u64,
}

/// Rollups that it reads.
const REACTIONS: [(&str, &[&str]); 2] =
    [("users_hourly", &["event", "users"]), ("event_hourly", &["event", "events"])];

/// Names of rollups in braces stand for their rows. `?` are, times in seconds since the epoch: tenant, from, asked
/// hours, tenant, from, asked hours.
const STATEMENT: &str = "
SELECT assumeNotNull((SELECT toUnixTimestamp64Milli(min(as_of)) FROM (SELECT argMax(as_of, (g, as_of)) AS as_of FROM progress GROUP BY kp))) AS as_of,
       assumeNotNull((SELECT argMax(rollups, since) FROM configs)) AS rollups, toUInt32(0) AS hour, toUInt64(0) AS users, toUInt64(0) AS impressions, toUInt64(0) AS clicks,
       '' AS country, toUInt64(0) AS views, toUInt64(0) AS plays, toUInt64(0) AS total,
       '' AS poll, '' AS option, toUInt64(0) AS votes, toUInt64(0) AS voters
UNION ALL
SELECT toInt64(0), toUInt64(0), toUnixTimestamp(bucket) AS hour, sum(u), sum(i), sum(c), '', toUInt64(0), toUInt64(0), toUInt64(0), '', '', toUInt64(0), toUInt64(0) FROM (
    SELECT bucket, uniqExactMerge(users) AS u, toUInt64(0) AS c, toUInt64(0) AS i FROM {users_hourly}
    WHERE tenant = ? AND event IN ('click', 'impression') AND (bucket >= toDateTime(?, 'UTC') OR bucket IN (SELECT toDateTime(arrayJoin(CAST(?, 'Array(UInt32)')), 'UTC')))
    GROUP BY bucket
    UNION ALL
    SELECT bucket, toUInt64(0), sumIf(events, event = 'click'), sumIf(events, event = 'impression') FROM {event_hourly}
    WHERE tenant = ? AND event IN ('click', 'impression') AND (bucket >= toDateTime(?, 'UTC') OR bucket IN (SELECT toDateTime(arrayJoin(CAST(?, 'Array(UInt32)')), 'UTC')))
    GROUP BY bucket
) GROUP BY bucket";

/// Follows it where the country counters are declared. `?` are: tenant, tenant, first day, day after the last.
const COUNTERS: &str = "
UNION ALL
SELECT as_of, toUInt64(0), toUInt32(0), toUInt64(0), toUInt64(0), clicks, country, views, plays, total, '', '', toUInt64(0), toUInt64(0) FROM (
    SELECT CAST(country, 'String') AS country, max(moment) AS as_of, sum(t) AS total, sum(v) AS views, sum(p) AS plays, sum(c) AS clicks FROM (
        SELECT country, toUnixTimestamp64Milli(as_of) AS moment, events AS t, toUInt64(0) AS v, toUInt64(0) AS p, toUInt64(0) AS c FROM country_totals WHERE tenant = ?
        UNION ALL
        SELECT country, toInt64(0), toUInt64(0), sumIf(events, event = 'view'), sumIf(events, event = 'play'), sumIf(events, event = 'click') FROM {event_daily}
        WHERE tenant = ? AND bucket >= toDateTime(?, 'UTC') AND bucket < toDateTime(?, 'UTC') AND event IN ('view', 'play', 'click')
        GROUP BY country
    ) GROUP BY country HAVING total > 0 ORDER BY total DESC, country LIMIT 5
)";

/// Follows it where polls are declared: those with most votes, and those asked for by name. `?` are: tenant,
/// asked polls, tenant, [`MAX_POLLS`], [`MAX_OPTIONS`].
const POLLS: &str = "
UNION ALL
SELECT toInt64(0), toUInt64(0), toUInt32(0), toUInt64(0), toUInt64(0), toUInt64(0), '', toUInt64(0), toUInt64(0), toUInt64(0), name, choice, counted, people FROM (
    SELECT poll AS name, option AS choice, sum(votes) AS counted, uniqExactMerge(voters) AS people FROM {poll_votes}
    WHERE tenant = ? AND poll != '' AND (has(CAST(?, 'Array(String)'), poll) OR poll IN (
        SELECT poll FROM {poll_votes} WHERE tenant = ? AND poll != '' GROUP BY poll ORDER BY sum(votes) DESC, poll LIMIT ?))
    GROUP BY poll, option HAVING counted > 0 ORDER BY counted DESC, choice LIMIT ? BY name
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
        let counters = COUNTRY_TOTALS.is_served(&config.rollups);
        if !counters {
            let (rollup, columns) = (COUNTRY_TOTALS.rollup, COUNTRY_TOTALS.columns.join(", "));
            tracing::warn!("no country counters: rollup `{rollup}` with {columns} is not declared");
        }
        let polls = polls::are_served(&config.rollups);
        if !polls {
            let (rollup, columns) = (polls::ROLLUP, polls::COLUMNS.join(", "));
            tracing::warn!("no polls: rollup `{rollup}` with {columns} is not declared");
        }
        let statement = statement(&config.rollups, counters, polls);
        let (poll, rollups) = (config.poll.clone(), config.rollups.hash());
        Self { client, config: poll, rollups, statement, counters, polls, shared }
    }

    /// Makes a snapshot per tick until it is cancelled.
    pub(crate) async fn run(self) {
        // Said once per change, not once per tick.
        let mut said = None;
        loop {
            let started = Instant::now();
            let told = self.ask().await;
            self.shared.metrics.polled(told.is_ok(), started.elapsed());
            let now = told.as_ref().map_err(mem::discriminant).map(drop);
            let changed = said.replace(now) != Some(now);
            match told {
                Ok(snapshot) => self.succeed(snapshot, changed),
                Err(error) => self.fail(error, changed),
            }
            // Jitter keeps many instances from asking in step.
            let interval = self.config.interval.mul_f64(0.9 + fastrand::f64() / 5.0);
            time::sleep(interval.saturating_sub(started.elapsed())).await;
        }
    }

    fn succeed(&self, snapshot: Snapshot, say: bool) {
        self.shared.metrics.as_of(snapshot.as_of);
        self.shared.trouble.store(None);
        self.shared.snapshot.store(Some(Arc::new(snapshot)));
        self.shared.ticks.send_modify(|tick| *tick += 1);
        if say {
            tracing::info!("reading from ClickHouse");
        }
    }

    fn fail(&self, error: PollError, say: bool) {
        let differs = matches!(error, PollError::OtherRollups { .. });
        let reason = chain(&error);
        if say {
            tracing::warn!("answers grow old, trying again: {reason}");
        }
        // That ClickHouse is away does not change what the aggregator has declared.
        let differed = self.shared.trouble.load().as_ref().is_some_and(|trouble| trouble.differs);
        self.shared.trouble.store(Some(Arc::new(Trouble { reason, differs: differs || differed })));
    }

    async fn ask(&self) -> Result<Snapshot, PollError> {
        let now = UnixMillis::from(SystemTime::now());
        let hot = hot_from(now);
        let days = self.counters.then(|| counted_days(now));
        let asked = self.shared.wanted_hours.current(Instant::now());
        let hours: Vec<u32> = asked.iter().map(|hour| seconds(*hour)).collect();
        let asked_polls = self.polls.then(|| self.shared.wanted_polls.current(Instant::now()));
        let from = seconds(hot);
        let statement = self.statement.as_ref().map_err(|rollup| PollError::NotDeclared(rollup))?;
        let mut statement = self.client.query(statement);
        statement = statement.bind(TENANT).bind(from).bind(&hours).bind(TENANT).bind(from).bind(&hours);
        if let Some(days) = &days {
            statement = statement.bind(TENANT).bind(TENANT).bind(seconds(days.start)).bind(seconds(days.end));
        }
        if let Some(asked) = &asked_polls {
            statement = statement.bind(TENANT).bind(asked).bind(TENANT).bind(MAX_POLLS).bind(MAX_OPTIONS);
        }
        let rows = time::timeout(self.config.deadline, statement.fetch_all::<Told>()).await??;
        self.check_rollups(rows.iter().map(|row| row.rollups).max().unwrap_or(0))?;
        let (countries, rows): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| !row.country.is_empty());
        let (votes, rows): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| !row.poll.is_empty());
        let as_of = rows.iter().map(|row| row.as_of).find(|as_of| *as_of > 0).map(UnixMillis);
        let hours = rows.into_iter().filter(|row| row.hour > 0).map(|row| {
            let reactions = Reactions { users: row.users, clicks: row.clicks, impressions: row.impressions };
            (UnixMillis(i64::from(row.hour) * 1000), reactions)
        });
        let counters = days.map(|days| counters(countries, days));
        let polls = asked_polls.map(|asked| Polls::new(votes.into_iter().map(tally).collect(), asked, as_of));
        Ok(Snapshot::new(as_of, hot, asked, hours, counters, polls))
    }

    /// Answers from tables of other rollups would be wrong without a sign.
    fn check_rollups(&self, theirs: u64) -> Result<(), PollError> {
        let ours = self.rollups;
        if theirs == 0 || theirs == ours { Ok(()) } else { Err(PollError::OtherRollups { ours, theirs }) }
    }
}

/// What is asked, with the rows of each rollup in place of its name; the name of one that is not declared as it
/// is read.
fn statement(rollups: &Rollups, counters: bool, polls: bool) -> Result<String, &'static str> {
    for (name, columns) in REACTIONS {
        rollups.get(name).filter(|rollup| rollup.has_columns(columns)).ok_or(name)?;
    }
    let parts = [(true, STATEMENT), (counters, COUNTERS), (polls, POLLS)];
    let parts = parts.into_iter().filter_map(|(is_declared, part)| is_declared.then_some(part));
    Ok(rollups.iter().fold(parts.collect(), |sql: String, rollup| rollup.in_place(&sql)))
}

fn counters(rows: Vec<Told>, days: Range<UnixMillis>) -> Counters {
    let as_of = rows.iter().map(|row| row.as_of).min().filter(|as_of| *as_of > 0).map(UnixMillis);
    let country = |row: Told| Country {
        code: row.country,
        view: row.views,
        play: row.plays,
        click: row.clicks,
        total: row.total,
    };
    Counters::new(rows.into_iter().map(country).collect(), days, as_of)
}

fn tally(row: Told) -> (String, Tally) {
    (row.poll, Tally { option: row.option, votes: row.votes, voters: row.voters })
}

/// As ClickHouse's `DateTime` has it, as near as it comes.
fn seconds(time: UnixMillis) -> u32 {
    u32::try_from(time.0.max(0) / 1000).unwrap_or(u32::MAX)
}
