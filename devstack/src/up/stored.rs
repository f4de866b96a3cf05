//! How many events were stored since the start.

use std::time::Duration;

use anyhow::Context;
use clickhouse::Client;

use super::output;
use crate::wait::wait_for;

/// Longest wait after Ctrl-C until the aggregator has stored all accepted events. A second Ctrl-C ends the wait.
const CATCH_UP_DEADLINE: Duration = Duration::from_secs(30);

/// Counts the rows that were added to the raw table since the start.
pub(super) struct StoredRows {
    client: Client,
    at_start: u64,
}

impl StoredRows {
    /// Remembers the number of rows that exist already.
    pub(super) async fn begin(client: Client) -> anyhow::Result<Self> {
        let at_start = rows(&client).await?;
        Ok(Self { client, at_start })
    }

    /// How many rows there were at the start.
    pub(super) fn at_start(&self) -> u64 {
        self.at_start
    }

    /// Waits until `accepted` events have been stored since the start, for at most [`CATCH_UP_DEADLINE`]. Events that
    /// are still missing then are no error: repeats and dead letters are never stored as events, and the next
    /// `./dev up` stores the others.
    pub(super) async fn catch_up(&self, accepted: u64) -> anyhow::Result<()> {
        let expected = self.at_start + accepted;
        let caught_up = wait_for("the aggregator", CATCH_UP_DEADLINE, async || {
            rows(&self.client).await.is_ok_and(|rows| rows >= expected)
        });
        // `report` prints how many events were accepted and how many are stored.
        let _overdue = caught_up.await;
        Ok(())
    }

    /// Prints how many events were accepted and stored.
    pub(super) async fn report(&self, accepted: u64) -> anyhow::Result<()> {
        let rows = rows(&self.client).await?;
        let new = rows.saturating_sub(self.at_start);
        output::print_line(&format!(
            "{accepted} events accepted, {new} stored, {rows} rows in the raw table"
        ));
        if new < accepted {
            output::print_line(
                "the other events are repeats or dead letters, or wait in Kafka or SPOOL_DIR for the next start",
            );
        }
        Ok(())
    }
}

/// Number of rows in `events`, without the aggregator's marker rows.
async fn rows(client: &Client) -> anyhow::Result<u64> {
    let query = client.query("SELECT count() FROM events WHERE tenant != ''");
    query.fetch_one().await.context("count the rows of `events`")
}
