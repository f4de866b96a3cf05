//! Log lines of requests that were refused: for each reason one now and then, with how many they
//! were; of what was sent, only the names of request and trace.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use runtime::request_id::RequestId;
use schemas::trace::TraceParent;

use crate::outcome::Refusal;
use crate::route::Route;

/// From one line of a reason to the next.
const INTERVAL: Duration = Duration::from_secs(10);

/// Knows what was told already; one for all requests.
#[derive(Default)]
pub struct Refusals(Mutex<HashMap<&'static str, Reason>>);

/// What is known of one reason.
#[derive(Default)]
struct Reason {
    told: Option<Instant>,
    /// Requests that were refused for it since.
    requests: u64,
}

impl Refusals {
    /// Tells of a refused request, if it is time for it.
    pub fn tell(&self, refusal: &Refusal, route: Route, id: &RequestId, trace: Option<&TraceParent>) {
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

    /// Counts a request that was refused for `reason`. If it is time for a line about it: how many
    /// there were since the last one.
    fn due(&self, reason: &'static str, now: Instant) -> Option<u64> {
        // As many reasons as there are refusals. No call can panic half-way.
        let mut reasons = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Reason { told, requests } = reasons.entry(reason).or_default();
        *requests += 1;
        if told.is_some_and(|told| now.saturating_duration_since(told) < INTERVAL) {
            return None;
        }
        *told = Some(now);
        Some(std::mem::take(requests))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_told_now_and_then_with_how_often_it_was() {
        let (refusals, start) = (Refusals::default(), Instant::now());
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
