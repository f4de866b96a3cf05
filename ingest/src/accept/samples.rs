//! Samples of rejected lines, which show operators what clients do wrong.
//!
//! Invariant: no request waits for a sample. A sample is dropped if it exceeds the rate or if Kafka does not accept it.

use std::num::NonZeroU32;

use governor::{DefaultDirectRateLimiter, Quota};
use schemas::sample::Sample;
use schemas::time::UnixMillis;

use super::report::{LineError, Report};
use crate::line::Line;

/// Maximum number of samples per second. The burst, the maximum number of samples at one moment, is the same.
const PER_SECOND: NonZeroU32 = NonZeroU32::new(10).unwrap();

/// Picks samples; shared by all requests.
pub struct Samples(DefaultDirectRateLimiter);

impl Default for Samples {
    fn default() -> Self {
        Self(DefaultDirectRateLimiter::direct(Quota::per_second(PER_SECOND)))
    }
}

impl Samples {
    /// Picks samples from the rejected lines that the report lists, as far as the rate allows. Each sample is encoded
    /// as a line of a record.
    pub fn pick(
        &self,
        lines: &[Line<'_>],
        report: &Report,
        tenant: &str,
        server_time: UnixMillis,
    ) -> Vec<Vec<u8>> {
        let sample = |error: &LineError| {
            let at = lines
                .binary_search_by_key(&error.line, |line| line.number)
                .expect("the report lists only lines of the body");
            Sample::new(tenant, server_time, error.code, error.field, lines[at].bytes).write()
        };
        report.errors.iter().take_while(|_| self.0.check().is_ok()).map(sample).collect()
    }
}
