//! What keeps the aggregator from doing its work, for people and for probes.
//!
//! Invariant: each change is logged once, not each try. Not being ready is no
//! reason to restart: everything named in here is tried again by itself.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use runtime::admin::Readiness;

/// What can be in trouble by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Concern {
    /// The brokers and the topic.
    Kafka,
    /// The server and its tables.
    ClickHouse,
    /// A Kafka partition that cannot go on.
    Partition(i32),
}

/// The troubles of the moment.
#[derive(Debug)]
pub struct Health {
    troubles: Mutex<BTreeMap<Concern, String>>,
}

/// Not ready until both sides were reached.
impl Default for Health {
    fn default() -> Self {
        let unknown = [Concern::Kafka, Concern::ClickHouse].map(|at| (at, "not reached yet".to_owned()));
        Self { troubles: Mutex::new(unknown.into()) }
    }
}

impl Health {
    /// `concern` cannot go on, for this reason.
    pub fn trouble(&self, concern: Concern, reason: impl fmt::Display) {
        let reason = reason.to_string();
        let before = self.troubles().insert(concern, reason.clone());
        if before.as_ref() != Some(&reason) {
            tracing::warn!("{concern}: {reason}");
        }
    }

    /// `concern` works.
    pub fn well(&self, concern: Concern) {
        let before = self.troubles().remove(&concern);
        if before.is_some() {
            tracing::info!("{concern}: works");
        }
    }

    /// Whether nothing is in trouble; says what is.
    pub fn readiness(&self) -> Readiness {
        let troubles = self.troubles();
        let all: Vec<_> = troubles.iter().map(|(concern, reason)| format!("{concern}: {reason}")).collect();
        if all.is_empty() { Ok(()) } else { Err(all.join("; ")) }
    }

    fn troubles(&self) -> MutexGuard<'_, BTreeMap<Concern, String>> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Concern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kafka => f.write_str("kafka"),
            Self::ClickHouse => f.write_str("clickhouse"),
            Self::Partition(kp) => write!(f, "partition {kp}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_once_both_sides_work_and_says_what_does_not() {
        let health = Health::default();
        assert_eq!(health.readiness(), Err("kafka: not reached yet; clickhouse: not reached yet".to_owned()));
        health.well(Concern::Kafka);
        health.well(Concern::ClickHouse);
        assert_eq!(health.readiness(), Ok(()));
        health.trouble(Concern::Partition(3), "stopped");
        assert_eq!(health.readiness(), Err("partition 3: stopped".to_owned()));
    }
}
