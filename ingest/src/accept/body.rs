//! The bytes of a request: read within limits, inflated within limits.
//!
//! Invariant: no more is held than what was reserved for it beforehand.

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

use crate::config::Limits;
use crate::outcome::{Bound, Refusal};

/// Decoded bytes that any body may have; beyond them it may grow by [`MAX_RATIO`].
const RATIO_FREE_BYTES: usize = 1 << 20;
/// Decoded bytes for each byte as sent. Above what honest NDJSON compresses to.
const MAX_RATIO: usize = 100;
/// A zstd window is at most 2^23 bytes, as RFC 8878 advises. It needs no reservation: a
/// body is inflated without a pause, so there is at most one window for each core.
const MAX_WINDOW_LOG: u32 = 23;
/// How long a body may be slower than the least rate.
const RATE_GRACE: Duration = Duration::from_secs(5);
/// Inflated at once.
const STEP_BYTES: usize = 64 * 1024;
/// Read of a body that nobody wants, so that its sender can read the answer.
const MAX_DRAIN_BYTES: usize = 64 * 1024;
/// Longest such a read takes.
const MAX_DRAIN_TIME: Duration = Duration::from_secs(1);

/// What the headers say of a body, once it is clear that we want it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Described {
    /// Whether it is compressed.
    pub encoding: Encoding,
    /// Its length as sent, if told.
    pub declared: Option<usize>,
}

/// The encodings that we read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// As it is.
    Identity,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl Described {
    /// Reads the headers; refuses what we would not read, before a byte is read.
    pub fn of(headers: &HeaderMap, limits: &Limits) -> Result<Self, Refusal> {
        check_media_type(headers)?;
        let encoding = encoding(headers)?;
        // hyper has checked it, and frames the body by it.
        let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        if declared.is_some_and(|length| length > limits.body_bytes) {
            return Err(Refusal::BodyTooLarge(limits.body_bytes));
        }
        Ok(Self { encoding, declared })
    }
}

/// The media types that may stand for JSON, in whatever shape it is; `application/*+json` may too. The last is what
/// curl says of any body when it is told nothing else.
pub const MEDIA_TYPES: [&str; 8] = [
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl",
    "application/jsonlines",
    "application/json",
    "text/json",
    "text/plain",
    "application/x-www-form-urlencoded",
];

fn check_media_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(value) = only(headers, CONTENT_TYPE).map_err(|()| Refusal::ContentType)? else { return Ok(()) };
    let media_type = value.split(';').next().unwrap_or(value).trim().to_ascii_lowercase();
    let is_json = |subtype: &str| subtype.len() > "+json".len() && subtype.ends_with("+json");
    let is_read =
        MEDIA_TYPES.contains(&&*media_type) || media_type.strip_prefix("application/").is_some_and(is_json);
    if is_read { Ok(()) } else { Err(Refusal::ContentType) }
}

fn encoding(headers: &HeaderMap) -> Result<Encoding, Refusal> {
    match only(headers, CONTENT_ENCODING).map_err(|()| Refusal::ContentEncoding)? {
        None => Ok(Encoding::Identity),
        Some(name) => match name.to_ascii_lowercase().as_str() {
            "identity" => Ok(Encoding::Identity),
            "gzip" | "x-gzip" => Ok(Encoding::Gzip),
            "zstd" => Ok(Encoding::Zstd),
            _ => Err(Refusal::ContentEncoding),
        },
    }
}

/// The one value of a header, trimmed; an empty one counts as absent.
fn only(headers: &HeaderMap, name: HeaderName) -> Result<Option<&str>, ()> {
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

/// Bytes reserved of the bound on all bodies; given back when it is dropped.
pub struct Reservation {
    permit: OwnedSemaphorePermit,
    gauge: IntGauge,
}

impl Reservation {
    /// Reserves `bytes` of `budget`, which has a permit for each byte, or refuses at once.
    pub fn take(budget: &Arc<Semaphore>, bytes: usize, gauge: &IntGauge) -> Result<Self, Refusal> {
        let permit = permits(budget, bytes)?;
        gauge.add(bytes as i64);
        Ok(Self { permit, gauge: gauge.clone() })
    }

    /// Changes the reservation to `bytes` in all: gives back what is too much, or reserves
    /// what is missing, or refuses at once.
    pub fn fit(&mut self, bytes: usize) -> Result<(), Refusal> {
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

/// Reads `body` to its end.
pub async fn read<B>(body: &mut B, declared: Option<usize>, limits: &Limits) -> Result<Bytes, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    let start = Instant::now();
    let deadline = start + limits.body_total;
    // Most bodies are one frame, which is then not copied.
    let (mut first, mut joined) = (Bytes::new(), Vec::new());
    loop {
        let idle = Instant::now() + limits.body_idle;
        let earned = Duration::from_secs(first.len().max(joined.len()) as u64) / limits.body_min_rate.get();
        let too_slow = start + earned.max(RATE_GRACE);
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
                joined.reserve_exact(declared.unwrap_or(2 * (first.len() + data.len())));
                joined.extend_from_slice(&first);
            }
            joined.extend_from_slice(&data);
        }
    }
}

/// What a whole body is once its encoding is taken off, within limits.
pub fn decoded(
    body: Bytes,
    encoding: Encoding,
    limits: &Limits,
    reserved: &mut Reservation,
) -> Result<Bytes, Refusal> {
    let limit = limits.decoded_bytes.min(RATIO_FREE_BYTES + MAX_RATIO * body.len());
    let inflated = match encoding {
        Encoding::Identity => {
            return match undeclared(&body) {
                None => Ok(body),
                Some(encoding) => Err(Refusal::UndeclaredEncoding(encoding)),
            };
        }
        Encoding::Gzip => inflate(MultiGzDecoder::new(&body[..]), body.len(), limit, reserved),
        Encoding::Zstd => inflate(zstd_decoder(&body)?, body.len(), limit, reserved),
    };
    inflated.map(Bytes::from)
}

/// The encoding that a body has although its headers say none. No JSON begins with these bytes.
fn undeclared(body: &[u8]) -> Option<&'static str> {
    match body {
        [0x1f, 0x8b, ..] => Some("gzip"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some("zstd"),
        _ => None,
    }
}

fn zstd_decoder(body: &[u8]) -> Result<ZstdDecoder<'static, &[u8]>, Refusal> {
    let limited = |mut decoder: ZstdDecoder<'static, _>| -> io::Result<_> {
        decoder.window_log_max(MAX_WINDOW_LOG)?;
        Ok(decoder)
    };
    // Only memory can be missing.
    ZstdDecoder::with_buffer(body).and_then(limited).map_err(|_| Refusal::Internal)
}

/// Inflates step by step, what is made of it reserved before, beside the `sent` bytes.
fn inflate(
    mut decoder: impl Read,
    sent: usize,
    limit: usize,
    reserved: &mut Reservation,
) -> Result<Vec<u8>, Refusal> {
    let mut decoded = Vec::new();
    loop {
        if decoded.capacity() - decoded.len() < STEP_BYTES {
            let larger = (2 * decoded.capacity()).min(limit).max(decoded.len()) + STEP_BYTES;
            // Both are there while the one is copied into the other.
            reserved.fit(sent + decoded.capacity() + larger)?;
            decoded.reserve_exact(larger - decoded.len());
            reserved.fit(sent + decoded.capacity())?;
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

/// Reads what is left of a body that nobody wants, within limits. Returns whether
/// it ended, so that its connection can serve on.
pub async fn drain<B>(body: &mut B, headers: &HeaderMap) -> bool
where
    B: Body<Data = Bytes> + Unpin,
{
    if body.is_end_stream() {
        return true;
    }
    if headers.contains_key(EXPECT) {
        // It waits for our word, which reading would give.
        return false;
    }
    let to_the_end = async {
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
    timeout(MAX_DRAIN_TIME, to_the_end).await.unwrap_or(false)
}

#[cfg(test)]
mod tests;
