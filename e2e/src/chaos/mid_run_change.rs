//! The change in the middle of a long run, under load and faults. The topic gets more partitions, and the aggregators
//! restart one after another with one more rollup and with deduplication windows so small that they drop records.
//!
//! Invariant: no request that has reached the edge is retried across the change or after it. Such a retry could rightly
//! be counted twice: with more partitions, the retry may get into another partition than the first attempt, and a small
//! window drops event ids early. The guarantees exclude both cases.

use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Context;
use devstack::{Kafka, Service, wait_for};
use tokio::task;
use tokio::time::Instant;

use crate::chaos::load::journal::{self, SharedJournal};
use crate::chaos::rollups::{self, WINDOW_IDS_AFTER_CHANGE};
use crate::chaos::verify::difference::{Cells, Difference, differences};
use crate::world::{ADDED_ROLLUP, World};

/// Partitions of the topic after the change.
const PARTITIONS: u16 = 6;
/// The partitions that the change adds.
const ADDED_PARTITIONS: std::ops::Range<i32> = 4..6;
/// Longest wait until all requests that may be retried have an outcome; some outcomes arrive only after an outage. Also
/// the longest wait until Kafka has created the partitions.
const DEADLINE: Duration = Duration::from_secs(120);
/// Longest wait until the records of the requests that may be retried are applied. The change waits for these records,
/// because a retry that is applied after the change may fall outside a small deduplication window.
const APPLIED_DEADLINE: Duration = Duration::from_secs(600);
/// Pause between the restart of one aggregator and the restart of the next one. Until the last restart, partitions move
/// between processes with the old declaration and processes with the new one.
const RESTART_INTERVAL: Duration = Duration::from_secs(8);

/// The change, once it is made. The supervisors of the aggregators then apply it to their processes.
#[derive(Debug, Default)]
pub(crate) struct MidRunChange(OnceLock<Made>);

#[derive(Debug)]
struct Made {
    at: Instant,
    /// The file of the changed declaration.
    file: String,
}

impl MidRunChange {
    /// Makes the change in three steps: forbids retries of all later requests, waits until the earlier requests that
    /// may be retried have an outcome and are applied, and then changes the topic and the rollups.
    pub(crate) async fn make(
        &self,
        world: &World,
        kafka: &Kafka,
        journal: &SharedJournal,
        api: &mut Service,
    ) -> anyhow::Result<()> {
        journal::lock(journal).stop_retries();
        let all_answered = async || journal::lock(journal).retries_under_way() == 0;
        wait_for("the outcomes of requests that may be retried", DEADLINE, all_answered).await?;
        wait_until_applied(world, kafka).await?;
        let file = world.write("rollups-later.toml", &rollups::declaration_after_change());
        // `migrate` itself waits until servers that were just killed run again, so it is not retried here.
        world.run("stream-agg", &["migrate"], &[("ROLLUPS_FILE", &file)]).await?;
        add_partitions(world.name(), kafka).await?;
        api.terminate().await.context("stop query-api to restart it with the changed rollups")?;
        api.set("ROLLUPS_FILE", &file);
        api.restart()?;
        self.0.set(Made { at: Instant::now(), file }).expect("the change is made once");
        Ok(())
    }

    /// The variables with which to restart an aggregator; `None` until it is the turn of this aggregator.
    pub(crate) fn settings(&self, aggregator: usize) -> Option<[(&'static str, String); 2]> {
        let Made { at, file } = self.0.get()?;
        let is_due = at.elapsed()
            >= RESTART_INTERVAL * u32::try_from(aggregator).expect("there are three aggregators");
        is_due.then(|| {
            [("ROLLUPS_FILE", file.clone()), ("DEDUP_WINDOW_IDS", WINDOW_IDS_AFTER_CHANGE.to_string())]
        })
    }

    /// The file of the changed declaration, once the change is made.
    pub(crate) fn file(&self) -> Option<&str> {
        self.0.get().map(|made| made.file.as_str())
    }
}

/// Waits until every record that is in the topic now is in every table. Kafka may be killed meanwhile.
async fn wait_until_applied(world: &World, kafka: &Kafka) -> anyhow::Result<()> {
    let mut ends = None;
    wait_for("all records in the topic to be applied", APPLIED_DEADLINE, async || {
        task::block_in_place(|| {
            if ends.is_none() {
                ends = kafka.log_ends(world.name()).ok();
            }
            let is_applied = |(partition, end): (i32, &u64)| {
                let committed =
                    || world.try_committed(partition).map_or(0, |(offset, _)| offset.unsigned_abs());
                *end == 0 || committed() >= *end
            };
            ends.as_ref().is_some_and(|ends| (0..).zip(ends).all(is_applied))
        })
    })
    .await?;
    Ok(())
}

/// Adds partitions to the topic. Retries until the topic has them, because Kafka may be killed before it answers.
async fn add_partitions(topic: &str, kafka: &Kafka) -> anyhow::Result<()> {
    let mut last = Ok(());
    let added = wait_for(format!("topic {topic} to have {PARTITIONS} partitions"), DEADLINE, async || {
        last = kafka.add_partitions(topic, PARTITIONS).await;
        let ends = task::block_in_place(|| kafka.log_ends(topic));
        ends.is_ok_and(|ends| ends.len() == usize::from(PARTITIONS))
    });
    let overdue = added.await.err();
    overdue.map_or(Ok(()), |overdue| last.and(Err(overdue.into())))
}

/// The number of events in the added rollup, and the differences between the rollup and the raw rows that were stored
/// under a declaration that contains the rollup.
pub(crate) async fn events_of_added_rollup(world: &World) -> anyhow::Result<(u64, Vec<Difference>)> {
    let raw = format!(
        "SELECT toUnixTimestamp(toStartOfHour(client_time)), event, count() FROM events WHERE tenant != ''
         AND cfg IN (SELECT cfg FROM configs WHERE position(declared, '{ADDED_ROLLUP}') > 0) GROUP BY 1, 2"
    );
    let rollup = format!(
        "SELECT toUnixTimestamp(bucket), event, sum(events) FROM rollup.{ADDED_ROLLUP} GROUP BY 1, 2"
    );
    let expected = cells(world.try_rows(&raw).await?);
    let found = cells(world.try_rows(&rollup).await?);
    let events = found.values().flatten().sum::<i64>().unsigned_abs();
    let key = ["bucket", "event"].map(str::to_owned);
    Ok((events, differences(ADDED_ROLLUP, &key, &["events".to_owned()], &expected, &found)))
}

fn cells(rows: Vec<Vec<String>>) -> Cells {
    let cell = |mut row: Vec<String>| {
        let figure = row.pop().and_then(|figure| figure.parse().ok()).unwrap_or_default();
        (row, vec![figure])
    };
    rows.into_iter().map(cell).collect()
}

/// Number of new partitions that hold records.
pub(crate) fn partitions_added(kafka: &Kafka, topic: &str) -> anyhow::Result<u64> {
    let ends = task::block_in_place(|| kafka.log_ends(topic))?;
    Ok(ends.iter().skip(ADDED_PARTITIONS.start as usize).filter(|end| **end > 0).count() as u64)
}

/// Number of partitions whose deduplication window has dropped records. In the metadata of the commit, the start of the
/// window (`W=`) is then greater than the offset at which the counting of the partition began (`S=`).
pub(crate) fn windows_with_drops(world: &World) -> u64 {
    let has_dropped = |partition: i32| {
        let (_, metadata) = world.try_committed(partition)?;
        let field =
            |name: &str| metadata.split(' ').find_map(|word| word.strip_prefix(name)?.parse::<u64>().ok());
        Some(field("W=")? > field("S=")?)
    };
    task::block_in_place(|| {
        (0..ADDED_PARTITIONS.end).filter(|partition| has_dropped(*partition) == Some(true)).count() as u64
    })
}
