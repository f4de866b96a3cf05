//! The environment of one test: a topic, a database and a consumer group on a Kafka and ClickHouse, and the services
//! that use them.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use devstack::clickhouse::LOCAL_PASSWORD;
use devstack::{DataDirectory, Service, Stack, wait_for};
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::message::{Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use schemas::bi;
use schemas::record::Head;
use schemas::rollup::{Rollup, Rollups};
use tokio::sync::OnceCell;

use crate::client::Http;
use crate::invariants;
use crate::oracle::Counts;

/// Longest wait for something that takes no time on an idle machine.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Longest run of a command; some commands wait for a minute on purpose.
const COMMAND_DEADLINE: Duration = Duration::from_secs(150);

/// Partitions of a world's topic.
const PARTITIONS: i32 = 4;

/// Makes an aggregator a static member of the group: the next process with the same name gets its partitions at once.
pub const STATIC_MEMBER: (&str, &str) = ("GROUP_INSTANCE_ID", "the-only-one");

/// The name of the rollup in [`ADDED_ROLLUP_TOML`].
pub const ADDED_ROLLUP: &str = "events_of_late";

/// The declaration of a rollup that tests add to the built-in ones.
pub const ADDED_ROLLUP_TOML: &str = r#"
[[rollup]]
name = "events_of_late"
grain = "hour"
dimensions = ["event"]
measures = { events = "count" }
"#;

/// The built-in rollups and the added one.
static ROLLUPS: LazyLock<Rollups> = LazyLock::new(|| {
    Rollups::parse("world", &format!("{}{ADDED_ROLLUP_TOML}", Rollups::built_in())).unwrap()
});

static STACK: OnceCell<Stack> = OnceCell::const_new();

/// The Kafka and ClickHouse that tests share; the first test starts them.
async fn stack() -> &'static Stack {
    let start = async {
        let mut stack = Stack::for_test("e2e").unwrap();
        stack.start().await.unwrap();
        stack
    };
    STACK.get_or_init(|| start).await
}

/// A topic, a database and a consumer group for one test.
pub struct World {
    name: &'static str,
    brokers: String,
    clickhouse: String,
    directory: DataDirectory,
    http: reqwest::Client,
}

impl World {
    /// The world of the test `name` on the shared servers, migrated.
    pub async fn new(name: &'static str) -> Self {
        let stack = stack().await;
        let world = Self::unmigrated(name, stack.kafka.brokers(), stack.clickhouse.url());
        world.migrate().await;
        world
    }

    /// The world of the test `name` on its own servers, migrated.
    pub async fn on_own_servers(name: &'static str) -> (Stack, Self) {
        Self::on_own_servers_declaring(name, &Rollups::built_in()).await
    }

    /// Like [`World::on_own_servers`]; the definer of the analysts' views may also read the columns of `rollups`.
    pub async fn on_own_servers_declaring(name: &'static str, rollups: &Rollups) -> (Stack, Self) {
        let mut stack = Stack::for_test(name).unwrap();
        stack.clickhouse.define(bi::DEFINER, &bi::grants(rollups, name)).unwrap();
        stack.start().await.unwrap();
        let world = Self::unmigrated(name, stack.kafka.brokers(), stack.clickhouse.url());
        world.migrate().await;
        (stack, world)
    }

    /// A world without tables, on servers that need not run yet.
    pub fn unmigrated(name: &'static str, brokers: &str, clickhouse: &str) -> Self {
        Self {
            name,
            brokers: brokers.to_owned(),
            clickhouse: clickhouse.to_owned(),
            directory: DataDirectory::for_test(name).unwrap(),
            http: reqwest::Client::new(),
        }
    }

    /// Runs `stream-agg migrate`.
    pub async fn migrate(&self) {
        self.migrate_with(&[]).await;
    }

    /// Runs `stream-agg migrate` with `more` variables, which override those of the world.
    pub async fn migrate_with(&self, more: &[(&str, &str)]) {
        self.run("stream-agg", &["migrate"], more).await.unwrap();
    }

    /// Runs a program until it exits by itself.
    pub async fn run(&self, program: &str, args: &[&str], more: &[(&str, &str)]) -> anyhow::Result<()> {
        let variables = self.variables(more);
        Service::run(program, args, &borrowed(&variables), &self.directory, COMMAND_DEADLINE).await?;
        Ok(())
    }

    /// The variables of every service of this world, and `more`, which override them.
    fn variables(&self, more: &[(&str, &str)]) -> Vec<(String, String)> {
        let bi = self.bi_database();
        let common = [
            ("KAFKA_BROKERS", self.brokers.as_str()),
            ("TOPIC", self.name),
            ("TOPIC_PARTITIONS", &PARTITIONS.to_string()),
            ("GROUP", self.name),
            ("CLICKHOUSE_URL", &self.clickhouse),
            ("CLICKHOUSE_DATABASE", self.name),
            ("BI_DATABASE", &bi),
            // Short intervals for fast tests; other tests cover the defaults.
            ("BATCH_MAX_AGE", "200ms"),
            ("PROGRESS_INTERVAL", "200ms"),
            ("POLL_INTERVAL", "300ms"),
            ("DRAIN_DELAY", "100ms"),
        ];
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let kept = common.iter().filter(|(name, _)| more.iter().all(|(other, _)| other != name));
        kept.chain(more).map(owned).collect()
    }

    /// Writes a file into the world's directory. Returns its path.
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Its name, which is also that of its topic, database and consumer group.
    pub fn name(&self) -> &str {
        self.name
    }

    /// The database of its views, which the local users of `bi` may read.
    pub fn bi_database(&self) -> String {
        format!("bi_{}", self.name)
    }

    /// The address of its views for `user`.
    pub fn bi_dsn(&self, user: &str) -> String {
        let at = self.clickhouse.trim_start_matches("http://");
        format!("clickhouse://{user}:{LOCAL_PASSWORD}@{at}/{}", self.bi_database())
    }

    /// The directory with the data and logs of its services.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Starts a service without waiting until it is ready.
    pub fn start(&self, service: &str, more: &[(&str, &str)]) -> Service {
        Service::start(service, &borrowed(&self.variables(more)), &self.directory).unwrap()
    }

    /// Starts an edge and waits until it is ready.
    pub async fn edge(&self) -> Edge {
        Edge::new(self.ready("ingest").await)
    }

    /// Starts an aggregator and waits until it is ready.
    pub async fn aggregator(&self) -> Service {
        self.ready("stream-agg").await
    }

    /// Starts a query API and waits until it is ready.
    pub async fn query_api(&self) -> QueryApi {
        QueryApi::new(self.ready("query-api").await)
    }

    /// Starts one of each service and waits until they are ready.
    pub async fn pipeline(&self) -> (Edge, Service, QueryApi) {
        tokio::join!(self.edge(), self.aggregator(), self.query_api())
    }

    async fn ready(&self, service: &str) -> Service {
        let mut service = self.start(service, &[]);
        service.wait_ready().await.unwrap();
        service
    }

    /// Appends a record to a partition of the topic without the edge, and waits until Kafka has acknowledged it.
    pub fn produce(&self, partition: i32, headers: &[(&str, &str)], value: &[u8]) {
        let add = |all: OwnedHeaders, (key, value): &(&str, &str)| {
            all.insert(Header { key, value: Some(value.as_bytes()) })
        };
        let headers = headers.iter().fold(OwnedHeaders::new(), add);
        let record = BaseRecord::<(), _>::to(self.name).partition(partition).payload(value).headers(headers);
        let producer: BaseProducer = self.kafka().create().unwrap();
        producer.send(record).map_err(|(error, _)| error).unwrap();
        producer.flush(DEADLINE).unwrap();
    }

    /// Commits an offset with metadata for every partition, as Kafka's tools do.
    pub fn commit(&self, offset: i64, metadata: &str) {
        (0..PARTITIONS).for_each(|partition| self.commit_partition(partition, offset, metadata));
    }

    /// Commits an offset with metadata for one partition.
    pub fn commit_partition(&self, partition: i32, offset: i64, metadata: &str) {
        let tool: BaseConsumer = self.kafka().set("group.id", self.name).create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition(self.name, partition).set_metadata(metadata);
        list.set_all_offsets(Offset::Offset(offset)).unwrap();
        tool.commit(&list, CommitMode::Sync).unwrap();
    }

    /// The committed offset of a partition and its metadata.
    pub fn committed(&self, partition: i32) -> (i64, String) {
        self.try_committed(partition).expect("an offset is committed")
    }

    /// The committed offset and its metadata; none if nothing is committed or Kafka does not answer.
    pub fn try_committed(&self, partition: i32) -> Option<(i64, String)> {
        let tool: BaseConsumer = self.kafka().set("group.id", self.name).create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition(self.name, partition);
        let answer = tool.committed_offsets(list, DEADLINE).ok()?;
        let element = answer.elements().remove(0);
        Some((element.offset().to_raw().filter(|offset| *offset >= 0)?, element.metadata().to_owned()))
    }

    /// The records in the topic, with their headers. Records that arrive during the call are left out.
    pub fn records(&self) -> Vec<(Head, Vec<u8>)> {
        let reader: BaseConsumer = self.kafka().set("group.id", "reader").create().unwrap();
        let (mut from, mut ends, mut left) = (TopicPartitionList::new(), BTreeMap::new(), 0);
        for partition in 0..PARTITIONS {
            let (start, end) = reader.fetch_watermarks(self.name, partition, DEADLINE).unwrap();
            left += end - start;
            ends.insert(partition, end);
            from.add_partition_offset(self.name, partition, Offset::Beginning).unwrap();
        }
        reader.assign(&from).unwrap();
        let mut records = Vec::new();
        while left > 0 {
            let record = reader.poll(DEADLINE).expect("every record is read").unwrap();
            if record.offset() >= ends[&record.partition()] {
                continue;
            }
            left -= 1;
            let headers = record.headers().unwrap().iter();
            let head = Head::read(headers.map(|header| (header.key, header.value.unwrap()))).unwrap();
            records.push((head, record.payload().unwrap().to_vec()));
        }
        records
    }

    /// Deletes all records of the topic.
    pub async fn delete_records(&self) {
        let tool: BaseConsumer = self.kafka().create().unwrap();
        let mut ends = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            let (_, end) = tool.fetch_watermarks(self.name, partition, DEADLINE).unwrap();
            ends.add_partition_offset(self.name, partition, Offset::Offset(end)).unwrap();
        }
        self.admin().delete_records(&ends, &AdminOptions::new()).await.unwrap();
    }

    /// Deletes the topic and waits until Kafka no longer lists it.
    pub async fn delete_topic(&self) {
        self.admin().delete_topics(&[self.name], &AdminOptions::new()).await.unwrap();
        let tool: BaseConsumer = self.kafka().create().unwrap();
        let waited = wait_for("the topic to be gone", DEADLINE, async || {
            let all = tool.fetch_metadata(None, DEADLINE).unwrap();
            all.topics().iter().all(|topic| topic.name() != self.name)
        });
        waited.await.unwrap();
    }

    /// Sets one setting of the topic, and resets all others to Kafka's defaults.
    pub async fn set_topic(&self, name: &str, value: &str) {
        let topic = AlterConfig::new(ResourceSpecifier::Topic(self.name)).set(name, value);
        let answers = self.admin().alter_configs([&topic], &AdminOptions::new()).await.unwrap();
        answers.into_iter().for_each(|answer| drop(answer.unwrap()));
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.kafka().create().unwrap()
    }

    /// Settings of a client of the world's Kafka.
    pub fn kafka(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        config
    }

    /// The rows of a query in this world's database, as text.
    pub async fn rows(&self, sql: &str) -> Vec<Vec<String>> {
        self.try_rows(sql).await.unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Like [`World::rows`], for a query that may fail. `rollup.<name>` stands for the rows of a built-in rollup or of
    /// [`ADDED_ROLLUP`], with the declared names as columns.
    pub async fn try_rows(&self, sql: &str) -> anyhow::Result<Vec<Vec<String>>> {
        let body = with_sources(sql, &ROLLUPS);
        let request = self.http.post(format!("{}/?database={}", self.clickhouse, self.name)).body(body);
        let answer = request.send().await.with_context(|| format!("ask {sql}"))?;
        let good = answer.status().is_success();
        let text = answer.text().await.with_context(|| format!("ask {sql}"))?;
        ensure!(good, "ask {sql}: {text}");
        Ok(text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect())
    }

    /// The only number in the result of a query.
    pub async fn number(&self, sql: &str) -> u64 {
        let rows = self.rows(sql).await;
        rows[0][0].parse().unwrap_or_else(|_| panic!("{sql}: {rows:?}"))
    }

    /// Waits until the raw table holds as many rows as events were accepted, then checks that every table agrees exactly
    /// with the oracle's counts: the raw table, the ledger and each rollup.
    pub async fn assert_counted(&self, expected: &Counts) {
        let accepted = expected.accepted();
        let waited = wait_for(format!("{accepted} rows in `{}`.events", self.name), DEADLINE, async || {
            self.stored().await >= accepted && self.uncommitted_cells().await == 0
        });
        if let Err(overdue) = waited.await {
            panic!("{overdue}; there are {}", self.stored().await);
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

    /// Checks that every part has its marker, and that the markers end exactly where the ledger does.
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
            "markers that do not say how far the ledger reaches"
        );
    }

    async fn stored(&self) -> u64 {
        self.number("SELECT count() FROM events WHERE tenant != ''").await
    }

    /// Not 0 while only some tables hold a batch: a raw row is visible before the other cells of its batch.
    async fn uncommitted_cells(&self) -> u64 {
        self.number(
            "SELECT (SELECT count() FROM events WHERE tenant != '') != (SELECT sum(stored) FROM ledger)
                 OR (SELECT sum(events) FROM rollup.event_hourly WHERE tenant != '') != (SELECT sum(stored) FROM ledger)
                 OR (SELECT sum(rows) FROM rollup_states WHERE rollup = 'users_hourly') != (SELECT sum(stored) FROM ledger)",
        )
        .await
    }

    /// The counts that the rollups hold.
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

/// Replaces `rollup.<name>` in `sql` by the rows of each of `rollups`.
pub fn with_sources(sql: &str, rollups: &Rollups) -> String {
    let in_place =
        |sql: String, rollup: &Rollup| sql.replace(&format!("rollup.{}", rollup.name), &rollup.source());
    rollups.iter().fold(sql.to_owned(), in_place)
}

fn borrowed(variables: &[(String, String)]) -> Vec<(&str, &str)> {
    variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// A running edge.
pub struct Edge {
    /// Its process.
    pub service: Service,
    /// Its port for clients.
    pub http: Http,
}

impl Edge {
    /// The edge that `service` is.
    pub fn new(service: Service) -> Self {
        Self { http: Http::new(service.http()), service }
    }

    /// The sum of one of its metrics over all labels.
    pub async fn metric(&self, name: &str) -> u64 {
        Http::new(self.service.admin()).metric(name).await.unwrap_or_default()
    }

    /// Checks that the edge's counters balance: no event is dropped silently.
    pub async fn assert_balanced(&self) {
        let page = Http::new(self.service.admin()).get("/metrics").await.text;
        assert_eq!(invariants::unbalanced(&page), None);
    }

    /// Its metrics page, read without an async runtime.
    fn metrics(&self) -> io::Result<String> {
        let address = self.service.admin().replace("http://", "");
        let mut admin = TcpStream::connect(&address)?;
        admin.set_read_timeout(Some(DEADLINE))?;
        write!(admin, "GET /metrics HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
        let mut page = String::new();
        admin.read_to_string(&mut page)?;
        Ok(page)
    }
}

/// When any test is done with an edge, the edge's counters must balance. Waits for events without an outcome.
impl Drop for Edge {
    fn drop(&mut self) {
        if thread::panicking() || self.service.process().exited().is_some() {
            return;
        }
        let start = Instant::now();
        while let Some(wrong) = invariants::unbalanced(&self.metrics().unwrap()) {
            assert!(start.elapsed() < DEADLINE, "the edge's counters do not balance: {wrong}");
            thread::park_timeout(Duration::from_millis(50));
        }
    }
}

/// A running query API.
pub struct QueryApi {
    /// Killed when the value is dropped.
    _service: Service,
    /// Its port for readers.
    pub http: Http,
}

impl QueryApi {
    /// The query API that `service` is.
    pub fn new(service: Service) -> Self {
        Self { http: Http::new(service.http()), _service: service }
    }

    /// Waits until the answer for the hour of `millis` has these figures.
    pub async fn assert_hour(&self, millis: i64, users: u64, clicks: u64, impressions: u64) {
        let expected = format!("unique_users,{users}\nclicks,{clicks}\nimpressions,{impressions}\n");
        let path = format!("/analytics?timestamp={millis}");
        let mut last = String::new();
        let waited = wait_for(format!("{expected:?}"), DEADLINE, async || {
            last = self.http.get(&path).await.text;
            last == expected
        });
        if let Err(overdue) = waited.await {
            panic!("{overdue}; the answer is {last:?}");
        }
    }
}
