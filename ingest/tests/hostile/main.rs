//! Sends hostile bodies to the edge's service. Each body gets the response that its case expects. The records of the
//! edge have exactly the accepted lines, and the aggregator's parser reads each of them with the content that was sent.
//!
//! The edge has a spool and no Kafka, so the test reads the stored lines from the file of the spool.

#![expect(clippy::unwrap_used, reason = "in a test a panic with its line is the best report")]

mod corpus;
mod expect;
mod same;

use std::convert::Infallible;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Frame};
use ingest::spool::store::{self, Change, Store, StoreError};
use ingest::{Config, Edge};
use runtime::vars::Vars;
use schemas::record;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{interval, timeout};
use tower::ServiceExt as _;
use uuid::Uuid;

use self::corpus::{Case, cases};

const DEADLINE: Duration = Duration::from_secs(30);
/// A body of at most this many bytes is also sent byte by byte.
const SHORT: usize = 4096;

/// An edge that stores everything in its spool.
struct Spooling {
    edge: Edge,
    file: PathBuf,
    _directory: TempDir,
}

impl Spooling {
    async fn start() -> Self {
        let directory = TempDir::new().unwrap();
        let file = store::path(directory.path(), "events");
        let change = Change { partitions: Some(1), ..Change::default() };
        Store::open_or_create(&file).unwrap().apply(&change).unwrap();
        let vars = Vars::from_pairs([
            ("KAFKA_BROKERS", "127.0.0.1:1"),
            ("SPOOL_DIR", directory.path().to_str().unwrap()),
            ("SPOOL_MIN_FREE", "0B"),
        ]);
        let edge = Edge::start(Config::from_vars(&vars).unwrap()).unwrap();
        let spooling = Self { edge, file, _directory: directory };
        // The body `x` has no valid event, so this request stores nothing. The edge answers it with 400 only once the
        // edge can store events, and with another status before.
        let ready = async {
            let mut looks = interval(Duration::from_millis(5));
            while spooling.call("", "", Full::new(Bytes::from("x"))).await.0 != StatusCode::BAD_REQUEST {
                looks.tick().await;
            }
        };
        timeout(DEADLINE, ready).await.expect("wait until the spool is open");
        spooling
    }

    async fn call<B>(&self, content_type: &str, encoding: &str, body: B) -> (StatusCode, Value)
    where
        B: Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
    {
        let request = Request::post("/v1/events")
            .header("content-type", content_type)
            .header("content-encoding", encoding)
            .body(body)
            .unwrap();
        let Ok(response) = self.edge.service().oneshot(request).await;
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }

    async fn check<B>(&self, case: &Case, how: &str, body: B)
    where
        B: Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
    {
        let (status, answer) = self.call(case.content_type, case.encoding, body).await;
        expect::assert_answer(case, how, status.as_u16(), &answer);
    }

    /// All lines that the edge has stored, in their order.
    async fn stored(self) -> Vec<String> {
        drop(self.edge);
        // The threads of the edge close the file a little after `drop`.
        let open = async {
            let mut looks = interval(Duration::from_millis(5));
            loop {
                match Store::open(&self.file) {
                    Err(StoreError::InUse(_)) => looks.tick().await,
                    opened => return opened.unwrap(),
                };
            }
        };
        let store = timeout(DEADLINE, open).await.expect("wait until the edge has closed the spool");
        let records = store.oldest(Uuid::nil(), usize::MAX, usize::MAX).unwrap();
        let text = |line: &[u8]| String::from_utf8(line.to_vec()).unwrap();
        records.iter().flat_map(|record| record::lines(&record.value).map(text)).collect()
    }
}

/// A body in frames of one byte.
struct ByteByByte(Bytes);

impl Body for ByteByByte {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = (!self.0.is_empty()).then(|| self.0.split_to(1));
        Poll::Ready(next.map(|byte| Ok(Frame::data(byte))))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_hostile_body_gets_the_right_answer_and_accepted_lines_are_stored_as_sent() {
    let spooling = Spooling::start().await;
    let mut accepted = Vec::new();
    for case in cases() {
        spooling.check(&case, "whole", Full::new(Bytes::from(case.body.clone()))).await;
        accepted.extend(expect::accepted(&case).cloned());
        if case.body.len() <= SHORT {
            spooling.check(&case, "byte by byte", ByteByByte(case.body.clone().into())).await;
            accepted.extend(expect::accepted(&case).cloned());
        }
    }
    let stored = spooling.stored().await;
    assert_eq!(stored.len(), accepted.len());
    stored.iter().zip(&accepted).for_each(|(stored, sent)| same::assert_same(stored, sent));
}
