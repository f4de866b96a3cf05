//! A server that does a known part of the edge's or the query API's work; `./dev bench` starts it.

use std::process::ExitCode;

use benches::servers::floors::{self, Config};

fn main() -> ExitCode {
    runtime::process::run(Config::from_vars, floors::serve)
}
