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
    /// What batches need of the tables, while they are written to.
    Tables,
    /// The place in the consumer group.
    Group,
    /// A Kafka partition that cannot go on.
    Partition(i32),
    /// The inserts of a Kafka partition, which ClickHouse refuses or lost.
    Inserts(i32),
    /// The commits of a Kafka partition, which Kafka refuses.
    Commits(i32),
    /// Whether the records of a Kafka partition are applied as they come.
    Progress(i32),
}

/// The troubles of the moment.
#[derive(Debug)]
pub struct Health {
    brokers: String,
    troubles: Mutex<BTreeMap<Concern, String>>,
}

impl Health {
    /// Not ready until Kafka at `brokers` and ClickHouse were reached and the group was joined:
    /// before that nothing is stored.
    pub fn new(brokers: &str) -> Self {
        let not_yet = [
            (Concern::Kafka, "not reached yet"),
            (Concern::ClickHouse, "not reached yet"),
            (Concern::Group, "not joined yet"),
        ];
        let troubles = not_yet.map(|(concern, reason)| (concern, reason.to_owned()));
        Self { brokers: brokers.to_owned(), troubles: Mutex::new(troubles.into()) }
    }

    /// No broker answers.
    pub fn kafka_away(&self) {
        self.trouble(Concern::Kafka, format!("no answer from {}", self.brokers));
    }

    /// `concern` cannot go on, for this reason, which may end by itself.
    pub fn trouble(&self, concern: Concern, reason: impl fmt::Display) {
        if let Some(reason) = self.changed(concern, reason) {
            tracing::warn!("{concern}: {reason}");
        }
    }

    /// `concern` cannot go on before somebody helps, for this reason.
    pub fn alarm(&self, concern: Concern, reason: impl fmt::Display) {
        if let Some(reason) = self.changed(concern, reason) {
            tracing::error!("{concern}: {reason}");
        }
    }

    /// Remembers the reason, and gives it back if it is new.
    fn changed(&self, concern: Concern, reason: impl fmt::Display) -> Option<String> {
        let reason = reason.to_string();
        let before = self.troubles().insert(concern, reason.clone());
        (before.as_ref() != Some(&reason)).then_some(reason)
    }

    /// `concern` works.
    pub fn well(&self, concern: Concern) {
        let before = self.troubles().remove(&concern);
        if before.is_some() {
            tracing::info!("{concern}: works");
        }
    }

    /// What was refused of partitions that are not `owned` any more is no concern of this process.
    pub fn forget_commits(&self, owned: impl Fn(i32) -> bool) {
        self.troubles().retain(|concern, _| !matches!(concern, Concern::Commits(kp) if !owned(*kp)));
    }

    /// Whether nothing is in trouble; says what is.
    pub fn readiness(&self) -> Readiness {
        let troubles = self.troubles();
        let all: Vec<_> = troubles.iter().map(|(concern, reason)| format!("{concern}: {reason}")).collect();
        if all.is_empty() { Readiness::Ready } else { Readiness::Not(all.join("; ")) }
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
            Self::Tables => f.write_str("tables"),
            Self::Group => f.write_str("consumer group"),
            Self::Partition(kp) => write!(f, "partition {kp}"),
            Self::Inserts(kp) => write!(f, "inserts of partition {kp}"),
            Self::Commits(kp) => write!(f, "commits of partition {kp}"),
            Self::Progress(kp) => write!(f, "progress of partition {kp}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_once_it_can_store_and_says_what_keeps_it() {
        let health = Health::new("k:1");
        let not = |why: &str| Readiness::Not(why.to_owned());
        assert_eq!(
            health.readiness(),
            not("kafka: not reached yet; clickhouse: not reached yet; consumer group: not joined yet")
        );
        health.kafka_away();
        assert_eq!(
            health.readiness(),
            not("kafka: no answer from k:1; clickhouse: not reached yet; consumer group: not joined yet")
        );
        for concern in [Concern::Kafka, Concern::ClickHouse, Concern::Group] {
            health.well(concern);
        }
        assert_eq!(health.readiness(), Readiness::Ready);
        health.trouble(Concern::Partition(3), "stopped");
        assert_eq!(health.readiness(), not("partition 3: stopped"));
        health.alarm(Concern::Tables, "`events` has lost a part");
        assert_eq!(health.readiness(), not("tables: `events` has lost a part; partition 3: stopped"));
    }

    #[test]
    fn refused_commits_are_a_concern_of_the_owner() {
        let health = Health::new("k:1");
        for concern in [Concern::Kafka, Concern::ClickHouse, Concern::Group] {
            health.well(concern);
        }
        for concern in [Concern::Commits(1), Concern::Commits(2), Concern::Inserts(2)] {
            health.alarm(concern, "refused");
        }
        health.forget_commits(|kp| kp == 1);
        let left = "inserts of partition 2: refused; commits of partition 1: refused";
        assert_eq!(health.readiness(), Readiness::Not(left.to_owned()));
    }
}
