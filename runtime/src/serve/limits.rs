//! The limits on connections: their number, the size of their headers, and their timeouts.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use http::Request;

use super::activity::Timeouts;
use crate::vars::{VarError, Vars};

/// The smallest limit of header bytes that can be configured; the headers of common clients fit into it.
const LEAST_HEADER_BYTES: u32 = 1024;

/// The limits on the connections of a port.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// Maximum number of connections at once: `MAX_CONNECTIONS`, default 65 536. When it is reached, idle connections
    /// are closed, and new connections wait in the kernel's queue. The process needs a file descriptor for each
    /// connection.
    pub connections: NonZeroUsize,
    /// Maximum number of connections of one TCP peer (IPv6: of one /64): `MAX_CONNECTIONS_PER_IP`, default 0. 0 means
    /// no limit. Connections beyond it are closed at once. Leave it at 0 behind a proxy: all clients have the proxy's
    /// address.
    pub connections_per_ip: Option<NonZeroU32>,
    /// Longest time for a TLS handshake, and for the headers of an HTTP/1 request: `HEADER_TIMEOUT`, default 5s. A
    /// connection that takes longer is closed.
    pub header_time: Duration,
    /// Longest time that a connection may stay idle between two requests: `KEEP_ALIVE_TIMEOUT`, default 75s. An
    /// HTTP/1 client that reads nothing of a complete response for that long is disconnected too. Set it above your
    /// load balancer's idle timeout.
    pub idle_time: Duration,
    /// Age at which a connection is closed after its current request, ±10 %: `MAX_CONNECTION_AGE`, default 300s.
    /// Clients then connect again, which spreads them over new instances.
    pub age: Duration,
    /// Maximum number of concurrent requests (streams) on one HTTP/2 connection: `MAX_STREAMS`, default 128.
    pub streams: NonZeroU32,
    /// Largest header block of a request, including the request line: `MAX_HEADER_BYTES`, default 16 KiB, at least
    /// 1 KiB. A request with a larger header block gets `431`.
    pub header_bytes: u32,
    /// Maximum number of headers of one request: `MAX_HEADERS`, default 64. A request with more headers gets `431`.
    pub headers: NonZeroUsize,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            connections: const { NonZeroUsize::new(65_536).unwrap() },
            connections_per_ip: None,
            header_time: Duration::from_secs(5),
            idle_time: Duration::from_secs(75),
            age: Duration::from_secs(300),
            streams: const { NonZeroU32::new(128).unwrap() },
            header_bytes: 16 * 1024,
            headers: const { NonZeroUsize::new(64).unwrap() },
        }
    }
}

impl ConnectionLimits {
    /// Reads and checks the variables of these limits.
    pub fn from_vars(vars: &Vars) -> Result<Self, VarError> {
        let default = Self::default();
        let header_bytes = vars.bytes_or("MAX_HEADER_BYTES", default.header_bytes as usize)?;
        Ok(Self {
            connections: vars.parsed_or("MAX_CONNECTIONS", default.connections)?,
            connections_per_ip: NonZeroU32::new(vars.parsed_or("MAX_CONNECTIONS_PER_IP", 0)?),
            header_time: vars.positive_duration_or("HEADER_TIMEOUT", default.header_time)?,
            idle_time: vars.positive_duration_or("KEEP_ALIVE_TIMEOUT", default.idle_time)?,
            age: vars.positive_duration_or("MAX_CONNECTION_AGE", default.age)?,
            streams: vars.parsed_or("MAX_STREAMS", default.streams)?,
            header_bytes: header_bytes_of(header_bytes)?,
            headers: vars.parsed_or("MAX_HEADERS", default.headers)?,
        })
    }

    pub(super) fn timeouts(&self) -> Timeouts {
        Timeouts { headers: self.header_time, idle: self.idle_time }
    }

    /// Whether the headers of a request are too many or too long. The length must be checked here for HTTP/1, because
    /// hyper limits only the size of its read buffer, which may be larger than `MAX_HEADER_BYTES`. For HTTP/2, hyper
    /// itself limits the length of the headers.
    pub(super) fn refuses<B>(&self, request: &Request<B>) -> bool {
        let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
        let line = request.method().as_str().len() + target;
        let headers = request.headers();
        let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        headers.len() > self.headers.get() || line + bytes > self.header_bytes as usize
    }
}

fn header_bytes_of(bytes: usize) -> Result<u32, VarError> {
    u32::try_from(bytes).ok().filter(|bytes| LEAST_HEADER_BYTES <= *bytes).ok_or_else(|| VarError::Invalid {
        name: "MAX_HEADER_BYTES",
        value: bytes.to_string(),
        reason: format!("it must be at least {LEAST_HEADER_BYTES} and below 4 GiB"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, value: &str, expected: Result<(), &str>) {
        let read = ConnectionLimits::from_vars(&Vars::from_pairs([(name, value)]));
        assert_eq!(read.map(|_| ()).map_err(|error| error.to_string()), expected.map_err(str::to_owned));
    }

    #[test]
    fn limits_that_would_refuse_every_request_fail_the_start() {
        check("MAX_CONNECTIONS_PER_IP", "0", Ok(()));
        check("MAX_CONNECTIONS", "1", Ok(()));
        let zero = "number would be zero for non-zero type";
        check("MAX_CONNECTIONS", "0", Err(&format!("variable MAX_CONNECTIONS=`0` is not usable: {zero}")));
        check("MAX_HEADERS", "0", Err(&format!("variable MAX_HEADERS=`0` is not usable: {zero}")));
        check(
            "MAX_HEADER_BYTES",
            "0",
            Err("variable MAX_HEADER_BYTES=`0` is not usable: it must be at least 1024 and below 4 GiB"),
        );
        check(
            "HEADER_TIMEOUT",
            "0s",
            Err("variable HEADER_TIMEOUT=`0s` is not usable: it must be above zero, for example `5s`"),
        );
    }

    #[test]
    fn headers_up_to_the_limits_are_accepted_and_no_more() {
        let limits = ConnectionLimits { header_bytes: 100, ..ConnectionLimits::default() };
        let refuses = |bytes: usize| {
            // Besides the value of the header, 9 bytes count: `GET`, `/`, `x: ` and `\r\n`.
            let request = Request::get("/").header("x", "v".repeat(bytes - 9)).body(());
            limits.refuses(&request.unwrap())
        };
        assert!(!refuses(100) && refuses(101));
        let many = |count| {
            let request =
                (0..count).fold(Request::get("/"), |request, n| request.header(format!("h{n}"), ""));
            ConnectionLimits::default().refuses(&request.body(()).unwrap())
        };
        assert!(!many(64) && many(65));
    }
}
