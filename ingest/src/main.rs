//! Runs the edge until it is told to stop, does something with its spool, or makes a key.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use ingest::auth::keys;
use ingest::commands;
use ingest::{Config, Edge};
use runtime::{process, serve, signal};
use schemas::line::is_tenant;
use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// What jemalloc is told, under the name by which it asks. Long buffers go back to the system at
/// once, and there is one arena for each core: by default each of many arenas keeps what it had for
/// seconds, and a flood of long bodies takes twice what is reserved for them.
#[expect(unsafe_code, reason = "nothing else may have this name, and nothing else has it")]
#[unsafe(export_name = "_rjem_malloc_conf")]
static MALLOC_CONF: &[u8; 46] = b"percpu_arena:percpu,oversize_threshold:262144\0";

/// The edge of Millrace: takes events over HTTP and puts them into Kafka.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Prints every variable with the value it resolves to, and exits.
    #[arg(long, global = true)]
    check_config: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Keys, which `KEYS_FILE` declares.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Looks into the spool, sends it or takes it out. Stop its edge first.
    #[command(subcommand)]
    Spool(SpoolCommand),
}

#[derive(Subcommand, Clone, Copy)]
enum SpoolCommand {
    /// Lists the records, oldest first.
    Ls {
        /// As a JSON array.
        #[arg(long)]
        json: bool,
    },
    /// Sends all records to Kafka, and says how far it is.
    Replay,
    /// Writes the lines of all records as NDJSON; they stay in the spool.
    Export,
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
    match args.command {
        None => process::run(args.check_config, Config::from_vars, serve_until_told),
        Some(Command::Spool(command)) => {
            process::run(args.check_config, Config::from_vars, move |config| spool(config, command))
        }
        Some(Command::Key(KeyCommand::New { id, tenant })) => {
            print_key(&id, &tenant);
            ExitCode::SUCCESS
        }
    }
}

#[expect(clippy::print_stdout, reason = "the answer to `key new`")]
fn print_key(id: &str, tenant: &str) {
    let (key, toml) = keys::generate(id, tenant);
    println!("# The key, which is kept nowhere: {key}\n# Add to KEYS_FILE:\n{toml}");
}

async fn serve_until_told(config: Config) -> anyhow::Result<()> {
    let told = signal::listen().context("listen for signals")?;
    let listeners = serve::Listeners {
        http: serve::bind(config.listen_addr, "LISTEN_ADDR")?,
        admin: serve::bind(config.admin_addr, "ADMIN_ADDR")?,
    };
    let edge = Edge::start(config)?;
    let leftovers = edge.leftovers();
    let summary = tokio::select! {
        ended = edge.serve(listeners, told.requested) => ended?,
        () = told.hurried.cancelled() => {
            tracing::warn!("told twice to stop: what is under way goes straight to the spool");
            leftovers.bring_home(Duration::ZERO).await?
        }
    };
    tracing::info!("ended: {summary}");
    Ok(())
}

async fn spool(config: Config, command: SpoolCommand) -> anyhow::Result<()> {
    let told = signal::listen().context("listen for signals")?;
    let mut out = io::stdout().lock();
    match command {
        SpoolCommand::Ls { json } => commands::list(&config, json, &mut out)?,
        SpoolCommand::Replay => commands::replay(&config, told.requested, &mut out).await?,
        SpoolCommand::Export => commands::export(&config, &mut out)?,
    }
    Ok(())
}
