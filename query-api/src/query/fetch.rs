//! Asks ClickHouse for the rows of a query; the only file of this folder that does.

use std::time::Duration;

use clickhouse::{Client, Row, RowOwned, RowRead};
use runtime::error::chain;
use schemas::time::UnixMillis;
use serde::Deserialize;

use super::sql::{Parameter, Statement};
use crate::config::{ClickHouseConfig, RefreshConfig};
use crate::problem::{Kind, Problem};

/// The database as queries read it.
pub(crate) struct Database {
    client: Client,
    deadline: Duration,
}

/// What a statement gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fetched {
    /// All that was in Kafka before this moment is counted; none while nothing is.
    pub(super) as_of: Option<UnixMillis>,
    /// Hash of the aggregator's rollups; none before one has started.
    pub(super) rollups: Option<u64>,
    /// Rows of all parts.
    pub(super) rows: Vec<FetchedRow>,
}

/// A row of a statement.
#[derive(Debug, Clone, PartialEq, Eq, Row, Deserialize)]
pub(super) struct FetchedRow {
    /// The part of the plan, from 1; 0 in the row that tells how far the tables reach.
    pub(super) part: u8,
    /// Start of the bucket in seconds; in the first row `as_of` in milliseconds.
    pub(super) start: i64,
    /// Dimensions; null for the values that `top` merges.
    pub(super) keys: Vec<Option<String>>,
    /// Measures.
    pub(super) figures: Vec<Option<i128>>,
}

impl Database {
    pub(crate) fn new(config: &ClickHouseConfig, poll: &RefreshConfig) -> Self {
        let client = Client::default()
            .with_url(&config.url)
            .with_database(&config.database)
            .with_user(&config.user)
            .with_password(&config.password);
        Self { client, deadline: poll.deadline }
    }

    /// Seconds that a statement may take.
    pub(super) fn seconds(&self) -> u64 {
        self.deadline.as_secs().max(1)
    }

    /// The rows of a statement that a query plans, and how far the tables reach.
    pub(super) async fn fetch(&self, statement: Statement) -> Result<Fetched, Problem> {
        let rows = self.rows::<FetchedRow>(statement).await?;
        let (reach, rows): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.part == 0);
        let reach = reach.first();
        let rollups = reach.and_then(|row| u64::try_from((*row.figures.first()?)?).ok());
        Ok(Fetched {
            as_of: reach.map(|row| UnixMillis(row.start)).filter(|as_of| as_of.0 > 0),
            rollups: rollups.filter(|hash| *hash != 0),
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
