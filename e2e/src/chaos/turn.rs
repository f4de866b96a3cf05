//! What changes in the middle of a long run, while everything is counted and no request is on its way.
//!
//! The topic gets more partitions, so that users move to other partitions; all services start again,
//! aggregators and query API under another declaration, with windows so small that they pop. From then on no request is sent again:
//! beyond the reach of a window, and across the change, a repeat counts twice by contract.

use anyhow::Context;
use devstack::{Kafka, Service};
use tokio::task;

use crate::chaos::difference::{Cells, Difference, differences};
use crate::chaos::lane::Subject;
use crate::chaos::rollups::{self, LATER, WINDOW_IDS_LATER};
use crate::chaos::schedule::Target;
use crate::chaos::sender::{self, SharedBook};
use crate::world::World;

/// Partitions of the topic from then on.
const PARTITIONS: u16 = 6;
/// Those that are new.
const ADDED: std::ops::Range<i32> = 4..6;

/// Makes the change. Returns the file of the later declaration.
pub(crate) async fn turn(
    world: &World,
    kafka: &Kafka,
    book: &SharedBook,
    subjects: &mut [(Target, Subject)],
    api: &mut Service,
) -> anyhow::Result<String> {
    sender::open(book).turn();
    let file = world.write("rollups-later.toml", &rollups::later_declaration());
    world.migrate_with(&[("ROLLUPS_FILE", &file)]).await;
    kafka.add_partitions(world.name(), PARTITIONS).await?;
    let services = subjects.iter_mut().filter_map(|(_, subject)| match subject {
        Subject::Service(service) => Some(service),
        Subject::Kafka(_) | Subject::ClickHouse(_) => None,
    });
    for service in services.chain([api]) {
        if service.process().exited().is_none() {
            service.terminate().await.context("end a service for its next declaration")?;
        }
        service.set("ROLLUPS_FILE", &file);
        service.set("DEDUP_WINDOW_IDS", &WINDOW_IDS_LATER.to_string());
        service.restart()?;
    }
    Ok(file)
}

/// What the rollup that was declared later holds: its events, and how they differ from the raw rows that
/// were stored under its declaration.
pub(crate) async fn declared_later(world: &World) -> anyhow::Result<(u64, Vec<Difference>)> {
    let raw = "SELECT toUnixTimestamp(toStartOfHour(client_time)), event, count() FROM events
               WHERE tenant != '' AND cfg = (SELECT argMax(cfg, since) FROM configs) GROUP BY 1, 2";
    let rollup = format!(
        "SELECT toUnixTimestamp(bucket), event, sum(events) FROM {LATER} WHERE tenant != '' GROUP BY 1, 2"
    );
    let expected = cells(world.try_rows(raw).await?);
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
