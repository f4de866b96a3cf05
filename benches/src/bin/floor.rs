//! A server that does a known part of the work; started by the bench.

use std::process::ExitCode;

use benches::floors::{self, Config};

fn main() -> ExitCode {
    runtime::process::run(false, Config::from_vars, floors::serve)
}
