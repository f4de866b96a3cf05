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
pub enum Component {
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
    troubles: Mutex<BTreeMap<Component, String>>,
}

impl Health {
    /// Not ready until Kafka at `brokers` and ClickHouse were reached and the group was joined:
    /// before that nothing is stored.
    pub fn new(brokers: &str) -> Self {
        let not_yet = [
            (Component::Kafka, "not reached yet"),
            (Component::ClickHouse, "not reached yet"),
            (Component::Group, "not joined yet"),
        ];
        let troubles = not_yet.map(|(component, reason)| (component, reason.to_owned()));
        Self { brokers: brokers.to_owned(), troubles: Mutex::new(troubles.into()) }
    }

    /// No broker answers.
    pub fn kafka_unreachable(&self) {
        self.degraded(Component::Kafka, format!("no answer from {}", self.brokers));
    }

    /// `component` cannot go on, for this reason, which may end by itself.
    pub fn degraded(&self, component: Component, reason: impl fmt::Display) {
        if let Some(reason) = self.changed(component, reason) {
            tracing::warn!("{component}: {reason}");
        }
    }

    /// `component` cannot go on before somebody helps, for this reason.
    pub fn alarm(&self, component: Component, reason: impl fmt::Display) {
        if let Some(reason) = self.changed(component, reason) {
            tracing::error!("{component}: {reason}");
        }
    }

    /// Remembers the reason, and gives it back if it is new.
    fn changed(&self, component: Component, reason: impl fmt::Display) -> Option<String> {
        let reason = reason.to_string();
        let before = self.troubles().insert(component, reason.clone());
        (before.as_ref() != Some(&reason)).then_some(reason)
    }

    /// `component` works.
    pub fn recovered(&self, component: Component) {
        let before = self.troubles().remove(&component);
        if before.is_some() {
            tracing::info!("{component}: works");
        }
    }

    /// What was refused of partitions that are not `owned` any more is no concern of this process.
    pub fn forget_commits(&self, owned: impl Fn(i32) -> bool) {
        self.troubles()
            .retain(|component, _| !matches!(component, Component::Commits(partition) if !owned(*partition)));
    }

    /// Whether nothing is in trouble; says what is.
    pub fn readiness(&self) -> Readiness {
        let troubles = self.troubles();
        let all: Vec<_> =
            troubles.iter().map(|(component, reason)| format!("{component}: {reason}")).collect();
        if all.is_empty() { Readiness::Ready } else { Readiness::Not(all.join("; ")) }
    }

    fn troubles(&self) -> MutexGuard<'_, BTreeMap<Component, String>> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kafka => f.write_str("kafka"),
            Self::ClickHouse => f.write_str("clickhouse"),
            Self::Tables => f.write_str("tables"),
            Self::Group => f.write_str("consumer group"),
            Self::Partition(partition) => write!(f, "partition {partition}"),
            Self::Inserts(partition) => write!(f, "inserts of partition {partition}"),
            Self::Commits(partition) => write!(f, "commits of partition {partition}"),
            Self::Progress(partition) => write!(f, "progress of partition {partition}"),
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
        health.kafka_unreachable();
        assert_eq!(
            health.readiness(),
            not("kafka: no answer from k:1; clickhouse: not reached yet; consumer group: not joined yet")
        );
        for component in [Component::Kafka, Component::ClickHouse, Component::Group] {
            health.recovered(component);
        }
        assert_eq!(health.readiness(), Readiness::Ready);
        health.degraded(Component::Partition(3), "stopped");
        assert_eq!(health.readiness(), not("partition 3: stopped"));
        health.alarm(Component::Tables, "`events` has lost a part");
        assert_eq!(health.readiness(), not("tables: `events` has lost a part; partition 3: stopped"));
    }

    #[test]
    fn refused_commits_are_a_concern_of_the_owner() {
        let health = Health::new("k:1");
        for component in [Component::Kafka, Component::ClickHouse, Component::Group] {
            health.recovered(component);
        }
        for component in [Component::Commits(1), Component::Commits(2), Component::Inserts(2)] {
            health.alarm(component, "refused");
        }
        health.forget_commits(|partition| partition == 1);
        let left = "inserts of partition 2: refused; commits of partition 1: refused";
        assert_eq!(health.readiness(), Readiness::Not(left.to_owned()));
    }
}
