//! A few of the lines that were rejected, for operators to see what clients do wrong.
//!
//! Invariant: nobody waits for a sample, and none is missed: what the rate does not let
//! through, or Kafka does not take, is dropped.

use std::num::NonZeroU32;

use governor::{DefaultDirectRateLimiter, Quota};
use schemas::sample::Sample;
use schemas::time::UnixMillis;

use crate::accept::decode::Line;
use crate::accept::enrich::{LineError, Report};

/// Samples a second, and at once.
const PER_SECOND: NonZeroU32 = NonZeroU32::new(10).unwrap();

/// Picks samples; one for all requests.
pub struct Samples(DefaultDirectRateLimiter);

impl Default for Samples {
    fn default() -> Self {
        Self(DefaultDirectRateLimiter::direct(Quota::per_second(PER_SECOND)))
    }
}

impl Samples {
    /// Those of a request, each as its line in a record, as far as the rate allows. Only lines that
    /// its report lists are looked at.
    pub fn of(
        &self,
        lines: &[Line<'_>],
        report: &Report,
        tenant: &str,
        server_time: UnixMillis,
    ) -> Vec<Vec<u8>> {
        let sample = |error: &LineError| {
            let at = lines.binary_search_by_key(&error.line, |line| line.number).expect("the line was read");
            Sample::new(tenant, server_time, error.code, error.field, lines[at].bytes).write()
        };
        report.errors.iter().take_while(|_| self.0.check().is_ok()).map(sample).collect()
    }
}
