//! `./dev bench`: makes the measurements on this machine and prints the results as tables.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use benches::input::Work;
use benches::measure::{Bench, Report, rest};
use benches::plan::{Measurement, Plan};
use benches::report::{goals, setup, table};
use clap::Parser;

/// Measures Millrace and, for comparison, floors: servers that do a known part of Millrace's work.
#[derive(Parser)]
#[command(name = "./dev bench")]
struct Arguments {
    /// Length of each measurement under load, in seconds
    #[arg(long, default_value_t = 6)]
    seconds: u64,
    /// How many times each measurement is made
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    repeats: u64,
    /// Number of events that each consumer stores in the measurement `drain`, and that ClickHouse holds in the
    /// measurements `queries` and `dashboards`
    #[arg(long, default_value_t = 8_000_000)]
    events: u64,
    /// Length of each measurement in `rest`, and of each CPU measurement of the page in `queries`, in seconds
    #[arg(long, default_value_t = 60)]
    window: u64,
    /// Make only these measurements
    #[arg(long, value_enum, value_name = "PARTS", value_delimiter = ',')]
    only: Vec<Measurement>,
    /// Use only this kind of events in the measurements `edge` and `drain`
    #[arg(long, value_enum)]
    work: Option<Work>,
    /// In the measurement `drain`, also measure a program that stores the same records with Spate, a Rust library for
    /// pipelines from Kafka to ClickHouse; `./dev bench` builds this program first
    #[arg(long)]
    peers: bool,
    /// Write the tables, every figure and the setup of the run into this directory
    #[arg(long, value_name = "DIRECTORY")]
    keep: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    runtime::process::run(|_| Ok(()), |()| run(arguments))
}

#[expect(clippy::print_stdout, reason = "the tables are the program's output")]
async fn run(arguments: Arguments) -> anyhow::Result<()> {
    // The setup page shows the load average before the run, so it is made before the run raises the load.
    let setup = setup::page();
    let plan = Plan {
        duration: Duration::from_secs(arguments.seconds),
        window: Duration::from_secs(arguments.window),
        repeats: arguments.repeats as usize,
        events: arguments.events,
        only: arguments.only,
        work: arguments.work,
        peers: arguments.peers,
    };
    let report = Bench::start(plan).await?.run().await?;
    let summary = summary(&report);
    println!("\n{summary}");
    if let Some(directory) = arguments.keep {
        fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
        let mut pages = vec![("SETUP.md", setup), ("summary.md", summary)];
        pages.extend((!report.rows.is_empty()).then(|| ("raw.csv", table::csv(&report.rows))));
        pages.extend((!report.rests.is_empty()).then(|| ("rest.csv", rest::csv(&report.rests))));
        for (name, page) in pages {
            write(&directory.join(name), &page)?;
        }
        println!("the results are in {}", directory.display());
    }
    Ok(())
}

/// The tables of the report, without those that have no rows.
fn summary(report: &Report) -> String {
    let Report { rows, rests, goals } = report;
    let mut tables = Vec::new();
    tables.extend((!rows.is_empty()).then(|| table::markdown(rows)));
    tables.extend((!rests.is_empty()).then(|| rest::markdown(rests)));
    tables.extend((!goals.is_empty()).then(|| goals::markdown(goals)));
    tables.join("\n")
}

fn write(path: &Path, page: &str) -> anyhow::Result<()> {
    fs::write(path, page).with_context(|| format!("write {}", path.display()))
}
