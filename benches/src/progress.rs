//! Prints progress to standard error. The tables go to standard output.

/// Prints what the run does next.
#[expect(clippy::print_stderr, reason = "long work shows progress")]
pub(crate) fn print(step: &str) {
    eprintln!("bench: {step}");
}
