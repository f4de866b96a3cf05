//! Publishes up to which moment the tables are complete: updates the table `progress` once per interval.
//!
//! Invariant: every record that was in Kafka before `as_of` is in every table. `as_of` advances with the records that
//! are applied, and also while no record is left to apply. To prove that no record is left, the publisher reads the
//! clock, then asks Kafka where each log ends, then checks whether every record below those ends is applied. An
//! aggregator never reads `progress` to decide where to continue.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};
use schemas::time::{SECOND, UnixMillis};
use tokio::time::{self, Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::apply::store::Store;
use crate::group::applied_watches::AppliedWatches;
use crate::health::{Component, Health};
use crate::kafka::topic::TopicWatch;
use crate::metrics::Metrics;
use crate::pipeline::applied_watch::Applied;
use crate::protocol::progress::NextOffset;
use crate::protocol::stall::{STALLED_AFTER, Stalls};

/// Timeout of the request to Kafka for the ends of the logs.
pub(crate) const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// The published progress of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PublishedProgress {
    log_generation: u16,
    next: NextOffset,
    as_of: UnixMillis,
}

/// Publishes the progress of all partitions of the process.
pub struct ProgressPublisher {
    /// Topic of the records.
    pub topic: String,
    /// Detects that the topic was deleted and created again, and has the number of partitions of the topic.
    pub topic_watch: Arc<TopicWatch>,
    /// The client with which the publisher asks Kafka where the logs end.
    pub metadata_client: Arc<BaseConsumer>,
    /// Which records of each partition are applied.
    pub applied_watches: Arc<AppliedWatches>,
    /// The database of the table `progress`.
    pub store: Store,
    /// The metrics of the process. The publisher sets the lag of each partition and the watermark.
    pub metrics: Arc<Metrics>,
    /// Shows whether Kafka and ClickHouse answer, and which partitions are stalled.
    pub health: Arc<Health>,
}

impl ProgressPublisher {
    /// Publishes once per `interval` until `stop`.
    pub async fn run(self, interval: Duration, stop: CancellationToken) {
        let mut ticks = time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut published, mut stalls) = (BTreeMap::new(), Stalls::default());
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let before = UnixMillis::from(SystemTime::now());
            let Some(ends) = stop.run_until_cancelled(self.ends_of_topic()).await else { return };
            self.look_for_stalls(&ends, &mut stalls);
            self.publish(before, &ends, &mut published).await;
        }
    }

    /// Publishes the progress of each partition whose progress has changed since it was `published` last. `before` is a
    /// moment before the `ends` of the logs were read. So if every record below the end of a log is applied, then every
    /// record that was in this log before the moment is applied.
    async fn publish(
        &self,
        before: UnixMillis,
        ends: &BTreeMap<i32, i64>,
        published: &mut BTreeMap<i32, PublishedProgress>,
    ) {
        let applied_watches = self.applied_watches.all();
        published.retain(|partition, _| applied_watches.contains_key(partition));
        let (mut changed, mut watermark) = (BTreeMap::new(), None);
        for (partition, applied_watch) in &applied_watches {
            let Applied { log_generation, next: Some(next), until: applied_until } = applied_watch.applied()
            else {
                continue;
            };
            let end = ends.get(partition).copied();
            if let Some(end) = end {
                self.metrics.lag(*partition, (end - next.to_i64()).max(0));
            }
            let known = published.get(partition).copied();
            let fresh = freshness(known, log_generation, next, applied_until, end, before);
            if let Some(PublishedProgress { as_of, .. }) = fresh {
                self.metrics.lag_seconds(*partition, (before.0 - as_of.0).max(0) / SECOND);
                watermark = Some(watermark.unwrap_or(as_of).min(as_of));
            }
            changed.extend(fresh.filter(|fresh| known != Some(*fresh)).map(|fresh| (*partition, fresh)));
        }
        if let Some(watermark) = watermark {
            self.metrics.watermark(watermark.0 / SECOND);
        }
        // If the number of partitions is unknown, `changed` is empty: a partition has progress only once it is
        // restored, and it is restored only after Kafka has described the topic.
        let Some(partitions) = self.topic_watch.partitions() else { return };
        if changed.is_empty() {
            return;
        }
        match self.store.execute(&insert(partitions, &changed)).await {
            Ok(()) => {
                self.health.recovered(Component::ClickHouse);
                published.extend(changed);
            }
            Err(error) => self.health.degraded(Component::ClickHouse, error),
        }
    }

    /// Reports each stalled partition: for [`STALLED_AFTER`], no record of the partition was applied, while records
    /// waited in its log or the partition was not restored yet.
    fn look_for_stalls(&self, ends: &BTreeMap<i32, i64>, stalls: &mut Stalls) {
        let (applied_watches, now) = (self.applied_watches.all(), Instant::now());
        for partition in stalls.forget(|partition| !applied_watches.contains_key(&partition)) {
            self.health.recovered(Component::Progress(partition));
        }
        for (partition, applied_watch) in &applied_watches {
            let next = applied_watch.applied().next;
            // The end is unknown if Kafka does not answer or the topic was created again. Neither is a stall.
            let waits = ends.get(partition).is_some_and(|end| next.is_none_or(|next| next.to_i64() < *end));
            if stalls.is_stalled(*partition, next, waits, now) {
                let reason = format!(
                    "no record was applied for {} s: records wait, or the pipeline has not started to read",
                    STALLED_AFTER.as_secs()
                );
                self.health.degraded(Component::Progress(*partition), reason);
            } else {
                self.health.recovered(Component::Progress(*partition));
            }
        }
    }

    /// Where the logs end. The result is empty if Kafka does not answer. It is also empty if the topic was deleted and
    /// created again since the process started, because the applied offsets belong to the logs of the deleted topic.
    async fn ends_of_topic(&self) -> BTreeMap<i32, i64> {
        let ends = self.ends().await;
        // If there are no ends, the topic need not be checked: the result is empty in any case.
        if ends.is_empty() || self.topic_watch.check().await.is_ok() { ends } else { BTreeMap::new() }
    }

    /// Where the log of each partition ends; partitions without an answer are left out.
    async fn ends(&self) -> BTreeMap<i32, i64> {
        let (metadata_client, topic) = (Arc::clone(&self.metadata_client), self.topic.clone());
        let partitions: Vec<i32> = self.applied_watches.all().into_keys().collect();
        let asked = tokio::task::spawn_blocking(move || ends(&metadata_client, &topic, &partitions)).await;
        match asked {
            Ok(Ok(ends)) => {
                self.health.recovered(Component::Kafka);
                ends
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "cannot read the ends of the logs from kafka");
                self.health.kafka_unreachable();
                BTreeMap::new()
            }
            // The runtime is shutting down.
            Err(_) => BTreeMap::new(),
        }
    }
}

/// The progress of a partition at the time `now`; `None` if no `as_of` is known yet. `known` is the progress that was
/// published before. Every record below `next` is applied, and so is every record that Kafka appended before
/// `applied_until`. `end` is the end of the log, read after the clock showed `now`.
fn freshness(
    known: Option<PublishedProgress>,
    log_generation: u16,
    next: NextOffset,
    applied_until: Option<UnixMillis>,
    end: Option<i64>,
    now: UnixMillis,
) -> Option<PublishedProgress> {
    // A broker's clock may be ahead. `as_of` must not be in the future, because records may still arrive before then.
    let applied_until = applied_until.map(|until| until.min(now));
    let nothing_left = end.filter(|end| next.to_i64() >= *end).map(|_| now);
    let before = known.map(|known| known.as_of);
    let as_of = [applied_until, nothing_left, before].into_iter().flatten().max()?;
    Some(PublishedProgress { log_generation, next, as_of })
}

/// One insert for all changed partitions of a topic that has this number of `partitions`.
fn insert(partitions: u16, changed: &BTreeMap<i32, PublishedProgress>) -> String {
    let mut sql =
        "INSERT INTO progress (g, kp, partitions, next_offset, as_of) SETTINGS async_insert = 0 VALUES"
            .to_owned();
    for (at, (partition, fresh)) in changed.iter().enumerate() {
        let separator = if at == 0 { "" } else { "," };
        // Writing to a String cannot fail.
        let _ = write!(
            sql,
            "{separator} ({}, {partition}, {partitions}, {}, '{}')",
            fresh.log_generation, fresh.next, fresh.as_of
        );
    }
    sql
}

fn ends(metadata_client: &BaseConsumer, topic: &str, partitions: &[i32]) -> KafkaResult<BTreeMap<i32, i64>> {
    if partitions.is_empty() {
        // This request only shows whether Kafka answers.
        metadata_client.fetch_metadata(Some(topic), ASK_TIMEOUT)?;
        return Ok(BTreeMap::new());
    }
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        // In a query for offsets by time, this value means the end of the log.
        list.add_partition_offset(topic, *partition, KafkaOffset::End)?;
    }
    let answer = metadata_client.offsets_for_times(list, ASK_TIMEOUT)?;
    let ends = answer.elements().into_iter().filter_map(|element| match element.offset() {
        KafkaOffset::Offset(end) if element.error().is_ok() => Some((element.partition(), end)),
        _ => None,
    });
    Ok(ends.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(2000);

    #[track_caller]
    fn check(known: Option<i64>, applied_until: Option<i64>, end: Option<i64>, as_of: Option<i64>) {
        let known = known.map(|as_of| PublishedProgress {
            log_generation: 2,
            next: NextOffset::new(5),
            as_of: UnixMillis(as_of),
        });
        let next = NextOffset::new(7);
        let found = freshness(known, 2, next, applied_until.map(UnixMillis), end, NOW);
        assert_eq!(
            found,
            as_of.map(|as_of| PublishedProgress { log_generation: 2, next, as_of: UnixMillis(as_of) })
        );
    }

    #[test]
    fn with_records_left_as_of_is_the_time_of_the_last_applied_record() {
        check(None, Some(1000), Some(8), Some(1000));
        check(None, Some(1000), None, Some(1000));
    }

    #[test]
    fn with_no_records_left_as_of_is_the_time_before_the_query() {
        check(None, Some(1000), Some(7), Some(2000));
        check(None, None, Some(7), Some(2000));
    }

    #[test]
    fn as_of_is_never_in_the_future_if_a_brokers_clock_is_ahead() {
        check(None, Some(90_000_000), Some(8), Some(2000));
    }

    #[test]
    fn as_of_never_goes_back_and_is_absent_while_unknown() {
        check(Some(3000), Some(1000), Some(8), Some(3000));
        check(None, None, Some(8), None);
    }

    #[test]
    fn one_insert_publishes_all_partitions() {
        let fresh =
            PublishedProgress { log_generation: 2, next: NextOffset::new(7), as_of: UnixMillis(1000) };
        let sql = insert(4, &[(0, fresh), (3, fresh)].into());
        assert!(sql.ends_with(
            "VALUES (2, 0, 4, 7, '1970-01-01 00:00:01.000'), (2, 3, 4, 7, '1970-01-01 00:00:01.000')"
        ));
    }
}
