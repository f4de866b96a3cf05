//! The client of one ClickHouse database. Each call has a timeout, and each error has a class ([`Failure`]).
//!
//! Invariant: no call waits for ever. After a timeout it is unknown whether the statement was executed.

use std::sync::Arc;
use std::time::Duration;

use clickhouse::Client;
use clickhouse::error::Error;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use runtime::error::chain;
use tokio::time;

use crate::apply::server::{AnotherServer, Servers};
use crate::config::StoreConfig;

/// Timeout of opening a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Timeout of a short statement, from start to end.
pub(crate) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(20);
/// How long an idle connection is kept open. ClickHouse keeps idle connections open for longer (`keep_alive_timeout`),
/// so it does not close a connection just when this client sends a request on it.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum number of bytes of an error that are shown. Errors are shortened because servers add stack traces.
const MAX_SHOWN_BYTES: usize = 500;

/// Settings of every statement. They override the defaults of the server, so that an answer is either complete or an
/// error. If a limit of the server truncated an answer and a marker were missing in it, the rows of this marker would
/// seem not to be stored.
pub(crate) const COMPLETE_ANSWER_SETTINGS: [(&str, &str); 15] = [
    ("limit", "0"),
    ("offset", "0"),
    // In the condition of an insert, `max(hwm)` must be 0 if there is no marker, not NULL and not an empty result.
    ("empty_result_for_aggregation_by_empty_set", "0"),
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
    /// The name of the database, for messages and for queries of the tables in `system`.
    pub database: Arc<str>,
    /// The servers that have answered. Shared by all clones.
    pub(crate) servers: Arc<Servers>,
}

/// Why a statement failed, or why its outcome is unknown.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// ClickHouse answered with an error.
    #[error("clickhouse refused: {message}")]
    Refused {
        /// The code of the error, as in `system.errors`.
        code: u32,
        /// The text of the error, shortened.
        message: String,
    },
    /// The client could not make the request or read the answer.
    #[error("clickhouse's client failed: {0}")]
    Client(String),
    /// No connection, a broken connection, no answer in time, or an answer that does not come from ClickHouse.
    #[error("clickhouse does not answer: {0}")]
    Unreachable(String),
    /// The address leads to more than one server.
    #[error(transparent)]
    Server(#[from] AnotherServer),
}

impl Store {
    /// A client that connects when it is first used.
    pub fn new(config: &StoreConfig) -> Self {
        let client = Self::server(config).with_database(&config.database);
        Self { client, database: config.database.as_str().into(), servers: Arc::default() }
    }

    /// A client whose requests name no database, so it can create the database.
    pub fn without_database(config: &StoreConfig) -> Self {
        Self {
            client: Self::server(config),
            database: config.database.as_str().into(),
            servers: Arc::default(),
        }
    }

    /// A client of the same server whose requests name the database `system`, for queries that must work even if the
    /// database of this client does not exist.
    pub fn outside_database(&self) -> Self {
        Self { client: self.client.clone().with_database("system"), ..self.clone() }
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
        COMPLETE_ANSWER_SETTINGS
            .into_iter()
            .fold(client, |client, (name, value)| client.with_setting(name, value))
    }

    /// Runs a statement without a result.
    pub async fn execute(&self, sql: &str) -> Result<(), StoreError> {
        self.execute_within(STATEMENT_TIMEOUT, sql).await
    }

    /// Runs a statement without a result, with this timeout.
    pub async fn execute_within(&self, timeout: Duration, sql: &str) -> Result<(), StoreError> {
        self.servers.check()?;
        deadline(timeout, self.client.query(&escaped(sql)).execute()).await
    }

    /// Runs a query whose result has few rows.
    pub async fn rows<T>(&self, sql: &str) -> Result<Vec<T>, StoreError>
    where
        T: clickhouse::RowOwned + clickhouse::RowRead,
    {
        self.rows_within(STATEMENT_TIMEOUT, sql).await
    }

    /// Runs a query whose result has few rows, with this timeout.
    pub async fn rows_within<T>(&self, timeout: Duration, sql: &str) -> Result<Vec<T>, StoreError>
    where
        T: clickhouse::RowOwned + clickhouse::RowRead,
    {
        self.servers.check()?;
        deadline(timeout, self.client.query(&escaped(sql)).fetch_all()).await
    }
}

/// A connector that opens connections with the timeout [`CONNECT_TIMEOUT`].
pub(crate) fn connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector.set_nodelay(true);
    connector
}

/// Doubles each `?`, because the crate `clickhouse` treats a single `?` as a placeholder for a value.
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

/// The classes of errors, by what the sender of the failed request should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The condition of an insert did not hold: read the marker in the table again.
    ConditionFailed,
    /// The cause may disappear without an operator's action, or the outcome is unknown: try again.
    Transient,
    /// The server lacked memory for the request. This is transient unless it persists.
    OutOfMemory,
    /// The server refuses the same request until an operator acts.
    Refused,
}

impl StoreError {
    /// The class of this error.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Unreachable(_) => Failure::Transient,
            Self::Server(_) | Self::Client(_) => Failure::Refused,
            Self::Refused { code: FUNCTION_THROW_IF_VALUE_IS_NON_ZERO, .. } => Failure::ConditionFailed,
            Self::Refused { code: MEMORY_LIMIT_EXCEEDED, .. } => Failure::OutOfMemory,
            Self::Refused { code, .. } if TRANSIENT.contains(code) => Failure::Transient,
            Self::Refused { .. } => Failure::Refused,
        }
    }

    /// The error for the text of an answer. A text without an error code comes from something in front of ClickHouse,
    /// for example a proxy, so ClickHouse counts as unreachable.
    pub(crate) fn answered(text: impl AsRef<str>) -> Self {
        let text = text.as_ref();
        match code(text) {
            Some(code) => Self::Refused { code, message: shown(text) },
            None => Self::Unreachable(shown(text)),
        }
    }

    /// Whether the same request may succeed later without an operator.
    pub fn is_transient(&self) -> bool {
        self.failure() != Failure::Refused
    }
}

/// ClickHouse's error code if the condition of an insert does not hold.
const FUNCTION_THROW_IF_VALUE_IS_NON_ZERO: u32 = 395;
/// ClickHouse's error code if memory is lacking, for this request or for all requests together.
const MEMORY_LIMIT_EXCEEDED: u32 = 241;
/// Codes of transient errors: a truncated request (3, 33), a timeout (159, 160, 209), a broken connection (210),
/// too many queries or parts (202, 252), a full or busy disk (74, 75, 76, 243), an earlier attempt of the same
/// statement that still runs (216), a cancelled statement (394), or a server that stops (236).
const TRANSIENT: [u32; 15] = [3, 33, 74, 75, 76, 159, 160, 202, 209, 210, 216, 236, 243, 252, 394];

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        match error {
            Error::BadResponse(text) => Self::answered(text),
            Error::TimedOut => Self::Unreachable("no answer in time".to_owned()),
            Error::Network(source) => Self::Unreachable(chain(&*source)),
            other => Self::Client(shown(&other.to_string())),
        }
    }
}

/// The number N in `Code: N. DB::Exception: …`.
fn code(text: &str) -> Option<u32> {
    let (_, rest) = text.split_once("Code: ")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn shown(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    let end = (0..=MAX_SHOWN_BYTES.min(line.len())).rev().find(|at| line.is_char_boundary(*at));
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
    fn a_refusal_is_classified_by_its_code() {
        check("Code: 60. DB::Exception: Table x does not exist. (UNKNOWN_TABLE)", 60, Failure::Refused);
        check("Code: 241. DB::Exception: Memory limit (total) exceeded", 241, Failure::OutOfMemory);
        check("something\nCode: 117. DB::Exception: …", 117, Failure::Refused);
        check("Code: 395. DB::Exception: ahead: while executing", 395, Failure::ConditionFailed);
        check("Code: 216. DB::Exception: Query with id = x is already running", 216, Failure::Transient);
    }

    #[test]
    fn an_answer_without_a_code_does_not_come_from_clickhouse() {
        let error = StoreError::from(Error::BadResponse("502 Bad Gateway".to_owned()));
        assert_eq!(error.failure(), Failure::Transient);
    }

    #[test]
    fn a_request_without_an_answer_is_a_transient_failure() {
        assert_eq!(StoreError::from(Error::TimedOut).failure(), Failure::Transient);
        assert_eq!(StoreError::from(Error::Network("closed".into())).failure(), Failure::Transient);
    }
}
