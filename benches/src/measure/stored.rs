//! Waits until a given number of events is stored, and checks that no more than this number are stored.

use std::time::Duration;

use anyhow::ensure;
use devstack::wait_for;

use crate::servers::World;

/// Longest wait until all events are stored.
const DEADLINE: Duration = Duration::from_secs(120);

/// Waits until `events` are stored, checks that the raw table and the ledger hold exactly this number, and returns
/// the length of the wait.
pub(super) async fn wait_for_exactly(world: &World, events: u64) -> anyhow::Result<Duration> {
    let waited = wait_for("every event to be stored", DEADLINE, async || {
        world.stored_by_ledger().await.is_ok_and(|stored| stored >= events)
            && world.stored().await.is_ok_and(|stored| stored >= events)
    })
    .await?;
    let (rows, ledger) = (world.stored().await?, world.stored_by_ledger().await?);
    ensure!(
        rows == events && ledger == events,
        "{events} events became {rows} raw rows; the ledger counts {ledger}"
    );
    Ok(waited)
}
