//! Child processes that die with their parent, even if the parent is killed.
//!
//! Only unsafe code could set the parent-death signal between fork and exec. So the child first runs the program
//! `devstack`, which sets the signal and then calls exec to replace itself with the wanted program.

use std::convert::Infallible;
use std::ffi::OsString;
use std::os::unix::process::{CommandExt, parent_id};
use std::path::Path;
use std::process::{self, Command};

use anyhow::{Context, ensure};

use crate::paths::binaries;

/// The hidden subcommand of `devstack` that calls [`exec`].
const SUBCOMMAND: &str = "guarded";

/// A command that runs `program` so that it dies with this process. The caller adds the arguments.
pub(crate) fn command(program: &Path) -> anyhow::Result<Command> {
    let mut command = Command::new(binaries::find("devstack")?);
    command.arg(SUBCOMMAND).arg(process::id().to_string()).arg(program);
    Ok(command)
}

/// Runs in the child: sets the parent-death signal, then replaces this process with `program`. Returns only if one of
/// these steps failed.
pub fn exec(parent: u32, program: &Path, arguments: &[OsString]) -> anyhow::Result<Infallible> {
    die_with(parent)?;
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("run {}", program.display()))
}

/// Asks the kernel to kill this process when the thread that started it ends. This works only on Linux. On other
/// systems ClickHouse still exits with its parent, because it exits when its standard input is closed; other children
/// do not.
pub(crate) fn die_with(parent: u32) -> anyhow::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .context("set the parent-death signal")?;
    // If the parent died before the signal was set, this process has another parent now.
    ensure!(parent_id() == parent, "start as a child of process {parent}: that process has exited");
    Ok(())
}
