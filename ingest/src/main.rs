//! The command line: runs the edge, manages its spool, or generates a key.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use ingest::commands;
use ingest::needs::needs;
use ingest::{Config, Edge, StartError};
use runtime::process::{self, Format, WrongConfiguration};
use runtime::{serve, signal};
use schemas::line::is_tenant;
use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// jemalloc reads its configuration from this symbol. With these settings, it returns buffers of 256 KiB and more to
/// the system at once, and has one arena per core. By default, it has many arenas, each of which keeps freed memory for
/// seconds. With these defaults, if many long bodies arrived at once, the edge would use twice the memory that it has
/// reserved for bodies.
#[expect(unsafe_code, reason = "jemalloc reads this symbol, and nothing else defines it")]
#[unsafe(export_name = "_rjem_malloc_conf")]
static MALLOC_CONF: &[u8; 46] = b"percpu_arena:percpu,oversize_threshold:262144\0";

/// The edge of Millrace: accepts events over HTTP and writes them to Kafka.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Check the configuration, print what it needs and every variable with its resolved value, and exit.
    #[arg(long, global = true)]
    check_config: bool,
    /// With --check-config: print JSON instead of a table.
    #[arg(long = "json", requires = "check_config")]
    as_json: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Generate a key for `KEYS_FILE`.
    #[command(subcommand)]
    Key(KeyCommand),
    /// List, send or export the records in the spool. Stop the edge first.
    #[command(subcommand)]
    Spool(SpoolCommand),
}

#[derive(Subcommand, Clone, Copy)]
enum SpoolCommand {
    /// List the records, oldest first.
    Ls {
        /// Print a JSON array.
        #[arg(long)]
        json: bool,
    },
    /// Send all records to Kafka, and report the progress.
    Replay,
    /// Write the lines of all records to the standard output, as NDJSON. The records stay in the spool.
    Export,
}

#[derive(Subcommand)]
enum KeyCommand {
    /// Print a new key and the TOML that declares it. The key itself is not stored anywhere.
    New {
        /// The id of the key in `KEYS_FILE`.
        #[arg(long, default_value = "new")]
        id: String,
        /// The tenant to which events with this key belong.
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
    let args = process::arguments::<Args>();
    if args.check_config {
        let format = if args.as_json { Format::Json } else { Format::Table };
        return process::check_config(format, Config::from_vars, needs);
    }
    match args.command {
        None => process::run(Config::from_vars, run_edge),
        Some(Command::Spool(command)) => {
            process::run(Config::from_vars, move |config| run_spool_command(config, command))
        }
        Some(Command::Key(KeyCommand::New { id, tenant })) => {
            print_key(&id, &tenant);
            ExitCode::SUCCESS
        }
    }
}

#[expect(clippy::print_stdout, reason = "the output of `key new`")]
fn print_key(id: &str, tenant: &str) {
    let (key, toml) = runtime::keys::generate(id, tenant);
    println!("# The key, which is not stored anywhere: {key}\n# Add to KEYS_FILE:\n{toml}");
}

async fn run_edge(config: Config) -> anyhow::Result<()> {
    let signals = signal::listen().context("listen for signals")?;
    let listeners = serve::Listeners {
        http: serve::bind(config.listen_addr, "LISTEN_ADDR")?,
        admin: serve::bind(config.admin_addr, "ADMIN_ADDR")?,
    };
    let edge = Edge::start(config).map_err(|error| match error {
        StartError::Kafka(_) => WrongConfiguration::new(error).into(),
        StartError::Threads(_) => anyhow::Error::new(error),
    })?;
    let pending = edge.pending_events();
    let summary = tokio::select! {
        ended = edge.serve(listeners, signals.requested) => ended?,
        () = signals.immediate.cancelled() => {
            tracing::warn!("second signal: stopping at once; pending events go to the spool, if there is one");
            pending.flush(Duration::ZERO).await?
        }
    };
    tracing::info!("stopped: {summary}");
    Ok(())
}

async fn run_spool_command(config: Config, command: SpoolCommand) -> anyhow::Result<()> {
    let signals = signal::listen().context("listen for signals")?;
    let mut out = io::stdout().lock();
    match command {
        SpoolCommand::Ls { json } => commands::list(&config, json, &mut out)?,
        SpoolCommand::Replay => commands::replay(&config, signals.requested, &mut out).await?,
        SpoolCommand::Export => commands::export(&config, &mut out)?,
    }
    Ok(())
}
