//! `./dev chaos`: kills and pauses the real programs under load, then counts every event.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use e2e::chaos::report::Report;
use e2e::chaos::{self, Options};

/// Kills and pauses the edge, aggregators, Kafka and ClickHouse under load, then compares every table
/// and every answer of the query API with the responses of the edge.
#[derive(Parser)]
#[command(name = "./dev chaos")]
struct Arguments {
    /// Length of faults and load, without the time to start servers; counting takes a minute or two more
    /// [default: 60, with --long 600]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=21_600))]
    seconds: Option<u64>,
    /// Seed of the faults and the load
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Print one JSON object instead of the last line
    #[arg(long)]
    json: bool,
    /// Whether half of the batches have event ids and are retried until they are acknowledged
    #[arg(long, value_name = "on|off", default_value = "on", value_parser = ["on", "off"])]
    event_ids: String,
    /// Whether the edge has a spool, so that it acknowledges events during an outage of Kafka
    #[arg(long, value_name = "on|off", default_value = "on", value_parser = ["on", "off"])]
    spool: String,
    /// Also pause aggregators for 60 and 75 s, stop ClickHouse for 40 s and, in the middle of the run, change to more
    /// partitions, another declaration of rollups and small deduplication windows
    #[arg(long)]
    long: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let options = Options {
        length: Duration::from_secs(arguments.seconds.unwrap_or(if arguments.long { 600 } else { 60 })),
        seed: arguments.seed,
        event_ids: arguments.event_ids == "on",
        spool: arguments.spool == "on",
        long: arguments.long,
    };
    match start(&options) {
        Ok(report) => conclude(&report, arguments.json),
        Err(error) => {
            print(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn start(options: &Options) -> anyhow::Result<Report> {
    // Chaos calls `task::block_in_place`, which needs a multi-threaded runtime.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build()?;
    runtime.block_on(chaos::run(options, print))
}

#[expect(clippy::print_stdout, reason = "the report is the program's output")]
fn conclude(report: &Report, json: bool) -> ExitCode {
    let failures = report.failures();
    failures.iter().for_each(|failure| print(&format!("FAILED: {failure}")));
    println!("{}", if json { report.json() } else { report.line() });
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints progress, failures and errors to standard error. The report goes to standard output.
#[expect(clippy::print_stderr, reason = "a long run shows progress")]
fn print(text: &str) {
    eprintln!("chaos: {text}");
}
