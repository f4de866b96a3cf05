//! Reads and decompresses the bodies of requests, within limits.
//!
//! Invariant: [`super::Acceptor::read_body`] reserves memory for a body before it reads the body, and the memory for
//! the decompressed body is reserved before anything is written to it. Three things are not reserved: the windows of
//! zstd and, if a body has several frames, the frames that are copied and the spare capacity of the buffer that joins
//! them.

use std::io::{self, Read};
use std::sync::Arc;

use ::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use ::http::{HeaderMap, HeaderName};
use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;
use http_body_util::BodyExt as _;
use hyper::body::Body;
use prometheus::IntGauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Duration, Instant, timeout, timeout_at};
use zstd::stream::read::Decoder as ZstdDecoder;

use super::config::BodyLimits;
use crate::content::{Encoding, MEDIA_TYPES};
use crate::outcome::{Bound, Refusal};

/// A body may decompress to this many bytes plus [`MAX_RATIO`] times its compressed length, but to no more than
/// `MAX_DECODED_BYTES`. So the ratio of a short body may be greater than [`MAX_RATIO`].
const RATIO_FREE_BYTES: usize = 1 << 20;
/// Maximum number of decompressed bytes for each compressed byte, in addition to [`RATIO_FREE_BYTES`]. Ordinary NDJSON
/// has a lower ratio.
const MAX_RATIO: usize = 100;
/// The binary logarithm of the largest zstd window: 8 MiB, as RFC 8878 recommends. The memory for windows is not
/// reserved but bounded: decompression never awaits, so each thread has at most one window at a time.
const MAX_WINDOW_LOG: u32 = 23;
/// For this long after the edge begins to read a body, the body may be slower than the minimum rate.
const RATE_GRACE: Duration = Duration::from_secs(5);
/// Maximum number of bytes that one step of decompression writes.
const STEP_BYTES: usize = 64 * 1024;
/// Maximum number of bytes that [`drain`] reads. If the edge left the rest of a body unread, a client that is still
/// sending the body might be unable to read the response.
const MAX_DRAIN_BYTES: usize = 64 * 1024;
/// The longest time that [`drain`] takes.
const MAX_DRAIN_TIME: Duration = Duration::from_secs(1);

/// What the headers say about a body that the edge reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyHeaders {
    /// The encoding of the body.
    pub encoding: Encoding,
    /// The length of the body as sent, if the request declares it.
    pub length: Option<usize>,
}

impl BodyHeaders {
    /// Checks the headers before a byte of the body is read, and refuses a body that the edge cannot accept.
    pub fn of(headers: &HeaderMap, limits: &BodyLimits) -> Result<Self, Refusal> {
        check_media_type(headers)?;
        let encoding = encoding(headers)?;
        // hyper has checked `Content-Length`, and ensures that the body is not longer than declared.
        let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        if length.is_some_and(|length| length > limits.body_bytes) {
            return Err(Refusal::BodyTooLarge(limits.body_bytes));
        }
        Ok(Self { encoding, length })
    }
}

fn check_media_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(value) = single(headers, CONTENT_TYPE).map_err(|()| Refusal::ContentType)? else {
        return Ok(());
    };
    let media_type = value.split(';').next().unwrap_or(value).trim().to_ascii_lowercase();
    let is_json = |subtype: &str| subtype.len() > "+json".len() && subtype.ends_with("+json");
    let is_read =
        MEDIA_TYPES.contains(&&*media_type) || media_type.strip_prefix("application/").is_some_and(is_json);
    if is_read { Ok(()) } else { Err(Refusal::ContentType) }
}

fn encoding(headers: &HeaderMap) -> Result<Encoding, Refusal> {
    match single(headers, CONTENT_ENCODING).map_err(|()| Refusal::ContentEncoding)? {
        None => Ok(Encoding::Identity),
        Some(name) => Encoding::named(name).ok_or(Refusal::ContentEncoding),
    }
}

/// The trimmed value of a header; `None` if the header is absent or empty. An error if the header is repeated or
/// contains bytes other than printable ASCII and tabs.
fn single(headers: &HeaderMap, name: HeaderName) -> Result<Option<&str>, ()> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => {
            let value = value.to_str().map_err(|_| ())?.trim();
            Ok(Some(value).filter(|value| !value.is_empty()))
        }
        (Some(_), Some(_)) => Err(()),
    }
}

/// The decompressed body of a request. The bytes stay reserved until this value is dropped.
pub struct ReservedBody {
    bytes: Bytes,
    _reserved: Reservation,
}

impl ReservedBody {
    /// Wraps a body with the reservation of its bytes.
    pub fn new(bytes: Bytes, reserved: Reservation) -> Self {
        Self { bytes, _reserved: reserved }
    }
}

impl AsRef<[u8]> for ReservedBody {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Bytes that a request has reserved from the budget that all bodies share. Dropping the reservation releases the
/// bytes.
pub struct Reservation {
    permit: OwnedSemaphorePermit,
    gauge: IntGauge,
}

impl Reservation {
    /// Reserves `bytes` of `budget`, which has one permit for each byte. Does not wait: refuses the request if fewer
    /// bytes are left.
    pub fn take(budget: &Arc<Semaphore>, bytes: usize, gauge: &IntGauge) -> Result<Self, Refusal> {
        let permit = permits(budget, bytes)?;
        gauge.add(bytes as i64);
        Ok(Self { permit, gauge: gauge.clone() })
    }

    /// Changes the reservation to `bytes`: releases the excess, or reserves the missing bytes. Does not wait: refuses
    /// the request if the budget does not have the missing bytes.
    pub fn resize(&mut self, bytes: usize) -> Result<(), Refusal> {
        let held = self.permit.num_permits();
        if bytes < held {
            drop(self.permit.split(held - bytes));
        } else if bytes > held {
            self.permit.merge(permits(self.permit.semaphore(), bytes - held)?);
        }
        self.gauge.add(bytes as i64 - held as i64);
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.gauge.sub(self.permit.num_permits() as i64);
    }
}

fn permits(budget: &Arc<Semaphore>, bytes: usize) -> Result<OwnedSemaphorePermit, Refusal> {
    let overloaded = Refusal::Overloaded(Bound::InFlightBytes);
    let bytes = u32::try_from(bytes).map_err(|_| overloaded.clone())?;
    Arc::clone(budget).try_acquire_many_owned(bytes).map_err(|_| overloaded)
}

/// Reads `body` to its end; `length` is the length that `Content-Length` declares.
pub async fn read<B>(body: &mut B, length: Option<usize>, limits: &BodyLimits) -> Result<Bytes, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    let start = Instant::now();
    let deadline = start + limits.body_total;
    // Most bodies are a single frame, which is not copied.
    let (mut first, mut joined) = (Bytes::new(), Vec::new());
    loop {
        let idle = Instant::now() + limits.body_idle;
        let allowed = Duration::from_secs(first.len().max(joined.len()) as u64) / limits.body_min_rate.get();
        let too_slow = start + allowed.max(RATE_GRACE);
        let data = match timeout_at(idle.min(too_slow).min(deadline), body.frame()).await {
            Err(_) => return Err(Refusal::BodyTimeout),
            Ok(Some(Err(_))) => return Err(Refusal::Aborted),
            Ok(None) => return Ok(if joined.is_empty() { first } else { joined.into() }),
            Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
        };
        if first.len().max(joined.len()) + data.len() > limits.body_bytes {
            return Err(Refusal::BodyTooLarge(limits.body_bytes));
        }
        if first.is_empty() {
            first = data;
        } else {
            if joined.is_empty() {
                joined.reserve_exact(length.unwrap_or(2 * (first.len() + data.len())));
                joined.extend_from_slice(&first);
            }
            joined.extend_from_slice(&data);
        }
    }
}

/// Decompresses a body, within limits; returns an uncompressed body unchanged.
pub fn decompress(
    body: Bytes,
    encoding: Encoding,
    limits: &BodyLimits,
    reserved: &mut Reservation,
) -> Result<Bytes, Refusal> {
    let limit = limits.decoded_bytes.min(RATIO_FREE_BYTES + MAX_RATIO * body.len());
    let decompressed = match encoding {
        Encoding::Identity => {
            return match undeclared_encoding(&body) {
                None => Ok(body),
                Some(encoding) => Err(Refusal::UndeclaredEncoding(encoding)),
            };
        }
        Encoding::Gzip => decompress_with(MultiGzDecoder::new(&body[..]), body.len(), limit, reserved),
        Encoding::Zstd => decompress_with(zstd_decoder(&body)?, body.len(), limit, reserved),
    };
    decompressed.map(Bytes::from)
}

/// Detects whether a body is compressed although its headers declare no compression. Returns the encoding that the
/// first bytes of the body show; `None` if they show no compression.
fn undeclared_encoding(body: &[u8]) -> Option<Encoding> {
    Encoding::ALL.into_iter().find(|encoding| encoding.magic().is_some_and(|magic| body.starts_with(magic)))
}

fn zstd_decoder(body: &[u8]) -> Result<ZstdDecoder<'static, &[u8]>, Refusal> {
    let limited = |mut decoder: ZstdDecoder<'static, _>| -> io::Result<_> {
        decoder.window_log_max(MAX_WINDOW_LOG)?;
        Ok(decoder)
    };
    // Fails only if memory cannot be allocated.
    ZstdDecoder::with_buffer(body).and_then(limited).map_err(|_| Refusal::Internal)
}

/// Decompresses step by step. Before the output buffer grows, reserves its memory, in addition to the `sent` bytes of
/// the compressed body.
fn decompress_with(
    mut decoder: impl Read,
    sent: usize,
    limit: usize,
    reserved: &mut Reservation,
) -> Result<Vec<u8>, Refusal> {
    let mut decoded = Vec::new();
    loop {
        if decoded.capacity() - decoded.len() < STEP_BYTES {
            let larger = (2 * decoded.capacity()).min(limit).max(decoded.len()) + STEP_BYTES;
            // While the buffer grows, the old and the new buffer are both in memory.
            reserved.resize(sent + decoded.capacity() + larger)?;
            decoded.reserve_exact(larger - decoded.len());
            reserved.resize(sent + decoded.capacity())?;
        }
        let step = decoder.by_ref().take(STEP_BYTES as u64).read_to_end(&mut decoded);
        let read = step.map_err(|_| Refusal::BadEncoding)?;
        if decoded.len() > limit {
            return Err(Refusal::DecodedTooLarge(limit));
        }
        if read < STEP_BYTES {
            return Ok(decoded);
        }
    }
}

/// Reads and drops the rest of a body that the edge does not use, within limits. Returns whether the body was read
/// to its end: only then can the connection be used for another request.
pub async fn drain<B>(body: &mut B, headers: &HeaderMap) -> bool
where
    B: Body<Data = Bytes> + Unpin,
{
    if body.is_end_stream() {
        return true;
    }
    if headers.contains_key(EXPECT) {
        // The client may be waiting for `100 Continue` before it sends its body. If the edge read the body, hyper would
        // send `100 Continue`, and the client would send a body that is not needed.
        return false;
    }
    let read_to_end = async {
        let mut left = MAX_DRAIN_BYTES;
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return false };
            match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
                Some(less) => left = less,
                None => return false,
            }
        }
        true
    };
    timeout(MAX_DRAIN_TIME, read_to_end).await.unwrap_or(false)
}

#[cfg(test)]
mod tests;
