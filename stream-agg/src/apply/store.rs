//! The way to ClickHouse: one client with deadlines, and what its errors mean.
//!
//! Invariant: no call waits for ever. That a call timed out says nothing about
//! whether it was carried out.

use std::sync::Arc;
use std::time::Duration;

use clickhouse::Client;
use clickhouse::error::Error;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use runtime::error::chain;
use tokio::time;

use crate::config::StoreConfig;

/// From nothing to an open connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest a short statement may take, start to end.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(20);
/// How long an idle connection is kept: less than ClickHouse keeps it.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest part of an error that is shown: servers add stack traces.
const SHOWN_BYTES: usize = 500;

/// What every statement says, whatever the server's defaults are: an answer is whole, or an
/// error. A marker that is left out of an answer would be taken for rows that are not there.
pub(crate) const WHOLE: [(&str, &str); 14] = [
    ("limit", "0"),
    ("offset", "0"),
    ("aggregate_functions_null_for_empty", "0"),
    ("read_overflow_mode", "throw"),
    ("read_overflow_mode_leaf", "throw"),
    ("timeout_overflow_mode", "throw"),
    ("timeout_overflow_mode_leaf", "throw"),
    ("result_overflow_mode", "throw"),
    ("group_by_overflow_mode", "throw"),
    ("distinct_overflow_mode", "throw"),
    ("sort_overflow_mode", "throw"),
    ("set_overflow_mode", "throw"),
    ("join_overflow_mode", "throw"),
    ("transfer_overflow_mode", "throw"),
];

/// A client of one database.
#[derive(Clone)]
pub struct Store {
    client: Client,
    /// The database, for messages.
    pub database: Arc<str>,
}

/// Why ClickHouse did not do it, as far as that is known.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It answered with an error.
    #[error("clickhouse refused: {message}")]
    Refused {
        /// Its number, as in `system.errors`.
        code: u32,
        /// Its text, cut.
        message: String,
    },
    /// No connection, a broken one, or no answer in time.
    #[error("clickhouse does not answer: {0}")]
    Unreachable(String),
}

impl Store {
    /// A client that connects when it is first used.
    pub fn new(config: &StoreConfig) -> Self {
        let client = Self::server(config).with_database(&config.database);
        Self { client, database: config.database.as_str().into() }
    }

    /// A client of the server that does not name the database, so that it can create it.
    pub fn without_database(config: &StoreConfig) -> Self {
        Self { client: Self::server(config), database: config.database.as_str().into() }
    }

    /// The same server, without the database, which may be missing.
    pub fn outside(&self) -> Self {
        Self { client: self.client.clone().with_database("system"), database: Arc::clone(&self.database) }
    }

    fn server(config: &StoreConfig) -> Client {
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_timer(hyper_util::rt::TokioTimer::new())
            .build(connector());
        let client = Client::with_http_client(http)
            .with_url(&config.url)
            .with_user(&config.user)
            .with_password(&config.password);
        WHOLE.into_iter().fold(client, |client, (name, value)| client.with_setting(name, value))
    }

    /// Runs a statement that answers nothing.
    pub async fn execute(&self, sql: &str) -> Result<(), StoreError> {
        self.execute_within(STATEMENT_TIMEOUT, sql).await
    }

    /// Runs a statement that answers nothing and may take `timeout`, start to end.
    pub async fn execute_within(&self, timeout: Duration, sql: &str) -> Result<(), StoreError> {
        deadline(timeout, self.client.query(&escaped(sql)).execute()).await
    }

    /// Runs a query of few rows.
    pub async fn rows<T>(&self, sql: &str) -> Result<Vec<T>, StoreError>
    where
        T: clickhouse::RowOwned + clickhouse::RowRead,
    {
        self.rows_within(STATEMENT_TIMEOUT, sql).await
    }

    /// Runs a query that may take `timeout`, start to end.
    pub async fn rows_within<T>(&self, timeout: Duration, sql: &str) -> Result<Vec<T>, StoreError>
    where
        T: clickhouse::RowOwned + clickhouse::RowRead,
    {
        deadline(timeout, self.client.query(&escaped(sql)).fetch_all()).await
    }
}

/// Opens connections, within a deadline.
pub(crate) fn connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector.set_nodelay(true);
    connector
}

/// `?` would be a placeholder.
fn escaped(sql: &str) -> String {
    sql.replace('?', "??")
}

async fn deadline<T>(
    timeout: Duration,
    call: impl Future<Output = Result<T, Error>>,
) -> Result<T, StoreError> {
    match time::timeout(timeout, call).await {
        Ok(answer) => answer.map_err(StoreError::from),
        Err(_) => Err(StoreError::Unreachable(format!("no answer within {timeout:?}"))),
    }
}

/// What an error says of the request that met it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// An insert found its own condition not to hold: look what is there.
    ConditionFailed,
    /// It ends by itself, or nobody knows what became of the request: try again.
    Transient,
    /// The server had no memory for it: passing, unless it goes on.
    OutOfMemory,
    /// The same request is refused again until somebody helps.
    Refused,
}

impl StoreError {
    /// What it says of the request.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Unreachable(_) => Failure::Transient,
            Self::Refused { code: CONDITION, .. } => Failure::ConditionFailed,
            Self::Refused { code: MEMORY, .. } => Failure::OutOfMemory,
            Self::Refused { code, .. } if TRANSIENT.contains(code) => Failure::Transient,
            Self::Refused { .. } => Failure::Refused,
        }
    }

    /// What an answer says that is not a good one. Without a code it is not ClickHouse's.
    pub(crate) fn answered(text: impl AsRef<str>) -> Self {
        let text = text.as_ref();
        match code(text) {
            Some(code) => Self::Refused { code, message: shown(text) },
            None => Self::Unreachable(shown(text)),
        }
    }

    /// Whether the same request may be taken later without anybody's help.
    pub fn is_transient(&self) -> bool {
        self.failure() != Failure::Refused
    }
}

/// `FUNCTION_THROW_IF_VALUE_IS_NON_ZERO`.
const CONDITION: u32 = 395;
/// `MEMORY_LIMIT_EXCEEDED`, by this request or by all together.
const MEMORY: u32 = 241;
/// Codes of what ends by itself: a cut request (3, 33), a timeout (159, 160, 209), a broken
/// connection (210), too many queries or parts (202, 252), a full or busy disk (74, 75, 76,
/// 243), an own earlier try that still runs (216) or was cancelled (394), a server that stops
/// (236) or starts (598).
const TRANSIENT: [u32; 16] = [3, 33, 74, 75, 76, 159, 160, 202, 209, 210, 216, 236, 243, 252, 394, 598];

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        match error {
            Error::BadResponse(text) => Self::answered(text),
            Error::TimedOut => Self::Unreachable("no answer in time".to_owned()),
            Error::Network(source) => Self::Unreachable(chain(&*source)),
            other => Self::Refused { code: 0, message: shown(&other.to_string()) },
        }
    }
}

/// N of `Code: N. DB::Exception: …`.
fn code(text: &str) -> Option<u32> {
    let (_, rest) = text.split_once("Code: ")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn shown(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    let end = (0..=SHOWN_BYTES.min(line.len())).rev().find(|at| line.is_char_boundary(*at));
    line[..end.unwrap_or_default()].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, code: u32, failure: Failure) {
        let error = StoreError::from(Error::BadResponse(text.to_owned()));
        assert!(matches!(&error, StoreError::Refused { code: c, .. } if *c == code), "{error:?}");
        assert_eq!(error.failure(), failure);
    }

    #[test]
    fn a_refusal_is_told_by_its_code() {
        check("Code: 60. DB::Exception: Table x does not exist. (UNKNOWN_TABLE)", 60, Failure::Refused);
        check("Code: 241. DB::Exception: Memory limit (total) exceeded", 241, Failure::OutOfMemory);
        check("something\nCode: 117. DB::Exception: …", 117, Failure::Refused);
        check("Code: 395. DB::Exception: ahead: while executing", 395, Failure::ConditionFailed);
        check("Code: 216. DB::Exception: Query with id = x is already running", 216, Failure::Transient);
    }

    #[test]
    fn an_answer_without_a_code_is_not_clickhouse() {
        let error = StoreError::from(Error::BadResponse("502 Bad Gateway".to_owned()));
        assert_eq!(error.failure(), Failure::Transient);
    }

    #[test]
    fn no_answer_says_nothing_of_what_became_of_the_request() {
        assert_eq!(StoreError::from(Error::TimedOut).failure(), Failure::Transient);
        assert_eq!(StoreError::from(Error::Network("closed".into())).failure(), Failure::Transient);
    }
}
