//! What the `main` of every service does: it reads the variables, starts logging, and runs the service.
//!
//! On a failure, it prints the error on standard error, as one line. (clap prints errors about arguments; they may have
//! several lines.) The exit code is [`WRONG_CONFIGURATION`] if a restart with the same configuration would fail in the
//! same way, and 1 otherwise.

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;

use crate::descriptors;
use crate::logging::{self, LogConfig};
use crate::needs::Needs;
use crate::vars::{VarError, Vars};

/// The exit code for a wrong variable, file or argument: EX_USAGE of sysexits.h. It tells a supervisor that a restart
/// does not help: the Job and the unit that run `migrate` (`k8s/`, `systemd/`) do not retry after it.
pub const WRONG_CONFIGURATION: u8 = 64;

/// An error of a service that a restart with the same configuration would not fix.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct WrongConfiguration(Box<dyn Error + Send + Sync>);

impl WrongConfiguration {
    /// Marks an error as caused by a wrong configuration.
    pub fn new(error: impl Error + Send + Sync + 'static) -> Self {
        Self(Box::new(error))
    }
}

/// Parses the arguments of this process. Exits with [`WRONG_CONFIGURATION`] and a hint if they are wrong, and with
/// success after `--help` and `--version`.
#[expect(clippy::disallowed_methods, reason = "nothing runs yet, and `Parser::parse` of clap exits too")]
pub fn arguments<A: Parser>() -> A {
    A::try_parse().unwrap_or_else(|error| {
        // If the message cannot be written, the exit code still shows the error.
        let _unwritten = error.print();
        std::process::exit(if error.use_stderr() { WRONG_CONFIGURATION.into() } else { 0 })
    })
}

/// The output format of `--check-config`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A table for people.
    Table,
    /// JSON for programs.
    Json,
}

/// Checks the variables and the files that they name, and prints what a process with this configuration needs. It
/// starts nothing and connects to no server.
pub fn check_config<C>(
    format: Format,
    read: impl FnOnce(&Vars) -> Result<C, VarError>,
    needs: impl FnOnce(&C) -> Needs,
) -> ExitCode {
    let vars = Vars::from_env();
    match LogConfig::from_vars(&vars).and_then(|_| read(&vars)) {
        Ok(config) => {
            let (needs, variables) = (needs(&config), vars.resolved());
            print(&match format {
                Format::Table => needs.table(&variables),
                Format::Json => format!("{:#}\n", needs.json(&variables)),
            });
            ExitCode::SUCCESS
        }
        Err(error) => wrong(error),
    }
}

/// Runs a service to its end on a new tokio runtime. `read` makes the configuration of the service from the variables,
/// and `service` runs with this configuration.
pub fn run<C, F>(read: impl FnOnce(&Vars) -> Result<C, VarError>, service: impl FnOnce(C) -> F) -> ExitCode
where
    F: Future<Output = anyhow::Result<()>>,
{
    let vars = Vars::from_env();
    let (log, config) = match LogConfig::from_vars(&vars).and_then(|log| Ok((log, read(&vars)?))) {
        Ok(read) => read,
        Err(error) => return wrong(error),
    };
    logging::init(&log);
    descriptors::raise_limit();
    match start(service(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(&error);
            if error.is::<WrongConfiguration>() {
                ExitCode::from(WRONG_CONFIGURATION)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

fn start(service: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(service)
}

fn wrong(error: VarError) -> ExitCode {
    print_error(&error.into());
    ExitCode::from(WRONG_CONFIGURATION)
}

#[expect(clippy::print_stdout, reason = "the output of --check-config")]
fn print(page: &str) {
    print!("{page}");
}

#[expect(clippy::print_stderr, reason = "a failure is one line on standard error")]
fn print_error(error: &anyhow::Error) {
    // The message of a file parser may have several lines, which show where the error is in the file. They are joined
    // into one line.
    let line = format!("{error:#}").lines().map(str::trim).collect::<Vec<_>>().join(" ");
    eprintln!("error: {line}");
}
