//! How `./dev up` prints: a line, a line that replaces the previous one, and a step with the time that it took.
#![expect(clippy::print_stdout, reason = "standard output is what `./dev up` shows a person")]

use std::io::{self, Write};
use std::time::Instant;

/// Prints one line.
pub(super) fn print_line(line: &str) {
    println!("{line}");
}

/// Replaces the last line on a terminal.
pub(super) fn replace_line(line: &str) {
    print!("\r\x1b[K{line}");
    flush();
}

/// Runs a step and prints its name and how long it took.
pub(super) async fn timed<T>(step: &str, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    print!("{step} … ");
    flush();
    let started = Instant::now();
    let outcome = work.await;
    let word = if outcome.is_ok() { "" } else { "failed after " };
    println!("{word}{:.1} s", started.elapsed().as_secs_f64());
    outcome
}

fn flush() {
    // A closed standard output is no reason to stop.
    let _closed = io::stdout().flush();
}
