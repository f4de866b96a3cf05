//! Sends statements to ClickHouse and receives the rows. No other file of this folder connects to ClickHouse.

use clickhouse::{Client, Row, RowOwned, RowRead};
use runtime::error::chain;
use serde::Deserialize;

use super::sql::{Parameter, Statement};
use crate::config::ClickHouseConfig;
use crate::problem::{Kind, Problem};

/// Runs the statements of requests in ClickHouse.
pub(crate) struct Database {
    client: Client,
}

/// A row that the statement of a query returns.
#[derive(Debug, Clone, PartialEq, Eq, Row, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct FetchedRow {
    /// Which part of the statement (a SELECT of its UNION ALL) returned the row, counted from 1.
    pub(super) part: u8,
    /// Start of the bucket in seconds.
    pub(super) start: i64,
    /// Values of the dimensions. A value is `None` in the row that merges all values outside of the query's `top`.
    pub(super) keys: Vec<Option<String>>,
    /// Values of the measures.
    pub(super) figures: Vec<Option<i128>>,
    /// About how many distinct values the part merges; 0 if the accuracy does not depend on this number.
    pub(super) size: u64,
    /// How many rows the part has before its limit is applied; 0 if the part has no limit.
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

    /// The rows of a statement. If this future is dropped before it completes, the connection is closed. ClickHouse
    /// then cancels a statement that has the setting `cancel_http_readonly_queries_on_client_close`.
    pub(crate) async fn rows<R: RowOwned + RowRead>(&self, statement: Statement) -> Result<Vec<R>, Problem> {
        // `Client::query` would treat a question mark in the SQL text as a placeholder; `query_raw` does not.
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

/// The problem that a reader gets for an error. If the problem is `Unavailable`, the error is logged, because the
/// problem does not show it.
fn problem(error: &clickhouse::error::Error) -> Problem {
    let text = chain(error);
    let kind = kind(&text);
    if kind == Kind::Unavailable {
        tracing::warn!("failed to run a statement in clickhouse: {text}");
    }
    kind.into()
}

/// The kind of problem for an error. ClickHouse's error code in the text of the error determines the kind.
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
