//! The load generator: many connections, prepared requests, latency as a distribution.
//!
//! With a rate, the load is an open loop: the latency of a request counts from its scheduled start, so a stall of
//! the server counts for every request that had to wait. Without a rate, each connection sends its next request
//! when the previous one is answered. The generator shares the machine with the servers that it measures. To use little
//! CPU time, it writes prepared bytes and parses only the status and the length of an answer. With a rate, latencies
//! include the timer's granularity of a millisecond.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// The longest latency that can be recorded: a minute. Longer latencies are recorded as a minute.
const LONGEST_MICROS: u64 = 60_000_000;

/// What is sent, where and how fast.
#[derive(Clone)]
pub struct Load {
    /// The address of the server.
    pub addr: SocketAddr,
    /// Number of simultaneous connections.
    pub connections: usize,
    /// Requests per second over all connections. `None`: as many as the server answers.
    pub rate: Option<f64>,
    /// Whole HTTP/1.1 requests, sent in turn.
    pub requests: Arc<[Bytes]>,
}

/// The result of a load.
pub struct Outcome {
    /// Requests answered with 2xx.
    pub answered: u64,
    /// Requests answered with another status, or not at all.
    pub failed: u64,
    /// Microseconds from the start of each answered request to the end of its answer. With a rate, the start is the
    /// scheduled one.
    pub latency: Histogram<u64>,
    /// Time from the start of the first request to the last answer.
    pub elapsed: Duration,
}

impl Outcome {
    /// A latency quantile in milliseconds.
    pub fn millis(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1000.0
    }
}

/// A prepared `POST` of `body` to `path`.
pub fn post(path: &str, body: &[u8]) -> Bytes {
    let head = format!("POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat().into()
}

/// A prepared `GET` of `path`.
pub fn get(path: &str) -> Bytes {
    format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n").into()
}

impl Load {
    /// Sends requests for `duration` and waits for their answers. With a rate, sends all requests that are scheduled
    /// within `duration`, even if that takes longer.
    pub async fn run(&self, duration: Duration) -> anyhow::Result<Outcome> {
        let mut streams = Vec::with_capacity(self.connections);
        for _ in 0..self.connections {
            streams.push(connect(self.addr).await?);
        }
        let started = Instant::now();
        let next = Arc::new(AtomicU64::new(0));
        let mut connections = JoinSet::new();
        for stream in streams {
            connections.spawn(self.clone().drive(stream, started, duration, Arc::clone(&next)));
        }
        let mut outcome = Outcome::empty()?;
        while let Some(part) = connections.join_next().await {
            let part = part.context("drive a connection")??;
            outcome.answered += part.answered;
            outcome.failed += part.failed;
            outcome.latency.add(&part.latency).context("add latencies")?;
        }
        outcome.elapsed = started.elapsed();
        Ok(outcome)
    }

    /// Drives one connection: sends one request after another, until the next one would start after `duration`. With a
    /// rate, sends each request at its scheduled time, or later if the connection was busy at that time.
    async fn drive(
        self,
        mut stream: TcpStream,
        started: Instant,
        duration: Duration,
        next: Arc<AtomicU64>,
    ) -> anyhow::Result<Outcome> {
        let mut outcome = Outcome::empty()?;
        let mut buffer = Vec::with_capacity(16 * 1024);
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let intended = match self.rate {
                Some(rate) => started + Duration::from_secs_f64(number as f64 / rate),
                None => Instant::now(),
            };
            if intended.duration_since(started) >= duration {
                return Ok(outcome);
            }
            if self.rate.is_some() {
                sleep_until(intended).await;
            }
            let request = &self.requests[number as usize % self.requests.len()];
            match exchange(&mut stream, request, &mut buffer).await {
                Ok(200..=299) => {
                    outcome.answered += 1;
                    outcome.latency.saturating_record(intended.elapsed().as_micros() as u64);
                }
                Ok(_) => outcome.failed += 1,
                Err(_) => {
                    outcome.failed += 1;
                    stream = connect(self.addr).await?;
                }
            }
        }
    }
}

impl Outcome {
    fn empty() -> anyhow::Result<Self> {
        let latency = Histogram::new_with_bounds(1, LONGEST_MICROS, 3).context("make a histogram")?;
        Ok(Self { answered: 0, failed: 0, latency, elapsed: Duration::ZERO })
    }
}

async fn connect(addr: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(addr).await.with_context(|| format!("connect to {addr}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends one request and reads its answer to the end; returns the status.
async fn exchange(stream: &mut TcpStream, request: &[u8], buffer: &mut Vec<u8>) -> anyhow::Result<u16> {
    stream.write_all(request).await?;
    buffer.clear();
    loop {
        if stream.read_buf(buffer).await? == 0 {
            bail!("the server closed the connection before the end of the answer");
        }
        if let Some(answer) = Answer::parse(buffer)?
            && buffer.len() >= answer.length
        {
            return Ok(answer.status);
        }
    }
}

/// The parts of an answer that the generator needs.
struct Answer {
    status: u16,
    /// Bytes of head and body.
    length: usize,
}

impl Answer {
    /// Parses the head of an answer. Returns `None` while the head or the chunked body is incomplete.
    fn parse(bytes: &[u8]) -> anyhow::Result<Option<Self>> {
        let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else { return Ok(None) };
        let head = str::from_utf8(&bytes[..end]).context("read the head of an answer")?;
        let status =
            head.get(9..12).and_then(|code| code.parse().ok()).context("read the status of an answer")?;
        let header = |wanted: &str| {
            let mut headers = head.lines().filter_map(|line| line.split_once(':'));
            headers.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim())
        };
        let body = end + 4;
        let length = if header("transfer-encoding") == Some("chunked") {
            chunked_length(&bytes[body..])
        } else {
            Some(header("content-length").and_then(|value| value.parse().ok()).unwrap_or(0))
        };
        Ok(length.map(|length| Self { status, length: body + length }))
    }
}

/// The length of a chunked body (RFC 9112, section 7.1), including the lines with the chunk sizes; `None` while the
/// body is incomplete. ClickHouse sends chunked bodies.
fn chunked_length(body: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let line = memchr::memmem::find(body.get(at..)?, b"\r\n")?;
        let size = usize::from_str_radix(str::from_utf8(&body[at..at + line]).ok()?, 16).ok()?;
        at += line + 2 + size + 2;
        if size == 0 {
            return Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: &str, expected: Option<(u16, usize)>) {
        let answer = Answer::parse(bytes.as_bytes()).unwrap();
        assert_eq!(answer.map(|answer| (answer.status, answer.length)), expected);
    }

    #[test]
    fn an_answer_ends_where_its_length_says() {
        check("HTTP/1.1 200 OK\r\nconTent-length:  3\r\n\r\nabc", Some((200, 42)));
        check("HTTP/1.1 204 No Content\r\nx: y\r\n\r\n", Some((204, 33)));
        check("HTTP/1.1 200 OK\r\nContent-Le", None);
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nhello world\r\n";
        check(chunked, None);
        check(&format!("{chunked}0\r\n\r\n"), Some((200, 68)));
    }
}
