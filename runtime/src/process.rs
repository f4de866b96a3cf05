//! The frame of every `main`: reads the variables, starts logging, runs the service. An error is one readable
//! line on standard error and a non-zero exit code.

use std::fmt::Write as _;
use std::process::ExitCode;

use crate::logging::{self, LogConfig};
use crate::vars::{VarError, Vars};

/// Runs a service to its end on a new tokio runtime. `read` makes its configuration from the variables; with
/// `check_only` (the flag `--check-config`) the resolved values are printed and the service does not run.
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
            print_error(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn start(service: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(service)
}

/// A line `NAME=value` for each variable, sorted by name.
fn resolved(vars: &Vars) -> String {
    vars.resolved().into_iter().fold(String::new(), |mut page, (name, value)| {
        // Writing to a String cannot fail.
        let _ = writeln!(page, "{name}={value}");
        page
    })
}

#[expect(clippy::print_stdout, reason = "the output of --check-config")]
fn print(page: &str) {
    print!("{page}");
}

#[expect(clippy::print_stderr, reason = "a failure is one line on standard error")]
fn print_error(line: &str) {
    eprintln!("{line}");
}
