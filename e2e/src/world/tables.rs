//! The world's tables: queries, and the check that the tables agree with the oracle.

use std::sync::LazyLock;

use anyhow::{Context, ensure};
use devstack::wait_for;
use schemas::rollup::{Rollup, Rollups};

use super::{ADDED_ROLLUP_TOML, DEADLINE, World};
use crate::oracle::Counts;

/// The built-in rollups and the added one.
static ROLLUPS: LazyLock<Rollups> = LazyLock::new(|| {
    Rollups::parse("world", &format!("{}{ADDED_ROLLUP_TOML}", Rollups::built_in())).unwrap()
});

impl World {
    /// The rows of a query in this world's database, as text.
    pub async fn rows(&self, sql: &str) -> Vec<Vec<String>> {
        self.try_rows(sql).await.unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Like [`World::rows`], for a query that may fail. In the query, `rollup.<name>` means the rows of a built-in
    /// rollup or of [`ADDED_ROLLUP`], with the declared names as columns.
    pub async fn try_rows(&self, sql: &str) -> anyhow::Result<Vec<Vec<String>>> {
        let body = with_sources(sql, &ROLLUPS);
        let request = self.http.post(format!("{}/?database={}", self.clickhouse, self.name)).body(body);
        let answer = request.send().await.with_context(|| format!("ask {sql}"))?;
        let good = answer.status().is_success();
        let text = answer.text().await.with_context(|| format!("ask {sql}"))?;
        ensure!(good, "ask {sql}: {text}");
        Ok(text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect())
    }

    /// The answer to a query of `user` as text, or ClickHouse's error.
    pub async fn ask_as(
        &self,
        (user, password): (&str, &str),
        database: &str,
        sql: &str,
    ) -> Result<String, String> {
        let request = self.http.post(format!("{}/?database={database}", self.clickhouse));
        let answer = request.basic_auth(user, Some(password)).body(sql.to_owned()).send().await.unwrap();
        let good = answer.status().is_success();
        let text = answer.text().await.unwrap().trim_end().to_owned();
        if good { Ok(text) } else { Err(text) }
    }

    /// The only number in the result of a query.
    pub async fn number(&self, sql: &str) -> u64 {
        let rows = self.rows(sql).await;
        rows[0][0].parse().unwrap_or_else(|_| panic!("{sql}: {rows:?}"))
    }

    /// Waits until the raw table holds as many rows as events were accepted, then checks that the raw table, the ledger
    /// and the rollups `event_hourly` and `users_hourly` agree exactly with the oracle's counts.
    pub async fn assert_counted(&self, expected: &Counts) {
        let accepted = expected.accepted();
        let waited = wait_for(format!("{accepted} rows in `{}`.events", self.name), DEADLINE, async || {
            self.stored().await >= accepted && !self.has_partly_stored_batch().await
        });
        if let Err(overdue) = waited.await {
            panic!("{overdue}; the table has {} rows", self.stored().await);
        }
        assert_eq!(&self.counted().await, expected);
        assert_eq!(self.stored().await, accepted, "rows in events");
        assert_eq!(self.number("SELECT sum(stored) FROM ledger").await, accepted, "stored by the ledger");
        assert_eq!(self.number("SELECT sum(lines - rejected - duplicates) FROM ledger").await, accepted);
        assert_eq!(
            self.number("SELECT sum(rows) FROM rollup_states WHERE rollup = 'users_hourly'").await,
            accepted,
            "rows of users_hourly"
        );
        self.assert_marked().await;
    }

    /// Checks that every part has its marker, and that the ledger's greatest marker for each partition is one more than
    /// the greatest offset that the ledger has for this partition.
    async fn assert_marked(&self) {
        for table in ["events", "ledger", "rollup_sums", "rollup_states"] {
            let unmarked = format!(
                "SELECT count() FROM (SELECT _part FROM {table} GROUP BY _part HAVING maxIf(hwm, tenant = '') = 0)"
            );
            assert_eq!(self.number(&unmarked).await, 0, "parts of {table} without a marker");
        }
        let reach =
            "SELECT g, kp, max(hwm), max(ko) + 1 FROM ledger GROUP BY g, kp HAVING max(hwm) != max(ko) + 1";
        assert_eq!(
            self.rows(reach).await,
            Vec::<Vec<String>>::new(),
            "markers that differ from the end of the ledger"
        );
    }

    /// How many raw rows are stored.
    pub async fn stored(&self) -> u64 {
        self.number("SELECT count() FROM events WHERE tenant != ''").await
    }

    /// Whether only some tables hold a batch. A raw row may be visible before the other cells of its batch.
    async fn has_partly_stored_batch(&self) -> bool {
        self.number(
            "SELECT (SELECT count() FROM events WHERE tenant != '') != (SELECT sum(stored) FROM ledger)
                 OR (SELECT sum(events) FROM rollup.event_hourly WHERE tenant != '') != (SELECT sum(stored) FROM ledger)
                 OR (SELECT sum(rows) FROM rollup_states WHERE rollup = 'users_hourly') != (SELECT sum(stored) FROM ledger)",
        )
        .await != 0
    }

    /// The counts in the rollups `event_hourly` and `users_hourly`.
    async fn counted(&self) -> Counts {
        let events = self
            .rows("SELECT toUnixTimestamp(bucket), event, country, device_os, sum(events), sum(value) FROM rollup.event_hourly WHERE tenant = 'default' GROUP BY 1, 2, 3, 4")
            .await;
        let users = self
            .rows("SELECT toUnixTimestamp(bucket), event, uniqExactMerge(users) FROM rollup.users_hourly WHERE tenant = 'default' GROUP BY 1, 2")
            .await;
        Counts::from_rows(&events, &users)
    }
}

/// Replaces `rollup.<name>` in `sql` with the subquery that selects the rows of this rollup, for each of `rollups`.
pub fn with_sources(sql: &str, rollups: &Rollups) -> String {
    let in_place =
        |sql: String, rollup: &Rollup| sql.replace(&format!("rollup.{}", rollup.name), &rollup.source());
    rollups.iter().fold(sql.to_owned(), in_place)
}
