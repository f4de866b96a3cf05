//! `./dev bench`: the table of this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use benches::measure::{Bench, Part, Plan};
use benches::{setup, table};
use clap::Parser;

/// Measures Millrace beside floors: servers that do a known part of its work.
#[derive(Parser)]
struct Arguments {
    /// Seconds of each measurement under load
    #[arg(long, default_value_t = 6)]
    seconds: u64,
    /// How often each is repeated
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    repeats: u64,
    /// Events that the aggregator drains each time
    #[arg(long, default_value_t = 8_000_000)]
    events: u64,
    /// Measure this part alone
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// Keep the table, every figure, and how they were measured, in this directory
    #[arg(long, value_name = "DIRECTORY")]
    keep: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    runtime::process::run(false, |_| Ok(()), |()| run(arguments))
}

#[expect(clippy::print_stdout, reason = "the table is what the program is for")]
async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments { seconds, repeats, events, only, keep } = arguments;
    // Before the run, which is most of the load there is.
    let setup = setup::page();
    let plan = Plan { duration: Duration::from_secs(seconds), repeats: repeats as usize, events, only };
    let rows = Bench::start(plan).await?.run().await?;
    let summary = table::markdown(&rows);
    println!("\n{summary}");
    if let Some(directory) = keep {
        fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
        for (name, page) in [("SETUP.md", setup), ("summary.md", summary), ("raw.csv", table::csv(&rows))] {
            write(&directory.join(name), &page)?;
        }
        println!("kept in {}", directory.display());
    }
    Ok(())
}

fn write(path: &Path, page: &str) -> anyhow::Result<()> {
    fs::write(path, page).with_context(|| format!("write {}", path.display()))
}
