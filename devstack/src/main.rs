//! The `devstack` program: the command `up`, and the hidden commands that this crate runs as child processes.

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
    /// Run a program. On Linux, the kernel kills the program when the process `parent` dies.
    #[command(hide = true)]
    Guarded {
        parent: u32,
        program: PathBuf,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Run a ClickHouse server. On Linux, the kernel kills the server when the process `parent` dies.
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

/// The exit code of a hidden command. Prints an error to standard error, which is the log of this child process.
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
