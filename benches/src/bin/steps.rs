//! `./dev steps`: what each pure step costs, in instructions of this processor.

use std::env;
use std::process::{Command, ExitCode};

use anyhow::{Context, ensure};
use benches::steps::{self, Step};
use clap::Parser;

/// Rounds that are counted, beyond those that are not.
const ROUNDS: u64 = 20;
/// Rounds of the shorter run, whose cost both runs have.
const WARM_UP: u64 = 5;

/// Counts the instructions of single steps with valgrind.
#[derive(Parser)]
struct Arguments {
    /// Only this one
    step: Option<String>,
    /// Take the step so many times and end, as the counted process does
    #[arg(long, requires = "step")]
    times: Option<u64>,
}

fn main() -> ExitCode {
    let Arguments { step, times } = Arguments::parse();
    runtime::process::run(false, |_| Ok(()), |()| async move { run(step.as_deref(), times) })
}

fn run(only: Option<&str>, times: Option<u64>) -> anyhow::Result<()> {
    let mut steps = steps::all();
    let names: Vec<_> = steps.iter().map(|step| step.name).collect();
    steps.retain(|step| only.is_none_or(|only| only == step.name));
    ensure!(
        !steps.is_empty(),
        "there is no step `{}`: there are {}",
        only.unwrap_or_default(),
        names.join(", ")
    );
    match times {
        Some(times) => steps[0].take(times),
        None => count(&steps)?,
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the table is what the program is for")]
fn count(steps: &[Step]) -> anyhow::Result<()> {
    println!("| step     | instructions an event |\n| -------- | --------------------- |");
    for step in steps {
        // The difference: starting and making the data cost both runs the same.
        let counted = instructions(step, WARM_UP + ROUNDS)? - instructions(step, WARM_UP)?;
        println!("| {:8} | {:21.0} |", step.name, counted as f64 / (ROUNDS * step.events) as f64);
    }
    Ok(())
}

/// Instructions of a process that takes `step` so many times.
fn instructions(step: &Step, times: u64) -> anyhow::Result<u64> {
    let program = env::current_exe().context("find this program")?;
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]);
    valgrind.arg(program).args([step.name, "--times", &times.to_string()]);
    let output = valgrind.output().context("run valgrind (apt install valgrind)")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "count step `{}`: {}", step.name, said.trim());
    let refs = said.lines().find_map(|line| line.split_once("I   refs:").or(line.split_once("I refs:")));
    let (_, refs) = refs.with_context(|| format!("read what valgrind counted of step `{}`", step.name))?;
    Ok(refs.trim().replace(',', "").parse()?)
}
