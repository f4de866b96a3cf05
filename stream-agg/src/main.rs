//! The program `stream-agg`: runs the aggregator, or one of the commands for operators.

use std::fmt::Display;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use runtime::process::{self, Format, WrongConfiguration};
use runtime::{serve, signal};
use serde::Serialize;
use stream_agg::apply::store::Store;
use stream_agg::needs;
use stream_agg::ops::adopt::Log;
use stream_agg::ops::audit::{self, Reach};
use stream_agg::protocol::progress::{NextOffset, Offset};
use stream_agg::{Config, MigrateError, RunError};
use tikv_jemallocator::Jemalloc;

/// jemalloc keeps freed memory for the next batch, which needs about the same amount. With the system allocator, which
/// returned the memory to the operating system after each batch, page faults took a quarter of the CPU time.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// The aggregator of Millrace: turns Kafka records into rows of ClickHouse.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Check the configuration, print what it needs and every variable with its resolved value, and exit.
    #[arg(long, global = true)]
    check_config: bool,
    /// With --check-config: print JSON instead of a table. If there is a command, write this flag before the command.
    #[arg(long = "json", requires = "check_config")]
    as_json: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Create the database, the tables and the topic if they are missing, create or replace all views, and exit.
    Migrate {
        /// Print the statements that create all ClickHouse users of Millrace with their rights, and exit.
        #[arg(long)]
        print_grants: bool,
        /// Print all ClickHouse users of Millrace with their rights, in the format of ClickHouse's users.xml, and exit.
        #[arg(long, conflicts_with = "print_grants")]
        print_users_xml: bool,
    },
    /// Choose where to continue partitions whose commit, log and tables disagree. Stop all aggregators first.
    Adopt {
        /// The numbers of the Kafka partitions, as the error messages show them.
        #[arg(required = true)]
        partitions: Vec<u16>,
        /// Continue in a new log: the topic was created again or its log was truncated, so offsets name other records.
        #[arg(long)]
        new_log: bool,
        /// With --new-log: the first offset of the new log that is not stored yet (default: where the log begins).
        #[arg(long, requires = "new_log", value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
        from: Option<i64>,
        /// Hash of the declaration under which missing rows are made (column `cfg` of `configs`). Needed only if the
        /// command fails and asks for it.
        #[arg(long, conflicts_with = "new_log", value_name = "HEX", value_parser = hex)]
        cfg: Option<u64>,
    },
    /// Split a batch that ClickHouse refuses, to insert it in smaller parts. Stop all aggregators first.
    Split {
        /// The numbers of the Kafka partitions, as the error messages show them.
        #[arg(required = true)]
        partitions: Vec<u16>,
    },
    /// Turn a record that cannot be stored into dead letters. Stop all aggregators first.
    Skip {
        /// The Kafka partition.
        partition: u16,
        /// The offset of the record.
        #[arg(long, value_parser = clap::value_parser!(i64).range(0..))]
        offset: i64,
    },
    /// Fill a new rollup with the events that were stored before it was declared. Safe to repeat.
    Backfill {
        /// Name of the declared rollup.
        rollup: String,
        /// Print the summary as one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Delete the rows of a rollup that is no longer declared. Its name cannot be declared again.
    DropRollup {
        /// Name of the rollup, as it was declared.
        rollup: String,
        /// Print the summary as one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Compare the tables with each other; fail if rows are missing or duplicate, or offsets are in no ledger row.
    Audit {
        /// Compare the records that Kafka appended today and on this many days before. If no record is older and none
        /// has expired, compare whole tables.
        #[arg(long, default_value_t = stream_agg::ops::audit::MAX_DAYS, value_parser = clap::value_parser!(u16).range(1..=i64::from(stream_agg::ops::audit::MAX_DAYS)))]
        days: u16,
        /// Print JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
}

fn main() -> ExitCode {
    let args = process::arguments::<Args>();
    if args.check_config {
        let format = if args.as_json { Format::Json } else { Format::Table };
        let needs = if args.command.is_some() { needs::of_command } else { needs::of_service };
        return process::check_config(format, Config::from_vars, needs);
    }
    match args.command {
        None => process::run(Config::from_vars, run_until_stopped),
        Some(Command::Migrate { print_grants: true, .. }) => process::run(Config::from_vars, grants),
        Some(Command::Migrate { print_users_xml: true, .. }) => process::run(Config::from_vars, users_xml),
        Some(Command::Migrate { .. }) => process::run(Config::from_vars, migrate),
        Some(Command::Adopt { partitions, new_log, from, cfg }) => {
            let from = from.map(NextOffset::new);
            let log = if new_log { Log::New { from } } else { Log::Same };
            process::run(Config::from_vars, move |config| adopt(config, partitions, log, cfg))
        }
        Some(Command::Split { partitions }) => {
            process::run(Config::from_vars, move |config| split(config, partitions))
        }
        Some(Command::Skip { partition, offset }) => {
            process::run(Config::from_vars, move |config| skip(config, partition, offset))
        }
        Some(Command::Backfill { rollup, json }) => {
            process::run(Config::from_vars, move |config| backfill(config, rollup, json))
        }
        Some(Command::DropRollup { rollup, json }) => {
            process::run(Config::from_vars, move |config| drop_rollup(config, rollup, json))
        }
        Some(Command::Audit { days, json }) => {
            process::run(Config::from_vars, move |config| audit(config, days, json))
        }
    }
}

async fn run_until_stopped(config: Config) -> anyhow::Result<()> {
    let stop = signal::listen().context("listen for signals")?;
    let admin = serve::bind(config.admin_addr, "ADMIN_ADDR")?;
    tokio::select! {
        ended = stream_agg::run(config, admin, stop.requested) => {
            let ended = ended.map_err(|error| match error {
                RunError::Changed(_) | RunError::Dropped(_) => WrongConfiguration::new(error).into(),
                other => anyhow::Error::new(other),
            });
            tracing::info!("ended: {}", ended?);
            Ok(())
        }
        () = stop.immediate.cancelled() => anyhow::bail!("stopped at once by a second signal: the records of an unfinished batch may be read again"),
    }
}

#[expect(clippy::print_stdout, reason = "the command prints the statements")]
async fn grants(config: Config) -> anyhow::Result<()> {
    println!("{}", stream_agg::ops::migrate::grants(&config.migrate).join("\n"));
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the command prints the file")]
async fn users_xml(config: Config) -> anyhow::Result<()> {
    print!("{}", stream_agg::ops::migrate::users_xml(&config.migrate));
    Ok(())
}

async fn migrate(config: Config) -> anyhow::Result<()> {
    let migrated = async {
        stream_agg::migrate(&config.migrate).await.map_err(|error| match error {
            MigrateError::Changed(_) | MigrateError::Dropped(_) => WrongConfiguration::new(error).into(),
            other => anyhow::Error::new(other),
        })
    };
    let migrated = unless_stopped(migrated, "created").await?;
    tracing::info!("migrated: {migrated}");
    Ok(())
}

async fn adopt(config: Config, partitions: Vec<u16>, log: Log, cfg: Option<u64>) -> anyhow::Result<()> {
    for part in stream_agg::ops::adopt::begin(&config, &partitions, log).await? {
        tracing::info!("adopted: {}", stream_agg::ops::adopt::adopt(&config, part, cfg).await?);
    }
    Ok(())
}

async fn split(config: Config, partitions: Vec<u16>) -> anyhow::Result<()> {
    for partition in partitions {
        tracing::info!("split: {}", stream_agg::ops::split::split(&config, partition).await?);
    }
    Ok(())
}

async fn skip(config: Config, partition: u16, offset: i64) -> anyhow::Result<()> {
    tracing::info!(
        "skipped: {}",
        stream_agg::ops::skip::skip(&config, partition, Offset::new(offset)).await?
    );
    Ok(())
}

/// Parses a hash in the hexadecimal form that messages show.
fn hex(text: &str) -> Result<u64, std::num::ParseIntError> {
    u64::from_str_radix(text, 16)
}

async fn backfill(config: Config, rollup: String, json: bool) -> anyhow::Result<()> {
    let filled = unless_stopped(stream_agg::ops::backfill::backfill(&config, &rollup), "counted").await?;
    print(&filled, json)
}

async fn drop_rollup(config: Config, rollup: String, json: bool) -> anyhow::Result<()> {
    let dropped = stream_agg::ops::drop_rollup::drop_rollup(&config, &rollup);
    print(&unless_stopped(dropped, "deleted").await?, json)
}

/// Runs a command that is safe to repeat, until it ends or a signal stops it.
async fn unless_stopped<T, E: Into<anyhow::Error>>(
    command: impl Future<Output = Result<T, E>>,
    done: &str,
) -> anyhow::Result<T> {
    let stop = signal::listen().context("listen for signals")?;
    tokio::select! {
        ended = command => ended.map_err(Into::into),
        () = stop.requested.cancelled() => anyhow::bail!("stopped before everything was {done}; run the command again"),
    }
}

/// Prints the summary of a command, for a person or for a program.
#[expect(clippy::print_stdout, reason = "the command prints its summary")]
fn print<S: Display + Serialize>(summary: &S, json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string(summary)?);
    } else {
        println!("{summary}");
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the command prints the audit")]
async fn audit(config: Config, days: u16, json: bool) -> anyhow::Result<()> {
    let store = Store::new(&config.migrate.store);
    let ours = stream_agg::apply::configs::own_declaration(&store, &config)
        .await
        .context("read the table `configs`")?;
    let audit = audit::audit(&store, &ours, Reach::of_days(days)).await?;
    if json {
        println!("{}", serde_json::to_string_pretty(&audit).context("write the audit as JSON")?);
    } else {
        print!("{audit}");
    }
    audit::record(&store, &audit).await?;
    let (missing, duplicate, gaps) = (audit.missing(), audit.duplicate(), audit.offsets.in_gaps());
    anyhow::ensure!(
        audit.is_sound(),
        "the audit found errors: {missing} missing, {duplicate} duplicate, {gaps} offsets in no ledger row"
    );
    Ok(())
}
