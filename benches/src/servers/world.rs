//! The environment of one measurement: a topic, a database and a consumer group, and the services that use them.
//!
//! Several worlds may read one topic, because each has its own consumer group.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use devstack::{DataDirectory, Service, Stack, wait_for};
use reqwest::Url;
use tokio::time;

use super::Floor;
use crate::input::Work;

/// Longest run of `stream-agg migrate`.
const MIGRATE_DEADLINE: Duration = Duration::from_secs(60);
/// Interval between two polls for running merges.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// The topic, database and consumer group of one measurement.
pub struct World {
    name: String,
    topic: String,
    /// The file that declares rollups in place of the built-in ones, if there is one.
    rollups: Option<String>,
    /// Number of partitions with which `migrate` creates a missing topic. If `None`, `migrate` uses the default of
    /// `TOPIC_PARTITIONS`.
    partitions: Option<String>,
    /// The database of the analysts' views, if it is not the default of `BI_DATABASE`.
    views: Option<&'static str>,
    brokers: String,
    clickhouse: String,
    directory: DataDirectory,
    http: reqwest::Client,
}

/// The SQL expression that sums the CPU seconds over rows of `system.query_log` or `system.part_log`.
const CPU: &str =
    "sum(ProfileEvents['UserTimeMicroseconds'] + ProfileEvents['SystemTimeMicroseconds']) / 1e6";

impl World {
    /// Prepares a world as [`World::prepare`] does, and creates its topic and tables.
    pub async fn new(name: &str, stack: &Stack) -> anyhow::Result<Self> {
        let world = Self::prepare(name, stack)?;
        world.migrate().await?;
        Ok(world)
    }

    /// A world on `stack` with the name `bench_<name>`. Creates neither its topic, which has the same name, nor its
    /// tables.
    pub fn prepare(name: &str, stack: &Stack) -> anyhow::Result<Self> {
        let name = format!("bench_{name}");
        Ok(Self {
            topic: name.clone(),
            rollups: None,
            partitions: None,
            views: None,
            brokers: stack.kafka.brokers().to_owned(),
            clickhouse: stack.clickhouse.url().to_owned(),
            directory: DataDirectory::for_test(&name)?,
            http: reqwest::Client::new(),
            name,
        })
    }

    /// Uses this topic instead of the one that has the name of the world.
    pub fn with_topic(self, topic: &str) -> Self {
        Self { topic: topic.to_owned(), ..self }
    }

    /// Makes `migrate` create the topic with this number of partitions.
    pub fn with_partitions(self, partitions: u16) -> Self {
        Self { partitions: Some(partitions.to_string()), ..self }
    }

    /// Makes `migrate` create the analysts' views in this database.
    pub fn with_views(self, database: &'static str) -> Self {
        Self { views: Some(database), ..self }
    }

    /// Declares these rollups instead of the built-in ones.
    pub fn with_rollups(self, rollups: &str) -> anyhow::Result<Self> {
        let file = self.directory.path().join("rollups.toml");
        fs::write(&file, rollups).with_context(|| format!("write {}", file.display()))?;
        let file = file.into_os_string().into_string().ok().context("read rollups.toml's path as UTF-8")?;
        Ok(Self { rollups: Some(file), ..self })
    }

    /// Creates Millrace's tables, and the topic if it does not exist.
    pub async fn migrate(&self) -> anyhow::Result<()> {
        Service::run("stream-agg", &["migrate"], &self.vars(), &self.directory, MIGRATE_DEADLINE).await
    }

    /// Creates an empty database for a consumer that is compared with the aggregator and has tables of its own.
    pub async fn create_database(&self) -> anyhow::Result<()> {
        let url = self.clickhouse.clone();
        self.post(Url::parse(&url)?, &format!("CREATE DATABASE {}", self.name)).await.map(drop)
    }

    /// Name of the database and of the consumer group.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Name of the topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Addresses of the brokers.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// Starts a service of Millrace without waiting until it is ready.
    pub fn start(&self, service: &str) -> anyhow::Result<Service> {
        Service::start(service, &self.vars(), &self.directory)
    }

    /// Starts a peer: a program that does the aggregator's work with another library, for comparison. It reads the kind
    /// of events from the variable `WORK`.
    pub fn start_peer(&self, program: &str, work: Work) -> anyhow::Result<Service> {
        let mut vars = self.vars();
        vars.push(("WORK", work.name()));
        Service::start(program, &vars, &self.directory)
    }

    /// Starts a service of Millrace and waits until it is ready.
    pub async fn service(&self, service: &str) -> anyhow::Result<Service> {
        ready(self.start(service)?).await
    }

    /// Starts a floor and waits until it is ready.
    pub async fn floor(&self, floor: Floor) -> anyhow::Result<Service> {
        let vars =
            [("FLOOR", floor.name()), ("KAFKA_BROKERS", self.brokers.as_str()), ("TOPIC", &self.topic)];
        ready(Service::start("floor", &vars, &self.directory)?).await
    }

    /// Number of events in the raw table. Marker rows, whose tenant is empty, are not events.
    pub async fn stored(&self) -> anyhow::Result<u64> {
        self.number("SELECT count() FROM events WHERE tenant != ''").await
    }

    /// Number of stored events according to the ledger. Summing the ledger costs ClickHouse much less than counting raw
    /// rows.
    pub async fn stored_by_ledger(&self) -> anyhow::Result<u64> {
        self.number("SELECT sum(stored) FROM ledger").await
    }

    /// For each table, the CPU seconds of all inserts and the number of inserts, from ClickHouse's query log.
    pub async fn cpu_of_inserts(&self) -> anyhow::Result<BTreeMap<String, (f64, u64)>> {
        self.cpu_by_table(&format!(
            "SELECT replaceOne(arrayFirst(name -> startsWith(name, '{0}.'), tables), '{0}.', '') AS name, {CPU}, count()
             FROM system.query_log
             WHERE type = 'QueryFinish' AND query_kind = 'Insert' AND has(databases, '{0}') GROUP BY name",
            self.name
        ))
        .await
    }

    /// For each table, the CPU seconds of all background merges and the number of merges, from ClickHouse's part log.
    pub async fn cpu_of_merges(&self) -> anyhow::Result<BTreeMap<String, (f64, u64)>> {
        self.cpu_by_table(&format!(
            "SELECT table, {CPU}, count() FROM system.part_log
             WHERE event_type = 'MergeParts' AND database = '{}' GROUP BY table",
            self.name
        ))
        .await
    }

    async fn cpu_by_table(&self, sql: &str) -> anyhow::Result<BTreeMap<String, (f64, u64)>> {
        self.query("SYSTEM FLUSH LOGS").await?;
        let answer = self.query(sql).await?;
        let lines = answer.lines().map(|line| {
            let words: Vec<_> = line.split('\t').collect();
            let [table, seconds, count] = words[..] else { bail!("read `{line}` in ClickHouse's answer") };
            Ok((table.to_owned(), (seconds.parse()?, count.parse()?)))
        });
        lines.collect()
    }

    /// Merges the parts of each table partition into one part. Returns the bytes that each table then has on disk.
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
                line.split_once('\t').with_context(|| format!("read `{line}` in ClickHouse's answer"))?;
            Ok((table.to_owned(), bytes.parse()?))
        });
        lines.collect()
    }

    /// Drops the database. The services must have exited before this call.
    pub async fn remove(&self) -> anyhow::Result<()> {
        self.query(&format!("DROP DATABASE {} SYNC", self.name)).await?;
        Ok(())
    }

    /// Waits until no merge of this world's tables runs, for at most `deadline`.
    pub async fn wait_for_merges(&self, deadline: Duration) {
        let sql = format!("SELECT count() FROM system.merges WHERE database = '{}'", self.name);
        // A timeout is no error: the figures of every consumer leave out the merges that run longer.
        let _late = wait_for("merges to end", deadline, async || {
            time::sleep(POLL_INTERVAL).await;
            self.number(&sql).await.is_ok_and(|merges| merges == 0)
        })
        .await;
    }

    /// The number that a query returns.
    pub async fn number(&self, sql: &str) -> anyhow::Result<u64> {
        self.query(sql).await?.trim().parse().with_context(|| format!("read the answer to {sql}"))
    }

    /// The result of a query as lines of tab-separated values.
    pub async fn query(&self, sql: &str) -> anyhow::Result<String> {
        self.post(Url::parse_with_params(&self.clickhouse, [("database", &self.name)])?, sql).await
    }

    async fn post(&self, url: Url, sql: &str) -> anyhow::Result<String> {
        let answer = self.http.post(url).body(sql.to_owned()).send().await?;
        let refused = answer.error_for_status_ref().err();
        let text = answer.text().await.with_context(|| format!("read the answer to {sql}"))?;
        match refused {
            Some(_) => bail!("query ClickHouse with {sql}: {text}"),
            None => Ok(text),
        }
    }

    fn vars(&self) -> Vec<(&str, &str)> {
        let mut vars = vec![
            ("KAFKA_BROKERS", self.brokers.as_str()),
            ("TOPIC", &self.topic),
            ("GROUP", &self.name),
            ("CLICKHOUSE_URL", &self.clickhouse),
            ("CLICKHOUSE_DATABASE", &self.name),
            ("DRAIN_DELAY", "0s"),
            ("LOG", "warn"),
        ];
        vars.extend(self.rollups.as_ref().map(|file| ("ROLLUPS_FILE", file.as_str())));
        vars.extend(self.views.map(|database| ("BI_DATABASE", database)));
        vars.extend(self.partitions.as_ref().map(|count| ("TOPIC_PARTITIONS", count.as_str())));
        vars
    }
}

async fn ready(mut service: Service) -> anyhow::Result<Service> {
    service.wait_ready().await?;
    Ok(service)
}

/// The socket address on which a service accepts requests of users.
pub fn addr(service: &Service) -> anyhow::Result<SocketAddr> {
    addr_of(&service.http())
}

/// The socket address in `url`, which must have the form `http://ip:port`.
pub fn addr_of(url: &str) -> anyhow::Result<SocketAddr> {
    url.trim_start_matches("http://").parse().with_context(|| format!("read the address {url}"))
}
