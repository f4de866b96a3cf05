//! The running edge and the running query API of a test's `World`, each with an HTTP client.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use devstack::{Service, wait_for};
use schemas::time::UnixMillis;

use super::DEADLINE;
use crate::client::Http;
use crate::invariants;

/// A running edge: a process of the service `ingest`.
pub struct Edge {
    /// The process, which is killed when this value is dropped.
    pub service: Service,
    /// An HTTP client for the port to which clients post events.
    pub http: Http,
}

impl Edge {
    /// Wraps `service`, a running `ingest` process.
    pub fn new(service: Service) -> Self {
        Self { http: Http::new(service.http()), service }
    }

    /// The sum of one of the edge's metrics over all labels; 0 if the edge does not answer or has no such metric.
    pub async fn metric(&self, name: &str) -> u64 {
        Http::new(self.service.admin()).metric(name).await.unwrap_or_default()
    }

    /// Asserts that the edge's counters balance, that is, that the edge counted one outcome for each event that it
    /// received.
    pub async fn assert_balanced(&self) {
        let page = Http::new(self.service.admin()).get("/metrics").await.text;
        assert_eq!(invariants::unbalanced(&page), None);
    }

    /// Reads the metrics page over a blocking connection, because `drop` calls this method and cannot await.
    fn metrics(&self) -> io::Result<String> {
        let address = self.service.admin().replace("http://", "");
        let mut admin = TcpStream::connect(&address)?;
        admin.set_read_timeout(Some(DEADLINE))?;
        write!(admin, "GET /metrics HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
        let mut page = String::new();
        admin.read_to_string(&mut page)?;
        Ok(page)
    }
}

/// Dropping an edge that still runs waits until the edge's counters balance. If they do not balance within `DEADLINE`,
/// the test fails. If the test has already failed, or the edge has exited, the drop checks nothing.
impl Drop for Edge {
    fn drop(&mut self) {
        if thread::panicking() || self.service.process().exited().is_some() {
            return;
        }
        let start = Instant::now();
        while let Some(wrong) = invariants::unbalanced(&self.metrics().unwrap()) {
            assert!(start.elapsed() < DEADLINE, "the edge's counters do not balance: {wrong}");
            thread::park_timeout(Duration::from_millis(50));
        }
    }
}

/// A running query API: a process of the service `query-api`.
pub struct QueryApi {
    /// The process, which is killed when this value is dropped.
    service: Service,
    /// An HTTP client for the port that answers queries.
    pub http: Http,
}

impl QueryApi {
    /// Wraps `service`, a running `query-api` process.
    pub fn new(service: Service) -> Self {
        Self { http: Http::new(service.http()), service }
    }

    /// The address of the port that answers queries: `http://127.0.0.1:…`, without a slash at the end.
    pub fn address(&self) -> String {
        self.service.http()
    }

    /// Waits until the header `X-As-Of` of an answer has the time `moment` or a later time. The answers then count
    /// every event that was in Kafka before `moment`.
    pub async fn wait_until_as_of(&self, moment: UnixMillis) {
        let path = format!("/analytics?timestamp={}", moment.0);
        let waited = wait_for(format!("X-As-Of to reach {moment}"), DEADLINE, async || {
            let as_of = UnixMillis::parse(self.http.get(&path).await.header("x-as-of"));
            as_of.is_some_and(|as_of| as_of >= moment)
        });
        waited.await.unwrap();
    }

    /// Waits until the answer for one hour has exactly these figures, and panics if it does not have them within
    /// `DEADLINE`. The hour is the one that contains `millis`, in milliseconds since 1970.
    pub async fn assert_hour(&self, millis: i64, users: u64, clicks: u64, impressions: u64) {
        let expected = format!("unique_users,{users}\nclicks,{clicks}\nimpressions,{impressions}\n");
        let path = format!("/analytics?timestamp={millis}");
        let mut last = String::new();
        let waited = wait_for(format!("the answer {expected:?}"), DEADLINE, async || {
            last = self.http.get(&path).await.text;
            last == expected
        });
        if let Err(overdue) = waited.await {
            panic!("{overdue}; the last answer is {last:?}");
        }
    }
}
