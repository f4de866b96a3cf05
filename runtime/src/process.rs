//! The frame of every `main`: arguments are parsed, then variables, then the
//! service runs; what fails before it runs is one readable line and a non-zero exit.

use std::fmt::Write as _;
use std::process::ExitCode;

use crate::logging::{self, LogConfig};
use crate::vars::{VarError, Vars};

/// Runs a service to its end on a fresh runtime. `read` makes its configuration of
/// the variables; with `check_only` (the flag `--check-config`) the resolved values
/// are printed instead of running.
pub fn run<C, F>(
    check_only: bool,
    read: impl FnOnce(&Vars) -> Result<C, VarError>,
    service: impl FnOnce(C) -> F,
) -> ExitCode
where
    F: Future<Output = anyhow::Result<()>>,
{
    let vars = Vars::from_env();
    let outcome = LogConfig::from_vars(&vars).and_then(|log| Ok((log, read(&vars)?)));
    let outcome = match outcome {
        Ok(_) if check_only => {
            print(&resolved(&vars));
            Ok(())
        }
        Ok((log, config)) => {
            logging::init(&log);
            start(service(config))
        }
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn start(service: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(service)
}

/// `NAME=value` lines, in the order of their names.
fn resolved(vars: &Vars) -> String {
    vars.resolved().into_iter().fold(String::new(), |mut page, (name, value)| {
        // Writing to a String cannot fail.
        let _ = writeln!(page, "{name}={value}");
        page
    })
}

#[expect(clippy::print_stdout, reason = "the answer to --check-config")]
fn print(page: &str) {
    print!("{page}");
}

#[expect(clippy::print_stderr, reason = "a start that fails is one line on standard error")]
fn complain(line: &str) {
    eprintln!("{line}");
}
