//! What changes in the middle of a long run, under load and faults: the topic gets more partitions, and the
//! aggregators start again, one after another, under a declaration with one more rollup and with
//! deduplication windows so small that they pop.
//!
//! Invariant: no request is sent again across the change or after it. More partitions move users to
//! others, and a small window forgets: such a repeat counts twice by contract.

use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Context;
use devstack::{Kafka, Service, wait_for};
use tokio::task;
use tokio::time::Instant;

use crate::chaos::difference::{Cells, Difference, differences};
use crate::chaos::rollups::{self, WINDOW_IDS_LATER};
use crate::chaos::sender::{self, SharedBook};
use crate::world::{LATER, World};

/// Partitions of the topic from then on.
const PARTITIONS: u16 = 6;
/// Those that are new.
const ADDED: std::ops::Range<i32> = 4..6;
/// For all requests that may be sent again to have their answers, some after an outage; and for Kafka to
/// make the partitions.
const PATIENCE: Duration = Duration::from_secs(120);
/// For what they brought to be applied: a small window would not know a repeat that is still waiting.
const APPLIED: Duration = Duration::from_secs(600);
/// From one aggregator's new declaration to the next one's: meanwhile partitions move between both.
const BETWEEN: Duration = Duration::from_secs(8);

/// Whether the change is made, for those who must follow it.
#[derive(Debug, Default)]
pub(crate) struct Change(OnceLock<Made>);

#[derive(Debug)]
struct Made {
    at: Instant,
    /// The file of the later declaration.
    file: String,
}

impl Change {
    /// Makes the change once no request is under way that may be sent again.
    pub(crate) async fn make(
        &self,
        world: &World,
        kafka: &Kafka,
        book: &SharedBook,
        api: &mut Service,
    ) -> anyhow::Result<()> {
        sender::open(book).stop_repeats();
        let settled = async || sender::open(book).repeats_under_way() == 0;
        wait_for("the end of requests that may be sent again", PATIENCE, settled).await?;
        applied(world, kafka).await?;
        let file = world.write("rollups-later.toml", &rollups::later_declaration());
        // It waits for servers that were just killed.
        world.run("stream-agg", &["migrate"], &[("ROLLUPS_FILE", &file)]).await?;
        add_partitions(world.name(), kafka).await?;
        api.terminate().await.context("end query-api for its next declaration")?;
        api.set("ROLLUPS_FILE", &file);
        api.restart()?;
        self.0.set(Made { at: Instant::now(), file }).expect("it is made once");
        Ok(())
    }

    /// What an aggregator is told from its next start on, once it is its turn.
    pub(crate) fn settings(&self, aggregator: usize) -> Option<[(&'static str, String); 2]> {
        let Made { at, file } = self.0.get()?;
        let is_due = at.elapsed() >= BETWEEN * u32::try_from(aggregator).expect("there are three");
        is_due.then(|| [("ROLLUPS_FILE", file.clone()), ("DEDUP_WINDOW_IDS", WINDOW_IDS_LATER.to_string())])
    }

    /// The file of the declaration that holds now, if it is the later one.
    pub(crate) fn file(&self) -> Option<&str> {
        self.0.get().map(|made| made.file.as_str())
    }
}

/// Waits until every record that the topic has now is in every table, however often Kafka is killed meanwhile.
async fn applied(world: &World, kafka: &Kafka) -> anyhow::Result<()> {
    let mut ends = None;
    wait_for("what may be sent again to be applied", APPLIED, async || {
        task::block_in_place(|| {
            if ends.is_none() {
                ends = kafka.log_ends(world.name()).ok();
            }
            let is_applied = |(kp, end): (i32, &u64)| {
                let committed = || world.try_committed(kp).map_or(0, |(offset, _)| offset.unsigned_abs());
                *end == 0 || committed() >= *end
            };
            ends.as_ref().is_some_and(|ends| (0..).zip(ends).all(is_applied))
        })
    })
    .await?;
    Ok(())
}

/// Tries until it is seen that the topic has them: Kafka may be killed before it answers.
async fn add_partitions(topic: &str, kafka: &Kafka) -> anyhow::Result<()> {
    let mut last = Ok(());
    let added = wait_for("more partitions", PATIENCE, async || {
        last = kafka.add_partitions(topic, PARTITIONS).await;
        let ends = task::block_in_place(|| kafka.log_ends(topic));
        ends.is_ok_and(|ends| ends.len() == usize::from(PARTITIONS))
    });
    let overdue = added.await.err();
    overdue.map_or(Ok(()), |overdue| last.and(Err(overdue.into())))
}

/// What the rollup that was declared later holds: its events, and how they differ from the raw rows that
/// were stored under a declaration that has it.
pub(crate) async fn declared_later(world: &World) -> anyhow::Result<(u64, Vec<Difference>)> {
    let raw = format!(
        "SELECT toUnixTimestamp(toStartOfHour(client_time)), event, count() FROM events WHERE tenant != ''
         AND cfg IN (SELECT cfg FROM configs WHERE position(declared, '{LATER}') > 0) GROUP BY 1, 2"
    );
    let rollup =
        format!("SELECT toUnixTimestamp(bucket), event, sum(events) FROM rollup.{LATER} GROUP BY 1, 2");
    let expected = cells(world.try_rows(&raw).await?);
    let found = cells(world.try_rows(&rollup).await?);
    let events = found.values().flatten().sum::<i64>().unsigned_abs();
    let key = ["bucket", "event"].map(str::to_owned);
    Ok((events, differences(LATER, &key, &["events".to_owned()], &expected, &found)))
}

fn cells(rows: Vec<Vec<String>>) -> Cells {
    let cell = |mut row: Vec<String>| {
        let figure = row.pop().and_then(|figure| figure.parse().ok()).unwrap_or_default();
        (row, vec![figure])
    };
    rows.into_iter().map(cell).collect()
}

/// How many of the new partitions hold records.
pub(crate) fn partitions_added(kafka: &Kafka, topic: &str) -> anyhow::Result<u64> {
    let ends = task::block_in_place(|| kafka.log_ends(topic))?;
    Ok(ends.iter().skip(ADDED.start as usize).filter(|end| **end > 0).count() as u64)
}

/// In how many partitions the window begins later than counting did, so that it has forgotten records.
pub(crate) fn windows_popped(world: &World) -> u64 {
    let popped = |kp: i32| {
        let (_, metadata) = world.try_committed(kp)?;
        let field =
            |name: &str| metadata.split(' ').find_map(|word| word.strip_prefix(name)?.parse::<u64>().ok());
        Some(field("W=")? > field("S=")?)
    };
    task::block_in_place(|| (0..ADDED.end).filter(|kp| popped(*kp) == Some(true)).count() as u64)
}
