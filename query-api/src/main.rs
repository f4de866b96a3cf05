//! The query API's program.

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use query_api::{Config, QueryApi};
use runtime::serve::{self, Listeners};
use runtime::{process, signal};

/// Answers reads from a snapshot. Configured by environment variables.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Print every variable with the value it resolves to, and exit.
    #[arg(long)]
    check_config: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    process::run(arguments.check_config, Config::from_vars, run)
}

async fn run(config: Config) -> anyhow::Result<()> {
    let listeners = Listeners {
        http: serve::bind(config.listen_addr, "LISTEN_ADDR")?,
        admin: serve::bind(config.admin_addr, "ADMIN_ADDR")?,
    };
    let shutdown = signal::listen().context("listen for signals")?;
    tracing::info!(http = %config.listen_addr, admin = %config.admin_addr, "listening");
    QueryApi::start(config).serve(listeners, shutdown.requested).await?;
    tracing::info!("stopped");
    Ok(())
}
