//! Whether a connection still earns its place: how long it may say nothing.
//!
//! No I/O and no clock in here; times are passed in.

use tokio::time::{Duration, Instant};

/// How long a connection is waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// From the start of a connection, or the first byte of a request, to complete headers.
    pub(super) headers: Duration,
    /// Between requests.
    pub(super) idle: Duration,
}

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Sending the headers of an HTTP/1 request.
    Headers(Instant),
    /// Waiting for, or reading, the answers to so many requests.
    Busy(u32),
    /// Nothing.
    Idle(Instant),
}

/// What a connection is doing, and whether it speaks HTTP/2.
#[derive(Debug)]
pub(super) struct Pulse {
    phase: Phase,
    http2: bool,
}

impl Pulse {
    /// A connection that was accepted just now; its first request is due.
    pub(super) fn new(now: Instant) -> Self {
        Self { phase: Phase::Headers(now), http2: false }
    }

    /// Bytes came in.
    pub(super) fn read(&mut self, bytes: &[u8], now: Instant) {
        // No HTTP/1 method begins so. Whoever sends the preface in pieces is not waited for as long.
        if bytes.starts_with(b"PRI") && matches!(self.phase, Phase::Headers(_)) {
            (self.http2, self.phase) = (true, Phase::Idle(now));
        }
        // HTTP/2 has frames of its own, which begin no request.
        if let (Phase::Idle(_), false) = (self.phase, self.http2) {
            self.phase = Phase::Headers(now);
        }
    }

    /// The headers of a request are complete.
    pub(super) fn asked(&mut self) {
        self.phase = match self.phase {
            Phase::Busy(requests) => Phase::Busy(requests + 1),
            Phase::Headers(_) | Phase::Idle(_) => Phase::Busy(1),
        };
    }

    /// An answer was handed over, or its request is gone.
    pub(super) fn answered(&mut self, now: Instant) {
        self.phase = match self.phase {
            Phase::Busy(requests) if requests > 1 => Phase::Busy(requests - 1),
            _ => Phase::Idle(now),
        };
    }

    /// Whether it waits for a request.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle(_))
    }

    /// When it has been waited for long enough, unless something happens.
    pub(super) fn deadline(&self, patience: Patience) -> Option<Instant> {
        match self.phase {
            Phase::Headers(since) => Some(since + patience.headers),
            Phase::Idle(since) => Some(since + patience.idle),
            Phase::Busy(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience { headers: Duration::from_secs(5), idle: Duration::from_secs(75) };

    /// The seconds after the start at which a connection is given up that did these things.
    #[track_caller]
    fn check(steps: impl FnOnce(&mut Pulse, &dyn Fn(u64) -> Instant), expected: Option<u64>) {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        steps(&mut pulse, &|seconds| start + Duration::from_secs(seconds));
        let left = pulse.deadline(PATIENCE).map(|deadline| (deadline - start).as_secs());
        assert_eq!(left, expected);
    }

    #[test]
    fn headers_must_be_complete_soon_after_their_first_byte_however_often_one_comes() {
        check(|_, _| {}, Some(5));
        check(|pulse, at| (0..5).for_each(|second| pulse.read(b"x", at(second))), Some(5));
        check(
            |pulse, at| {
                pulse.asked();
                pulse.answered(at(10));
                pulse.read(b"x", at(20));
                pulse.read(b"x", at(22));
            },
            Some(25),
        );
    }

    #[test]
    fn between_requests_it_may_be_silent_for_long_and_while_one_is_answered_for_ever() {
        let busy = |pulse: &mut Pulse| {
            pulse.asked();
            pulse.asked();
            pulse.answered(Instant::now());
        };
        check(|pulse, _| busy(pulse), None);
        check(
            |pulse, at| {
                busy(pulse);
                pulse.answered(at(10));
            },
            Some(85),
        );
    }

    #[test]
    fn frames_of_http2_begin_no_request() {
        check(
            |pulse, at| {
                pulse.read(b"PRI * HTTP/2.0\r\n", at(1));
                pulse.read(b"ping", at(70));
            },
            Some(76),
        );
    }
}
