//! Stores, for each rollup of this process, the moment since which the rollup has every event of the partition. This
//! takes two writes, one before and one after the first commit under the declaration of this process.
//! [`crate::protocol::since`] gives the reason for this order.

use std::collections::BTreeSet;

use schemas::time::UnixMillis;

use crate::apply::configs;
use crate::apply::since::{self, SinceRow};
use crate::apply::store::StoreError;
use crate::pipeline::context::Services;
use crate::protocol::recover::KafkaState;
use crate::protocol::since::{NOT_COUNTED, SinceChanges, begins, changes, names};

/// The moments that must be stored for a partition.
pub(super) struct SinceNotes {
    partition: u16,
    changes: SinceChanges,
    /// Version of the rows of `rollup_since` that are written before the commit. It is higher than every stored version
    /// of the partition, and not earlier than ClickHouse's time, read after this process got the partition.
    version: UnixMillis,
    has_earlier_records: bool,
}

impl SinceNotes {
    /// Finds which moments must be stored. Retries until ClickHouse answers.
    pub(super) async fn find(services: &Services, partition: u16, found: &KafkaState) -> Self {
        services.health.retry_clickhouse(|| Self::try_find(services, partition, found)).await
    }

    async fn try_find(services: &Services, partition: u16, found: &KafkaState) -> Result<Self, StoreError> {
        let Services { store, declaration, .. } = services;
        let (noted, version) = since::of_partition(store, partition).await?;
        let ours = names(&declaration.rollups);
        let committed = found.intent().map(|(_, intent)| intent.declaration_hash);
        let changes = match committed.filter(|hash| *hash != declaration.hash()) {
            // If the committed intent names the declaration of this process, the rollups stay the same. If there is no
            // intent, no record of the partition was counted before.
            None => changes(&noted, &ours, &ours),
            Some(hash) => match configs::read(store, hash).await? {
                Ok(before) => changes(&noted, &names(&before.rollups), &ours),
                // The unknown declaration may have had none of the rollups of this process.
                Err(unknown) => {
                    tracing::warn!(
                        "partition {partition}: {unknown}; all rollups are treated as complete only from now on"
                    );
                    changes(&noted, &BTreeSet::new(), &ours)
                }
            },
        };
        Ok(Self { partition, changes, version, has_earlier_records: found.committed.is_some() })
    }

    /// Whether there is no moment to store.
    pub(super) fn is_empty(&self) -> bool {
        self.changes == SinceChanges::default()
    }

    /// Must be called before the commit. Replaces the stored moments that are no longer valid, or not valid yet, by
    /// [`NOT_COUNTED`].
    pub(super) async fn withdraw(&self, services: &Services) {
        if self.changes.withdrawn.is_empty() {
            return;
        }
        let rows = self.rows(&self.changes.withdrawn, NOT_COUNTED, self.version);
        services.health.retry_clickhouse(|| since::write(&services.store, &rows)).await;
    }

    /// Must be called after the commit and before the next insert. Some rollups begin to count with this commit: stores
    /// the moment since which they count every event. `newest` is Kafka's time of the last record below the commit, if
    /// it is known.
    pub(super) async fn begin(&self, services: &Services, newest: Option<UnixMillis>) {
        if self.changes.begun.is_empty() {
            return;
        }
        let latest = match newest {
            // When a partition gets another leader, Kafka's times may go back, so an earlier record may have a later
            // time than `newest`.
            Some(newest) => {
                let ask = || since::latest_record(&services.store, self.partition, newest);
                Some(newest).max(services.health.retry_clickhouse(ask).await)
            }
            None => None,
        };
        let since = begins(latest, self.has_earlier_records, self.version);
        // This version is one higher than the version of the rows that `withdraw` wrote, so the new rows replace those
        // rows. The version of the next owner is not earlier than ClickHouse's time after a later rebalance, so it is
        // higher than both.
        let rows = self.rows(&self.changes.begun, since, UnixMillis(self.version.0 + 1));
        services.health.retry_clickhouse(|| since::write(&services.store, &rows)).await;
        let rollups = self.changes.begun.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        tracing::info!(
            "partition {}: rollups {rollups} count every event that arrives at {since} UTC or later",
            self.partition
        );
    }

    fn rows<'n>(
        &self,
        names: &'n BTreeSet<String>,
        since: UnixMillis,
        noted: UnixMillis,
    ) -> Vec<SinceRow<'n>> {
        let row = |rollup: &'n String| SinceRow { rollup, partition: self.partition, since, noted };
        names.iter().map(row).collect()
    }
}
