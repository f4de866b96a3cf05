//! How much memory and time one request, and all requests together, may use.

use std::num::NonZeroU32;
use std::time::Duration;

use runtime::vars::{VarError, Vars};

use super::geoip::GeoIpConfig;
use super::work_budget::CPU_WORK_BYTES;

const MIB: usize = 1 << 20;

/// The settings that decide how bodies become enriched lines.
#[derive(Debug, Clone)]
pub struct AcceptConfig {
    /// The limits on bodies.
    pub limits: BodyLimits,
    /// The database that finds the country of a client's address, for events that the client sends without a country.
    /// `None`: these events have no country.
    pub geoip: Option<GeoIpConfig>,
    /// Events per second of one user above which the user's events are spread over all partitions: `HOT_KEY_RATE`,
    /// default 0. 0 never spreads them. Set it only if one user overloads a partition: repeats of a spread event may
    /// count twice.
    pub hot_key_rate: u32,
}

/// The limits on the body of a request, and on all bodies together.
#[derive(Debug, Clone)]
pub struct BodyLimits {
    /// Largest body as sent, before decompression: `MAX_BODY_BYTES`, default 8 MiB. A larger one gets `413`.
    pub body_bytes: usize,
    /// Largest body after decompression: `MAX_DECODED_BYTES`, default 32 MiB. A larger one gets `413`.
    pub decoded_bytes: usize,
    /// Maximum number of events in one request: `MAX_EVENTS`, default 10 000. More get `413`.
    pub events: usize,
    /// Longest pause while a body arrives: `BODY_IDLE_TIMEOUT`, default 10s. After it the request gets `408`.
    pub body_idle: Duration,
    /// Longest time for a whole body to arrive: `BODY_TIMEOUT`, default 30s. After it the request gets `408`.
    pub body_total: Duration,
    /// Minimum bytes per second at which a body must arrive on average, after its first 5 s: `BODY_MIN_RATE`, default
    /// 512. A slower request gets `408`.
    pub body_min_rate: NonZeroU32,
    /// Memory for the bodies of all open requests together, and 64 MiB for the CPU work on them: `IN_FLIGHT_BYTES`,
    /// default 256 MiB, below 4 GiB. Requests beyond it get `503`. Raise it, and the memory of the process, if
    /// `ingest_shed_total{reason="in_flight_bytes"}` grows.
    pub in_flight_bytes: usize,
}

impl AcceptConfig {
    /// Reads and checks the environment variables of the fields above.
    pub fn from_vars(vars: &Vars) -> Result<Self, VarError> {
        Ok(Self {
            limits: BodyLimits::from_vars(vars)?,
            geoip: GeoIpConfig::from_vars(vars)?,
            hot_key_rate: vars.parsed_or("HOT_KEY_RATE", 0)?,
        })
    }
}

impl BodyLimits {
    fn from_vars(vars: &Vars) -> Result<Self, VarError> {
        let limits = Self {
            body_bytes: vars.bytes_or("MAX_BODY_BYTES", 8 * MIB)?,
            decoded_bytes: vars.bytes_or("MAX_DECODED_BYTES", 32 * MIB)?,
            events: vars.parsed_or("MAX_EVENTS", 10_000)?,
            body_idle: vars.positive_duration_or("BODY_IDLE_TIMEOUT", Duration::from_secs(10))?,
            body_total: vars.positive_duration_or("BODY_TIMEOUT", Duration::from_secs(30))?,
            body_min_rate: vars.parsed_or("BODY_MIN_RATE", const { NonZeroU32::new(512).unwrap() })?,
            in_flight_bytes: vars.bytes_or("IN_FLIGHT_BYTES", 256 * MIB)?,
        };
        let largest = limits
            .body_bytes
            .saturating_add(limits.decoded_bytes.saturating_mul(2))
            .saturating_add(2 * MIB + CPU_WORK_BYTES);
        if limits.in_flight_bytes < largest || limits.in_flight_bytes > u32::MAX as usize {
            return Err(VarError::Invalid {
                name: "IN_FLIGHT_BYTES",
                value: limits.in_flight_bytes.to_string(),
                reason: format!(
                    "it must be below 4 GiB and at least {largest} bytes: MAX_BODY_BYTES + 2 × MAX_DECODED_BYTES + \
                     2 MiB for the decompression of the largest body, and {CPU_WORK_BYTES} bytes for the budget for \
                     CPU work"
                ),
            });
        }
        Ok(limits)
    }
}
