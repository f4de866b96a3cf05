//! The program `floor`, which `./dev bench` starts for comparison. A floor is a server that does a known part of the
//! work of the edge or the query API.

use std::process::ExitCode;

use benches::servers::floors::{self, Config};

fn main() -> ExitCode {
    runtime::process::run(Config::from_vars, floors::serve)
}
