//! The `devstack` program: the `up` command, and the child processes that it starts.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Runs Kafka, ClickHouse and the three services on this machine.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start everything and serve until Ctrl-C.
    Up(devstack::up::Options),
    /// A program that dies with its parent.
    #[command(hide = true)]
    Guarded {
        parent: u32,
        program: PathBuf,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// A ClickHouse server that dies with its parent.
    #[command(hide = true)]
    ClickhouseServer {
        parent: u32,
        library: PathBuf,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    match runtime::process::arguments::<Arguments>().command {
        Command::Up(options) => runtime::process::run(devstack::up::Config::from_vars, |config| {
            devstack::up::run(config, options)
        }),
        Command::Guarded { parent, program, arguments } => {
            child(devstack::process::guard::exec(parent, &program, &arguments).map(|never| match never {}))
        }
        Command::ClickhouseServer { parent, library, options } => {
            child(devstack::servers::clickhouse_library::serve(parent, &library, options))
        }
    }
}

/// The exit code of a child. If the start failed, prints the reason to standard error, which is the child's log.
#[expect(clippy::print_stderr, reason = "a child's standard error is its log")]
fn child(ended: anyhow::Result<i32>) -> ExitCode {
    match ended {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
