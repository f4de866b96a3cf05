//! Logs refused requests: for each reason at most one log line per interval, with the number of requests that were
//! refused for this reason since the previous log line. The only values from the client in a log line are the request
//! id and the trace id.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use runtime::request_id::RequestId;
use schemas::trace::TraceParent;

use crate::outcome::Refusal;
use crate::route::Route;

/// The minimum time between two log lines for the same reason.
const INTERVAL: Duration = Duration::from_secs(10);

/// Logs refused requests; shared by all requests.
#[derive(Default)]
pub struct RefusalLog(Mutex<HashMap<&'static str, Reason>>);

/// When the last line for a reason was logged, and how many requests were refused since then.
#[derive(Default)]
struct Reason {
    /// When the last line was logged.
    logged: Option<Instant>,
    /// The number of requests refused for this reason since the last line.
    requests: u64,
}

impl RefusalLog {
    /// Logs a refused request, if a line for its reason is due.
    pub fn log(&self, refusal: &Refusal, route: Route, id: &RequestId, trace: Option<&TraceParent>) {
        let (status, reason) = (refusal.status(), refusal.code());
        let Some(requests) = self.due(reason, Instant::now()) else { return };
        let (request_id, route) = (id.as_str(), route.as_str());
        let (trace_id, detail) = (trace.map(TraceParent::trace_id), refusal.detail());
        let status_code = status.as_u16();
        if status.is_server_error() {
            tracing::warn!(reason, status_code, route, requests, request_id, trace_id, "refused: {detail}");
        } else {
            tracing::info!(reason, status_code, route, requests, request_id, trace_id, "refused: {detail}");
        }
    }

    /// Counts a request that was refused for `reason`. If a line is due, returns the number of requests since the last
    /// line.
    fn due(&self, reason: &'static str, now: Instant) -> Option<u64> {
        // The map has at most one entry for each code of a refusal. The lock is never poisoned, because nothing panics
        // while it is held.
        let mut reasons = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Reason { logged, requests } = reasons.entry(reason).or_default();
        *requests += 1;
        if logged.is_some_and(|logged| now.saturating_duration_since(logged) < INTERVAL) {
            return None;
        }
        *logged = Some(now);
        Some(std::mem::take(requests))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_logged_at_intervals_with_the_number_of_its_requests() {
        let (refusals, start) = (RefusalLog::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(refusals.due("no_key", start), Some(1));
        assert_eq!(refusals.due("not_found", after(1)), Some(1));
        for second in 2..10 {
            assert_eq!(refusals.due("no_key", after(second)), None);
        }
        assert_eq!(refusals.due("no_key", after(10)), Some(9));
        assert_eq!(refusals.due("not_found", after(10)), None);
        assert_eq!(refusals.due("no_key", after(1000)), Some(1));
    }
}
