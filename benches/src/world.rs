//! A topic, a database and a consumer group of one measurement, and the services in it.
//!
//! Several worlds may read one topic, for each has a consumer group of its own.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use devstack::{DataDirectory, Service, Stack, wait_for};
use reqwest::Url;
use tokio::time;

use crate::events::Work;
use crate::floors::Floor;

/// For the tables to be made.
const MIGRATE_DEADLINE: Duration = Duration::from_secs(60);
/// Between two looks at merges.
const LOOK: Duration = Duration::from_millis(500);

/// One measurement's corner of the stack.
pub struct World {
    name: String,
    topic: String,
    /// The file that declares other rollups than the built-in ones.
    rollups: Option<String>,
    /// Partitions of a topic that is made; the default if absent.
    partitions: Option<String>,
    brokers: String,
    clickhouse: String,
    directory: DataDirectory,
    http: reqwest::Client,
}

/// CPU seconds, of the rows of a log of ClickHouse's.
const CPU: &str =
    "sum(ProfileEvents['UserTimeMicroseconds'] + ProfileEvents['SystemTimeMicroseconds']) / 1e6";

impl World {
    /// A world called `name` on `stack`, migrated.
    pub async fn new(name: &str, stack: &Stack) -> anyhow::Result<Self> {
        let world = Self::prepare(name, stack)?;
        world.migrate().await?;
        Ok(world)
    }

    /// A world of which only the name exists, with a topic of this name.
    pub fn prepare(name: &str, stack: &Stack) -> anyhow::Result<Self> {
        let name = format!("bench_{name}");
        Ok(Self {
            topic: name.clone(),
            rollups: None,
            partitions: None,
            brokers: stack.kafka.brokers().to_owned(),
            clickhouse: stack.clickhouse.url().to_owned(),
            directory: DataDirectory::for_test(&name)?,
            http: reqwest::Client::new(),
            name,
        })
    }

    /// With another topic.
    pub fn reading(self, topic: &str) -> Self {
        Self { topic: topic.to_owned(), ..self }
    }

    /// With a topic of so many partitions, if it is made.
    pub fn of_partitions(self, partitions: u16) -> Self {
        Self { partitions: Some(partitions.to_string()), ..self }
    }

    /// With these rollups instead of the built-in ones.
    pub fn counting(self, rollups: &str) -> anyhow::Result<Self> {
        let file = self.directory.path().join("rollups.toml");
        fs::write(&file, rollups).with_context(|| format!("write {}", file.display()))?;
        let file = file.into_os_string().into_string().ok().context("read the file's name as text")?;
        Ok(Self { rollups: Some(file), ..self })
    }

    /// Makes the topic, if it is not there, and our tables.
    pub async fn migrate(&self) -> anyhow::Result<()> {
        Service::run("stream-agg", &["migrate"], &self.vars(), &self.directory, MIGRATE_DEADLINE).await
    }

    /// Makes an empty database, for tables that are not ours.
    pub async fn create_database(&self) -> anyhow::Result<()> {
        let url = self.clickhouse.clone();
        self.ask(Url::parse(&url)?, &format!("CREATE DATABASE {}", self.name)).await.map(drop)
    }

    /// Name of its database and of its consumer group.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Name of its topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Addresses of the brokers.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// Starts a service of ours, and does not wait until it is ready.
    pub fn start(&self, service: &str) -> anyhow::Result<Service> {
        Service::start(service, &self.vars(), &self.directory)
    }

    /// Starts a peer, and tells it what the events are like.
    pub fn start_peer(&self, program: &str, work: Work) -> anyhow::Result<Service> {
        let mut vars = self.vars();
        vars.push(("WORK", work.name()));
        Service::start(program, &vars, &self.directory)
    }

    /// Starts a service of ours and waits until it is ready.
    pub async fn service(&self, service: &str) -> anyhow::Result<Service> {
        ready(self.start(service)?).await
    }

    /// Starts a floor and waits until it is ready.
    pub async fn floor(&self, floor: Floor) -> anyhow::Result<Service> {
        let vars =
            [("FLOOR", floor.name()), ("KAFKA_BROKERS", self.brokers.as_str()), ("TOPIC", &self.topic)];
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
        self.cpu_by_table(&format!(
            "SELECT replaceOne(arrayFirst(name -> startsWith(name, '{0}.'), tables), '{0}.', '') AS name, {CPU}, count()
             FROM system.query_log
             WHERE type = 'QueryFinish' AND query_kind = 'Insert' AND has(databases, '{0}') GROUP BY name",
            self.name
        ))
        .await
    }

    /// The same of the merges that ClickHouse has done by itself.
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
            let [table, seconds, count] = words[..] else { bail!("read `{line}` of an answer") };
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

    /// Waits until no merge of its tables is under way; gives up after `deadline`.
    pub async fn merges_end(&self, deadline: Duration) {
        let sql = format!("SELECT count() FROM system.merges WHERE database = '{}'", self.name);
        // What is left then is left out of the figures of all who take part.
        let _late = wait_for("merges to end", deadline, async || {
            time::sleep(LOOK).await;
            self.number(&sql).await.is_ok_and(|merges| merges == 0)
        })
        .await;
    }

    /// The number that a query answers with.
    pub async fn number(&self, sql: &str) -> anyhow::Result<u64> {
        self.query(sql).await?.trim().parse().with_context(|| format!("read the answer to {sql}"))
    }

    /// The answer to a query, as lines of words between tabs.
    pub async fn query(&self, sql: &str) -> anyhow::Result<String> {
        self.ask(Url::parse_with_params(&self.clickhouse, [("database", &self.name)])?, sql).await
    }

    async fn ask(&self, url: Url, sql: &str) -> anyhow::Result<String> {
        let answer = self.http.post(url).body(sql.to_owned()).send().await?;
        let refused = answer.error_for_status_ref().err();
        let text = answer.text().await.with_context(|| format!("read the answer to {sql}"))?;
        match refused {
            Some(_) => bail!("ask ClickHouse for {sql}: {text}"),
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
        vars.extend(self.partitions.as_ref().map(|count| ("TOPIC_PARTITIONS", count.as_str())));
        vars
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
