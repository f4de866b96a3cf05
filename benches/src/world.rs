//! A topic, a database and a consumer group of one measurement, and the services in it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use devstack::{DataDirectory, Service, Stack};
use reqwest::Url;

use crate::floors::Floor;

/// For the tables to be made.
const MIGRATE_DEADLINE: Duration = Duration::from_secs(60);

/// One measurement's corner of the stack.
pub struct World {
    name: String,
    brokers: String,
    clickhouse: String,
    directory: DataDirectory,
    http: reqwest::Client,
}

impl World {
    /// A world called `name` on `stack`, migrated.
    pub async fn new(name: &str, stack: &Stack) -> anyhow::Result<Self> {
        let name = format!("bench_{name}");
        let world = Self {
            brokers: stack.kafka.brokers().to_owned(),
            clickhouse: stack.clickhouse.url().to_owned(),
            directory: DataDirectory::for_test(&name)?,
            http: reqwest::Client::new(),
            name,
        };
        Service::run("stream-agg", &["migrate"], &world.vars(), &world.directory, MIGRATE_DEADLINE).await?;
        Ok(world)
    }

    /// Name of its topic.
    pub fn topic(&self) -> &str {
        &self.name
    }

    /// Starts a service of ours, and does not wait until it is ready.
    pub fn start(&self, service: &str) -> anyhow::Result<Service> {
        Service::start(service, &self.vars(), &self.directory)
    }

    /// Starts a service of ours and waits until it is ready.
    pub async fn service(&self, service: &str) -> anyhow::Result<Service> {
        ready(self.start(service)?).await
    }

    /// Starts a floor and waits until it is ready.
    pub async fn floor(&self, floor: Floor) -> anyhow::Result<Service> {
        let vars = [("FLOOR", floor.name()), ("KAFKA_BROKERS", self.brokers.as_str()), ("TOPIC", &self.name)];
        ready(Service::start("floor", &vars, &self.directory)?).await
    }

    /// Rows in the raw table.
    pub async fn stored(&self) -> anyhow::Result<u64> {
        self.number("SELECT count() FROM events WHERE tenant != ''").await
    }

    /// Rows that the ledger tells of, which costs ClickHouse much less to say.
    pub async fn stored_by_the_ledger(&self) -> anyhow::Result<u64> {
        self.number("SELECT sum(stored) FROM ledger").await
    }

    /// CPU seconds and number of the inserts into each table, as ClickHouse tells them.
    pub async fn cpu_of_inserts(&self) -> anyhow::Result<BTreeMap<String, (f64, u64)>> {
        self.query("SYSTEM FLUSH LOGS").await?;
        let sql = format!(
            "SELECT arrayFirst(name -> startsWith(name, '{0}.'), tables) AS inserted,
                sum(ProfileEvents['UserTimeMicroseconds'] + ProfileEvents['SystemTimeMicroseconds']) / 1e6,
                count()
             FROM system.query_log
             WHERE type = 'QueryFinish' AND query_kind = 'Insert' AND has(databases, '{0}')
             GROUP BY inserted",
            self.name
        );
        let answer = self.query(&sql).await?;
        let lines = answer.lines().map(|line| {
            let words: Vec<_> = line.split('\t').collect();
            let [table, seconds, count] = words[..] else { bail!("read `{line}` of an answer") };
            let table = table.rsplit('.').next().unwrap_or_default();
            Ok((table.to_owned(), (seconds.parse()?, count.parse()?)))
        });
        lines.collect()
    }

    /// Bytes of each table once all its parts are merged.
    pub async fn merged_bytes(&self) -> anyhow::Result<BTreeMap<String, u64>> {
        let engines = "SELECT name FROM system.tables WHERE database = currentDatabase() AND engine LIKE '%MergeTree' AND NOT startsWith(name, '.')";
        for table in self.query(engines).await?.lines() {
            self.query(&format!("OPTIMIZE TABLE {table} FINAL SETTINGS optimize_skip_merged_partitions = 1"))
                .await?;
        }
        let sql = "SELECT table, sum(bytes_on_disk) FROM system.parts
             WHERE active AND database = currentDatabase() AND NOT startsWith(table, '.') GROUP BY table ORDER BY table";
        let answer = self.query(sql).await?;
        let lines = answer.lines().map(|line| {
            let (table, bytes) =
                line.split_once('\t').with_context(|| format!("read `{line}` of an answer"))?;
            Ok((table.to_owned(), bytes.parse()?))
        });
        lines.collect()
    }

    /// Drops its database; its services must have ended.
    pub async fn remove(&self) -> anyhow::Result<()> {
        self.query(&format!("DROP DATABASE {} SYNC", self.name)).await?;
        Ok(())
    }

    async fn number(&self, sql: &str) -> anyhow::Result<u64> {
        self.query(sql).await?.trim().parse().with_context(|| format!("read the answer to {sql}"))
    }

    async fn query(&self, sql: &str) -> anyhow::Result<String> {
        let url = Url::parse_with_params(&self.clickhouse, [("database", &self.name)])?;
        let answer = self.http.post(url).body(sql.to_owned()).send().await?.error_for_status()?;
        answer.text().await.with_context(|| format!("read the answer to {sql}"))
    }

    fn vars(&self) -> [(&str, &str); 7] {
        [
            ("KAFKA_BROKERS", &self.brokers),
            ("TOPIC", &self.name),
            ("GROUP", &self.name),
            ("CLICKHOUSE_URL", &self.clickhouse),
            ("CLICKHOUSE_DATABASE", &self.name),
            ("DRAIN_DELAY", "0s"),
            ("LOG", "warn"),
        ]
    }
}

async fn ready(mut service: Service) -> anyhow::Result<Service> {
    service.wait_ready().await?;
    Ok(service)
}

/// Where a service listens.
pub fn addr(service: &Service) -> anyhow::Result<SocketAddr> {
    let url = service.http();
    url.trim_start_matches("http://").parse().with_context(|| format!("read the address {url}"))
}
