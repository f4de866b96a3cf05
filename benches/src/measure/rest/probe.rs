//! Probes, which measure freshness. A probe sends a reaction with the time of a past hour, waits until the answer for
//! that hour counts the reaction, and then sends the next one.

use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use devstack::Service;
use schemas::time::{HOUR, UnixMillis};
use tokio::time;

/// The first probe uses the hour that began this many hours before the current hour, and each further probe uses the
/// hour before. So no other traffic has times in these hours: its events are at most a day and a minute old.
const PROBES_FROM: i64 = 26;
/// Interval between two reads of the answer for a probe's hour.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Longest wait until an answer counts a reaction.
const PROBE_DEADLINE: Duration = Duration::from_secs(60);

/// Sends reactions with times in one hour, and measures how long it takes until each is counted.
pub(super) struct Probe {
    number: i64,
    /// The URL to which the probe posts reactions.
    write: String,
    /// The URL of the answer for the hour of the reactions.
    read: String,
    client: reqwest::Client,
}

impl Probe {
    pub(super) fn new(number: i64, edge: &Service, api: &Service) -> anyhow::Result<Self> {
        let now = UnixMillis::from(SystemTime::now());
        let hour = now.floor(HOUR).0 - (PROBES_FROM + number) * HOUR;
        Ok(Self {
            number,
            write: format!("{}/analytics?timestamp={hour}&user=probe-{number}&click", edge.http()),
            read: format!("{}/analytics?timestamp={hour}", api.http()),
            client: reqwest::Client::builder()
                .timeout(PROBE_DEADLINE)
                .build()
                .context("make an HTTP client")?,
        })
    }

    /// Sends reactions until `end`, each after the previous one has been counted. Waits until the last reaction is
    /// counted, even after `end`. Returns the seconds from the acknowledgement of each reaction to the answer that
    /// counted it.
    pub(super) async fn repeat(self, end: Instant) -> anyhow::Result<Vec<f64>> {
        // In an earlier window, a probe may have sent reactions with times in this hour.
        let mut clicks = self.clicks().await?;
        let mut freshness = Vec::new();
        // Probes start at different times, so that they are not in step with the refreshes of the query API.
        time::sleep(Duration::from_millis(37 + 631 * self.number as u64)).await;
        while Instant::now() < end {
            self.client.post(&self.write).send().await?.error_for_status().context("send a reaction")?;
            let sent = Instant::now();
            clicks = time::timeout(PROBE_DEADLINE, self.more_than(clicks))
                .await
                .context("wait for a reaction to be counted")?;
            freshness.push(sent.elapsed().as_secs_f64());
            time::sleep(Duration::from_millis(100 + 97 * (freshness.len() as u64 % 10))).await;
        }
        Ok(freshness)
    }

    /// Waits until the answer has more than `before` clicks, and returns their number.
    async fn more_than(&self, before: u64) -> u64 {
        loop {
            time::sleep(POLL_INTERVAL).await;
            match self.clicks().await {
                Ok(clicks) if clicks > before => return clicks,
                Ok(_) | Err(_) => {}
            }
        }
    }

    async fn clicks(&self) -> anyhow::Result<u64> {
        let text = self.client.get(&self.read).send().await?.error_for_status()?.text().await?;
        clicks(&text).with_context(|| format!("find a line `clicks,NUMBER` in the answer `{text}`"))
    }
}

/// The number of clicks in an answer, which has lines such as `clicks,12`.
fn clicks(answer: &str) -> Option<u64> {
    answer.lines().find_map(|line| line.strip_prefix("clicks,")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clicks_are_read_from_an_answer() {
        assert_eq!(clicks("unique_users,2\nclicks,31\nimpressions,0\n"), Some(31));
        assert_eq!(clicks("no such hour"), None);
    }
}
