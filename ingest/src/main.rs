//! Runs the edge until it is told to stop.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use ingest::{Config, Edge, keys};
use runtime::{process, serve, signal};
use schemas::line::is_tenant;

/// The edge of Millrace: takes events over HTTP and puts them into Kafka.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Prints every variable with the value it resolves to, and exits.
    #[arg(long)]
    check_config: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Keys, which `KEYS_FILE` declares.
    #[command(subcommand)]
    Key(KeyCommand),
}

#[derive(Subcommand)]
enum KeyCommand {
    /// Prints a new key, once and for ever, and the TOML that declares it.
    New {
        /// What it is called in the file.
        #[arg(long, default_value = "new")]
        id: String,
        /// Whose data comes with it.
        #[arg(long, default_value = "default", value_parser = tenant)]
        tenant: String,
    },
}

fn tenant(name: &str) -> Result<String, String> {
    if is_tenant(name) { Ok(name.to_owned()) } else { Err("it is 1 to 64 of a-z, 0-9, _ and -".to_owned()) }
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(Command::Key(KeyCommand::New { id, tenant })) = args.command {
        print_key(&id, &tenant);
        return ExitCode::SUCCESS;
    }
    process::run(args.check_config, Config::from_vars, serve_until_told)
}

#[expect(clippy::print_stdout, reason = "the answer to `key new`")]
fn print_key(id: &str, tenant: &str) {
    let (key, toml) = keys::made(id, tenant);
    println!("# The key, which is kept nowhere: {key}\n# Add to KEYS_FILE:\n{toml}");
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
