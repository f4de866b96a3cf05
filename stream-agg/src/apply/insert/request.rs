//! Sends one insert over HTTP, and reads its answer.
//!
//! The crate `clickhouse` does not return how many rows an insert wrote, so this request is made without the crate.
//! Invariant: the request is sent once. Nothing here repeats it, even if its connection breaks.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::{Request, Response, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use tokio::time;

use crate::apply::store::{self, IDLE_TIMEOUT, StoreError};
use crate::config::StoreConfig;

/// Timeout of a request, from opening the connection to the end of the answer. If ClickHouse still executes the
/// statement after this time, the setting `max_execution_time` of the statement ends it.
const TIMEOUT: Duration = Duration::from_secs(40);
/// Number of uncompressed bytes that are compressed and sent as one chunk.
const CHUNK_BYTES: usize = 1 << 20;
/// Maximum number of bytes that are read from an answer. An error has only a few lines.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// Sends inserts.
pub(super) struct Sender {
    http: Client<HttpConnector, Chunks>,
    /// The URL, with the query parameters that are the same for all inserts.
    address: String,
    user: String,
    password: String,
}

impl Sender {
    /// A sender that connects when it is first used.
    pub(super) fn new(config: &StoreConfig) -> Self {
        let http = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_timer(TokioTimer::new())
            .retry_canceled_requests(false)
            .build(store::connector());
        let StoreConfig { url, database, user, password } = config;
        let address = format!("{}/?database={}&decompress=1", url.trim_end_matches('/'), encoded(database));
        Self { http, address, user: user.clone(), password: password.clone() }
    }

    /// Sends a block once. Returns the number of written rows that ClickHouse reports, if it reports one. This number
    /// includes rows that ClickHouse skipped because it already knew their token.
    ///
    /// # Errors
    /// ClickHouse refused the insert, or the outcome of the insert is unknown.
    pub(super) async fn insert(
        &self,
        statement: &str,
        settings: &[(&'static str, String)],
        block: &Bytes,
    ) -> Result<Option<u64>, StoreError> {
        let mut uri = format!("{}&query={}", self.address, encoded(statement));
        for (name, value) in settings {
            uri.extend(["&", name, "=", &encoded(value)]);
        }
        let request = Request::post(uri)
            .header("X-ClickHouse-User", &self.user)
            .header("X-ClickHouse-Key", &self.password)
            .body(Chunks { rest: block.clone() })
            .map_err(|error| StoreError::Unreachable(format!("cannot make the request: {error}")))?;
        let answer = async {
            let response = self.http.request(request).await.map_err(|error| unreachable(&error))?;
            read(response).await
        };
        match time::timeout(TIMEOUT, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(StoreError::Unreachable(format!("no answer within {TIMEOUT:?}"))),
        }
    }
}

fn unreachable(error: &(dyn std::error::Error + 'static)) -> StoreError {
    StoreError::Unreachable(runtime::error::chain(error))
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

async fn read(response: Response<Incoming>) -> Result<Option<u64>, StoreError> {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
    let body = body.map_err(|error| unreachable(&*error))?.to_bytes();
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    judge(head.status, header("X-ClickHouse-Exception-Code"), header("X-ClickHouse-Summary"), &body)
}

/// Reads the result from an answer. A status of 200 does not suffice, because ClickHouse may report an error after it
/// has sent the status. A successful answer has no body.
fn judge(
    status: StatusCode,
    exception: Option<&str>,
    summary: Option<&str>,
    body: &[u8],
) -> Result<Option<u64>, StoreError> {
    if status == StatusCode::OK && exception.is_none() && body.is_empty() {
        return Ok(summary.and_then(written_rows));
    }
    let text = String::from_utf8_lossy(body);
    Err(StoreError::answered(match (exception, text.contains("Code: ")) {
        (Some(code), false) => format!("Code: {code}. {text}"),
        (None, false) => format!("{status} {text}"),
        (_, true) => text.into_owned(),
    }))
}

/// The number of written rows in the header `X-ClickHouse-Summary`, a JSON object whose numbers are strings.
fn written_rows(summary: &str) -> Option<u64> {
    #[derive(Deserialize)]
    struct Summary<'a> {
        written_rows: &'a str,
    }
    serde_json::from_str::<Summary<'_>>(summary).ok()?.written_rows.parse().ok()
}

/// A block that is compressed while it is sent.
#[derive(Debug)]
struct Chunks {
    rest: Bytes,
}

impl Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let length = self.rest.len().min(CHUNK_BYTES);
        let chunk = self.rest.split_to(length);
        Poll::Ready(Some(Ok(Frame::data(compressed(&chunk)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::new()
    }
}

/// Compresses `data` into a block of ClickHouse's compressed format:
///
/// - 16 bytes: the CityHash128 (v1.0.2) of the rest of the block;
/// - 1 byte: the compression method;
/// - 4 bytes: the length of the block without the hash;
/// - 4 bytes: the length of the uncompressed data;
/// - the data, compressed with LZ4.
///
/// Source: ClickHouse, `src/Compression/CompressedReadBufferBase.cpp`.
fn compressed(data: &[u8]) -> Bytes {
    const LZ4: u8 = 0x82;
    const HASH: usize = 16;
    const HEAD: usize = 9;
    let most = lz4_flex::block::get_maximum_output_size(data.len());
    let mut out = BytesMut::zeroed(HASH + HEAD + most);
    let length = lz4_flex::block::compress_into(data, &mut out[HASH + HEAD..]).expect("the output fits");
    out.truncate(HASH + HEAD + length);
    let mut head = &mut out[HASH..HASH + HEAD];
    head.put_u8(LZ4);
    head.put_u32_le((HEAD + length) as u32);
    head.put_u32_le(data.len() as u32);
    // In the block, the high 64 bits of the hash from `cityhash_rs` come before the low 64 bits.
    let hash = cityhash_rs::cityhash_102_128(&out[HASH..]).rotate_left(64);
    out[..HASH].copy_from_slice(&hash.to_le_bytes());
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::store::Failure;

    #[test]
    fn a_block_is_sent_whole_in_compressed_chunks() {
        let block = Bytes::from(vec![7; CHUNK_BYTES + 5]);
        let mut chunks = Chunks { rest: block };
        let mut lengths = Vec::new();
        let mut context = Context::from_waker(std::task::Waker::noop());
        while let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut chunks).poll_frame(&mut context) {
            let chunk = frame.into_data().unwrap();
            lengths.push(u32::from_le_bytes(*chunk[21..].first_chunk().unwrap()));
            assert_eq!(chunk.len() - 16, u32::from_le_bytes(*chunk[17..].first_chunk().unwrap()) as usize);
        }
        assert_eq!(lengths, [CHUNK_BYTES as u32, 5]);
    }

    #[test]
    fn only_a_successful_answer_without_a_body_reports_written_rows() {
        let summary = Some(r#"{"read_rows":"3","written_rows":"3","elapsed_ns":"1"}"#);
        assert_eq!(judge(StatusCode::OK, None, summary, b"").unwrap(), Some(3));
        assert_eq!(judge(StatusCode::OK, None, None, b"").unwrap(), None);
        assert_eq!(judge(StatusCode::OK, None, Some("{}"), b"").unwrap(), None);
        for (status, exception, body, failure) in [
            (StatusCode::OK, Some("395"), "", Failure::ConditionFailed),
            (StatusCode::OK, None, "Code: 395. DB::Exception: ahead", Failure::ConditionFailed),
            (StatusCode::OK, None, "something", Failure::Transient),
            (StatusCode::INTERNAL_SERVER_ERROR, None, "Code: 60. DB::Exception", Failure::Refused),
            (StatusCode::BAD_GATEWAY, None, "", Failure::Transient),
        ] {
            let error = judge(status, exception, summary, body.as_bytes()).unwrap_err();
            assert_eq!(error.failure(), failure, "{status} {exception:?} {body}");
        }
    }
}
