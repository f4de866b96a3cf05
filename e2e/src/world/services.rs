//! The running services of a world, each with clients for its ports.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use devstack::{Service, wait_for};
use schemas::time::UnixMillis;

use super::DEADLINE;
use crate::client::Http;
use crate::invariants;

/// A running edge.
pub struct Edge {
    /// The process.
    pub service: Service,
    /// The port for clients.
    pub http: Http,
}

impl Edge {
    /// An edge that runs as `service`.
    pub fn new(service: Service) -> Self {
        Self { http: Http::new(service.http()), service }
    }

    /// The sum of one of the edge's metrics over all labels.
    pub async fn metric(&self, name: &str) -> u64 {
        Http::new(self.service.admin()).metric(name).await.unwrap_or_default()
    }

    /// Checks that the edge's counters balance: no event is dropped silently.
    pub async fn assert_balanced(&self) {
        let page = Http::new(self.service.admin()).get("/metrics").await.text;
        assert_eq!(invariants::unbalanced(&page), None);
    }

    /// The metrics page, read without an async runtime.
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

/// When a test drops an edge that still runs, waits until the edge's counters balance, and fails the test if they do
/// not balance in time.
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

/// A running query API.
pub struct QueryApi {
    /// Killed when the value is dropped.
    service: Service,
    /// The port for readers.
    pub http: Http,
}

impl QueryApi {
    /// A query API that runs as `service`.
    pub fn new(service: Service) -> Self {
        Self { http: Http::new(service.http()), service }
    }

    /// The address of the port for readers, `http://…`.
    pub fn address(&self) -> String {
        self.service.http()
    }

    /// Waits until the answers cover everything up to `moment`.
    pub async fn wait_until_as_of(&self, moment: UnixMillis) {
        let path = format!("/analytics?timestamp={}", moment.0);
        let waited = wait_for(format!("answers of {moment}"), DEADLINE, async || {
            let as_of = UnixMillis::parse(self.http.get(&path).await.header("x-as-of"));
            as_of.is_some_and(|as_of| as_of >= moment)
        });
        waited.await.unwrap();
    }

    /// Waits until the answer for the hour of `millis` has these figures.
    pub async fn assert_hour(&self, millis: i64, users: u64, clicks: u64, impressions: u64) {
        let expected = format!("unique_users,{users}\nclicks,{clicks}\nimpressions,{impressions}\n");
        let path = format!("/analytics?timestamp={millis}");
        let mut last = String::new();
        let waited = wait_for(format!("{expected:?}"), DEADLINE, async || {
            last = self.http.get(&path).await.text;
            last == expected
        });
        if let Err(overdue) = waited.await {
            panic!("{overdue}; the answer is {last:?}");
        }
    }
}
