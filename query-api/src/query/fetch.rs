//! Asks ClickHouse for the rows of a query; the only file of this folder that does.

use clickhouse::{Client, Row, RowOwned, RowRead};
use runtime::error::chain;
use schemas::rollup::Rollups;
use schemas::time::UnixMillis;
use serde::Deserialize;

use super::plan::Reach;
use super::sql::{Parameter, Statement};
use crate::config::ClickHouseConfig;
use crate::problem::{Kind, Problem};

/// The database as queries read it.
pub(crate) struct Database {
    client: Client,
}

/// What a statement gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fetched {
    /// All that was in Kafka before this moment is counted; none while nothing is.
    pub(super) as_of: Option<UnixMillis>,
    /// What the rollups hold, and what the aggregator declares.
    pub(super) reach: Reach,
    /// Rows of all parts.
    pub(super) rows: Vec<FetchedRow>,
}

/// A row of a statement.
#[derive(Debug, Clone, PartialEq, Eq, Row, Deserialize)]
pub(super) struct FetchedRow {
    /// The part of the statement, from 1; 0 in the row that tells how far the tables reach.
    pub(super) part: u8,
    /// Start of the bucket in seconds; in the first row `as_of` in milliseconds.
    pub(super) start: i64,
    /// Dimensions; null for the values that `top` merges. In the first row the aggregator's rollups, empty if they
    /// are ours, then the rollups that have not counted every event.
    pub(super) keys: Vec<Option<String>>,
    /// Measures. In the first row the moments, in milliseconds, from which on those rollups have every event.
    pub(super) figures: Vec<Option<i128>>,
    /// About how many distinct values the part merges; 0 where that decides nothing.
    pub(super) size: u64,
    /// How many rows the part has before its limit; 0 where it has none.
    pub(super) total: u64,
}

impl Database {
    pub(crate) fn new(config: &ClickHouseConfig) -> Self {
        let client = Client::default()
            .with_url(&config.url)
            .with_database(&config.database)
            .with_user(&config.user)
            .with_password(&config.password);
        Self { client }
    }

    /// The rows of a statement that a query plans, and how far the tables reach.
    pub(super) async fn fetch(&self, statement: Statement) -> Result<Fetched, Problem> {
        let rows = self.rows::<FetchedRow>(statement).await?;
        let (reach, rows): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.part == 0);
        let first = reach.first();
        Ok(Fetched {
            as_of: first.map(|row| UnixMillis(row.start)).filter(|as_of| as_of.0 > 0),
            reach: first.map(self::reach).unwrap_or_default(),
            rows,
        })
    }

    /// The rows of a statement. Dropped early, it closes its connection, and ClickHouse ends the statement.
    pub(crate) async fn rows<R: RowOwned + RowRead>(&self, statement: Statement) -> Result<Vec<R>, Problem> {
        // Raw: a question mark within a declared text is no placeholder.
        let mut query = self.client.query_raw(&statement.text);
        for (name, value) in statement.settings {
            query = query.with_setting(name, value);
        }
        for (name, value) in statement.parameters {
            query = match value {
                Parameter::Texts(texts) => query.param(&name, texts),
                Parameter::Moments(moments) => query.param(&name, moments),
            };
        }
        query.fetch_all::<R>().await.map_err(|error| problem(&error))
    }
}

fn no_rollups() -> Rollups {
    Rollups::parse("", "").expect("an empty declaration has no mistake")
}

/// What the first row tells.
fn reach(row: &FetchedRow) -> Reach {
    let mut names = row.keys.iter().map(|name| name.as_deref().unwrap_or_default());
    let declared = names.next().filter(|declared| !declared.is_empty());
    // What cannot be read is not what we declare.
    let theirs = declared.map(|text| Rollups::parse("configs", text).unwrap_or_else(|_| no_rollups()));
    let second = |millis: &Option<i128>| {
        i64::try_from((millis.unwrap_or(0) + 999).div_euclid(1000)).unwrap_or(i64::MAX)
    };
    let since = names.map(str::to_owned).zip(row.figures.iter().map(second));
    // 1970 stands for a rollup that always counted.
    Reach { since: since.filter(|(_, since)| *since > 0).collect(), theirs }
}

/// What a reader learns of an error; the operator learns all of it.
fn problem(error: &clickhouse::error::Error) -> Problem {
    let text = chain(error);
    let kind = kind(&text);
    if kind == Kind::Unavailable {
        tracing::warn!("a query has no answer: {text}");
    }
    kind.into()
}

/// By the code of ClickHouse's error.
fn kind(error: &str) -> Kind {
    let code = error.split_once("Code: ").map(|(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).next());
    match code.flatten() {
        // TOO_MANY_ROWS, TOO_MANY_BYTES, TOO_MANY_ROWS_OR_BYTES, MEMORY_LIMIT_EXCEEDED
        Some("158" | "307" | "396" | "241") => Kind::TooWide,
        // TIMEOUT_EXCEEDED, TOO_SLOW
        Some("159" | "160") => Kind::TooSlow,
        // TOO_MANY_SIMULTANEOUS_QUERIES
        Some("202") => Kind::Busy,
        _ => Kind::Unavailable,
    }
}

#[cfg(test)]
mod tests;
