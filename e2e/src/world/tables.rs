//! Runs queries on the tables of a test's `World`, and checks that the tables agree with the counts that the oracle
//! expects.

use std::sync::LazyLock;

use anyhow::{Context, ensure};
use devstack::wait_for;
use schemas::rollup::{Rollup, Rollups};

use super::{ADDED_ROLLUP_TOML, DEADLINE, World};
use crate::oracle::Counts;

/// The rollups that a query may name as `rollup.<name>`: the built-in rollups and the rollup that some tests add.
static ROLLUPS: LazyLock<Rollups> = LazyLock::new(|| {
    Rollups::parse("world", &format!("{}{ADDED_ROLLUP_TOML}", Rollups::built_in())).unwrap()
});

impl World {
    /// Runs a query in this world's database and returns the rows, with each value as text. Panics if the query fails.
    pub async fn rows(&self, sql: &str) -> Vec<Vec<String>> {
        self.try_rows(sql).await.unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Like [`World::rows`], but returns an error if the query fails. A query can read from `rollup.<name>` as from a
    /// table. The rollup is a built-in one or the one in [`ADDED_ROLLUP_TOML`]; the columns have the declared names.
    pub async fn try_rows(&self, sql: &str) -> anyhow::Result<Vec<Vec<String>>> {
        let body = with_sources(sql, &ROLLUPS);
        let request = self.http.post(format!("{}/?database={}", self.clickhouse, self.name)).body(body);
        let answer = request.send().await.with_context(|| format!("run the query {sql}"))?;
        let good = answer.status().is_success();
        let text = answer.text().await.with_context(|| format!("read the result of the query {sql}"))?;
        ensure!(good, "run the query {sql}: {text}");
        Ok(text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect())
    }

    /// Runs a query as `user` in `database`. Returns the result as text, or the text of ClickHouse's error.
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

    /// Runs a query whose result is one number, and returns this number.
    pub async fn number(&self, sql: &str) -> u64 {
        let rows = self.rows(sql).await;
        rows[0][0].parse().unwrap_or_else(|_| panic!("read one number from the result of {sql}: {rows:?}"))
    }

    /// Waits until the raw table has a row for each accepted event and no batch is partly stored. Then checks that the
    /// raw table, the ledger and the rollups `event_hourly` and `users_hourly` agree exactly with the oracle's counts,
    /// and that the markers are right.
    pub async fn assert_counted(&self, expected: &Counts) {
        let accepted = expected.accepted();
        let waited = wait_for(format!("{accepted} events in `{}`", self.name), DEADLINE, async || {
            self.stored().await >= accepted && !self.has_partly_stored_batch().await
        });
        if let Err(overdue) = waited.await {
            panic!("{overdue}; the raw table has {} rows, other tables may have fewer", self.stored().await);
        }
        assert_eq!(&self.counted().await, expected);
        assert_eq!(self.stored().await, accepted, "rows of the table `events`, without markers");
        assert_eq!(self.number("SELECT sum(stored) FROM ledger").await, accepted, "sum of ledger.stored");
        assert_eq!(self.number("SELECT sum(lines - rejected - duplicates) FROM ledger").await, accepted);
        assert_eq!(
            self.number("SELECT sum(rows) FROM rollup_states WHERE rollup = 'users_hourly'").await,
            accepted,
            "rows of users_hourly"
        );
        self.assert_marked().await;
    }

    /// Checks that every ClickHouse data part of the tables below contains a marker row. Also checks the ledger: for
    /// each partition and each generation of its log, the greatest marker must be one more than the greatest offset.
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
            "partitions whose marker in the ledger is not the greatest offset + 1"
        );
    }

    /// The number of rows in the raw table, without marker rows.
    pub async fn stored(&self) -> u64 {
        self.number("SELECT count() FROM events WHERE tenant != ''").await
    }

    /// Whether the raw table, the ledger and the rollups `event_hourly` and `users_hourly` hold different numbers of
    /// events. The numbers differ while a batch is partly stored, because each cell of a batch is a separate insert.
    async fn has_partly_stored_batch(&self) -> bool {
        self.number(
            "SELECT (SELECT count() FROM events WHERE tenant != '') != (SELECT sum(stored) FROM ledger)
                 OR (SELECT sum(events) FROM rollup.event_hourly WHERE tenant != '') != (SELECT sum(stored) FROM ledger)
                 OR (SELECT sum(rows) FROM rollup_states WHERE rollup = 'users_hourly') != (SELECT sum(stored) FROM ledger)",
        )
        .await != 0
    }

    /// The counts that the rollups `event_hourly` and `users_hourly` have for the tenant `default`.
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

/// For each rollup in `rollups`, replaces `rollup.<name>` in `sql` with a subquery that returns the rollup's rows.
pub fn with_sources(sql: &str, rollups: &Rollups) -> String {
    let in_place =
        |sql: String, rollup: &Rollup| sql.replace(&format!("rollup.{}", rollup.name), &rollup.source());
    rollups.iter().fold(sql.to_owned(), in_place)
}
