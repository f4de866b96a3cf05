//! The `query-api` binary.

use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use query_api::needs::needs;
use query_api::{Config, QueryApi};
use runtime::process::{self, Format};
use runtime::serve::{self, Listeners};
use runtime::{keys, signal};
use schemas::line::is_tenant;

/// Answers queries about the events in ClickHouse, most of them from prepared answers or rollups. Configured by
/// environment variables.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Check the configuration, print what it needs and every variable with its resolved value, and exit.
    #[arg(long)]
    check_config: bool,
    /// With --check-config: print JSON instead of a table.
    #[arg(long = "json", requires = "check_config")]
    as_json: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Generate a key for `READ_KEYS_FILE`.
    #[command(subcommand)]
    Key(KeyCommand),
}

#[derive(Subcommand)]
enum KeyCommand {
    /// Print a new token, which is not stored anywhere, and the TOML that declares its key.
    New {
        /// The id of the key in the file.
        #[arg(long, default_value = "new")]
        id: String,
        /// The tenant whose data the key reads.
        #[arg(long, default_value = "default", value_parser = tenant)]
        tenant: String,
    },
}

fn tenant(name: &str) -> Result<String, String> {
    if is_tenant(name) {
        Ok(name.to_owned())
    } else {
        Err("it must have 1 to 64 characters, each one of a-z, 0-9, _ and -".to_owned())
    }
}

fn main() -> ExitCode {
    let arguments = process::arguments::<Arguments>();
    if arguments.check_config {
        let format = if arguments.as_json { Format::Json } else { Format::Table };
        return process::check_config(format, Config::from_vars, needs);
    }
    match arguments.command {
        None => process::run(Config::from_vars, run),
        Some(Command::Key(KeyCommand::New { id, tenant })) => {
            print_key(&id, &tenant);
            ExitCode::SUCCESS
        }
    }
}

#[expect(clippy::print_stdout, reason = "the output of `key new`")]
fn print_key(id: &str, tenant: &str) {
    let (token, toml) = keys::generate(id, tenant);
    println!("# The token, which is not stored anywhere: {token}\n# Add to READ_KEYS_FILE:\n{toml}");
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
