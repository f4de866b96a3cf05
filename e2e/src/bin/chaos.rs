//! `./dev chaos`: kills and pauses the real programs under load, then counts.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use e2e::chaos::report::Report;
use e2e::chaos::{self, Options};

/// Kills and pauses the edge, aggregators, Kafka and ClickHouse under load, then holds every table
/// and answer against what the clients were told.
#[derive(Parser)]
#[command(name = "./dev chaos")]
struct Arguments {
    /// How long faults and load last, without the starts of servers; counting takes a minute or two more [default: 60, with --long 600]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=21_600))]
    seconds: Option<u64>,
    /// What happens when, and what is sent
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Print one JSON object instead of the last line
    #[arg(long)]
    json: bool,
    /// Whether half of the batches have event_ids and are sent until they are acknowledged
    #[arg(long, value_name = "on|off", default_value = "on", value_parser = ["on", "off"])]
    event_ids: String,
    /// Whether the edge has a spool, so that events are acknowledged while Kafka is away
    #[arg(long, value_name = "on|off", default_value = "on", value_parser = ["on", "off"])]
    spool: String,
    /// Also pauses of 60 and 75 s, ClickHouse away for 40 s, and in the middle more partitions, another
    /// declaration and windows that pop
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
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn start(options: &Options) -> anyhow::Result<Report> {
    // More threads than a small machine has cores: starting a broker blocks one now and then.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build()?;
    runtime.block_on(chaos::run(options, say))
}

#[expect(clippy::print_stdout, reason = "the outcome is what the program is for")]
fn conclude(report: &Report, json: bool) -> ExitCode {
    let failures = report.failures();
    failures.iter().for_each(|failure| say(&format!("FAILED: {failure}")));
    println!("{}", if json { report.json() } else { report.line() });
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// How it goes, beside the outcome.
#[expect(clippy::print_stderr, reason = "somebody waits and wants to know")]
fn say(text: &str) {
    eprintln!("chaos: {text}");
}
