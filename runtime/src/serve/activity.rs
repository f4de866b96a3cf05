//! Tracks what a connection is doing, and when it times out.
//!
//! This module does no I/O and reads no clock: callers pass the time.

use tokio::time::{Duration, Instant};

/// The timeouts of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeouts {
    /// Longest time until the headers of an HTTP/1 request are complete. For the first request, the time runs from the
    /// start of the connection; for each later request, from its first byte. An HTTP/2 client must begin its preface
    /// within this time; after that, its connection has only the timeout `idle`.
    pub(super) headers: Duration,
    /// Longest time that a connection may be idle, that is, in [`Phase::Idle`].
    pub(super) idle: Duration,
}

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Waiting for complete headers since this moment: the start of the connection, or the first byte of a later HTTP/1
    /// request.
    Headers(Instant),
    /// Answering this number of requests: hyper does not have the whole response to any of them yet.
    Busy(u32),
    /// Waiting for a request, and idle since this moment. On an HTTP/2 connection, frames that do not begin a request
    /// may arrive in this phase; they do not restart the idle time.
    Idle(Instant),
}

/// What a connection is doing, and whether it uses HTTP/2.
#[derive(Debug)]
pub(super) struct Activity {
    phase: Phase,
    http2: bool,
}

impl Activity {
    /// The activity of a connection that was accepted just now: the timeout for its first headers runs.
    pub(super) fn new(now: Instant) -> Self {
        Self { phase: Phase::Headers(now), http2: false }
    }

    /// Records bytes that arrived.
    pub(super) fn read(&mut self, bytes: &[u8], now: Instant) {
        // No standard method of HTTP/1 begins with `PRI`, but the preface of HTTP/2 does. If the first read has fewer
        // than these three bytes, the connection gets the timeouts of HTTP/1.
        if bytes.starts_with(b"PRI") && matches!(self.phase, Phase::Headers(_)) {
            (self.http2, self.phase) = (true, Phase::Idle(now));
        }
        // On an HTTP/2 connection, bytes may be frames that do not begin a request, so they do not start the timeout
        // of headers.
        if let (Phase::Idle(_), false) = (self.phase, self.http2) {
            self.phase = Phase::Headers(now);
        }
    }

    /// Records that the headers of a request are complete.
    pub(super) fn request(&mut self) {
        self.phase = match self.phase {
            Phase::Busy(requests) => Phase::Busy(requests + 1),
            Phase::Headers(_) | Phase::Idle(_) => Phase::Busy(1),
        };
    }

    /// Records that hyper has taken the whole response to a request, or has dropped the request.
    pub(super) fn response(&mut self, now: Instant) {
        self.phase = match self.phase {
            Phase::Busy(requests) if requests > 1 => Phase::Busy(requests - 1),
            _ => Phase::Idle(now),
        };
    }

    /// Records that the peer accepts bytes again after it had accepted none for a while. This restarts the idle time:
    /// the phase is already [`Phase::Idle`] when hyper has the whole response, but the peer may still be receiving it.
    pub(super) fn written(&mut self, now: Instant) {
        if let Phase::Idle(since) = &mut self.phase {
            *since = now;
        }
    }

    /// Whether the connection is in [`Phase::Idle`].
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle(_))
    }

    /// When the connection times out if nothing happens before that; `None` while it answers requests.
    pub(super) fn deadline(&self, timeouts: Timeouts) -> Option<Instant> {
        match self.phase {
            Phase::Headers(since) => Some(since + timeouts.headers),
            Phase::Idle(since) => Some(since + timeouts.idle),
            Phase::Busy(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUTS: Timeouts = Timeouts { headers: Duration::from_secs(5), idle: Duration::from_secs(75) };

    /// Checks that after these `steps`, the connection times out `expected` seconds after its start, or never if
    /// `expected` is `None`.
    #[track_caller]
    fn check(steps: impl FnOnce(&mut Activity, &dyn Fn(u64) -> Instant), expected: Option<u64>) {
        let start = Instant::now();
        let mut activity = Activity::new(start);
        steps(&mut activity, &|seconds| start + Duration::from_secs(seconds));
        let left = activity.deadline(TIMEOUTS).map(|deadline| (deadline - start).as_secs());
        assert_eq!(left, expected);
    }

    #[test]
    fn headers_time_out_after_their_first_byte_however_often_more_bytes_arrive() {
        check(|_, _| {}, Some(5));
        check(|activity, at| (0..5).for_each(|second| activity.read(b"x", at(second))), Some(5));
        check(
            |activity, at| {
                activity.request();
                activity.response(at(10));
                activity.read(b"x", at(20));
                activity.read(b"x", at(22));
            },
            Some(25),
        );
    }

    #[test]
    fn an_idle_connection_times_out_late_and_one_that_waits_for_a_response_never() {
        let busy = |activity: &mut Activity| {
            activity.request();
            activity.request();
            activity.response(Instant::now());
        };
        check(|activity, _| busy(activity), None);
        check(
            |activity, at| {
                busy(activity);
                activity.response(at(10));
            },
            Some(85),
        );
    }

    #[test]
    fn a_connection_whose_peer_still_reads_a_response_is_not_idle() {
        check(
            |activity, at| {
                activity.request();
                activity.response(at(10));
                activity.written(at(60));
            },
            Some(135),
        );
    }

    #[test]
    fn frames_of_http2_do_not_start_the_timeout_of_headers() {
        check(
            |activity, at| {
                activity.read(b"PRI * HTTP/2.0\r\n", at(1));
                activity.read(b"ping", at(70));
            },
            Some(76),
        );
    }
}
