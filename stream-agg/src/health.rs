//! Why the aggregator is not ready, for operators and for readiness probes.
//!
//! Invariant: each new reason of a failure and each recovery is logged once. A retry that fails for the same reason is
//! not logged. A process that is not ready need not be restarted: failed requests are retried automatically, and a
//! stopped partition waits for an operator's command.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use runtime::admin::Readiness;
use runtime::backoff::RetryPolicy;
use tokio::time;

/// The waits before a failed request to ClickHouse is retried.
const CLICKHOUSE_RETRIES: RetryPolicy = RetryPolicy::new(Duration::from_millis(100), Duration::from_secs(5));

/// A part of the aggregator that can fail independently of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    /// The brokers and the topic.
    Kafka,
    /// The ClickHouse server. While the process starts, also the first check of its tables.
    ClickHouse,
    /// The check of the tables: nothing is inserted while a table has lost a part or forgets deduplication tokens.
    Tables,
    /// The membership of the consumer group: it counts as failed until the process has joined the group once.
    Group,
    /// A Kafka partition: its pipeline cannot start or read for now, or is stopped until an operator acts.
    Partition(i32),
    /// The inserts of a Kafka partition: ClickHouse refuses them, or has lost their rows.
    Inserts(i32),
    /// The commits of a Kafka partition: Kafka refuses them.
    Commits(i32),
    /// The progress of a Kafka partition: its records are not applied in time.
    Progress(i32),
}

/// The components that fail, each with its reason.
#[derive(Debug)]
pub struct Health {
    brokers: String,
    failures: Mutex<BTreeMap<Component, String>>,
}

impl Health {
    /// The health of a process that has just started. The process is not ready until Kafka at `brokers` and ClickHouse
    /// have answered and the process has joined the group, because until then the process stores nothing.
    pub fn new(brokers: &str) -> Self {
        let not_yet = [
            (Component::Kafka, "not reached yet"),
            (Component::ClickHouse, "not reached yet"),
            (Component::Group, "not joined yet"),
        ];
        let failures = not_yet.map(|(component, reason)| (component, reason.to_owned()));
        Self { brokers: brokers.to_owned(), failures: Mutex::new(failures.into()) }
    }

    /// Reports that no broker answers.
    pub fn kafka_unreachable(&self) {
        self.degraded(Component::Kafka, format!("no answer from {}", self.brokers));
    }

    /// Reports that `component` fails for this reason. Logs a new reason as a warning.
    pub fn degraded(&self, component: Component, reason: impl fmt::Display) {
        if let Some(reason) = self.changed(component, reason) {
            tracing::warn!("{component}: {reason}");
        }
    }

    /// Reports that `component` fails for this reason and needs an operator. Logs a new reason as an error.
    pub fn alarm(&self, component: Component, reason: impl fmt::Display) {
        if let Some(reason) = self.changed(component, reason) {
            tracing::error!("{component}: {reason}");
        }
    }

    /// Records why `component` fails. Returns the reason if it differs from the recorded one.
    fn changed(&self, component: Component, reason: impl fmt::Display) -> Option<String> {
        let reason = reason.to_string();
        let before = self.failures().insert(component, reason.clone());
        (before.as_ref() != Some(&reason)).then_some(reason)
    }

    /// Reports that `component` works.
    pub fn recovered(&self, component: Component) {
        let before = self.failures().remove(&component);
        if before.is_some() {
            tracing::info!("{component}: recovered");
        }
    }

    /// Retries `attempt` until it succeeds. Meanwhile reports ClickHouse as failing, with the latest error.
    pub(crate) async fn retry_clickhouse<T, E, F>(&self, mut attempt: impl FnMut() -> F) -> T
    where
        E: fmt::Display,
        F: Future<Output = Result<T, E>>,
    {
        let mut backoff = CLICKHOUSE_RETRIES.backoff();
        loop {
            match attempt().await {
                Ok(done) => {
                    self.recovered(Component::ClickHouse);
                    return done;
                }
                Err(error) => self.degraded(Component::ClickHouse, error),
            }
            time::sleep(backoff.wait()).await;
        }
    }

    /// Forgets refused commits of partitions that are no longer `owned`, because such commits do not concern this
    /// process.
    pub fn forget_commits(&self, owned: impl Fn(i32) -> bool) {
        self.failures()
            .retain(|component, _| !matches!(component, Component::Commits(partition) if !owned(*partition)));
    }

    /// The readiness of the process: it is ready if no component fails. Otherwise the result lists the components that
    /// fail, each with its reason.
    pub fn readiness(&self) -> Readiness {
        let failures = self.failures();
        let all: Vec<_> =
            failures.iter().map(|(component, reason)| format!("{component}: {reason}")).collect();
        if all.is_empty() { Readiness::Ready } else { Readiness::Not(all.join("; ")) }
    }

    fn failures(&self) -> MutexGuard<'_, BTreeMap<Component, String>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
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
    fn the_process_is_ready_if_no_component_fails_and_otherwise_says_why() {
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
    fn refused_commits_of_released_partitions_are_forgotten() {
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
