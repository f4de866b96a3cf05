//! Runs the edge until it is told to stop.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use ingest::{Config, Edge};
use runtime::{process, serve, signal};

/// The edge of Millrace: takes events over HTTP and puts them into Kafka.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Prints every variable with the value it resolves to, and exits.
    #[arg(long)]
    check_config: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    process::run(args.check_config, Config::from_vars, serve_until_told)
}

async fn serve_until_told(config: Config) -> anyhow::Result<()> {
    let told = signal::listen().context("listen for signals")?;
    let listeners = serve::Listeners {
        http: serve::bind(config.listen_addr, "LISTEN_ADDR").await?,
        admin: serve::bind(config.admin_addr, "ADMIN_ADDR").await?,
    };
    let edge = Edge::start(config)?;
    tokio::select! {
        ended = edge.serve(listeners, told.requested) => {
            tracing::info!("ended: {}", ended?);
            Ok(())
        }
        () = told.hurried.cancelled() => anyhow::bail!("told twice to stop: events may be unacknowledged"),
    }
}
