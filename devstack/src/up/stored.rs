//! What has come to be stored since the start.

use std::time::Duration;

use anyhow::Context;
use clickhouse::Client;

use super::page;
use crate::wait::wait_for;

/// How long the aggregator may take to store what Kafka holds when Ctrl-C comes; a second Ctrl-C ends the wait.
const CATCH_UP_DEADLINE: Duration = Duration::from_secs(30);

/// Rows of the raw table, now and at the start.
pub(super) struct Stored {
    client: Client,
    at_start: u64,
}

impl Stored {
    /// Remembers how many rows there are.
    pub(super) async fn begin(client: Client) -> anyhow::Result<Self> {
        let at_start = rows(&client).await?;
        Ok(Self { client, at_start })
    }

    /// Waits until `accepted` events have become rows since the start, but not for
    /// long: what is not stored now is stored after the next start.
    pub(super) async fn catch_up(&self, accepted: u64) -> anyhow::Result<()> {
        let expected = self.at_start + accepted;
        let caught_up = wait_for("the aggregator", CATCH_UP_DEADLINE, async || {
            rows(&self.client).await.is_ok_and(|rows| rows >= expected)
        });
        // What is missing then, `tell` tells.
        let _overdue = caught_up.await;
        Ok(())
    }

    /// Says how many events were accepted and stored.
    pub(super) async fn tell(&self, accepted: u64) -> anyhow::Result<()> {
        let rows = rows(&self.client).await?;
        let new = rows.saturating_sub(self.at_start);
        page::say(&format!("{accepted} events accepted, {new} stored, {rows} rows in the raw table"));
        if new < accepted {
            page::say("the others wait in Kafka; the next start stores them");
        }
        Ok(())
    }
}

/// Rows of events; the aggregator's markers do not count.
async fn rows(client: &Client) -> anyhow::Result<u64> {
    let query = client.query("SELECT count() FROM events WHERE tenant != ''");
    query.fetch_one().await.context("count the rows of `events`")
}
