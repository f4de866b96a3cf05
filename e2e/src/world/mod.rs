//! The environment of one test: a topic and a consumer group in Kafka, a database in ClickHouse, and the services that
//! use them.

use std::path::Path;
use std::time::Duration;

use devstack::clickhouse::LOCAL_PASSWORD;
use devstack::{DataDirectory, Service, Stack};
use schemas::access::{self, Tenants, User};
use schemas::bi;
use schemas::rollup::Rollups;
use tokio::sync::OnceCell;

mod services;

mod kafka;

mod tables;

pub use services::{Edge, QueryApi};
pub use tables::with_sources;

/// Longest wait for something that takes only a moment on an idle machine.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Longest time that a command may run. Some commands wait for a minute on purpose.
const COMMAND_DEADLINE: Duration = Duration::from_secs(150);

/// Partitions of a world's topic.
pub const PARTITIONS: i32 = 4;

/// Makes an aggregator a static member of the group. If its process ends, the next process with the same instance id
/// gets the same partitions at once.
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

    /// Like [`World::on_own_servers`], but the definers of the analysts' views (`DEFINER` in ClickHouse) may read the
    /// columns that views of `rollups` need, instead of those of the built-in rollups.
    pub async fn on_own_servers_declaring(name: &'static str, rollups: &Rollups) -> (Stack, Self) {
        Self::on_own_servers_with_tenants(name, rollups, &Tenants::default()).await
    }

    /// Like [`World::on_own_servers_declaring`], but ClickHouse also has the users of `tenants`.
    pub async fn on_own_servers_with_tenants(
        name: &'static str,
        rollups: &Rollups,
        tenants: &Tenants,
    ) -> (Stack, Self) {
        let on = bi::Databases { tables: name, views: &bi_database(name) };
        Self::on_own_servers_with_users(name, access::of_views(rollups, on, bi::Definers::DEFAULT, tenants))
            .await
    }

    /// The world of the test `name` on its own servers, migrated. Its ClickHouse has `users` in addition to the users
    /// that every local server has: those of the services, and `bi_reader` and `bi_jdbc`, who read all views.
    pub async fn on_own_servers_with_users(name: &'static str, users: Vec<User>) -> (Stack, Self) {
        let mut stack = Stack::for_test(name).unwrap();
        stack.clickhouse.declare_users(&users).unwrap();
        stack.start().await.unwrap();
        let world = Self::unmigrated(name, stack.kafka.brokers(), stack.clickhouse.url());
        world.migrate().await;
        (stack, world)
    }

    /// A world without tables. The servers need not run yet.
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

    /// Runs a program of the workspace until it exits, with the world's variables and `more`. Returns an error if the
    /// program fails or runs longer than `COMMAND_DEADLINE`.
    pub async fn run(&self, program: &str, args: &[&str], more: &[(&str, &str)]) -> anyhow::Result<()> {
        let variables = self.variables(more);
        Service::run(program, args, &borrowed(&variables), &self.directory, COMMAND_DEADLINE).await?;
        Ok(())
    }

    /// The environment variables for a service of this world: the common variables below and those in `more`. If a name
    /// is in both, the value from `more` is used.
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
            // These intervals are shorter than the defaults, so that the tests are fast.
            ("BATCH_MAX_AGE", "200ms"),
            ("PROGRESS_INTERVAL", "200ms"),
            ("REFRESH_INTERVAL", "300ms"),
            ("DRAIN_DELAY", "100ms"),
        ];
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let kept = common.iter().filter(|(name, _)| more.iter().all(|(other, _)| other != name));
        kept.chain(more).map(owned).collect()
    }

    /// Writes the file `name` into the world's directory and returns the path of the file.
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The name of the world. Its topic, database and consumer group have the same name.
    pub fn name(&self) -> &str {
        self.name
    }

    /// The database with this world's views for analysts. The users `bi_reader` and `bi_jdbc` of a local ClickHouse
    /// server may read it.
    pub fn bi_database(&self) -> String {
        bi_database(self.name)
    }

    /// The URL with which `user` reads this world's views: `clickhouse://user:password@host:port/database`.
    pub fn bi_dsn(&self, user: &str) -> String {
        let at = self.clickhouse.trim_start_matches("http://");
        format!("clickhouse://{user}:{LOCAL_PASSWORD}@{at}/{}", self.bi_database())
    }

    /// The directory with the data and logs of this world's services.
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

    /// Starts an edge, an aggregator and a query API, and waits until all three are ready.
    pub async fn pipeline(&self) -> (Edge, Service, QueryApi) {
        tokio::join!(self.edge(), self.aggregator(), self.query_api())
    }

    async fn ready(&self, service: &str) -> Service {
        let mut service = self.start(service, &[]);
        service.wait_ready().await.unwrap();
        service
    }
}

fn bi_database(world: &str) -> String {
    format!("bi_{world}")
}

fn borrowed(variables: &[(String, String)]) -> Vec<(&str, &str)> {
    variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}
