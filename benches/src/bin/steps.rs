//! `./dev steps`: counts the processor instructions of each step that processes an event.

use std::env;
use std::process::{Command, ExitCode};

use anyhow::{Context, ensure};
use benches::input::Work;
use benches::steps::{self, Step};
use clap::Parser;

/// Number of rounds that only the long run has. A round executes a step once. The instructions of each step are counted
/// in two processes: the short run has [`WARM_UP`] rounds, and the long run has `WARM_UP + ROUNDS` rounds. The
/// difference between the two counts, divided by the number of events in `ROUNDS` rounds, is the number of instructions
/// per event.
const ROUNDS: u64 = 20;
/// Number of rounds with which both runs begin. The difference between their counts excludes these rounds.
const WARM_UP: u64 = 5;

/// Counts the instructions of each step that processes an event, with valgrind.
#[derive(Parser)]
#[command(name = "./dev steps")]
struct Arguments {
    /// Count only this step
    step: Option<String>,
    /// Count only with this kind of events
    #[arg(long, value_enum)]
    work: Option<Work>,
    /// Only run the step this many times, without counting; valgrind runs this program with this option
    #[arg(long, requires = "step", requires = "work")]
    times: Option<u64>,
}

fn main() -> ExitCode {
    let Arguments { step, work, times } = Arguments::parse();
    runtime::process::run(|_| Ok(()), |()| async move { run(step.as_deref(), work, times) })
}

fn run(only: Option<&str>, work: Option<Work>, times: Option<u64>) -> anyhow::Result<()> {
    let works = Work::ALL.into_iter().filter(|other| work.is_none_or(|work| work == *other));
    let mut works: Vec<_> = works.map(|work| (work, steps::all(work))).collect();
    let names: Vec<_> = works[0].1.iter().map(|step| step.name).collect();
    for (_, steps) in &mut works {
        steps.retain(|step| only.is_none_or(|only| only == step.name));
    }
    let known = works.iter().any(|(_, steps)| !steps.is_empty());
    ensure!(known, "there is no step `{}`: the steps are {}", only.unwrap_or_default(), names.join(", "));
    match times {
        Some(times) => works[0].1[0].run(times),
        None => count(&works)?,
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the table is the program's output")]
fn count(works: &[(Work, Vec<Step>)]) -> anyhow::Result<()> {
    println!("| work | step     | instructions an event |\n| ---- | -------- | --------------------- |");
    for (work, step) in works.iter().flat_map(|(work, steps)| steps.iter().map(move |step| (*work, step))) {
        // Both runs start a process and generate the same data, so the difference excludes these instructions.
        let counted = instructions(work, step, WARM_UP + ROUNDS)? - instructions(work, step, WARM_UP)?;
        let each = counted as f64 / (ROUNDS * step.events) as f64;
        println!("| {} | {:8} | {each:21.0} |", work.name(), step.name);
    }
    Ok(())
}

/// Counts the instructions of a process that runs `step` `times` times.
fn instructions(work: Work, step: &Step, times: u64) -> anyhow::Result<u64> {
    let program = env::current_exe().context("find this program")?;
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]);
    valgrind.arg(program).args([step.name, "--work", work.name(), "--times", &times.to_string()]);
    let output = valgrind.output().context("run valgrind (apt install valgrind)")?;
    let output_text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "count step `{}`: {}", step.name, output_text.trim());
    let refs =
        output_text.lines().find_map(|line| line.split_once("I   refs:").or(line.split_once("I refs:")));
    let (_, refs) = refs.with_context(|| format!("read valgrind's count for step `{}`", step.name))?;
    Ok(refs.trim().replace(',', "").parse()?)
}
