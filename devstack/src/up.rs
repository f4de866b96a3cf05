//! `./dev up`: Kafka, ClickHouse, the migrations, the three services and the
//! front port, until Ctrl-C; then all of it ends in the order in which data flow.
//!
//! Invariant: an error on the way up or down still ends everything that was
//! started; what a second Ctrl-C leaves is killed when the [`Stack`] is dropped.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use clickhouse::Client;
use runtime::signal;
use runtime::vars::{VarError, Vars};
use tokio_util::sync::CancellationToken;

use crate::cache;
use crate::directory::DataDirectory;
use crate::stack::{Given, Ports, Stack};
use services::Services;
use stored::Stored;

mod services;

mod front;

mod live;

mod stored;

mod demo;

mod page;

/// What the person asked for.
#[derive(Debug, Args)]
pub struct Options {
    /// Send made-up traffic, so that numbers move
    #[arg(long)]
    demo: bool,
    /// Start empty instead of with the data of the last time
    #[arg(long)]
    fresh: bool,
    /// Where data and logs are kept, instead of in .cache/data
    #[arg(long, value_name = "DIRECTORY")]
    data: Option<PathBuf>,
}

/// What the environment says.
#[derive(Debug)]
pub struct Config {
    /// Servers to use instead of local ones.
    given: Given,
    /// Everything that is set, for the services.
    vars: BTreeMap<String, String>,
}

impl Config {
    /// Reads `KAFKA_BROKERS` and `CLICKHOUSE_URL`, and keeps all others.
    pub fn from_vars(vars: &Vars) -> Result<Self, VarError> {
        Ok(Self { given: Given::from_vars(vars), vars: vars.with_prefix("") })
    }

    /// The variables of services that use `stack`.
    fn service_vars(&self, stack: &Stack) -> Vars {
        let mut vars = self.vars.clone();
        vars.insert("KAFKA_BROKERS".to_owned(), stack.kafka.brokers().to_owned());
        vars.insert("CLICKHOUSE_URL".to_owned(), stack.clickhouse.url().to_owned());
        // No balancer has to notice that we leave.
        vars.entry("DRAIN_DELAY".to_owned()).or_insert_with(|| "0s".to_owned());
        // As many as a laptop has use for: each partition has inserts of its own.
        vars.entry("TOPIC_PARTITIONS".to_owned()).or_insert_with(|| "4".to_owned());
        Vars::from_pairs(vars)
    }

    /// Where `migrate` makes the views.
    fn bi_database(&self) -> &str {
        self.vars.get("BI_DATABASE").map_or("bi", String::as_str)
    }

    /// A client that sees what the services see.
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

/// Runs everything until Ctrl-C; a second Ctrl-C ends it at once.
pub async fn run(config: Config, options: Options) -> anyhow::Result<()> {
    let shutdown = signal::listen().context("listen for signals")?;
    let calm = run_until(&config, &options, &shutdown.requested);
    shutdown.hurried.run_until_cancelled(calm).await.unwrap_or(Ok(()))
}

async fn run_until(config: &Config, options: &Options, stop: &CancellationToken) -> anyhow::Result<()> {
    let directory =
        DataDirectory::open(options.data.clone().unwrap_or_else(|| cache::directory().join("data")))?;
    if options.fresh {
        directory.clear()?;
    }
    let mut stack = Stack::prepare(directory, Ports::preferred()?, &config.given)?;
    let outcome = match stop.run_until_cancelled(start(config, &mut stack)).await {
        Some(Ok((services, stored))) => {
            serve(&stack, config.bi_database(), services, stored, options.demo, stop).await
        }
        Some(Err(error)) => Err(error),
        None => Ok(()),
    };
    let stopped = page::timed("stop ClickHouse and Kafka", stack.stop()).await;
    outcome.and(stopped)
}

async fn start(config: &Config, stack: &mut Stack) -> anyhow::Result<(Services, Stored)> {
    let vars = config.service_vars(stack);
    services::define_views(&vars, &stack.clickhouse)?;
    page::timed("start Kafka and ClickHouse", stack.start()).await?;
    page::timed("make tables and topic", services::migrate(&vars)).await?;
    let stored = Stored::begin(config.client(stack)).await?;
    let services = page::timed("start the services", Services::start(&vars)).await?;
    Ok((services, stored))
}

async fn serve(
    stack: &Stack,
    bi: &str,
    services: Services,
    stored: Stored,
    demo: bool,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    if services.have_ended() {
        return services.stop(&stored).await;
    }
    page::ready(stack, &services.addresses, bi, demo);
    let demo = demo.then(|| {
        let sent = tokio::spawn(demo::send(services.addresses.front, stop.clone()));
        (sent, tokio::spawn(live::show(services.addresses, stop.clone())))
    });
    tokio::select! {
        () = stop.cancelled() => {}
        () = services.ended_early() => stop.cancel(),
    }
    let mut highest = None;
    if let Some((sent, shown)) = demo {
        sent.await.context("end the demo traffic")?;
        highest = Some(shown.await.context("end the line of the demo")?);
    }
    let stopped = services.stop(&stored).await;
    highest.iter().for_each(live::Highest::tell);
    stopped
}
