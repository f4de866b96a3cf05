//! Asks ClickHouse for the rows of a query; the only file of this folder that does.

use clickhouse::{Client, Row, RowOwned, RowRead};
use runtime::error::chain;
use serde::Deserialize;

use super::sql::{Parameter, Statement};
use crate::config::ClickHouseConfig;
use crate::problem::{Kind, Problem};

/// The database as queries read it.
pub(crate) struct Database {
    client: Client,
}

/// A row of a statement.
#[derive(Debug, Clone, PartialEq, Eq, Row, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct FetchedRow {
    /// The part of the statement, from 1.
    pub(super) part: u8,
    /// Start of the bucket in seconds.
    pub(super) start: i64,
    /// Dimensions; null for the values that `top` merges.
    pub(super) keys: Vec<Option<String>>,
    /// Measures.
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
