//! `./dev up`: starts Kafka and ClickHouse, runs the migrations, and runs the three services and the front port until
//! Ctrl-C. Then the front port and the services stop in the order of the data flow, and after them ClickHouse and
//! Kafka.
//!
//! Invariant: even if a step of the start or the stop fails, ClickHouse and Kafka are stopped if this process started
//! them. After a second Ctrl-C, dropping the [`Stack`] kills those of the two that still run.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use clickhouse::Client;
use runtime::signal;
use runtime::vars::{VarError, Vars};
use tokio_util::sync::CancellationToken;

use crate::paths::{DataDirectory, cache};
use crate::servers::{ExternalServers, Ports, Stack};
use services::Services;
use stored::StoredRows;

mod services;

mod front;

mod live_line;

mod stored;

mod demo;

mod page;

mod output;

/// The rollups of the demo: the built-in ones, and those in `demo-rollups.toml`.
const DEMO_ROLLUPS: &str =
    concat!(include_str!("../../../schemas/rollups.toml"), include_str!("../../config/demo-rollups.toml"));

/// The command line options.
#[derive(Debug, Args)]
pub struct Options {
    /// Send generated events, so that the page has data to show
    #[arg(long)]
    demo: bool,
    /// First delete the data and logs of the last run; external servers keep their data
    #[arg(long)]
    fresh: bool,
    /// Keep data and logs in this directory instead of .cache/data
    #[arg(long, value_name = "DIRECTORY")]
    data: Option<PathBuf>,
}

/// The configuration from the environment.
#[derive(Debug)]
pub struct Config {
    /// Servers to use instead of local ones.
    given: ExternalServers,
    /// All variables of the environment, for the services.
    vars: BTreeMap<String, String>,
}

impl Config {
    /// Reads `KAFKA_BROKERS` and `CLICKHOUSE_URL`, and keeps all variables for the services.
    pub fn from_vars(vars: &Vars) -> Result<Self, VarError> {
        Ok(Self { given: ExternalServers::from_vars(vars), vars: vars.with_prefix("") })
    }

    /// The variables of services that use `stack`.
    fn service_vars(&self, stack: &Stack, demo: bool) -> anyhow::Result<Vars> {
        let mut vars = self.vars.clone();
        vars.insert("KAFKA_BROKERS".to_owned(), stack.kafka.brokers().to_owned());
        vars.insert("CLICKHOUSE_URL".to_owned(), stack.clickhouse.url().to_owned());
        // The delay gives a load balancer time to notice that a service stops, and here there is no load balancer.
        vars.entry("DRAIN_DELAY".to_owned()).or_insert_with(|| "0s".to_owned());
        // Each partition makes its own inserts, so fewer partitions mean less work for a laptop.
        vars.entry("TOPIC_PARTITIONS".to_owned()).or_insert_with(|| "4".to_owned());
        // If `./dev up` was killed and is started again, Kafka assigns the partitions at once to a static member with
        // the same name. A dynamic member would wait until the session of the killed member times out. In an external
        // Kafka, another aggregator may have this name, and two static members with one name fence each other. So the
        // name is set only for a local Kafka.
        if self.given.kafka.is_none() {
            vars.entry("GROUP_INSTANCE_ID".to_owned()).or_insert_with(|| "stream-agg-0".to_owned());
        }
        if demo && !vars.contains_key("ROLLUPS_FILE") {
            let file = stack.directory.path().join("demo-rollups.toml");
            fs::write(&file, DEMO_ROLLUPS).with_context(|| format!("write {}", file.display()))?;
            vars.insert("ROLLUPS_FILE".to_owned(), file.display().to_string());
        }
        Ok(Vars::from_pairs(vars))
    }

    /// The database in which `migrate` creates the analysts' views.
    fn bi_database(&self) -> &str {
        self.vars.get("BI_DATABASE").map_or("bi", String::as_str)
    }

    /// A client with the database and the user of the services.
    fn client(&self, stack: &Stack) -> Client {
        let var = |name| self.vars.get(name).map(String::as_str);
        let client =
            stack.clickhouse.client().with_database(var("CLICKHOUSE_DATABASE").unwrap_or("millrace"));
        match (var("CLICKHOUSE_USER"), var("CLICKHOUSE_PASSWORD")) {
            (None, _) => client,
            (Some(user), password) => client.with_user(user).with_password(password.unwrap_or_default()),
        }
    }
}

/// Runs everything until Ctrl-C; a second Ctrl-C exits at once.
pub async fn run(config: Config, options: Options) -> anyhow::Result<()> {
    let shutdown = signal::listen().context("listen for signals")?;
    let calm = run_until(&config, &options, &shutdown.requested);
    shutdown.immediate.run_until_cancelled(calm).await.unwrap_or(Ok(()))
}

async fn run_until(config: &Config, options: &Options, stop: &CancellationToken) -> anyhow::Result<()> {
    let directory =
        DataDirectory::open(options.data.clone().unwrap_or_else(|| cache::directory().join("data")))?;
    if options.fresh {
        directory.clear()?;
    }
    let mut stack = Stack::prepare(directory, Ports::preferred()?, &config.given)?;
    let outcome = match stop.run_until_cancelled(start(config, &mut stack, options.demo)).await {
        Some(Ok((services, stored))) => {
            serve(&stack, config.bi_database(), services, stored, options.demo, stop).await
        }
        Some(Err(error)) => Err(error),
        None => Ok(()),
    };
    let stopped = output::timed("stop ClickHouse and Kafka", stack.stop()).await;
    outcome.and(stopped)
}

async fn start(config: &Config, stack: &mut Stack, demo: bool) -> anyhow::Result<(Services, StoredRows)> {
    let vars = config.service_vars(stack, demo)?;
    services::declare_users_of_views(&vars, &stack.clickhouse)?;
    output::timed("start Kafka and ClickHouse", stack.start()).await?;
    output::timed("create tables and topic", services::migrate(&vars)).await?;
    let stored = StoredRows::begin(config.client(stack)).await?;
    let services = output::timed("start the services", Services::start(&vars)).await?;
    Ok((services, stored))
}

async fn serve(
    stack: &Stack,
    bi: &str,
    services: Services,
    stored: StoredRows,
    demo: bool,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    if services.have_ended() {
        return services.stop(&stored).await;
    }
    page::print(stack, &services.addresses, bi, demo);
    let demo = demo.then(|| {
        let sent = tokio::spawn(demo::send(services.addresses.front, stored.at_start(), stop.clone()));
        (sent, tokio::spawn(live_line::show(services.addresses, stop.clone())))
    });
    tokio::select! {
        () = stop.cancelled() => {}
        () = services.ended_early() => stop.cancel(),
    }
    let mut highest = None;
    if let Some((sent, shown)) = demo {
        sent.await.context("stop sending the demo's events")?;
        highest = Some(shown.await.context("stop printing the demo's figures")?);
    }
    let stopped = services.stop(&stored).await;
    highest.iter().for_each(live_line::Highest::print);
    stopped
}
